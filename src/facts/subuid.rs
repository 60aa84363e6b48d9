//! Subordinate uids (subuid(5)): ranges of uids that an account may give its processes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::tree::UidRange;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subuids {
    /// The uids of the line: the second field is the first of them, the third their number.
    pub range: UidRange,
    /// The account as the file has it: a name or a number.
    pub written: String,
    /// The account's uid; `None`: NSS was not asked, or knows no such account.
    pub owner: Option<u32>,
}

/// The whole file. Lines may overlap: of the lines with a uid the narrowest decides, because it
/// says more (LXD gives root a thousand million uids, which contain the ranges of others), and of
/// equally narrow ones the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Subuids>", into = "Vec<Subuids>")]
pub struct SubordinateUids(Arc<Table>);

/// Behind an `Arc`: accounts are copied for each apply, and the file may have 60,000 lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    lines: Vec<Subuids>,
    /// The uids about which each line decides, ascending and without overlap, with the index of the
    /// line.
    pieces: Vec<(UidRange, usize)>,
}

impl From<Vec<Subuids>> for SubordinateUids {
    fn from(lines: Vec<Subuids>) -> Self {
        let pieces = pieces(&lines);
        SubordinateUids(Arc::new(Table { lines, pieces }))
    }
}

impl From<SubordinateUids> for Vec<Subuids> {
    fn from(subuids: SubordinateUids) -> Self {
        subuids.0.lines.clone()
    }
}

impl SubordinateUids {
    /// The line that decides about `uid`, if a line has it.
    pub fn holding(&self, uid: u32) -> Option<&Subuids> {
        let after = self.0.pieces.partition_point(|(range, _)| range.first <= uid);
        let (range, line) = self.0.pieces.get(after.checked_sub(1)?)?;
        self.0.lines.get(*line).filter(|_| range.contains(uid))
    }

    /// The uids about which each line decides, ascending and without overlap.
    pub fn pieces(&self) -> impl Iterator<Item = (UidRange, &Subuids)> {
        self.0.pieces.iter().filter_map(|(range, line)| Some((*range, self.0.lines.get(*line)?)))
    }

    /// Sets the owners of the lines that name one of these accounts. This does not wait until a
    /// process runs as such a uid, since a socket can have a subordinate uid as its owner (fchown
    /// in a user namespace) though no process ever ran as it.
    pub fn name_owners(&mut self, accounts: &BTreeMap<u32, Account>) {
        let uids: BTreeMap<&str, u32> =
            accounts.iter().map(|(uid, account)| (account.name.as_str(), *uid)).collect();
        let open = self.0.lines.iter().enumerate().filter(|(_, line)| line.owner.is_none());
        let named: Vec<(usize, u32)> =
            open.filter_map(|(at, line)| Some((at, *uids.get(line.written.as_str())?))).collect();
        if named.is_empty() {
            return;
        }
        let table = Arc::make_mut(&mut self.0);
        for (at, owner) in named {
            if let Some(line) = table.lines.get_mut(at) {
                line.owner = Some(owner);
            }
        }
    }

    /// Replaces the lines, because the file was read again. Owners that are known already stay
    /// known.
    pub fn replace(&mut self, now: SubordinateUids) {
        let key = |line: &Subuids| (line.range, line.written.clone());
        let known: BTreeMap<_, u32> =
            self.0.lines.iter().filter_map(|line| Some((key(line), line.owner?))).collect();
        let mut lines: Vec<Subuids> = now.into();
        for line in lines.iter_mut().filter(|line| line.owner.is_none()) {
            line.owner = known.get(&key(line)).copied();
        }
        *self = lines.into();
    }

    /// The lines whose owner is known and one of these.
    pub fn of(&self, owners: impl Fn(u32) -> bool) -> impl Iterator<Item = &Subuids> {
        self.0.lines.iter().filter(move |line| line.owner.is_some_and(&owners))
    }

    /// Takes in lines of another value, with the owners that it knows.
    pub fn learn(&mut self, mut news: Vec<Subuids>) {
        news.retain(|line| self.holding(line.range.first) != Some(line));
        if news.is_empty() {
            return;
        }
        let mut lines = self.0.lines.clone();
        let key = |line: &Subuids| (line.range, line.written.clone());
        let mut at: BTreeMap<_, usize> =
            lines.iter().enumerate().map(|(at, line)| (key(line), at)).collect();
        for line in news {
            match at.get(&key(&line)).and_then(|at| lines.get_mut(*at)) {
                Some(known) => known.owner = line.owner.or(known.owner),
                None => {
                    at.insert(key(&line), lines.len());
                    lines.push(line);
                }
            }
        }
        *self = lines.into();
    }
}

