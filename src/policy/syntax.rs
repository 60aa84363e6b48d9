//! The errors for a text that is no YAML, or YAML that is no policy. Touches nothing.

use serde_yaml::granit_parser::{ErrorKind, Marker, ScanError};

use super::diagnostic::{Diagnostic, Kind, printable, quote};
use super::source::{Place, Span};

/// Lists and mappings are nested deeper than in any policy.
pub(super) const TOO_DEEP: &str = "it is nested too deeply";

/// The parser's error, in our words where an administrator would not understand it.
pub(super) fn refused(error: &ScanError, text: &str) -> Diagnostic {
    let at = point(error.marker(), text);
    if let Some(tab) = tab_in_indentation(at, text) {
        return Diagnostic::error(Kind::Syntax, tab, "a tab in the indentation")
            .label("a tab")
            .help("YAML indents with spaces only: replace each tab by two spaces");
    }
    match error.kind() {
        ErrorKind::UnknownAnchor => Diagnostic::error(
            Kind::Syntax,
            at,
            "an alias (`*name`) without an anchor before it",
        )
        .help(
            "write `&name` before the value that it repeats, or quote a value that starts with `*`",
        ),
        ErrorKind::RecursionLimitExceeded => no_policy(at, TOO_DEEP),
        _ => {
            let diagnostic = not_yaml(at, &error.info());
            match meant(at, &error.info(), text) {
                Some(cure) => diagnostic.help(cure),
                None => diagnostic,
            }
        }
    }
}

/// What to write instead, where one of the mistakes that people make most is behind the parser's
/// error.
fn meant(at: Span, error: &str, text: &str) -> Option<String> {
    let (before, after) = text.split_at_checked(at.start as usize)?;
    let (above, before) = before.rsplit_once('\n').unwrap_or(("", before));
    let after = after.lines().next().unwrap_or_default();
    let after = after.split(" #").next().unwrap_or_default().trim_end();
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let rest = before.trim_end_matches(is_key);
    let key = before.get(rest.len()..).unwrap_or_default();
    if after.starts_with("//") {
        return Some("a comment begins with `#`".to_string());
    }
    if error.starts_with("unexpected character") && after.starts_with(['@', '`', '%']) {
        let word = after.split([',', '}', ']', ' ']).next().unwrap_or_default();
        let word = word.trim_end_matches(':');
        return Some(format!("write quotes around it: {}", quote(&format!("\"{word}\""))));
    }
    if !after.starts_with(':') || key.is_empty() {
        return None;
    }
    let last = above.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if error.contains("expected ',' or '}'") {
        return Some(match rest.trim().is_empty() {
            false => format!("write a comma before {}", quote(key)),
            true => format!("write `}}` or `,` at the end of the line above {}", quote(key)),
        });
    }
    match before.split_once(": ") {
        Some((name, _)) if error.starts_with("mapping values") => {
            let inside = before.get(name.len() + 2..).unwrap_or_default().trim_start();
            let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
            if !inside.chars().all(is_plain) {
                return None;
            }
            let whole = format!("{}: {{{inside}{after}}}", name.trim_start());
            Some(format!("write braces around what belongs to it: {}", quote(&whole)))
        }
        None if error.starts_with("mapping values") && last.contains(':') => {
            let above = last.trim_start().split(':').next().unwrap_or_default();
            Some(format!(
                "begin {} below {}, in the same column",
                quote(key),
                quote(above.trim_start_matches("- "))
            ))
        }
        _ => None,
    }
}

/// The error for a place where the text is no YAML.
pub(super) fn not_yaml(at: Span, what: &str) -> Diagnostic {
    Diagnostic::error(
        Kind::Syntax,
        at,
        format!("the file is not valid YAML: {}", printable(what, 200)),
    )
    .help("look for a missing colon, bracket, brace or quote, or indentation that differs from the lines around")
}

/// YAML, but more of it than any policy has, or in a knot.
pub(super) fn no_policy(at: Span, why: &str) -> Diagnostic {
    Diagnostic::error(Kind::Syntax, at, format!("the file is no policy: {why}"))
        .help("nothing of it was applied; is this the right file?")
}

/// `at`: where the second document's first value is.
pub(super) fn second_document(at: Span) -> Diagnostic {
    Diagnostic::error(Kind::Syntax, at, "a second document (`---`) in the file")
        .help("a policy is one document: remove the line `---`, or split the file")
}

pub(super) fn key_without_name(at: Span) -> Diagnostic {
    Diagnostic::error(Kind::Syntax, at, "a key must be a name, not a list or a mapping")
        .help("write `name: value`; quote the name if it has special characters")
}

pub(super) fn too_long(limit: usize) -> Diagnostic {
    Diagnostic::error(
        Kind::Syntax,
        Span::START,
        format!("the file has more than the {limit} bytes that a policy may have"),
    )
    .help("is this the right file? Accounts need no line each: `everyone` and `gid` groups cover them")
}

pub(super) fn empty() -> Diagnostic {
    Diagnostic::error(Kind::Syntax, Span::START, "the file is empty")
        .help("the smallest policy is\n  version: 1\n  links: {auto: }\n  everyone: 50mbit")
}

/// The span of a scanner's error, which has a line and a column but no byte.
fn point(marker: &Marker, text: &str) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let place = Place { line: number(marker.line()).max(1), column: number(marker.col() + 1) };
    let start = number(offset_of(place, text));
    Span { place, start, end: start }
}

/// The byte of the text at a place.
fn offset_of(place: Place, text: &str) -> usize {
    let lines = text.split_inclusive('\n');
    let before: usize = lines.clone().take(place.line as usize - 1).map(str::len).sum();
    let line = lines.clone().nth(place.line as usize - 1).unwrap_or_default();
    let within = line.char_indices().nth(place.column as usize - 1);
    before + within.map_or(line.trim_end().len(), |(at, _)| at)
}

/// The tab in front of the line that an error is in.
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
