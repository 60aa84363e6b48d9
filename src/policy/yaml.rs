//! YAML text → a tree of nodes that know their place: with [`super::plain`] the only file that
//! knows which YAML crate is used. Scalars stay text, as written: YAML would make a number of
//! `010`, a boolean of a user called `no`, and only the reader of a field knows what it wants.
//! Touches nothing.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::diagnostic::{Diagnostic, Kind, Place, Span, Written, printable};

/// The longest text that is read: a file of 60,000 users with all their fields has half of that.
pub const MAX_BYTES: usize = 8 << 20;

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Span,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    /// In file order; a key may stand twice.
    Map(Vec<(Written<String>, Node)>),
}

impl Value {
    /// What it is, for a message.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads the one document of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    if text.len() > MAX_BYTES {
        return Err(Diagnostic::error(
            Kind::Syntax,
            Span::START,
            format!("the file has more than the {MAX_BYTES} bytes that a policy may have"),
        )
        .help("is this the right file? Accounts need no line each: `everyone` and `gid` groups cover them"));
    }
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(Diagnostic::error(Kind::Syntax, Span::START, "the file is empty")
            .help("the smallest policy is\n  version: 1\n  links: {auto: }\n  everyone: 50mbit"));
    }
    match super::plain::parse(text) {
        Some(tree) => Ok(tree),
        None => whole(text),
    }
}

/// The same for all of YAML, and for what is wrong with it.
pub(super) fn whole(text: &str) -> Result<Node, Diagnostic> {
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => tree(raw, text),
        Err(error) => Err(syntax_error(&error, text)),
    }
}

/// The first line, or as much of it as a screen shows.
pub(super) fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.char_indices().nth(80).map_or(line, |(end, _)| &line[..end])
}

/// Room for a file of 60,000 users, and little more: a bomb is refused after a second at most.
fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 3_000_000,
            max_nodes: 1_000_000,
            max_recorded_anchor_events: 100_000,
            max_depth: 32,
            max_aliases: 100_000,
            max_anchors: 10_000,
            max_merge_keys: 100_000,
            // The replay limit below bounds what aliases cost; the ratio would refuse one anchor
            // that many users share.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 1_000_000,
            max_replay_stack_depth: 16,
        },
        // Both places of a duplicate are wanted, so they are found by whoever reads the map.
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: serde_yaml::options::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

/// What serde sees; the text of a plain scalar that looks like a number is cut from the source.
enum Raw {
    Null,
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_string()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            list.push(element);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn tree(raw: Spanned<Raw>, text: &str) -> Result<Node, Diagnostic> {
    // Where a value is written, not where an alias repeats it: there its text can be shown.
    let at = span(raw.defined, text);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain => Value::Scalar(cut(at, text)),
        Raw::Text(text) => Value::Scalar(text),
        Raw::List(list) => Value::List(
            list.into_iter().map(|element| tree(element, text)).collect::<Result<_, _>>()?,
        ),
        Raw::Map(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let at = span(key.defined, text);
                let name = match key.value {
                    Raw::Text(name) => name,
                    Raw::Null | Raw::Plain => cut(at, text),
                    Raw::List(_) | Raw::Map(_) => {
                        return Err(Diagnostic::error(
                            Kind::Syntax,
                            at,
                            "a key must be a name, not a list or a mapping",
                        )
                        .help("write `name: value`; quote the name if it has special characters"));
                    }
                };
                map.push((Written { value: name, at }, tree(value, text)?));
            }
            Value::Map(map)
        }
    };
    Ok(Node { at, value })
}

fn cut(at: Span, text: &str) -> String {
    text.get(at.start as usize..at.end as usize).unwrap_or_default().trim().to_string()
}

