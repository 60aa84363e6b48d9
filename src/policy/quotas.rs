//! `quota`: volumes for periods, and the caps that hold once shares of them are used. Touches
//! nothing.

use super::cures;
use super::diagnostic::{Diagnostic, Findings, Kind, closest, quote};
use super::document::Amount;
use super::fields::entries;
use super::node::{Node, Value};
use super::quota_line::QuotaLine;
use super::scalars::{self, Purpose};
use super::source::{Source, Span, Written};
use crate::quota::{Counts, Period, Quota, SLOWEST, Step};
use crate::times::Days;
use crate::units::{Percent, Rate, RateError};

/// The keys of a quota beside its period.
const KEYS: [&str; 4] = ["then", "starts", "counts", "tz"];
const PERIODS: [&str; 3] = ["day", "week", "month"];

/// What a quota looks like, for cures.
const EXAMPLE: &str = "`quota: {month: 1TB, then: 10mbit}`";
const WITHOUT: &str = "leave the quota out: without one nothing is counted";
const STEPS: &str = "`then: {75%: 500mbit, 100%: 10mbit}`";

/// Whether limits can change without a change of the text, by a quota or a window. Asking takes a
/// small part of reading it: YAML has the letters of a key as they are, or with a backslash before
/// each that is escaped.
pub fn may_change(source: &Source) -> bool {
    ["quota", "times", "\\"].into_iter().any(|it| source.text.contains(it))
}

/// One quota, or a list of them.
pub(super) fn quotas(node: Node, findings: &mut Findings) -> Vec<QuotaLine> {
    let at = node.at;
    let nodes = match node.value {
        Value::List(nodes) => nodes,
        _ => vec![node],
    };
    if nodes.is_empty() {
        findings.push(
            Diagnostic::error(Kind::Shape, at, "`quota` is an empty list")
                .help(format!("write one, {EXAMPLE}, or leave it out")),
        );
    }
    let mut lines: Vec<QuotaLine> = Vec::new();
    for line in nodes.into_iter().filter_map(|node| quota(node, findings)).collect::<Vec<_>>() {
        let Quota { period, counts, .. } = line.quota;
        let is_same = |other: &&QuotaLine| {
            other.quota.period.to_string() == period.to_string() && other.quota.counts == counts
        };
        if let Some(other) = lines.iter().find(is_same) {
            findings.push(
                Diagnostic::error(Kind::Shape, line.at, format!("a second quota of a `{period}`"))
                    .label("again here")
                    .also(other.at, "first here")
                    .help(format!("one quota may have several steps: {STEPS}")),
            );
        }
        lines.push(line);
    }
    lines
}

fn quota(node: Node, findings: &mut Findings) -> Option<QuotaLine> {
    let at = node.at;
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("a quota must be a mapping, but this is {}", node.value.sort());
        findings.push(Diagnostic::error(Kind::Shape, at, message).help(format!(
            "write its period, its volume and the cap that holds once it is used: {EXAMPLE}"
        )));
        return None;
    }
    let entries = entries(node, "quota", findings);
    let (mut others, periods): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|(key, _)| KEYS.contains(&key.value.as_str()));
    let mut take = |name: &str| {
        let place = others.iter().position(|(key, _)| key.value == name)?;
        Some(others.swap_remove(place))
    };
    let [then, starts, counts, tz] = KEYS.map(&mut take);
    // All that is wrong is said at once.
    let period = period(periods, at, findings);
    let starting = match (period, starts) {
        (Some((period, volume)), Some((key, node))) => {
            starting(period, (&key, &node), findings).map(|period| (period, volume))
        }
        (period, _) => period.map(|(period, volume)| (period.value, volume)),
    };
    let words = [("sent", Counts::Sent), ("received", Counts::Received), ("both", Counts::Both)];
    let counts = match counts {
        Some((_, node)) => findings.take(counting(&node, &words)),
        None => Some(Counts::default()),
    };
    let tz = tz.and_then(|(_, node)| findings.take(scalars::text(&node, "tz", "Europe/Berlin")));
    let steps = match then {
        Some((_, node)) => steps(node, findings),
        None => {
            let message = "the quota does not say which cap holds once it is used";
            findings.push(
                Diagnostic::error(Kind::Rate, at, message)
                    .help(format!("write `then: 10mbit`, or steps: {STEPS}")),
            );
            None
        }
    };
    let ((period, written), counts, written_steps) = (starting?, counts?, steps?);
    let volume = findings.take(scalars::volume_of(&written, WITHOUT))?;
    let zone = tz.as_ref().map(|tz| tz.value.clone());
    let (steps, places) = written_steps.into_iter().map(|step| (step.value, step.at)).unzip();
    let quota = Quota { period, volume, steps, counts, zone };
    Some(QuotaLine { quota, volume: written, tz, steps: places, at })
}

