//! What somebody means who writes a rate as others write it: `10M`, `1,5mbit`, `100MB/s`.

use super::rate::{Percent, Rate};

/// One way to read a text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What to write instead; a policy may have it.
    pub write: String,
    /// What the text is taken for: `bits`, `bytes`, `a thousand`, `a decimal`; empty where there is
    /// one way only.
    pub meaning: &'static str,
}

/// All ways to read a text as a rate or a share, the likeliest first; none where it has no number.
pub fn readings(text: &str) -> Vec<Reading> {
    let text = text.trim().trim_end_matches([';', ',', '.']);
    let text = text.trim_start_matches(['-', '+', '~', '<', '≤']).trim_start();
    let text = unit_last(&without_separators(without_words(text)));
    let Some((whole, decimals)) = text.split_once(',') else { return read(&text) };
    let length = decimals.find(|c: char| !c.is_ascii_digit()).unwrap_or(decimals.len());
    let as_decimal = read(&format!("{whole}.{decimals}"));
    if length != 3 {
        return as_decimal;
    }
    let one = |readings: Vec<Reading>, meaning| {
        readings.into_iter().next().map(|first| Reading { meaning, ..first })
    };
    let as_thousand = read(&text.replace(',', ""));
    one(as_thousand, "a thousand").into_iter().chain(one(as_decimal, "a decimal")).collect()
}

/// A guarantee and a cap in one text: `2-9mbit`, `2mbit 9mbit`; `None`: it is no such text.
pub fn two_rates(text: &str) -> Option<[Rate; 2]> {
    let mut parts = text.split(['-', '–', ' ']).filter(|part| !part.is_empty() && *part != "to");
    let (first, second) = (parts.next()?, parts.next()?);
    let unit = second.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_number = first.ends_with(|c: char| c.is_ascii_digit());
    let first = if is_number { format!("{first}{unit}") } else { first.to_string() };
    let rates = [first.parse::<Rate>().ok()?, second.parse::<Rate>().ok()?];
    (parts.next().is_none() && rates[0] < rates[1]).then_some(rates)
}

/// Without words before the number: `up to 10mbit`. A unit alone stays: `mbit 10`.
fn without_words(text: &str) -> &str {
    let is_word = |c: char| c.is_alphabetic() || c == ' ';
    let rest = text.trim_start_matches(is_word);
    let words = text.get(..text.len() - rest.len()).unwrap_or_default();
    if words.ends_with(' ') && size_of(words.trim()).is_none() { rest } else { text }
}

/// With the unit behind the number: `mbit 10`, `Mbit10`.
fn unit_last(text: &str) -> String {
    let number = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(..text.len() - number.len()).unwrap_or_default();
    let number = number.trim_start();
    let is_number = number.bytes().all(|c| c.is_ascii_digit() || c == b'.' || c == b',');
    match !number.is_empty() && is_number && size_of(unit).is_some() {
        true => format!("{number}{unit}"),
        false => text.to_string(),
    }
}

/// Without what stands between groups of digits: `1_000`, `1 000`, `1'000`.
fn without_separators(text: &str) -> String {
    let mut kept = String::new();
    for (at, c) in text.char_indices() {
        let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
        let before = kept.ends_with(|c: char| c.is_ascii_digit());
        let after = rest.starts_with(|c: char| c.is_ascii_digit());
        let separates = matches!(c, '_' | '\'' | ' ' | '\u{a0}' | '\u{202f}');
        if !(separates && before && after) {
            kept.push(c);
        }
    }
    kept
}

