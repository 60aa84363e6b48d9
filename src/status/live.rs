//! Who uses the links now: both directions of a link in one row for each user and group, in the
//! order of the tree, as `top` and `status --interval` show it.

use std::ops::Range;

use super::cells::{Side, cell, clipped, wrapped};
use super::columns::{LEAST_NAME, SPACE, fitting};
use super::listed::Listed;
use super::report::{Now, Status};
use super::rows::{Column, Device, Kind, Order, Row, devices};
use super::words::{self, measured};
use crate::text::shown;

/// The columns after the name, in the order in which they are shown, each with its heading and how
/// wide it is.
const COLUMNS: [(Column, &str, usize); 7] = [
    (Column::Up, "UP", 8),
    (Column::Down, "DOWN", 8),
    (Column::OfCap, "OF CAP", 6),
    (Column::Borrowed, "BORROWED", 8),
    (Column::Queue, "QUEUE", 7),
    (Column::Drops, "DROPS/S", 7),
    (Column::Processes, "PROCS", 5),
];

/// Which columns go first where the terminal is narrow.
const GO_FIRST: [Column; 6] = [
    Column::Borrowed,
    Column::Processes,
    Column::Drops,
    Column::Queue,
    Column::Down,
    Column::OfCap,
];

/// The widest column of names.
const MOST_NAME: usize = 40;

/// Whether a link, a group or a user uses more than so many percent of what it may.
pub fn is_over(status: &Status, percent: u64) -> bool {
    let over = |now: Option<Now>| now.is_some_and(|now| now.of_ceil_percent > percent);
    status.links.iter().any(|link| {
        over(link.now)
            || link.users.iter().any(|user| over(user.class.now))
            || link.groups.iter().any(|group| over(group.class.now))
    })
}

/// The lines of the table, none wider than so many columns of a terminal, of which only those are
/// written that are shown.
pub(super) struct Table<'a> {
    columns: Vec<(Column, &'static str, usize)>,
    /// How wide the column of names is.
    name: usize,
    parts: Vec<Part<'a>>,
}

/// A link's own lines, and its rows in the order in which they are shown.
struct Part<'a> {
    own: Vec<String>,
    rows: Vec<Row<'a>>,
    listed: Listed,
}

impl<'a> Table<'a> {
    /// `wide`: how wide the terminal is. `end`: lines from here on are counted, and not shown.
    pub(super) fn new(status: &'a Status, order: &Order, wide: usize, end: usize) -> Table<'a> {
        let of = |it: &(Column, &str, usize)| (it.0, it.2 + SPACE);
        let columns =
            fitting(COLUMNS.to_vec(), of, &GO_FIRST, wide.saturating_sub(SPACE + LEAST_NAME));
        let fixed: usize = columns.iter().map(|(_, _, width)| width + 2).sum();
        let name = wide.saturating_sub(fixed + 2).min(MOST_NAME);
        let mut table = Table { columns, name, parts: Vec::new() };
        for device in devices(status) {
            let mut own = vec![clipped(&total(&device), wide)];
            for warning in &device.warnings {
                let warning = format!("! {}", shown(warning));
                own.extend(
                    wrapped(&warning, wide.saturating_sub(2)).iter().map(|it| format!("  {it}")),
                );
            }
            let before = table.len() + own.len();
            let listed = Listed::of(&device.rows, order, end.saturating_sub(before));
            table.parts.push(Part { own, rows: device.rows, listed });
        }
        table
    }

    /// How many lines there are, without the headings.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.own.len() + part.listed.count).sum()
    }

    /// The headings.
    pub(super) fn headings(&self) -> String {
        let headings = self.columns.iter().map(|(_, heading, _)| (*heading).to_string());
        self.line("USER", headings)
    }