/// The uids about which each line decides: the narrowest line takes its range first, and each other
/// what is left of its own.
fn pieces(lines: &[Subuids]) -> Vec<(UidRange, usize)> {
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|at| lines.get(*at).map(|line| line.range.last - line.range.first));
    let mut taken: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
    for at in order {
        let Some(UidRange { first, last }) = lines.get(at).map(|line| line.range) else { continue };
        let mut free = Vec::new();
        let before = taken.range(..first).next_back().map(|(_, (end, _))| *end);
        let mut next = match before {
            Some(end) if end >= first => end.checked_add(1),
            _ => Some(first),
        };
        for (start, (end, _)) in taken.range(first..=last) {
            let Some(from) = next else { break };
            if *start > from {
                free.push((from, *start - 1));
            }
            next = end.checked_add(1).map(|after| after.max(from));
        }
        if let Some(from) = next.filter(|from| *from <= last) {
            free.push((from, last));
        }
        taken.extend(free.into_iter().map(|(first, last)| (first, (last, at))));
    }
    taken.into_iter().map(|(first, (last, at))| (UidRange { first, last }, at)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::NotARange;

    fn line(first: u32, last: u32, owner: Option<u32>) -> Subuids {
        Subuids { range: UidRange { first, last }, written: format!("{owner:?}"), owner }
    }

    fn owner(lines: &SubordinateUids, uid: u32) -> Option<u32> {
        lines.holding(uid)?.owner
    }

    #[test]
    fn a_line_belongs_to_the_account_of_its_name_as_soon_as_one_is_known() {
        let of = |first, name: &str, owner| Subuids {
            written: name.to_string(),
            ..line(first, first + 9, owner)
        };
        let mut lines: SubordinateUids =
            vec![of(100, "ann", None), of(200, "bob", None), of(300, "1001", Some(1001))].into();
        let account = |name: &str| Account { name: name.to_string(), gids: [7].into() };
        lines.name_owners(&[(1001, account("ann")), (1002, account("carol"))].into());
        assert_eq!([105, 205, 305].map(|uid| owner(&lines, uid)), [Some(1001), None, Some(1001)]);
    }

    #[test]
    fn the_narrowest_line_decides() {
        let lxd = line(1_000_000, 1_000_999_999, Some(0));
        let lines: SubordinateUids = vec![lxd, line(1_017_504, 1_083_039, Some(1014))].into();
        assert_eq!(owner(&lines, 1_000_000), Some(0));
        assert_eq!(owner(&lines, 1_017_504), Some(1014));
        assert_eq!(owner(&lines, 1_083_040), Some(0));
        assert_eq!(owner(&lines, 999_999), None);
        assert_eq!(lines.pieces().count(), 3);
    }

    #[test]
    fn an_owner_that_was_found_out_is_not_forgotten() {
        let unknown = Subuids { written: "bob".to_string(), ..line(5, 9, None) };
        let known = Subuids { owner: Some(1002), ..unknown.clone() };
        let mut lines: SubordinateUids = vec![unknown.clone()].into();
        lines.learn(vec![known]);
        lines.learn(vec![unknown, line(20, 29, Some(7))]);
        assert_eq!(owner(&lines, 6), Some(1002));
        assert_eq!(owner(&lines, 20), Some(7));
    }

    #[test]
    fn a_file_that_was_read_again_has_the_lines_it_has_now() {
        let unknown = Subuids { written: "bob".to_string(), ..line(5, 9, None) };
        let known = Subuids { owner: Some(1002), ..unknown.clone() };
        let mut lines: SubordinateUids = vec![known, line(20, 29, Some(7))].into();
        lines.replace(vec![unknown, line(30, 39, Some(8))].into());
        assert_eq!([6, 20, 30].map(|uid| owner(&lines, uid)), [Some(1002), None, Some(8)]);
    }

    #[test]
    fn ranges_print_and_parse() {
        let range = UidRange { first: 7, last: u32::MAX };
        assert_eq!(range.to_string().parse(), Ok(range));
        for bad in ["", "7", "9-7", "a-b", "1-4294967296", "-1"] {
            assert_eq!(bad.parse::<UidRange>(), Err(NotARange), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn every_uid_goes_by_the_narrowest_line_that_holds_it_and_the_first_of_equal_ones(
            ranges in proptest::collection::vec((0_u32..60, 0_u32..30), 0..12),
            high in any::<bool>(),
        ) {
            // The last uids are as good as the first.
            let shift = if high { u32::MAX - 89 } else { 0 };
            let lines: Vec<Subuids> = (0..)
                .zip(&ranges)
                .map(|(owner, (first, more))| line(first + shift, first + more + shift, Some(owner)))
                .collect();
            let subuids = SubordinateUids::from(lines.clone());
            for uid in (0..90).map(|uid| uid + shift) {
                let narrowest = lines
                    .iter()
                    .filter(|line| line.range.contains(uid))
                    .min_by_key(|line| line.range.last - line.range.first);
                prop_assert_eq!(subuids.holding(uid), narrowest);
            }
        }
    }
}