type Entry = (Written<String>, Node);

/// Which traffic counts.
fn counting(node: &Node, words: &[(&str, Counts)]) -> Result<Counts, Diagnostic> {
    let wrong = match scalars::choice(node, "counts", words) {
        Ok(counts) => return Ok(counts),
        Err(wrong) => wrong,
    };
    let meant = match &node.value {
        Value::Scalar(text) => cures::counts(text),
        Value::List(_) => Some("both"),
        _ => None,
    };
    Err(match meant {
        Some(meant) => wrong.help(format!("write `counts: {meant}`")),
        None => wrong,
    })
}

/// The one key that is a period, with its volume as it is written.
fn period(
    periods: Vec<Entry>,
    at: Span,
    findings: &mut Findings,
) -> Option<(Written<Period>, Written<String>)> {
    let mut found: Option<(Written<Period>, Node)> = None;
    let before = periods.len();
    for (key, node) in periods {
        match (key.value.parse::<Period>(), &found) {
            (Ok(_), Some((first, _))) => findings.push(
                Diagnostic::error(Kind::Shape, key.at, "a second period in one quota")
                    .label("again here")
                    .also(first.at, "first here")
                    .help("write a list: `quota: [{day: 50GiB, then: …}, {month: 1TiB, then: …}]`"),
            ),
            (Ok(value), None) => found = Some((Written { value, at: key.at }, node)),
            (Err(error), _) => {
                let said = key.value.starts_with(|c: char| c.is_ascii_digit());
                findings.push(unknown(&key, said.then(|| error.to_string())));
            }
        }
    }
    if found.is_none() && before == 0 {
        findings.push(Diagnostic::error(Kind::Shape, at, "the quota has no period").help(
            "write it with the volume, `month: 1TB`; the periods are day, week, month, and rolling ones such as `30d` or `12h`",
        ));
    }
    let (period, node) = found?;
    let text = findings.take(scalars::text(&node, &period.value.to_string(), "1TB"))?;
    Some((period, text))
}

/// A key that is none of a quota; `said`: why it is no period, where it looks like one.
fn unknown(key: &Written<String>, said: Option<String>) -> Diagnostic {
    let meant = cures::period(&key.value).map(|meant| format!("write `{meant}`"));
    let meant = meant.or_else(|| {
        let is_year = cures::is_of_years(&key.value);
        is_year.then(|| {
            "a year is longer than the 62 days for which use is kept: write `month`, with a twelfth of the volume"
                .to_string()
        })
    });
    if let Some(said) = said {
        let said = Diagnostic::error(Kind::Shape, key.at, said);
        return match meant {
            Some(help) => said.help(help),
            None => said,
        };
    }
    let known = || PERIODS.into_iter().chain(KEYS);
    if ["period", "per", "every", "volume", "bytes", "limit"].contains(&key.value.as_str()) {
        let message = format!("unknown key {} in a quota", quote(&key.value));
        return Diagnostic::error(Kind::Shape, key.at, message)
            .help(format!("the period is the key, and the volume its value: {EXAMPLE}"));
    }
    let near = closest(&key.value, known()).map(|near| format!("did you mean `{near}`? "));
    let message = format!("unknown key {} in a quota", quote(&key.value));
    if let Some(help) = meant {
        return Diagnostic::error(Kind::Shape, key.at, message).help(help);
    }
    Diagnostic::error(Kind::Shape, key.at, message).help(format!(
        "{}a quota has a period (day, week, month, or a rolling one such as `30d`) and may have {}",
        near.unwrap_or_default(),
        KEYS.join(", ")
    ))
}

