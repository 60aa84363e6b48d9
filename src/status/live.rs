//! Who uses the links now: both directions of a link in one row for each user and group, in the
//! order of the tree, as `top` and `status --interval` show it.

use std::collections::BTreeMap;

use super::cells::{Side, cell, clipped, wrapped};
use super::report::{Link, Now, Status};
use super::words::{self, measured};
use crate::text::shown;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    Group,
    /// The default class, the unshaped one, or the retired ones.
    Pool,
}

/// One user, group or pool of a link, both ways.
#[derive(Clone, Debug)]
pub(super) struct Row {
    kind: Kind,
    name: String,
    classid: String,
    /// The group above it; `None`: directly below the link.
    group: Option<String>,
    depth: usize,
    both: Both,
    processes: Option<usize>,
}

/// What leaves and what arrives. `None`: the link does not shape that direction.
#[derive(Clone, Copy, Debug, Default)]
struct Both {
    up: Option<Now>,
    down: Option<Now>,
}

/// One link with its rows.
#[derive(Clone, Debug, Default)]
struct Device {
    name: String,
    /// Where in `rows` each is, by class and name: a user has the same class both ways.
    places: BTreeMap<(String, String), usize>,
    rate_up: Option<u64>,
    rate_down: Option<u64>,
    both: Both,
    warnings: Vec<String>,
    rows: Vec<Row>,
}

/// By what rows are sorted: numbers from the largest on, names from a to z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Up,
    Down,
    OfCap,
    Borrowed,
    Queue,
    Drops,
    Processes,
    Name,
}

/// Which rows are shown, and in which order.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    pub sort: Sort,
    /// All users of a link in one list, without their groups.
    pub flat: bool,
    /// Only rows with this in their name, in small letters; a group stays with its members.
    pub filter: String,
}

/// A column of the table, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Up,
    Down,
    OfCap,
    Borrowed,
    Queue,
    Drops,
    Processes,
}

/// The columns, each with its heading and how wide it is.
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

/// The narrowest column of names, before another column goes.
const LEAST_NAME: usize = 12;
/// The widest column of names.
const MOST_NAME: usize = 40;

impl Both {
    fn each(self) -> impl Iterator<Item = Now> {
        [self.up, self.down].into_iter().flatten()
    }

    fn most(self, of: fn(&Now) -> u64) -> u64 {
        self.each().map(|now| of(&now)).max().unwrap_or(0)
    }

    /// The fuller direction counts.
    fn of_cap(self) -> u64 {
        self.most(|now| now.of_ceil_percent)
    }

    /// Of the direction with more packets.
    fn borrowed(self) -> u8 {
        self.each().max_by_key(|now| now.now_packets).map_or(0, |now| now.borrowed_percent)
    }

    fn queue_ms(self) -> u64 {
        self.most(|now| now.queue_ms)
    }

    fn drops_in_1000(self) -> u64 {
        self.each().map(|now| now.drops_in_1000).sum()
    }
}

/// Whether a link, a group or a user uses more than so many percent of what it may.
pub fn is_over(status: &Status, percent: u64) -> bool {
    let over = |now: Option<Now>| now.is_some_and(|now| now.of_ceil_percent > percent);
    status.links.iter().any(|link| {
        over(link.now)
            || link.users.iter().any(|user| over(user.class.now))
            || link.groups.iter().any(|group| over(group.class.now))
    })
}

/// The links of the report with their rows, unsorted.
fn devices(status: &Status) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for link in &status.links {
        let is_up = link.direction == "egress";
        let at = devices.iter().position(|device| device.name == link.dev);
        let at = at.unwrap_or_else(|| {
            devices.push(Device { name: link.dev.clone(), ..Device::default() });
            devices.len() - 1
        });
        let device = &mut devices[at];
        let (rate, now) = match is_up {
            true => (&mut device.rate_up, &mut device.both.up),
            false => (&mut device.rate_down, &mut device.both.down),
        };
        (*rate, *now) = (Some(link.rate_bit), link.now);
        device.warnings.extend(link.warnings.clone());
        for row in rows(link) {
            device.add(row, is_up);
        }
    }
    devices
}

