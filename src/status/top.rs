//! `shaper top` on a terminal, without the terminal: keys change what is shown, and a report
//! becomes the lines of a screen.

use super::cells::clipped;
use super::holding;
use super::live::{Table, live_table};
use super::quota::quota_lines;
use super::report::Status;
use super::rows::{Column, Order};
use crate::text::shown;

/// What somebody pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character, also Enter (`\n`), Escape (`\u{1b}`), Backspace (`\u{7f}`) and those with
    /// Control (`\u{3}`).
    Char(char),
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// A screen up.
    PageUp,
    /// A screen down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
}

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The screen is another.
    Draw,
    /// Nothing.
    Nothing,
    /// It is over.
    Quit,
}

/// How large the terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

/// What is shown of the report, and how.
#[derive(Clone, Debug, Default)]
pub struct Board {
    order: Order,
    /// A filter is being typed.
    typing: bool,
    help: bool,
    paused: bool,
    scrolled: usize,
    /// How many lines the last screen had for rows, and how many there were to show.
    page: usize,
    rows: usize,
}

/// The keys that sort, with the word for it.
const SORTS: [(char, Column, &str); 8] = [
    ('u', Column::Up, "up"),
    ('d', Column::Down, "down"),
    ('c', Column::OfCap, "of cap"),
    ('b', Column::Borrowed, "borrowed"),
    ('w', Column::Queue, "queue"),
    ('x', Column::Drops, "drops"),
    ('p', Column::Processes, "processes"),
    ('n', Column::Name, "name"),
];

const HELP: [&str; 16] = [
    "u d       sort by what goes up, by what comes down",
    "c b       sort by percent of the cap, by the borrowed share",
    "w x       sort by what waits in the queue, by drops a second",
    "p n       sort by processes, by name",
    "t         groups as a tree, or all users in one list",
    "/         show names with what you type; Escape shows all",
    "arrows    scroll, also Page Up and Down, Home, End",
    "space     stop here, go on",
    "q         quit",
    "",
    "OF CAP    what goes now, of what it may at most (its ceil)",
    "BORROWED  the share of packets sent on what others leave",
    "QUEUE     how long what waits will take to leave",
    "[name]    a group, whose members are below it",
    "(default) whatever no rule and no user claims",
    "any key goes back",
];

/// The lines below the table: what holds somebody, until when, and what was used of quotas.
fn below(status: &Status) -> Vec<String> {
    let mut lines = holding::lines(status);
    lines.extend(quota_lines(&status.quotas));
    lines
}

/// A screen of `top` as a text, for whoever reads no terminal.
pub fn top_table(status: &Status, columns: usize) -> String {
    let mut text = live_table(status, columns);
    below(status).into_iter().for_each(|line| text.extend([line.as_str(), "\n"]));
    text
}

impl Board {
    /// Whether reports are to be left as they are.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Does what a key says.
    pub fn press(&mut self, key: Key) -> Then {
        if key == Key::Char('\u{3}') {
            return Then::Quit;
        }
        if self.help {
            self.help = false;
            return Then::Draw;
        }
        if let (true, Key::Char(c)) = (self.typing, key) {
            return self.type_filter(c);
        }
        let last = self.rows.saturating_sub(self.page);
        match key {
            Key::Char('q') => return Then::Quit,
            Key::Char('/') => (self.typing, self.scrolled) = (true, 0),
            Key::Char('\u{1b}') => self.order.filter.clear(),
            Key::Char('t') => self.order.flat = !self.order.flat,
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char(c) => match SORTS.iter().find(|(key, ..)| *key == c) {
                Some((_, sort, _)) => self.order.sort = *sort,
                None => return Then::Nothing,
            },
            Key::Up => self.scrolled = self.scrolled.min(last).saturating_sub(1),
            Key::Down => self.scrolled = (self.scrolled + 1).min(last),
            Key::PageUp => self.scrolled = self.scrolled.min(last).saturating_sub(self.page),
            Key::PageDown => self.scrolled = (self.scrolled + self.page).min(last),
            Key::Home => self.scrolled = 0,
            Key::End => self.scrolled = last,
        }
        Then::Draw
    }