    /// Lines that are shown: a line for each link before its rows.
    pub(super) fn lines(&self, which: Range<usize>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut before = 0;
        for Part { own, rows, listed } in &self.parts {
            let here = |at: usize| which.contains(&(before + at));
            lines.extend(
                own.iter().enumerate().filter(|(at, _)| here(*at)).map(|(_, it)| it.clone()),
            );
            before += own.len();
            let skipped = which.start.saturating_sub(before);
            let shown = which.end.saturating_sub(before).saturating_sub(skipped);
            for (at, depth) in listed.shown.iter().skip(skipped).take(shown) {
                lines.push(self.row(&listed.counted(*at, &rows[*at]), *depth));
            }
            before += listed.count;
        }
        lines
    }

    fn row(&self, row: &Row<'_>, depth: usize) -> String {
        let called = shown(row.name);
        let called = match row.kind {
            Kind::Group => format!("{}[{called}]", "  ".repeat(depth)),
            _ => format!("{}{called}", "  ".repeat(depth)),
        };
        let cells = self.columns.iter().map(|(column, _, _)| cell_of(row, *column));
        self.line(&called, cells).trim_end().to_string()
    }

    fn line(&self, first: &str, cells: impl Iterator<Item = String>) -> String {
        let mut line = format!("  {}", cell(first, self.name, Side::Left));
        for (text, (_, _, width)) in cells.zip(&self.columns) {
            line.push_str("  ");
            line.push_str(&cell(&text, *width, Side::Right));
        }
        line
    }
}

/// The whole table, none of its lines wider than `wide` columns of a terminal.
pub(super) fn live_table(status: &Status, wide: usize) -> String {
    if status.links.is_empty() {
        return "nothing is shaped here; `shaper apply` does it\n".to_string();
    }
    let table = Table::new(status, &Order::default(), wide, usize::MAX);
    let all = std::iter::once(table.headings()).chain(table.lines(0..usize::MAX));
    all.map(|line| line + "\n").collect()
}

/// The link's own line: `eth0  up 482mbit of 950mbit, 51%  down …`.
fn total(device: &Device<'_>) -> String {
    let mut line = device.name.to_string();
    let ways =
        [("up", device.rate_up, device.both.up), ("down", device.rate_down, device.both.down)];
    for (way, rate, now) in ways {
        if let (Some(rate), Some(now)) = (rate, now) {
            let (now_bit, percent) = (measured(now.now_bit), now.of_ceil_percent);
            line.push_str(&format!("  {way} {now_bit} of {}, {percent}%", words::limit(rate)));
        }
    }
    let (queue, drops) = (device.both.queue_ms(), device.both.drops_in_1000());
    if queue > 0 {
        line.push_str(&format!("  queue {queue}ms"));
    }
    if drops > 0 {
        line.push_str(&format!("  drops/s {}", thousandths(drops)));
    }
    line
}

/// What a row has in a column.
fn cell_of(row: &Row<'_>, column: Column) -> String {
    let dash = || "-".to_string();
    let rate = |now: Option<&Now>| now.map_or_else(dash, |now| measured(now.now_bit));
    let of_both = |number: String| match row.both.each().next() {
        Some(_) => number,
        None => dash(),
    };
    match column {
        Column::Up => rate(row.both.up),
        Column::Down => rate(row.both.down),
        Column::OfCap => of_both(format!("{}%", row.both.of_cap())),
        Column::Borrowed => of_both(format!("{}%", row.both.borrowed())),
        Column::Queue => of_both(format!("{}ms", row.both.queue_ms())),
        Column::Drops => of_both(thousandths(row.both.drops_in_1000())),
        Column::Processes => row.processes.map_or_else(dash, |count| count.to_string()),
        Column::Name => row.name.to_string(),
    }
}

/// `0`, `0.3`, `12`: what is more than nothing is not shown as nothing.
fn thousandths(number: u64) -> String {
    match (number / 1000, number.div_ceil(100)) {
        (0, 0) => "0".to_string(),
        (0..10, tenths) => format!("{}.{}", tenths / 10, tenths % 10),
        (whole, _) => whole.to_string(),
    }
}