impl Device {
    /// Adds a row, or its numbers to the row that is there already of the other direction.
    fn add(&mut self, row: Row, is_up: bool) {
        let now = row.both.up;
        let key = (row.classid.clone(), row.name.clone());
        let at = *self.places.entry(key).or_insert(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(Row { both: Both::default(), ..row });
        }
        let both = &mut self.rows[at].both;
        match is_up {
            true => both.up = now,
            false => both.down = now,
        }
    }
}

/// The rows of one direction, in the field for what leaves.
fn rows(link: &Link) -> Vec<Row> {
    let row = |kind, name: &str, classid: &str, now| Row {
        kind,
        name: name.to_string(),
        classid: classid.to_string(),
        group: None,
        depth: 0,
        both: Both { up: now, down: None },
        processes: None,
    };
    // A report of one group lacks what is above it.
    let known = |name: &Option<String>| {
        name.clone().filter(|name| link.groups.iter().any(|of| of.group == *name))
    };
    let mut rows = Vec::new();
    for group in &link.groups {
        let of = row(Kind::Group, &group.group, &group.classid, group.class.now);
        rows.push(Row { group: known(&group.parent), ..of });
    }
    for user in &link.users {
        let of = row(Kind::User, &user.user, &user.classid, user.class.now);
        let processes = (user.source != "class").then_some(user.processes);
        rows.push(Row { group: known(&user.group), processes, ..of });
    }
    for (name, pool) in [("(default)", &link.default), ("(unshaped)", &link.unshaped)] {
        let pool = pool.as_ref().map(|pool| row(Kind::Pool, name, &pool.classid, pool.class.now));
        rows.extend(pool);
    }
    rows.extend(
        link.retired.iter().map(|it| row(Kind::Pool, "(retired)", &it.classid, it.class.now)),
    );
    rows
}

impl Order {
    /// The rows that are shown, in order, each as deep as it is in the tree.
    fn sorted(&self, rows: &[Row]) -> Vec<Row> {
        let mut shown = Vec::new();
        match self.flat {
            true => {
                let mut users: Vec<&Row> =
                    rows.iter().filter(|row| row.kind == Kind::User && self.fits(row)).collect();
                self.sort(&mut users);
                shown.extend(users.into_iter().cloned());
            }
            false => self.below(rows, None, 0, &mut shown),
        }
        shown.extend(rows.iter().filter(|row| row.kind == Kind::Pool && self.fits(row)).cloned());
        shown
    }

    fn fits(&self, row: &Row) -> bool {
        row.name.to_lowercase().contains(&self.filter)
    }

    /// What is directly below a group or the link, each group with all that is below it. A group
    /// of which nothing fits is left out, members of one that fits are not.
    fn below(&self, rows: &[Row], group: Option<&Row>, depth: usize, shown: &mut Vec<Row>) {
        let here = |row: &&Row| {
            row.kind != Kind::Pool && row.group.as_ref() == group.map(|group| &group.name)
        };
        let mut here: Vec<&Row> = rows.iter().filter(here).collect();
        self.sort(&mut here);
        for row in here {
            if row.kind == Kind::User {
                if self.fits(row) {
                    shown.push(Row { depth, ..row.clone() });
                }
                continue;
            }
            let at = shown.len();
            match self.fits(row) {
                true => Order { filter: String::new(), ..self.clone() }.below(
                    rows,
                    Some(row),
                    depth + 1,
                    shown,
                ),
                false => self.below(rows, Some(row), depth + 1, shown),
            }
            if shown.len() > at || self.fits(row) {
                let members = rows.iter().filter(|it| is_below(rows, it, &row.name));
                let processes = members.filter_map(|it| it.processes).sum();
                let group = Row { depth, processes: Some(processes), ..row.clone() };
                shown.insert(at, group);
            }
        }
    }

    fn sort(&self, rows: &mut [&Row]) {
        let bits = |now: Option<Now>| now.map_or(0, |now| now.now_bit);
        let number = |row: &Row| match self.sort {
            Sort::Up => bits(row.both.up),
            Sort::Down => bits(row.both.down),
            Sort::OfCap => row.both.of_cap(),
            Sort::Borrowed => row.both.borrowed().into(),
            Sort::Queue => row.both.queue_ms(),
            Sort::Drops => row.both.drops_in_1000(),
            Sort::Processes => row.processes.unwrap_or(0) as u64,
            Sort::Name => 0,
        };
        rows.sort_by(|a, b| number(b).cmp(&number(a)).then_with(|| a.name.cmp(&b.name)));
    }
}

