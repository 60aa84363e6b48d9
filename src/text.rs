//! Text that somebody else wrote, made safe to print. Any user chooses the name of his processes
//! and of his cgroups, a name service those of its accounts, and a policy may come from anywhere:
//! what is in them must neither command root's terminal (escape sequences) nor turn its lines
//! around (bidi controls), hide in it (zero-width characters), or forge a line of its own
//! (newlines).
//!
//! A foreign text is a [`Foreign`], or goes through [`shown`], where it enters a sentence;
//! [`page`], [`line`] and [`json`] are the last gate, which everything that is printed passes.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// A text of somebody else's. Displays safely, in one line; [`Foreign::raw`] is for comparisons.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Foreign(String);

impl Foreign {
    /// As somebody else wrote it: not for printing.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Foreign {
    fn from(text: T) -> Foreign {
        Foreign(text.into())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&shown(&self.0), f)
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A foreign text inside a sentence of ours: newlines too are escaped.
pub fn shown(text: &str) -> impl fmt::Display + '_ {
    Shown(text)
}

struct Shown<'t>(&'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Widths count what is printed.
        f.pad(&escaped(self.0, |_| false))
    }
}

/// Everything that a command prints, of several lines. `color`: our own colours (SGR sequences,
/// which change nothing but how letters look) are kept.
pub fn page(text: &str, color: bool) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    if !color {
        return escaped(text, |c| c == '\n');
    }
    if !text.contains(|c| c != '\n' && is_risky(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        safe.push_str(&escaped(&rest[..at], |c| c == '\n'));
        let sequence = sgr(&rest[at..]).unwrap_or_default();
        safe.push_str(sequence);
        if sequence.is_empty() {
            escape('\x1b', &mut safe);
        }
        rest = &rest[at + sequence.len().max(1)..];
    }
    safe.push_str(&escaped(rest, |c| c == '\n'));
    Cow::Owned(safe)
}

/// Whether a text has nothing but ASCII's letters, digits and signs, and newlines, as most have: of
/// ten megabytes of metrics that takes a tenth of the time that their characters take one by one.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') | (*byte == b'\n');
    let mut parts = text.as_bytes().chunks(1024);
    parts.all(|part| part.iter().fold(true, |all, byte| all & is_plain(byte)))
}

/// `ESC [ numbers m` at the beginning of `text`.
fn sgr(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\x1b[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner[end..].starts_with('m').then(|| &text[..end + 3])
}

/// One record of a log: lines after its first are indented, so that none looks like a record.
pub fn record(text: &str) -> String {
    page(text, false).replace('\n', "\n    ")
}

/// A JSON document with every risky character in its strings escaped by its number (`\u001b`): the
/// same document, and safe on a terminal. The only ones outside strings are newlines.
pub fn json(document: &str) -> Cow<'_, str> {
    if !document.contains(|c| c != '\n' && is_risky(c)) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len());
    for c in document.chars() {
        if c == '\n' || !is_risky(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    Cow::Owned(safe)
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|c| is_risky(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_risky(c) && !keep(c) {
            true => escape(c, &mut safe),
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// `\n`, `\u{1b}`, `\u{202e}`. Backslashes stay as they are: systemd's own names have them
/// (`\x2d`).
fn escape(c: char, into: &mut String) {
    let _ = match c {
        '\n' => into.write_str("\\n"),
        '\t' => into.write_str("\\t"),
        '\r' => into.write_str("\\r"),
        c => write!(into, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Control characters (C0, DEL and C1, where U+009B is an escape sequence's beginning), separators
/// of lines, and what Unicode calls format characters or default-ignorable: bidi controls,
/// zero-width characters, tags. Letters of every script, wide ones and signs stay.
pub fn is_risky(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTILE: &str = "a\x1b]0;x\x07\u{9b}2J\u{202e}\u{200b}\nb\r\u{2028}\u{e0041}\x7f\t";

    #[test]
    fn a_foreign_text_is_visible_and_harmless() {
        let safe =
            "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}\\u{200b}\\nb\\r\\u{2028}\\u{e0041}\\u{7f}\\t";
        assert_eq!(Foreign::from(HOSTILE).to_string(), safe);
        assert_eq!(format!("{:?}", Foreign::from(HOSTILE)), format!("\"{safe}\""));
        for plain in ["", "bob", "Ωμέγα", "日本語", "dev-a\\x2db.mount", "ﷺ", "🦀"] {
            assert!(matches!(page(plain, false), Cow::Borrowed(same) if same == plain));
            assert_eq!(Foreign::from(plain).to_string(), plain);
        }
        assert_eq!(
            format!("{:>5}|{:<5}|", Foreign::from("\n"), Foreign::from("ab")),
            "   \\n|ab   |"
        );
    }

    #[test]
    fn a_page_keeps_its_lines_and_our_own_colours_only() {
        assert_eq!(page("a\nb\r\n", false), "a\nb\\r\n");
        assert_eq!(
            page("\x1b[1;31merror\x1b[0m\x1b[2J\x1b[\n", true),
            "\x1b[1;31merror\x1b[0m\\u{1b}[2J\\u{1b}[\n"
        );
        assert_eq!(page("\x1b[31m", false), "\\u{1b}[31m");
        assert_eq!(record("one\ntwo\x1b"), "one\n    two\\u{1b}");
    }

    proptest! {
        #[test]
        fn nothing_risky_passes(text in any::<String>(), piece in any::<String>()) {
            for c in [text.as_str(), HOSTILE, &piece].concat().chars() {
                let text = format!("{piece}{c}{text}");
                prop_assert!(!Foreign::from(text.as_str()).to_string().contains(is_risky));
                prop_assert!(!page(&text, false).replace('\n', "").contains(is_risky));
            }
        }

        #[test]
        fn a_document_says_the_same(text in any::<String>()) {
            let text = format!("{text}{HOSTILE}");
            let document = serde_json::to_string(&text).unwrap();
            let safe = json(&document);
            prop_assert!(!safe.contains(is_risky), "{safe:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
