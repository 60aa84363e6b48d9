//! Cells of tables, as wide as a terminal shows them: a Chinese character takes two columns, an
//! accent none.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// On which side of a cell its text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// How many columns a terminal needs for a text.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in a cell of this width; what does not fit is cut off, with `…` in its place.
pub(super) fn cell(text: &str, wide: usize, side: Side) -> String {
    let text = clipped(text, wide);
    let space = " ".repeat(wide.saturating_sub(width(&text)));
    match side {
        Side::Left => text + &space,
        Side::Right => space + &text,
    }
}

/// The text, or as much of it as fits before `…`.
pub(super) fn clipped(text: &str, wide: usize) -> String {
    if width(text) <= wide {
        return text.to_string();
    }
    let mut clipped = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken + 1 > wide {
            break;
        }
        clipped.push(c);
    }
    if wide > 0 {
        clipped.push('…');
    }
    clipped
}

/// The text in lines of at most so many columns, broken between words where words are not longer.
pub(super) fn wrapped(text: &str, wide: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= wide => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(clipped(word, wide)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_as_wide_as_it_should_be_whatever_is_in_it() {
        assert_eq!(cell("ann", 5, Side::Left), "ann  ");
        assert_eq!(cell("ann", 5, Side::Right), "  ann");
        assert_eq!(cell("日本語", 7, Side::Left), "日本語 ");
        assert_eq!(cell("日本語", 6, Side::Right), "日本語");
        // Half a character cannot be shown.
        assert_eq!(cell("日本語", 4, Side::Left), "日… ");
        assert_eq!(cell("benjamin", 4, Side::Left), "ben…");
        assert_eq!(cell("e\u{301}te", 4, Side::Left), "e\u{301}te ");
        assert_eq!(cell("x", 0, Side::Left), "");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("a sentence of words", 10), ["a sentence", "of words"]);
        assert_eq!(wrapped("a 日本語 and unbreakable", 8), ["a 日本語", "and", "unbreak…"]);
        assert!(wrapped("", 8).is_empty());
    }
}