/// Whether a row is below a group, at whatever depth.
fn is_below(rows: &[Row], row: &Row, group: &str) -> bool {
    let Some(above) = &row.group else { return false };
    let parent = || rows.iter().find(|it| it.kind == Kind::Group && it.name == *above);
    above == group || parent().is_some_and(|parent| is_below(rows, parent, group))
}

/// The lines of the table, none wider than `wide` columns of a terminal: the headings, and for each
/// link a line of its own before its rows.
pub(super) fn lines(status: &Status, order: &Order, wide: usize) -> (String, Vec<String>) {
    let columns = columns(wide);
    let fixed: usize = columns.iter().map(|(_, _, width)| width + 2).sum();
    let name = wide.saturating_sub(fixed + 2).min(MOST_NAME);
    let line = |first: &str, cells: Vec<String>| {
        let mut line = format!("  {}", cell(first, name, Side::Left));
        for (text, (_, _, width)) in cells.iter().zip(&columns) {
            line.push_str("  ");
            line.push_str(&cell(text, *width, Side::Right));
        }
        line
    };
    let headings = columns.iter().map(|(_, heading, _)| (*heading).to_string()).collect();
    let headings = line("USER", headings);
    let mut lines = Vec::new();
    for device in devices(status) {
        lines.push(clipped(&total(&device), wide));
        for warning in &device.warnings {
            let warning = format!("! {}", shown(warning));
            lines.extend(
                wrapped(&warning, wide.saturating_sub(2)).iter().map(|it| format!("  {it}")),
            );
        }
        for row in order.sorted(&device.rows) {
            let text = columns.iter().map(|(column, _, _)| row.cell(*column)).collect();
            let called = shown(&row.name);
            let called = match row.kind {
                Kind::Group => format!("{}[{called}]", "  ".repeat(row.depth)),
                _ => format!("{}{called}", "  ".repeat(row.depth)),
            };
            lines.push(line(&called, text).trim_end().to_string());
        }
    }
    (headings, lines)
}

/// The whole table, none of its lines wider than `wide` columns of a terminal.
pub fn live_table(status: &Status, wide: usize) -> String {
    if status.links.is_empty() {
        return "nothing is shaped here; `shaper apply` does it\n".to_string();
    }
    let (headings, lines) = lines(status, &Order::default(), wide);
    let all = std::iter::once(headings).chain(lines);
    all.map(|line| line + "\n").collect()
}

/// What fits beside names of a usable width.
fn columns(wide: usize) -> Vec<(Column, &'static str, usize)> {
    let mut columns = COLUMNS.to_vec();
    for goes in GO_FIRST {
        let taken: usize = columns.iter().map(|(_, _, width)| width + 2).sum();
        if taken + 2 + LEAST_NAME <= wide {
            break;
        }
        columns.retain(|(column, ..)| *column != goes);
    }
    columns
}

/// The link's own line: `eth0  up 482mbit of 950mbit, 51%  down …`.
fn total(device: &Device) -> String {
    let mut line = device.name.clone();
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

impl Row {
    fn cell(&self, column: Column) -> String {
        let dash = || "-".to_string();
        let rate = |now: Option<Now>| now.map_or_else(dash, |now| measured(now.now_bit));
        let of_both = |number: String| match self.both.each().next() {
            Some(_) => number,
            None => dash(),
        };
        match column {
            Column::Up => rate(self.both.up),
            Column::Down => rate(self.both.down),
            Column::OfCap => of_both(format!("{}%", self.both.of_cap())),
            Column::Borrowed => of_both(format!("{}%", self.both.borrowed())),
            Column::Queue => of_both(format!("{}ms", self.both.queue_ms())),
            Column::Drops => of_both(thousandths(self.both.drops_in_1000())),
            Column::Processes => self.processes.map_or_else(dash, |count| count.to_string()),
        }
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