/// A number with a point, and its unit in any spelling.
fn read(text: &str) -> Vec<Reading> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.trim_end_matches('.');
    let number = if number.starts_with('.') { format!("0{number}") } else { number.to_string() };
    let exponent = exponent(&number, unit);
    let is_bare = unit.trim().is_empty();
    let (number, unit) = match &exponent {
        Some((written_out, unit)) => (written_out.clone(), *unit),
        None => (number, unit.trim()),
    };
    if is_bare {
        return Vec::new();
    }
    let lower = unit.to_ascii_lowercase();
    if ["%", "percent", "per cent", "pct", "prozent"].contains(&lower.as_str()) {
        return share(&number);
    }
    let per_second = ["/sec", "/s", "ps"].iter().find_map(|end| {
        let before = lower.strip_suffix(end)?;
        (!before.is_empty()).then_some(before.len())
    });
    let unit = unit.get(..per_second.unwrap_or(unit.len())).unwrap_or(unit).trim_end();
    let Some((size, what)) = size_of(unit) else { return Vec::new() };
    let Ok(bits) = format!("{number}{size}bit").parse::<Rate>() else { return Vec::new() };
    let bytes = Rate::from_bytes_per_second(bits.bytes_per_second().saturating_mul(8));
    // Rates print in powers of 1000, which are no round numbers of a power of 1024.
    let in_size = |times: u64| {
        let number = number.parse::<u64>().ok().filter(|_| size.ends_with('i'))?;
        let written = format!("{}{size}bit", number.checked_mul(times)?);
        written.parse::<Rate>().is_ok().then_some(written)
    };
    let reading = |rate: Rate, times, meaning| Reading {
        write: in_size(times).unwrap_or_else(|| rate.to_string()),
        meaning,
    };
    let as_bytes = bytes.map(|rate| reading(rate, 8, "bytes"));
    match what {
        Unit::Bits => vec![reading(bits, 1, "")],
        Unit::Bytes => as_bytes.map(|it| Reading { meaning: "", ..it }).into_iter().collect(),
        Unit::RatherBits => Some(reading(bits, 1, "bits")).into_iter().chain(as_bytes).collect(),
        Unit::RatherBytes => as_bytes.into_iter().chain([reading(bits, 1, "bits")]).collect(),
    }
}

fn share(number: &str) -> Vec<Reading> {
    let share = format!("{number}%");
    let write = match share.parse::<Percent>() {
        Ok(_) => share,
        Err(_) if number.parse::<f64>().is_ok_and(|n| n > 100.0) => "100%".to_string(),
        Err(_) => return Vec::new(),
    };
    vec![Reading { write, meaning: "" }]
}

/// `1` and `e6 bit` → `1000000` and `bit`; `None`: there is no exponent.
fn exponent<'a>(number: &str, unit: &'a str) -> Option<(String, &'a str)> {
    let power = unit.strip_prefix(['e', 'E'])?.trim_start_matches('+');
    let unit = power.trim_start_matches(|c: char| c.is_ascii_digit());
    let zeros: usize = power.strip_suffix(unit)?.parse().ok()?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let missing = zeros.checked_sub(decimals.len()).filter(|missing| *missing <= 18)?;
    Some((format!("{whole}{decimals}{}", "0".repeat(missing)), unit.trim()))
}

enum Unit {
    Bits,
    Bytes,
    RatherBits,
    RatherBytes,
}

/// The prefix that a policy writes, and what the unit counts: `MB` is `m` and rather bytes.
fn size_of(unit: &str) -> Option<(String, Unit)> {
    let lower = unit.to_ascii_lowercase();
    let words = [
        ("kilo", "k"),
        ("mega", "m"),
        ("giga", "g"),
        ("tera", "t"),
        ("kibi", "ki"),
        ("mebi", "mi"),
        ("gibi", "gi"),
        ("tebi", "ti"),
    ];
    let word = words.iter().find_map(|(word, size)| Some((lower.strip_prefix(word)?, *size)));
    let (rest, size) = match word {
        Some((rest, size)) => (rest, size.to_string()),
        None => {
            let size = lower.get(..1).filter(|first| ["k", "m", "g", "t"].contains(first));
            let rest = lower.get(size.map_or(0, str::len)..).unwrap_or_default();
            let binary = rest.strip_prefix('i').filter(|rest| size.is_some() && *rest != "t");
            let i = if binary.is_some() { "i" } else { "" };
            (binary.unwrap_or(rest), format!("{}{i}", size.unwrap_or_default()))
        }
    };
    let what = match rest {
        "" | "bit" | "bits" => Unit::Bits,
        "byte" | "bytes" => Unit::Bytes,
        "b" if unit.ends_with('B') => Unit::RatherBytes,
        "b" => Unit::RatherBits,
        _ => return misspelt(&lower),
    };
    Some((size, what))
}

