//! `times`: one window each. Touches nothing.

use crate::times::{Days, Hours, Window};
use crate::tree::Key;

use super::cures;
use super::diagnostic::{Diagnostic, Findings, Kind, closest, quote};
use super::document::WindowLine;
use super::fields::{Fields, named};
use super::node::{Node, Value};
use super::scalars;
use super::source::Written;

pub(super) fn times(node: Node, findings: &mut Findings) -> Vec<WindowLine> {
    let named = named(node, "times", findings);
    named.into_iter().filter_map(|(key, node)| window(key, node, findings)).collect()
}

/// `night: {days: mon-fri, at: "22:00-06:00", tz: Europe/Berlin}`; the short form is `at`.
fn window(key: Written<Key>, node: Node, findings: &mut Findings) -> Option<WindowLine> {
    if let Value::Scalar(_) = node.value {
        let hours = vec![findings.take(hours(&node))?.value];
        return Some(WindowLine { key, window: Window { days: Days::ALL, hours }, tz: None });
    }
    let at = node.at;
    let mut fields = Fields::open(node, "a window", &["days", "at", "tz"], findings)?;
    let had_unknown = fields.had_unknown;
    let is_always = fields.place_of("days").is_none() && fields.place_of("at").is_none();
    let has_days = fields.place_of("days").is_some();
    let days = fields.read_some("days", findings, days);
    let days = match has_days {
        true => days.into_iter().map(|days| days.value).reduce(Days::and)?,
        false => Days::ALL,
    };
    let has_hours = fields.place_of("at").is_some();
    let hours = fields.read_some("at", findings, hours);
    let hours: Vec<Hours> = match has_hours {
        true => hours.into_iter().map(|hours| hours.value).collect(),
        false => vec![Hours::ALL],
    };
    let tz = fields.read("tz", findings, |node| scalars::text(node, "tz", "Europe/Berlin"));
    if is_always && !had_unknown {
        let message = format!("the window {} is always", quote(key.value.as_str()));
        findings.push(Diagnostic::error(Kind::Time, at, message).help(
            "write when it holds, `at: \"22:00-06:00\"`, `days: mon-fri`, or both; what always holds stands on the line itself",
        ));
    }
    (!hours.is_empty()).then_some(WindowLine { key, window: Window { days, hours }, tz })
}

fn days(node: &Node) -> Result<Written<Days>, Diagnostic> {
    let written = scalars::text(node, "days", "mon-fri")?;
    if let Some(value) = Days::parse(&written.value) {
        return Ok(Written { value, at: node.at });
    }
    let message = format!("{} is no day of the week, and no range of them", quote(&written.value));
    let lower = written.value.to_ascii_lowercase();
    let help = match cures::days(&lower) {
        None if cures::is_each_day(&lower) => {
            "leave `days` out, beside `at`: it is each day then".to_string()
        }
        Some(meant) => format!("write `days: {meant}`"),
        None => match lower.split('-').find_map(|word| closest(word.trim(), Days::NAMES)) {
            Some(day) => format!("did you mean `{day}`? The days are {}", Days::NAMES.join(", ")),
            None => format!("write `mon-fri`, or `[sat, sun]`; {}", Days::NAMES.join(", ")),
        },
    };
    Err(Diagnostic::error(Kind::Time, node.at, message).help(help))
}

fn hours(node: &Node) -> Result<Written<Hours>, Diagnostic> {
    let written = scalars::text(node, "at", "\"22:00-06:00\"")?;
    if let Some(value) = Hours::parse(&written.value) {
        return Ok(Written { value, at: node.at });
    }
    let text = &written.value;
    let (from, until) = text.split_once('-').unwrap_or((text, ""));
    let is_time = |time: &str| Hours::parse(&format!("{time}-12:34:56")).is_some();
    if from.trim() == until.trim() && is_time(from) {
        let message = format!("the window is never: it ends when it begins, {}", quote(text));
        return Err(Diagnostic::error(Kind::Time, node.at, message)
            .help("write another end; for whole days leave `at` out and write `days`"));
    }
    let message = format!("{} is no time of the day from one moment to another", quote(text));
    if let Some(meant) = cures::at(text) {
        return Err(
            Diagnostic::error(Kind::Time, node.at, message).help(format!("write `at: {meant}`"))
        );
    }
    Err(Diagnostic::error(Kind::Time, node.at, message).help(
        "write both as HH:MM, or HH:MM:SS, from 00:00 to 24:00: `at: \"22:00-06:00\"`; it may go past midnight",
    ))
}
