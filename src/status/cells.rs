//! Cells of tables, as wide as a terminal shows them: a Chinese character takes two columns, an
//! accent none.

use unicode_width::UnicodeWidthStr;

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
    for c in text.chars() {
        clipped.push(c);
        // Of the whole: an emoji of several characters is not as wide as all of them together.
        if width(&clipped) + 1 > wide {
            clipped.pop();
            break;
        }
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

/// A page of which no line is wider than the terminal. Lines that are go on below, between words,
/// further from the left than they began; a word that is longer than a line stays whole, so that it
/// can be copied.
pub fn fitted(page: &str, wide: usize) -> String {
    page.lines().map(|line| continued(line, wide) + "\n").collect()
}

fn continued(line: &str, wide: usize) -> String {
    let words = line.trim_start_matches(' ');
    let begin = line.len() - words.len();
    let mut lines = " ".repeat(begin);
    let mut taken = begin;
    for (at, word) in words.split_inclusive(' ').enumerate() {
        let needs = width(word.trim_end_matches(' '));
        if at > 0 && word != " " && taken + needs > wide {
            lines.truncate(lines.trim_end_matches(' ').len());
            lines.push('\n');
            lines.push_str(&" ".repeat(begin + 2));
            taken = begin + 2;
        }
        lines.push_str(word);
        taken += width(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn a_page_goes_on_below_where_the_terminal_ends() {
        let page = "eth0  egress  rate 950mbit\n  ! of 81000 kB only 40 kB\n\nshort\n";
        assert_eq!(fitted(page, 80), page);
        let narrow = "eth0  egress\n  rate 950mbit\n  ! of 81000 kB\n    only 40 kB\n\nshort\n";
        assert_eq!(fitted(page, 16), narrow);
        assert_eq!(fitted("in /a/long/place now\n", 8), "in\n  /a/long/place\n  now\n");
        assert_eq!(fitted("", 8), "");
    }

    proptest! {
        /// Also of characters that take two columns, or none, or join with others.
        #[test]
        fn nothing_is_wider_than_its_terminal(
            words in prop::collection::vec("[a-z日e\u{301}🦀👩\u{1f3fd}नि]{1,12}", 0..20),
            begin in 0_usize..5,
            wide in 1_usize..90,
        ) {
            let line = " ".repeat(begin) + &words.join(" ");
            let page = fitted(&line, wide);
            for part in page.lines() {
                let is_a_word = !part.trim().contains(' ');
                prop_assert!(width(part) <= wide || is_a_word, "{}", part);
            }
            let of = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
            prop_assert_eq!(of(&page), words);
            prop_assert!(width(&clipped(&line, wide)) <= wide, "{:?}", clipped(&line, wide));
            let cell = cell(&line, wide, Side::Right);
            prop_assert_eq!(width(&cell), wide, "{:?}", cell);
        }
    }
}
