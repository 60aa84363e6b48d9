//! The rows of a report of who uses the links now: both directions of a link in one row for each
//! user and group, unsorted.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::report::{Link, Now, Status};

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
    /// The default class, the unshaped one, or the retired ones.
    Pool,
}

/// One user, group or pool of a link, both ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub kind: Kind,
    pub name: &'a str,
    pub classid: &'a str,
    /// The group above it; `None`: directly below the link.
    pub group: Option<&'a str>,
    pub both: Both<'a>,
    pub processes: Option<usize>,
}

/// What leaves and what arrives. `None`: the link does not shape that direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Both<'a> {
    pub up: Option<&'a Now>,
    pub down: Option<&'a Now>,
}

/// One link with its rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Device<'a> {
    pub name: &'a str,
    /// Where in `rows` each is, by class and name, once that was asked for: a user has the same
    /// class both ways.
    places: OnceCell<BTreeMap<(&'a str, &'a str), usize>>,
    pub rate_up: Option<u64>,
    pub rate_down: Option<u64>,
    pub both: Both<'a>,
    pub warnings: Vec<&'a str>,
    pub rows: Vec<Row<'a>>,
}

/// A column of the table, by which rows are sorted, too: numbers from the largest on, names from a
/// to z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
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
    pub sort: Column,
    /// All users of a link in one list, without their groups.
    pub flat: bool,
    /// Only rows with this in their name, in small letters; a group stays with its members.
    pub filter: String,
}

impl<'a> Both<'a> {
    pub(super) fn each(self) -> impl Iterator<Item = &'a Now> {
        [self.up, self.down].into_iter().flatten()
    }

    pub(super) fn most(self, of: fn(&Now) -> u64) -> u64 {
        self.each().map(of).max().unwrap_or(0)
    }

    /// The fuller direction counts.
    pub(super) fn of_cap(self) -> u64 {
        self.most(|now| now.of_ceil_percent)
    }

    /// Of the direction with more packets.
    pub(super) fn borrowed(self) -> u8 {
        self.each().max_by_key(|now| now.now_packets).map_or(0, |now| now.borrowed_percent)
    }

    pub(super) fn queue_ms(self) -> u64 {
        self.most(|now| now.queue_ms)
    }

    pub(super) fn drops_in_1000(self) -> u64 {
        self.each().map(|now| now.drops_in_1000).sum()
    }
}

/// The links of the report with their rows, unsorted.
pub(super) fn devices(status: &Status) -> Vec<Device<'_>> {
    let mut devices: Vec<Device<'_>> = Vec::new();
    for link in &status.links {
        let is_up = link.direction == "egress";
        let at = devices.iter().position(|device| device.name == link.dev);
        let at = at.unwrap_or_else(|| {
            devices.push(Device { name: &link.dev, ..Device::default() });
            devices.len() - 1
        });
        let device = &mut devices[at];
        let (rate, now) = match is_up {
            true => (&mut device.rate_up, &mut device.both.up),
            false => (&mut device.rate_down, &mut device.both.down),
        };
        (*rate, *now) = (Some(link.rate_bit), link.now.as_ref());
        device.warnings.extend(link.warnings.iter().map(String::as_str));
        device.add(rows(link), is_up);
    }
    devices
}

impl<'a> Device<'a> {
    /// Adds the rows of one direction, or their numbers to those that are there already of the
    /// other direction.
    fn add(&mut self, rows: Vec<Row<'a>>, is_up: bool) {
        if self.rows.is_empty() && is_up {
            self.rows = rows;
            return;
        }
        let known = self.rows.len();
        for (at, row) in rows.into_iter().enumerate() {
            let Both { up: now, .. } = row.both;
            let is_here = |other: &Row<'_>| other.key() == row.key();
            // Most are in the same place both ways.
            let at = match self.rows.get(at).filter(|_| at < known).is_some_and(is_here) {
                true => at,
                false => match self.place_of(&row, known) {
                    Some(at) => at,
                    None => {
                        self.rows.push(Row { both: Both::default(), ..row });
                        self.rows.len() - 1
                    }
                },
            };
            let both = &mut self.rows[at].both;
            match is_up {
                true => both.up = now,
                false => both.down = now,
            }
        }
    }

    /// Where a row is among the first `known`.
    fn place_of(&self, row: &Row<'a>, known: usize) -> Option<usize> {
        let places = self.places.get_or_init(|| {
            let rows = self.rows.iter().take(known).enumerate();
            rows.map(|(at, row)| (row.key(), at)).collect()
        });
        places.get(&row.key()).copied()
    }
}

/// The rows of one direction, in the field for what leaves.
fn rows(link: &Link) -> Vec<Row<'_>> {
    fn row<'a>(kind: Kind, name: &'a str, classid: &'a str, now: &'a Option<Now>) -> Row<'a> {
        let both = Both { up: now.as_ref(), down: None };
        Row { kind, name, classid, group: None, both, processes: None }
    }
    // A report of one group lacks what is above it.
    let groups: BTreeSet<&str> = link.groups.iter().map(|of| of.group.as_str()).collect();
    let known =
        |name: &'_ Option<String>| name.as_deref().and_then(|name| groups.get(name).copied());
    let mut rows = Vec::with_capacity(link.groups.len() + link.users.len() + 2);
    for group in &link.groups {
        let of = row(Kind::Group, &group.group, &group.classid, &group.class.now);
        rows.push(Row { group: known(&group.parent), processes: group.processes, ..of });
    }
    for user in &link.users {
        let of = row(Kind::User, &user.user, &user.classid, &user.class.now);
        let processes = (user.source != "class").then_some(user.processes);
        rows.push(Row { group: known(&user.group), processes, ..of });
    }
    for (name, pool) in [("(default)", &link.default), ("(unshaped)", &link.unshaped)] {
        let pool = pool.as_ref();
        rows.extend(pool.map(|pool| row(Kind::Pool, name, &pool.classid, &pool.class.now)));
    }
    let retired = link.retired.iter();
    rows.extend(retired.map(|it| row(Kind::Pool, "(retired)", &it.classid, &it.class.now)));
    rows
}

impl Order {
    /// Whether a row is one of those that are to be shown.
    pub(super) fn fits(&self, row: &Row<'_>) -> bool {
        self.filter.is_empty() || row.name.to_lowercase().contains(&self.filter)
    }

    /// By what rows are sorted, from the largest on.
    pub(super) fn number(&self, row: &Row<'_>) -> u64 {
        let bits = |now: Option<&Now>| now.map_or(0, |now| now.now_bit);
        match self.sort {
            Column::Up => bits(row.both.up),
            Column::Down => bits(row.both.down),
            Column::OfCap => row.both.of_cap(),
            Column::Borrowed => row.both.borrowed().into(),
            Column::Queue => row.both.queue_ms(),
            Column::Drops => row.both.drops_in_1000(),
            Column::Processes => row.processes.unwrap_or(0) as u64,
            Column::Name => 0,
        }
    }
}

impl<'a> Row<'a> {
    /// What both directions of a user have in common.
    fn key(&self) -> (&'a str, &'a str) {
        (self.classid, self.name)
    }
}