    fn type_filter(&mut self, c: char) -> Then {
        match c {
            '\n' | '\r' => self.typing = false,
            '\u{1b}' => {
                self.typing = false;
                self.order.filter.clear();
            }
            '\u{7f}' | '\u{8}' => drop(self.order.filter.pop()),
            '\u{15}' => self.order.filter.clear(),
            c if c.is_control() => return Then::Nothing,
            c => self.order.filter.extend(c.to_lowercase()),
        }
        Then::Draw
    }

    /// The screen: as many lines as the terminal has, none wider than it is. `color`: the headings
    /// may stand out.
    pub fn draw(&mut self, status: &Status, size: Size, color: bool) -> Vec<String> {
        let Size { rows, columns } = size;
        if self.help {
            let help = HELP.iter().map(|line| clipped(line, columns));
            let mut screen: Vec<String> = help.take(rows).collect();
            screen.resize(rows, String::new());
            return screen;
        }
        let page = rows.saturating_sub(3);
        let table = Table::new(status, &self.order, columns, self.scrolled.saturating_add(page));
        let below = below(status);
        let emphasis = |line: String| match color {
            true => format!("\x1b[7m{line}\x1b[0m"),
            false => line,
        };
        let mut screen = vec![clipped(&self.first(status), columns), emphasis(table.headings())];
        (self.page, self.rows) = (page, table.len() + below.len());
        let begin = self.scrolled.min(self.rows.saturating_sub(self.page));
        let mut page = table.lines(begin..begin + self.page);
        let below = below.iter().skip(begin.saturating_sub(table.len()));
        let below = below.take(self.page - page.len());
        page.extend(below.map(|line| clipped(line, columns)));
        if status.links.is_empty() {
            page.push("nothing is shaped here; `shaper apply` does it".to_string());
        }
        page.resize(self.page, String::new());
        screen.append(&mut page);
        screen.push(clipped(&self.last(), columns));
        screen.truncate(rows);
        screen
    }

    fn first(&self, status: &Status) -> String {
        let sort = SORTS.iter().find(|(_, sort, _)| *sort == self.order.sort);
        let sort = sort.map_or("", |(_, _, word)| word);
        let mut line = format!("shaper top  sorted by {sort}");
        if let Some(over) = status.interval_ms {
            let tenths = (over + 50) / 100;
            line.push_str(&format!("  over {}.{} s", tenths / 10, tenths % 10));
        }
        if !self.order.filter.is_empty() {
            line.push_str(&format!("  only *{}*", shown(&self.order.filter)));
        }
        if self.paused {
            line.push_str("  stopped");
        }
        line
    }

    fn last(&self) -> String {
        match self.typing {
            true => format!("show only: {}_", shown(&self.order.filter)),
            false => {
                let more = match self.rows.saturating_sub(self.page + self.scrolled) {
                    0 => String::new(),
                    more => format!("{more} lines more  "),
                };
                format!("{more}q quit  ? keys  / filter  t tree  sort: u d c b w x p n")
            }
        }
    }
}

/// What bytes from a terminal mean, and how many of them were used: what may go on is kept for the
/// next time, unless `complete`.
pub fn keys(bytes: &[u8], complete: bool) -> (Vec<Key>, usize) {
    let mut keys = Vec::new();
    let mut used = 0;
    while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
        let (key, length) = match rest {
            [0x1b, b'[' | b'O', ..] => match escape(&rest[2..]) {
                Some((key, length)) => (key, length + 2),
                None if complete => (Some(Key::Char('\u{1b}')), rest.len()),
                None => break,
            },
            [0x1b] if !complete => break,
            _ => match character(rest) {
                Some((c, length)) => (Some(Key::Char(c)), length),
                None if complete || rest.len() >= 4 => (None, 1),
                None => break,
            },
        };
        keys.extend(key);
        used += length;
    }
    (keys, used)
}

/// The rest of a control sequence (ECMA-48): parameters, then a letter or `~`. `None`: it is not
/// whole.
fn escape(rest: &[u8]) -> Option<(Option<Key>, usize)> {
    let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
    let key = match (&rest[..end], rest[end]) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        _ => None,
    };
    Some((key, end + 1))
}

/// The first character of UTF-8; `None`: it is not whole, or none.
fn character(bytes: &[u8]) -> Option<(char, usize)> {
    let valid = bytes.utf8_chunks().next()?.valid();
    valid.chars().next().map(|c| (c, c.len_utf8()))
}
