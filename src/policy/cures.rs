//! What to write instead of a volume, a period, days or hours that people write otherwise. Touches
//! nothing.

use super::diagnostic::quote;
use crate::quota::{Period, volume};
use crate::times::{Days, Hours};
use crate::units::{Bytes, Percent};

/// How people write that there is no volume.
const NO_VOLUME: [&str; 9] =
    ["unlimited", "none", "no", "off", "max", "inf", "infinite", "infinity", "never"];

/// What people write behind the first letter of a unit.
const UNITS: [&str; 20] = [
    "", "b", "i", "ib", "o", "io", "byte", "bytes", "ibyte", "ibytes", "ig", "igs", "eg", "egs",
    "iga", "ega", "igabyte", "igabytes", "egabyte", "egabytes",
];

/// A number and the word behind it, in lower case: `1.5` and `tb` of `1,5 TB`.
fn number_and_word(text: &str) -> Option<(String, String)> {
    let text = text.trim().to_ascii_lowercase().replace(',', ".");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, word) = text.split_at(end);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit());
    is_number.then(|| (number.to_string(), word.trim().to_string()))
}

/// What to write instead of a text that is no volume; `None`: the error says it.
pub fn for_volume(text: &str) -> Option<String> {
    volume_for(text, "").filter(|cure| !cure.is_empty())
}

/// Instead of a text that is no volume; `None`: the error says it. `without`: what to do instead of
/// writing that there is none.
pub(super) fn volume_for(text: &str, without: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    if NO_VOLUME.contains(&lower.as_str()) {
        return Some(without.to_string());
    }
    if let Some(meant) = larger(&lower).or_else(|| all_digits(&lower)) {
        return Some(meant);
    }
    let thousands = |part: &str| part.bytes().take_while(u8::is_ascii_digit).count() == 3;
    if lower.split(',').skip(1).any(thousands) {
        return None;
    }
    let (number, word) = number_and_word(&lower)?;
    if word.is_empty() || lower.ends_with("bit") {
        return None;
    }
    if word == "%" {
        return Some("write the volume itself, such as `50GiB` or `1.5TB`".to_string());
    }
    let word = word.trim_end_matches("/s").trim_end_matches("ps").to_string();
    let prefix = word.chars().next().filter(|prefix| "kmgt".contains(*prefix))?;
    if !UNITS.contains(&word.get(1..).unwrap_or_default()) {
        return None;
    }
    let prefix = if prefix == 'k' { "k".to_string() } else { prefix.to_ascii_uppercase().into() };
    let is_binary = word.get(1..2) == Some("i") && !word.starts_with("gig");
    let decimal = format!("{number}{prefix}B");
    let binary = format!("{number}{}iB", prefix.to_ascii_uppercase());
    if volume(&decimal).is_err() {
        return None;
    }
    Some(match (is_binary, word.len()) {
        (true, _) => format!("write {}", quote(&binary)),
        (_, 1) => format!(
            "write {} (powers of 1000), or {} (powers of 1024)",
            quote(&decimal),
            quote(&binary)
        ),
        _ => format!("write {}", quote(&decimal)),
    })
}

/// The same volume of a unit beyond those that there are: `1000TB` by `1PB`.
fn larger(lower: &str) -> Option<String> {
    let (number, word) = number_and_word(lower)?;
    let (factor, unit) = match word.as_str() {
        "p" | "pb" | "petabyte" | "petabytes" => (1_000, "TB"),
        "pib" => (1_024, "TiB"),
        _ => return None,
    };
    let terabytes = volume(&format!("{number}{unit}")).ok()?;
    let meant = Bytes(terabytes.0.checked_mul(factor)?);
    Some(format!("write {}", quote(&meant.to_volume())))
}