fn span(location: Location, text: &str) -> Span {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let span = location.span();
    let place =
        Place { line: number(location.line()).max(1), column: number(location.column()).max(1) };
    // Errors of the scanner know their line and column only.
    let start = span.byte_offset().unwrap_or_else(|| offset_of(place, text));
    let start = number(start).min(number(text.len() as u64));
    let end = start.saturating_add(number(span.byte_len().unwrap_or(0)));
    Span { place, start, end: end.min(number(text.len() as u64)) }
}

/// The byte at which a place is.
fn offset_of(place: Place, text: &str) -> u64 {
    let lines = text.split_inclusive('\n');
    let before: usize = lines.clone().take(place.line as usize - 1).map(str::len).sum();
    let line = lines.clone().nth(place.line as usize - 1).unwrap_or_default();
    let within = line.char_indices().nth(place.column as usize - 1);
    (before + within.map_or(line.trim_end().len(), |(at, _)| at)) as u64
}

/// The crate's error in our words where an administrator would not understand it.
fn syntax_error(error: &serde_yaml::Error, text: &str) -> Diagnostic {
    const EXPANDS: &str = "its aliases (`*name`) expand to too much";
    use serde_yaml::Error as E;
    use serde_yaml::budget::BudgetBreach;
    let error = error.without_snippet();
    let at = error.location().map(|location| span(location, text));
    if let Some(tab) = at.and_then(|at| tab_in_indentation(at, text)) {
        return Diagnostic::error(Kind::Syntax, tab, "a tab in the indentation")
            .label("a tab")
            .help("YAML indents with spaces only: replace each tab by two spaces");
    }
    let too_much = |what: &str| {
        Diagnostic::error(Kind::Syntax, at, format!("the file is no policy: {what}"))
            .help("nothing of it was applied; is this the right file?")
    };
    match error {
        E::AliasError { error, .. } => syntax_error(error, text),
        E::Budget { breach, .. } => too_much(match breach {
            BudgetBreach::Depth { .. } => "it is nested too deeply",
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::MergeKeys { .. }
            | BudgetBreach::RecordedAnchorEvents { .. }
            | BudgetBreach::RecordedAnchorBytes { .. } => EXPANDS,
            _ => "it has too many values",
        }),
        E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayCounterOverflow { .. }
        | E::AliasReplayStackDepthExceeded { .. } => too_much(EXPANDS),
        E::RecursiveReferencesRequireWeakTypes { .. } => too_much("an alias contains itself"),
        E::UnknownAnchor { .. } => Diagnostic::error(
            Kind::Syntax,
            at,
            "an alias (`*name`) without an anchor before it",
        )
        .help(
            "write `&name` before the value that it repeats, or quote a value that starts with `*`",
        ),
        E::MultipleDocuments { .. } => {
            Diagnostic::error(Kind::Syntax, at, "a second document (`---`) in the file")
                .help("a policy is one document: remove the line `---`, or split the file")
        }
        _ => {
            let whole = error.to_string();
            let first = strip_place(whole.lines().next().unwrap_or_default());
            // Some budgets are said in words only.
            if first.starts_with("budget breached") {
                return too_much(EXPANDS);
            }
            Diagnostic::error(
                Kind::Syntax,
                at,
                format!("the file is not valid YAML: {}", printable(first, 200)),
            )
            .help("look for a missing colon, bracket, brace or quote, or indentation that differs from the lines around")
        }
    }
}

/// The crate ends a message with where it is; the caret says that better.
fn strip_place(message: &str) -> &str {
    let end =
        message.find(" at line ").or_else(|| message.find(", line ")).unwrap_or(message.len());
    message[..end].trim_start_matches("line ").trim()
}

/// The tab in front of the line that an error is in, or of the line before it.
fn tab_in_indentation(at: Span, text: &str) -> Option<Span> {
    let before = text.get(..at.start as usize)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next()?;
    let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
    let tab = line[..indent].find('\t')?;
    let start = u32::try_from(start + tab).ok()?;
    let column = u32::try_from(tab + 1).ok()?;
    Some(Span { place: Place { line: at.place.line, column }, start, end: start + 1 })
}
