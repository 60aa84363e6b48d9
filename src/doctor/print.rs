//! Checks as a person reads them.

use unicode_width::UnicodeWidthStr;

use super::check::{Check, State};
use crate::text::shown;

/// The most columns of a line.
const COLUMNS: usize = 80;
/// Columns before the sentences.
const INDENT: usize = 9;

/// A line or more for each check, and one that counts them. `wide`: how many columns a terminal
/// has.
pub fn text(checks: &[Check], wide: Option<usize>) -> String {
    let wide = wide.unwrap_or(COLUMNS).min(COLUMNS);
    let mut text = String::new();
    for check in checks {
        let link = check.link.as_deref().map(|link| format!("{}: ", shown(link)));
        let what = format!("{}{}", link.unwrap_or_default(), check.what);
        paragraph(check.state.word(), &what, wide, &mut text);
        if let Some(cure) = &check.cure {
            paragraph("", &format!("cure: {cure}"), wide, &mut text);
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let number = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let (errors, warnings) = (count(State::Error), count(State::Warning));
    text.push_str(&format!(
        "{}, {}, {} ok\n",
        number(errors, "error"),
        number(warnings, "warning"),
        count(State::Ok)
    ));
    text
}

/// Breaks a text at its spaces; what has none and is longer than a line stays whole.
fn paragraph(word: &str, what: &str, columns: usize, text: &mut String) {
    let mut line = format!("{word:<INDENT$}");
    let mut taken = INDENT;
    for (index, part) in what.split_whitespace().enumerate() {
        let wide = part.width();
        if index > 0 && taken + 1 + wide > columns {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(INDENT);
            taken = INDENT;
        } else if index > 0 {
            line.push(' ');
            taken += 1;
        }
        line.push_str(part);
        taken += wide;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_within_the_terminal_and_aligned() {
        let long = "word ".repeat(30);
        let cure = format!("touch /{}", "x".repeat(90));
        let checks = [
            Check::ok("a", "short"),
            Check { link: Some("eth0".into()), ..Check::warning("b", long, cure) },
            Check::error("c", "bad", "good"),
        ];
        let narrow = text(&checks, Some(60));
        let short = |line: &str| line.width() <= 60 || line.trim_start().starts_with('/');
        assert!(narrow.lines().all(short), "{narrow}");
        let text = text(&checks, Some(200));
        assert!(text.starts_with("ok       short\nwarning  eth0: word word"), "{text}");
        assert!(text.contains("\n         cure: touch\n         /xxx"), "{text}");
        assert!(text.ends_with("\nerror    bad\n         cure: good\n1 error, 1 warning, 1 ok\n"));
        let whole = |line: &str| line.width() <= COLUMNS || line.trim_start().starts_with('/');
        assert!(text.lines().all(whole), "{text}");
    }
}