/// The same number without what divides it into thousands, and without an exponent.
fn all_digits(lower: &str) -> Option<String> {
    let end = lower.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number = number.trim();
    let groups: Vec<&str> = number.split([',', '_', '\'']).collect();
    let is_grouped = groups.len() > 1
        && groups.iter().all(|it| it.bytes().all(|b| b.is_ascii_digit()))
        && groups.iter().skip(1).all(|it| it.len() == 3)
        && groups.first().is_some_and(|it| !it.is_empty());
    let meant = match is_grouped {
        true => volume(&format!("{}{unit}", groups.concat())).ok()?,
        false => {
            let (digits, exponent) = number.split_once('e')?;
            let (digits, exponent): (u64, u32) = (digits.parse().ok()?, exponent.parse().ok()?);
            let bytes = digits.checked_mul(10_u64.checked_pow(exponent)?)?;
            volume(&format!("{bytes}{}", if unit.trim().is_empty() { "b" } else { unit })).ok()?
        }
    };
    Some(format!("write all digits: {}", quote(&meant.to_volume())))
}

/// The period that is meant by a key: `day` by `daily`, `30d` by `30 days`.
pub(super) fn period(key: &str) -> Option<String> {
    let lower = key.trim().to_ascii_lowercase().replace(['_', '-'], " ");
    let word = lower.strip_prefix("per ").unwrap_or(&lower).trim();
    let calendar = |word: &str| match word {
        "day" | "days" | "daily" => Some("day"),
        "week" | "weeks" | "weekly" => Some("week"),
        "month" | "months" | "monthly" => Some("month"),
        _ => None,
    };
    let rolling = |number: u32, unit: &str| match unit {
        "h" | "hour" | "hours" | "hourly" => Some(format!("{number}h")),
        "d" | "day" | "days" => Some(format!("{number}d")),
        "w" | "week" | "weeks" => Some(format!("{number}w")),
        "m" | "month" | "months" => Some(format!("{}d", number.checked_mul(30)?)),
        "y" | "year" | "years" | "yearly" => Some(format!("{}d", number.checked_mul(365)?)),
        "min" | "minute" | "minutes" if number.is_multiple_of(60) => {
            Some(format!("{}h", number / 60))
        }
        "" => Some(format!("{number}d")),
        _ => None,
    };
    let meant = match number_and_word(word) {
        Some((number, unit)) if number != "1" || calendar(&unit).is_none() => {
            rolling(number.parse().ok()?, &unit)
        }
        Some((_, unit)) => calendar(&unit).map(str::to_string),
        None => calendar(word).map(str::to_string).or_else(|| rolling(1, word)),
    };
    meant.filter(|meant| meant != key && meant.parse::<Period>().is_ok())
}

/// Whether a key means a period of years.
pub(super) fn is_of_years(key: &str) -> bool {
    let lower = key.trim().to_ascii_lowercase();
    let word = lower.trim_start_matches(|c: char| c.is_ascii_digit()).trim();
    ["y", "year", "years", "yearly", "annual", "annually"].contains(&word)
}

/// The share that is meant: `75%` by `75`, `75 percent` and `0.75`.
pub(super) fn share(text: &str) -> Option<String> {
    let (number, word) = number_and_word(text)?;
    let is_share = ["", "%", "percent", "per cent", "pct"].contains(&word.as_str());
    let number = number.trim_end_matches('.');
    let meant = match (number.strip_prefix("0."), word.is_empty()) {
        (Some(hundredths), true) if (1..=2).contains(&hundredths.len()) => {
            format!("{hundredths:0<2}").trim_start_matches('0').to_string()
        }
        _ => number.to_string(),
    };
    let meant = format!("{meant}%");
    (is_share && meant.parse::<Percent>().is_ok()).then_some(meant)
}

/// Which traffic is meant by `counts`.
pub(super) fn counts(text: &str) -> Option<&'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "send" | "sends" | "up" | "upload" | "uploads" | "out" | "outgoing" | "egress" | "tx"
        | "outbound" => Some("sent"),
        "receive" | "receives" | "recv" | "down" | "download" | "downloads" | "in" | "incoming"
        | "ingress" | "rx" | "inbound" => Some("received"),
        "all" | "any" | "total" | "sum" | "sent+received" | "sent,received" | "in+out"
        | "everything" => Some("both"),
        _ => None,
    }
}

