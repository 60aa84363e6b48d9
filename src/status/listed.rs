//! In which order the rows of a link are shown: sorted, each below its group, and those that nobody
//! sees in no order, since sorting 10,000 names takes longer than reading their counters.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::rows::{Kind, Order, Row};

/// The rows that are shown.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The first of them, each with how deep it is in the tree.
    pub shown: Vec<(usize, usize)>,
    /// How many they are all in all.
    pub count: usize,
    /// The processes of all members of each group.
    processes: BTreeMap<usize, usize>,
}

/// The rows, by what they are below.
struct Rows<'a> {
    rows: &'a [Row<'a>],
    /// The members of each group.
    below: BTreeMap<usize, Vec<usize>>,
    /// What is directly below the link.
    top: Vec<usize>,
    order: &'a Order,
    /// So many are to be in order.
    end: usize,
}

impl Listed {
    /// Of all rows of a link the first `end` that fit.
    pub(super) fn of(rows: &[Row<'_>], order: &Order, end: usize) -> Listed {
        let is_group = |(_, row): &(usize, &Row<'_>)| row.kind == Kind::Group;
        let groups = rows.iter().enumerate().filter(is_group);
        let groups: BTreeMap<&str, usize> = groups.map(|(at, row)| (row.name, at)).collect();
        let above = |row: &Row<'_>| row.group.and_then(|name| groups.get(name).copied());
        let mut listed = Listed::default();
        let mut tree = Rows { rows, below: BTreeMap::new(), top: Vec::new(), order, end };
        let mut pools = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let mut group = above(row);
            match (row.kind, group) {
                (Kind::Pool, _) => pools.push(at),
                (Kind::Group, _) if order.flat => {}
                (Kind::User, Some(group)) if !order.flat => {
                    tree.below.entry(group).or_default().push(at);
                }
                (Kind::Group, Some(group)) => tree.below.entry(group).or_default().push(at),
                (Kind::User | Kind::Group, _) => tree.top.push(at),
            }
            while let (Some(above_it), Some(count)) = (group, row.processes) {
                *listed.processes.entry(above_it).or_default() += count;
                group = rows.get(above_it).and_then(above);
            }
        }
        let top = std::mem::take(&mut tree.top);
        tree.list(top, 0, !order.filter.is_empty(), &mut listed);
        let fits = |at: &usize| rows.get(*at).is_some_and(|row| order.fits(row));
        pools.into_iter().filter(fits).for_each(|at| listed.push(at, 0, end));
        listed
    }

    /// The row at a place, where it is a group's with the processes of all members.
    pub(super) fn counted<'a>(&self, at: usize, row: &Row<'a>) -> Row<'a> {
        let of_members = || self.processes.get(&at).copied().unwrap_or(0);
        let processes = match row.kind {
            Kind::Group => row.processes.or_else(|| Some(of_members())),
            Kind::User | Kind::Pool => row.processes,
        };
        Row { processes, ..*row }
    }

    fn push(&mut self, at: usize, depth: usize, end: usize) {
        if self.count < end {
            self.shown.push((at, depth));
        }
        self.count += 1;
    }
}

impl Rows<'_> {
    /// Adds members of a group or the link, each group with all that is below it. A group of which
    /// nothing fits is left out, members of one that fits are not. `filtered`: no group above fits.
    fn list(&self, members: Vec<usize>, depth: usize, filtered: bool, listed: &mut Listed) {
        let needed = self.end.saturating_sub(listed.count);
        for at in self.ordered(members, filtered, needed, listed) {
            let row = &self.rows[at];
            let fits = !filtered || self.order.fits(row);
            if row.kind == Kind::User {
                if fits {
                    listed.push(at, depth, self.end);
                }
                continue;
            }
            let before = listed.count;
            listed.push(at, depth, self.end);
            let below = self.below.get(&at).cloned().unwrap_or_default();
            self.list(below, depth + 1, !fits, listed);
            if listed.count == before + 1 && !fits {
                listed.count = before;
                listed.shown.truncate(before);
            }
        }
    }

    /// The members sorted: all of them, or the first `needed` before the others, where each of them
    /// is a line at least.
    fn ordered(
        &self,
        members: Vec<usize>,
        filtered: bool,
        needed: usize,
        listed: &Listed,
    ) -> Vec<usize> {
        if needed == 0 {
            return members;
        }
        let key = |at: usize| {
            let row = listed.counted(at, &self.rows[at]);
            (Reverse(self.order.number(&row)), row.name, at)
        };
        let mut keyed: Vec<_> = members.into_iter().map(key).collect();
        if filtered || needed >= keyed.len() {
            keyed.sort_unstable();
        } else {
            keyed.select_nth_unstable(needed);
            keyed[..needed].sort_unstable();
        }
        keyed.into_iter().map(|(_, _, at)| at).collect()
    }
}