/// The period with the day on which it begins.
fn starting(
    period: Written<Period>,
    (key, node): (&Written<String>, &Node),
    findings: &mut Findings,
) -> Option<Period> {
    let written = findings.take(scalars::text(node, "starts", "15"))?;
    let weekday = Days::NAMES.iter().position(|day| *day == written.value);
    let weekday = weekday.and_then(|day| u8::try_from(day + 1).ok());
    let meant = cures::starts(period.value, &written.value);
    let (number, at, help) = match period.value {
        Period::Month { .. } => (
            written.value.parse().ok(),
            written.at,
            "write a day of the month, 1 to 31; in a shorter month its last day counts".to_string(),
        ),
        Period::Week { .. } => {
            (weekday, written.at, format!("write a day of the week: {}", Days::NAMES.join(", ")))
        }
        Period::Day | Period::Rolling { .. } => {
            (None, key.at, "remove it: only `month` and `week` have one".to_string())
        }
    };
    let help = meant.map_or(help, |meant| format!("write `starts: {meant}`"));
    let found = number.and_then(|number| period.value.starting(number));
    if found.is_none() {
        let message = match period.value {
            Period::Month { .. } | Period::Week { .. } => {
                format!("a {} cannot start on {}", period.value, quote(&written.value))
            }
            other => format!("`starts` beside the period `{other}`"),
        };
        findings.push(Diagnostic::error(Kind::Shape, at, message).help(help));
    }
    found
}

/// One cap once all of the volume is used, or caps for shares of it.
fn steps(node: Node, findings: &mut Findings) -> Option<Vec<Written<Step>>> {
    let at = node.at;
    if matches!(node.value, Value::List(_)) {
        findings.push(
            Diagnostic::error(Kind::Shape, at, "`then` must be a cap or steps, but this is a list")
                .help(format!("write `then: 10mbit`, or steps as a mapping: {STEPS}")),
        );
        return None;
    }
    if !matches!(node.value, Value::Map(_)) {
        let rate = rate(&node, findings)?;
        return Some(vec![Written { value: Step { share: Percent::ALL, rate }, at }]);
    }
    let entries = entries(node, "then", findings);
    if entries.is_empty() {
        findings.push(
            Diagnostic::error(Kind::Rate, at, "`then` has no step")
                .help(format!("write `then: 10mbit`, or steps: {STEPS}")),
        );
        return None;
    }
    let mut steps: Vec<Written<Step>> = Vec::new();
    for (key, node) in entries {
        let share = findings.take(share(&key))?;
        let rate = rate(&node, findings)?;
        let wrong = steps.last().and_then(|before| {
            let Step { share: share_before, rate: rate_before } = before.value;
            let message = if share <= share_before {
                format!("{share} after {share_before}: the shares do not rise")
            } else if rate >= rate_before {
                format!("{rate} from {share} on, and {rate_before} before: the caps do not fall")
            } else {
                return None;
            };
            Some(Diagnostic::error(Kind::Rate, key.at, message).also(before.at, "the step before"))
        });
        if let Some(wrong) = wrong {
            findings.push(wrong.help(format!("write rising shares with falling caps: {STEPS}")));
            return None;
        }
        steps.push(Written { value: Step { share, rate }, at: key.at });
    }
    Some(steps)
}

/// The share of the volume from which on a step holds.
fn share(key: &Written<String>) -> Result<Percent, Diagnostic> {
    let wrong = |message: String, help: &str| {
        Diagnostic::error(Kind::Rate, key.at, message).help(format!("{help}: {STEPS}"))
    };
    let text = key.value.trim();
    text.parse::<Percent>().map_err(|error| match error {
        RateError::Zero if text.ends_with('%') => {
            let message = format!("a step at {} would hold before anything is used", quote(text));
            wrong(message, "write a lower `ceil` instead, or a share above 0%")
        }
        RateError::MoreThanAll(_) => {
            wrong(format!("{error}"), "write shares of the volume, up to 100%")
        }
        RateError::TooSmall(_) => {
            let message = format!("{} is too small a share of the volume", quote(text));
            wrong(message, "write `0.001%` or more")
        }
        _ => {
            let message = format!("{} is no share of the volume", quote(text));
            let error = wrong(message, "write shares in percent, up to 100%");
            match cures::share(text) {
                Some(meant) => {
                    error.help(format!("write `{meant}`, a share of the volume in percent"))
                }
                None if text == "ceil" => error.help("write the cap itself: `then: 10mbit`"),
                None => error,
            }
        }
    })
}

/// A cap that leaves enough to log in.
fn rate(node: &Node, findings: &mut Findings) -> Option<Rate> {
    let written = findings.take(scalars::amount(node, "then", Purpose::Quota))?;
    let Amount::Rate(rate) = written.value else {
        findings.push(
            Diagnostic::error(Kind::Rate, node.at, "a share is no cap for what is used up")
                .help("write a rate, such as `10mbit`: it holds on each link, each way"),
        );
        return None;
    };
    if rate < SLOWEST {
        findings.push(
            Diagnostic::error(Kind::Rate, node.at, format!("{rate} is too slow to log in with"))
                .help(format!("write at least `{SLOWEST}`")),
        );
        return None;
    }
    Some(rate)
}