/// The beginning of a period that is meant: `mon` by `Monday` and by 1, `31` by `last`.
pub(super) fn starts(period: Period, text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    match period {
        Period::Week { .. } => days_of(&lower).filter(|day| !day.contains('-')),
        Period::Month { .. } if ["last", "end", "last day"].contains(&lower.as_str()) => {
            Some("31".to_string())
        }
        Period::Month { .. } => {
            let day = ["st", "nd", "rd", "th", "."].iter().find_map(|end| lower.strip_suffix(end));
            let day: u8 = day?.trim().parse().ok()?;
            period.starting(day).map(|_| day.to_string())
        }
        Period::Day | Period::Rolling { .. } => None,
    }
}

const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// The days that are meant: `mon-fri` by `weekdays`, `Mo-Fr` and `Monday to Friday`.
pub(super) fn days(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    match lower.replace([' ', '-', '_'], "").as_str() {
        "weekday" | "weekdays" | "workday" | "workdays" | "workingdays" => {
            return Some("mon-fri".to_string());
        }
        "weekend" | "weekends" => return Some("[sat, sun]".to_string()),
        _ => {}
    }
    let ranges = lower.replace(" to ", "-").replace("..", "-").replace(['–', '—'], "-");
    let ranges = ranges.replace(" - ", "-");
    let parts = ranges.split([',', '+', '/', ' ']).filter(|it| !it.is_empty());
    let meant = parts.map(days_of).collect::<Option<Vec<_>>>()?;
    match &meant[..] {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// Whether all days are meant, for which nothing is to be written.
pub(super) fn is_each_day(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    ["daily", "all", "any", "*", "always", "every day", "everyday", "each day"]
        .contains(&lower.as_str())
}

/// One day or range, as `mon-fri` by `Monday-Friday` and by cron's `1-5`.
fn days_of(part: &str) -> Option<String> {
    let day = |word: &str| {
        let word = word.trim().trim_end_matches('.');
        if let Some(number) = word.parse::<usize>().ok().filter(|number| *number <= DAYS.len()) {
            return Days::NAMES.get((number + 6) % 7).copied();
        }
        let is_it = |name: &&str| name.starts_with(word) || word.strip_suffix('s') == Some(*name);
        let place = DAYS.iter().position(is_it).filter(|_| word.len() >= 2)?;
        Days::NAMES.get(place).copied()
    };
    let meant = part.split('-').map(day).collect::<Option<Vec<_>>>()?.join("-");
    Days::parse(&meant).map(|_| meant)
}

/// What `at` is to have, as it is written: `"22:00-06:00"`, or a list where several are meant.
pub(super) fn at(text: &str) -> Option<String> {
    let parts = text.split([',', ';', '+', '&']).filter(|part| !part.trim().is_empty());
    let meant = parts.map(hours).collect::<Option<Vec<_>>>()?;
    let meant: Vec<String> = meant.iter().map(|hours| format!("\"{hours}\"")).collect();
    match &meant[..] {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// The hours that are meant: `22:00-06:00` by `22-6` and by `10pm - 6am`.
fn hours(text: &str) -> Option<String> {
    let range = text.trim().to_ascii_lowercase().replace(" to ", "-").replace(['–', '—'], "-");
    let range = range.replace("..", "-");
    let (from, until) = range.split_once('-')?;
    let (from, until) = (time(from)?, time(until)?);
    let from = if from == "24:00" { "00:00".to_string() } else { from };
    let meant = format!("{from}-{until}");
    Hours::parse(&meant).map(|_| meant)
}

fn time(text: &str) -> Option<String> {
    let text = text.trim();
    let (clock, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock.trim(), Some(0)),
        (_, Some(clock)) => (clock.trim(), Some(12)),
        _ => (text.trim_end_matches('h').trim(), None),
    };
    let has_no_colon = clock.len() == 4 && clock.bytes().all(|b| b.is_ascii_digit());
    let (hour, minute) = match has_no_colon {
        true => clock.split_at(2),
        false => clock.split_once([':', '.']).unwrap_or((clock, "00")),
    };
    let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
    // Half an hour after the day's end.
    let hour = if hour == 24 && minute > 0 { 0 } else { hour };
    let hour = match half {
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
        None => hour,
    };
    Some(format!("{hour:02}:{minute:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_volume_as_people_write_it_has_a_cure() {
        let of = |text: &str| volume_for(text, "leave it out").unwrap_or_default();
        for (text, meant) in [
            ("1,5TB", "write `1.5TB`"),
            ("10G", "write `10GB` (powers of 1000), or `10GiB` (powers of 1024)"),
            ("2 t", "write `2TB` (powers of 1000), or `2TiB` (powers of 1024)"),
            ("500 megabytes", "write `500MB`"),
            ("3 gigs", "write `3GB`"),
            ("10GB/s", "write `10GB`"),
            ("7gi", "write `7GiB`"),
            ("unlimited", "leave it out"),
            ("10%", "write the volume itself, such as `50GiB` or `1.5TB`"),
            ("lots", ""),
            ("10", ""),
            ("10gbit", ""),
            ("10 apples", ""),
            ("1,000GB", "write all digits: `1TB`"),
            ("1_500 mb", "write all digits: `1.5GB`"),
            ("1e12", "write all digits: `1TB`"),
            ("2e3GB", "write all digits: `2TB`"),
            ("1e99", ""),
            ("2PB", "write `2000TB`"),
            ("1.5PiB", "write `1536TiB`"),
            ("20 minutes", ""),
            ("5 times", ""),
            ("2 gigabytes", "write `2GB`"),
        ] {
            assert_eq!(of(text), meant, "{text}");
        }
    }

    #[test]
    fn a_period_as_people_write_it_has_a_cure() {
        for (key, meant) in [
            ("daily", "day"),
            ("Weekly", "week"),
            ("per month", "month"),
            ("1month", "month"),
            ("30 days", "30d"),
            ("24hours", "24h"),
            ("2 months", "60d"),
            ("hourly", "1h"),
            ("90 minutes", ""),
            ("120min", "2h"),
            ("30", "30d"),
        ] {
            assert_eq!(period(key).unwrap_or_default(), meant, "{key}");
        }
        for key in ["then", "yearly", "month", "decade", "99999999 days", "0 days", "1.5 days"] {
            assert_eq!(period(key), None, "{key}");
        }
    }

    #[test]
    fn shares_beginnings_and_what_counts_have_a_cure() {
        for (text, meant) in [
            ("75", "75%"),
            ("75.5", "75.5%"),
            ("0.75", "75%"),
            ("0.5", "50%"),
            ("0.05", "5%"),
            ("75 percent", "75%"),
            ("7,5%", "7.5%"),
            ("100%%", ""),
            ("101", ""),
            ("0", ""),
            ("0.00", ""),
            ("-5%", ""),
            ("500GB", ""),
            ("half", ""),
        ] {
            assert_eq!(share(text).unwrap_or_default(), meant, "{text}");
        }
        for (text, meant) in [("in", "received"), ("TX", "sent"), ("all", "both"), ("bytes", "")] {
            assert_eq!(counts(text).unwrap_or_default(), meant, "{text}");
        }
        let (week, month) = (Period::Week { starts: 1 }, Period::Month { starts: 1 });
        for (period, text, meant) in [
            (week, "Monday", "mon"),
            (week, "tues", "tue"),
            (week, "1", "mon"),
            (week, "0", "sun"),
            (week, "mon-fri", ""),
            (week, "9", ""),
            (month, "15th", "15"),
            (month, "1st", "1"),
            (month, "last", "31"),
            (month, "32nd", ""),
            (month, "mon", ""),
            (Period::Day, "1", ""),
        ] {
            assert_eq!(starts(period, text).unwrap_or_default(), meant, "{text}");
        }
    }

    #[test]
    fn days_and_hours_as_people_write_them_have_a_cure() {
        for (text, meant) in [
            ("weekdays", "mon-fri"),
            ("week-end", "[sat, sun]"),
            ("Mo-Fr", "mon-fri"),
            ("monday to friday", "mon-fri"),
            ("Saturday", "sat"),
            ("sat,sun", "[sat, sun]"),
            ("tue thu", "[tue, thu]"),
            ("mon-fri, sun", "[mon-fri, sun]"),
            ("Tues + Thurs", "[tue, thu]"),
            ("Mondays", "mon"),
        ] {
            assert_eq!(days(text).as_deref(), Some(meant), "{text}");
        }
        for (text, meant) in [
            ("22-6", "22:00-06:00"),
            ("10pm - 6am", "22:00-06:00"),
            ("12am-12pm", "00:00-12:00"),
            ("8.30 to 17", "08:30-17:00"),
            ("8h-17h", "08:00-17:00"),
        ] {
            assert_eq!(hours(text).as_deref(), Some(meant), "{text}");
        }
        for (text, meant) in [
            ("22-6", "\"22:00-06:00\""),
            ("2200-0600", "\"22:00-06:00\""),
            ("24:00-06:00", "\"00:00-06:00\""),
            ("18:00-24:30", "\"18:00-00:30\""),
            ("8-24", "\"08:00-24:00\""),
            ("08:00-12:00,13:00-17:00", "[\"08:00-12:00\", \"13:00-17:00\"]"),
            ("8-12; 13-17", "[\"08:00-12:00\", \"13:00-17:00\"]"),
        ] {
            assert_eq!(at(text).as_deref(), Some(meant), "{text}");
        }
        for text in ["night", "22:00-25:00", "13pm-1am", "8-8", "22:00", "22500-0600"] {
            assert_eq!(hours(text), None, "{text}");
        }
        for (text, meant) in [("1-5", "mon-fri"), ("0", "sun"), ("7", "sun"), ("6,7", "[sat, sun]")]
        {
            assert_eq!(days(text).as_deref(), Some(meant), "{text}");
        }
        assert!(is_each_day("Every day") && is_each_day("*") && !is_each_day("mon"));
        for text in ["8", "1-9", "someday", "mo-xx", "month", "sunset", "m", "mon-tue-wed"] {
            assert_eq!(days(text), None, "{text}");
        }
    }

    proptest! {
        /// What is told to write can be written.
        #[test]
        fn a_cure_is_no_other_mistake(text in "[ -~]{0,12}", number in 0..99_u8, unit in "[a-zA-Z ]{0,7}") {
            for text in [text, format!("{number}{unit}"), format!("{number},5 {unit}")] {
                if let Some(cure) = volume_for(&text, "") {
                    let meant: Vec<&str> = cure.split('`').skip(1).step_by(2).collect();
                    prop_assert!(meant.iter().all(|it| volume(it).is_ok()), "{}: {}", text, cure);
                }
                if let Some(meant) = share(&text) {
                    prop_assert!(meant.parse::<Percent>().is_ok(), "{}", meant);
                }
                if let Some(meant) = period(&text) {
                    prop_assert!(meant.parse::<Period>().is_ok(), "{}", meant);
                }
                if let Some(meant) = hours(&text) {
                    prop_assert!(Hours::parse(&meant).is_some(), "{}", meant);
                }
                if let Some(meant) = days(&text).filter(|meant| !meant.starts_with('[')) {
                    prop_assert!(Days::parse(&meant).is_some(), "{}", meant);
                }
            }
        }
    }
}