/// The unit that one letter too many, too few, wrong or out of its place has made of a policy's:
/// `mibt`.
fn misspelt(unit: &str) -> Option<(String, Unit)> {
    let is_near = |known: &&&str| known.len() > 3 && strsim::osa_distance(unit, known) == 1;
    let known = Rate::UNITS.iter().find(is_near)?;
    Some((known.trim_end_matches("bit").to_string(), Unit::Bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_as_they_mean_it() {
        for (text, writes) in [
            ("10M", "10mbit"),
            ("10 M", "10mbit"),
            ("1,5mbit", "1.5mbit"),
            ("1_000mbit", "1gbit"),
            ("1 000 mbit", "1gbit"),
            ("1,000mbit", "1gbit for a thousand, 1mbit for a decimal"),
            ("-1mbit", "1mbit"),
            ("10Mbit/s", "10mbit"),
            ("10mbits", "10mbit"),
            ("10 megabit", "10mbit"),
            ("10 Megabytes/s", "80mbit"),
            ("100MB/s", "800mbit for bytes, 100mbit for bits"),
            ("100Mb/s", "100mbit for bits, 800mbit for bytes"),
            ("10mb", "10mbit for bits, 80mbit for bytes"),
            ("1,5mbps", "1.5mbit for bits, 12mbit for bytes"),
            ("64KiB", "512kibit for bytes, 64kibit for bits"),
            ("10 mebibit", "10mibit"),
            ("1.5GiB", "12884901.888kbit for bytes, 1610612.736kbit for bits"),
            ("1G", "1gbit"),
            ("1e6", "1mbit"),
            ("1.5e9", "1.5gbit"),
            ("1e3mbit", "1gbit"),
            ("2.5e2 kbit/s", "250kbit"),
            ("e3mbit", ""),
            ("mbit 10", "10mbit"),
            ("Mbit/s 10", ""),
            ("mbit10", "10mbit"),
            ("MB 1,5", "12mbit for bytes, 1.5mbit for bits"),
            (".5gbit", "500mbit"),
            ("10mbit;", "10mbit"),
            ("10mbit.", "10mbit"),
            ("10mibt", "10mbit"),
            ("10mbti", "10mbit"),
            ("10mbt", "10mbit"),
            ("10kbbit", "10kbit"),
            ("10 bot", ""),
            ("up to 10", ""),
            ("50 percent", "50%"),
            ("12,5%", "12.5%"),
            ("150%", "100%"),
            ("fast", ""),
            ("mbit", ""),
            ("10 apples", ""),
            ("up to 10 mbit", "10mbit"),
            ("each 5M", "5mbit"),
            ("fast5", ""),
            ("", ""),
            ("1e99", ""),
        ] {
            let said: Vec<String> = readings(text)
                .into_iter()
                .map(|it| match it.meaning {
                    "" => it.write,
                    meaning => format!("{} for {meaning}", it.write),
                })
                .collect();
            assert_eq!(said.join(", "), writes, "{text}");
        }
    }

    #[test]
    fn two_rates_are_a_guarantee_and_a_cap() {
        for (text, writes) in [
            ("2-9mbit", "2mbit 9mbit"),
            ("2mbit - 9mbit", "2mbit 9mbit"),
            ("500kbit to 1.5mbit", "500kbit 1.5mbit"),
            ("2mbit 9mbit", "2mbit 9mbit"),
            ("9-2mbit", ""),
            ("2-9", ""),
            ("1-2-9mbit", ""),
            ("-9mbit", ""),
        ] {
            let said = two_rates(text).map(|rates| rates.map(|rate| rate.to_string()).join(" "));
            assert_eq!(said.unwrap_or_default(), writes, "{text}");
        }
    }

    proptest::proptest! {
        /// What a message proposes is not refused in turn.
        #[test]
        fn whatever_is_proposed_can_be_written(text in "[-~]?[0-9,._ ]{0,6}[a-zA-Z%/ ]{0,6}") {
            for reading in readings(&text) {
                let good = reading.write.parse::<Rate>().is_ok()
                    || reading.write.parse::<Percent>().is_ok();
                proptest::prop_assert!(good, "{text}: {}", reading.write);
            }
        }
    }
}
