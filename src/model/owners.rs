//! The owner of each uid, as a table that the kernel's maps can have: the matcher's answers for
//! processes that no unit's line claims and that `run` and `attach` put nowhere. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::facts::{Accounts, SubordinateUids};
use crate::tree::{Key, Owner};

use super::Matcher;

/// The answers of [`Matcher::claim`] for all uids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Uids with an answer of their own, which goes before that of any range; `None`: nobody claims
    /// the uid, though it lies in a range. Accounts of `everyone` and of groups are here if NSS has
    /// told of them or they run.
    pub accounts: BTreeMap<u32, Option<Owner>>,
    /// The owners of all other uids, ascending and without overlap. Nobody claims a uid that is in
    /// no range.
    pub ranges: Vec<(RangeInclusive<u32>, Whose)>,
}

/// Who claims the uids of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One owner claims the whole range.
    Owner(Owner),
    /// `everyone` claims each uid by itself, as [`Owner::Uid`]. None of them is known to run, so
    /// none has a class yet.
    Newcomers,
}

impl Owners {
    /// The owner of a uid; `None`: nobody claims it.
    pub fn of(&self, uid: u32) -> Option<Owner> {
        if let Some(owner) = self.accounts.get(&uid) {
            return owner.clone();
        }
        match self.range_of(uid)? {
            Whose::Owner(owner) => Some(owner.clone()),
            Whose::Newcomers => Some(Owner::Uid(uid)),
        }
    }

    fn range_of(&self, uid: u32) -> Option<&Whose> {
        let after = self.ranges.partition_point(|(range, _)| *range.start() <= uid);
        let (range, whose) = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(&uid).then_some(whose)
    }
}

impl Matcher {
    /// The table of all uids.
    pub fn owners(&self, accounts: &Accounts) -> Owners {
        let single = |(range, _): &&(RangeInclusive<u32>, Key)| range.start() == range.end();
        let singles: Vec<u32> =
            self.uids.iter().filter(single).map(|(range, _)| *range.start()).collect();
        let mut owners =
            Owners { accounts: BTreeMap::new(), ranges: self.ranges(accounts, &singles) };
        let known = accounts.by_uid.keys().chain(&accounts.running);
        for uid in singles.iter().chain(known) {
            let owner = self.claim(*uid, None, accounts).map(|claimed| claimed.owner());
            if owner != owners.of(*uid) || owners.range_of(*uid) == Some(&Whose::Newcomers) {
                owners.accounts.insert(*uid, owner);
            }
        }
        owners
    }

    /// Who claims the uids that NSS does not know. Uids in `singles`, which lines name one by one,
    /// end no range: it goes on behind them.
    fn ranges(&self, accounts: &Accounts, singles: &[u32]) -> Vec<(RangeInclusive<u32>, Whose)> {
        let all_single = |first: u32, last: u32| {
            let before = |uid: u32| singles.partition_point(|single| *single < uid);
            let behind = last.checked_add(1).map_or(singles.len(), before);
            (behind - before(first)) as u64 == u64::from(last - first) + 1
        };
        let mut ranges: Vec<(RangeInclusive<u32>, Whose)> = Vec::new();
        let mut borders = self.borders(&accounts.subuids).into_iter().peekable();
        while let Some(first) = borders.next() {
            let last = borders.peek().map_or(u32::MAX, |next| next - 1);
            let Some(whose) = self.whose(first, accounts).filter(|_| !all_single(first, last))
            else {
                continue;
            };
            let goes_on = |end: u32| first == end + 1 || all_single(end + 1, first - 1);
            match ranges.last_mut().filter(|(range, it)| *it == whose && goes_on(*range.end())) {
                Some((range, _)) => *range = *range.start()..=last,
                None => ranges.push((first..=last, whose)),
            }
        }
        ranges
    }

    /// Who claims a uid that NSS does not know, and all uids from it up to the next border.
    fn whose(&self, uid: u32, accounts: &Accounts) -> Option<Whose> {
        if let Some(key) = self.line(uid) {
            return Some(Whose::Owner(Owner::User(key.clone())));
        }
        // Root is claimed only by a line that names it.
        let claimed = self.claim_unnamed(uid, accounts).filter(|_| uid != 0)?;
        Some(match accounts.subuids.holding(uid) {
            Some(_) => Whose::Owner(claimed.owner()),
            None => Whose::Newcomers,
        })
    }

    /// The borders: uids for which the answer may differ from that for the uid before.
    fn borders(&self, subuids: &SubordinateUids) -> BTreeSet<u32> {
        let lines = self.uids.iter().map(|(range, _)| range);
        let everyone = self.everyone.iter().flat_map(|(ranges, _)| ranges);
        let ranges = lines.chain(everyone).map(|range| (*range.start(), *range.end()));
        let subuids = subuids.pieces().map(|(range, _)| (range.first, range.last));
        let edges =
            ranges.chain(subuids).flat_map(|(first, last)| [Some(first), last.checked_add(1)]);
        [0, 1].into_iter().chain(edges.flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::super::Units;
    use super::*;
    use crate::facts::{Account, Subuids};
    use crate::tree::{Group, UidRange};

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    /// The tests use uids below this one, or with `shift` as many at the end of all uids.
    const UIDS: u32 = 60;

    prop_compose! {
        fn matcher(shift: u32)(
            lines in btree_map(0..UIDS, 0_u32..4, 0..8),
            groups in vec(0_u32..3, 0..3),
            everyone in proptest::option::of((vec((0..UIDS, 0_u32..20), 1..3), any::<bool>())),
        ) -> Matcher {
            let mut uids: Vec<(RangeInclusive<u32>, Key)> = Vec::new();
            for (first, more) in lines {
                // Ranges must not overlap.
                if uids.last().is_none_or(|(before, _)| *before.end() < first + shift) {
                    let last = (first + more).min(UIDS) + shift;
                    uids.push((first + shift..=last, key(&format!("line{}", first % 3))));
                }
            }
            let groups = groups.into_iter().map(|gid| (gid, key(&format!("group{gid}"))));
            Matcher {
                units: Units::default(),
                uids,
                groups: groups.collect(),
                everyone: everyone.map(|(ranges, group)| {
                    let ranges = ranges.into_iter().map(|(first, more)| {
                        first + shift..=(first + more).min(UIDS) + shift
                    });
                    (ranges.collect(), group.then_some(Group::Everyone))
                }),
                proxied: BTreeMap::new(),
            }
        }
    }

    prop_compose! {
        fn accounts(shift: u32)(
            running in btree_set(0..UIDS, 0..10),
            known in btree_map(0..UIDS, btree_set(0_u32..3, 0..2), 0..10),
            subuids in vec((0..UIDS, 0_u32..20, proptest::option::of(0..UIDS)), 0..5),
        ) -> Accounts {
            let subuids: Vec<Subuids> = subuids
                .into_iter()
                .map(|(first, more, owner)| Subuids {
                    range: UidRange { first: first + shift, last: (first + more).min(UIDS) + shift },
                    written: "somebody".to_string(),
                    owner: owner.map(|owner| owner + shift),
                })
                .collect();
            let account = |gids| Account { name: "somebody".to_string(), gids };
            Accounts {
                running: running.into_iter().map(|uid| uid + shift).collect(),
                by_uid: known.into_iter().map(|(uid, gids)| (uid + shift, account(gids))).collect(),
                subuids: subuids.into(),
                ..Accounts::default()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn the_table_says_of_every_uid_what_the_matcher_says(
            (matcher, accounts) in prop_oneof![Just(0), Just(u32::MAX - UIDS)]
                .prop_flat_map(|shift| (matcher(shift), accounts(shift))),
        ) {
            let owners = matcher.owners(&accounts);
            let ends = (0..=UIDS).flat_map(|uid| [uid, u32::MAX - uid]);
            for uid in ends.chain([100_000, 1 << 31]) {
                let claimed = matcher.claim(uid, None, &accounts).map(|claimed| claimed.owner());
                prop_assert_eq!(owners.of(uid), claimed, "uid {}", uid);
            }
            for pair in owners.ranges.windows(2) {
                prop_assert!(pair[0].0.end() < pair[1].0.start());
            }
            // Who has a class by his own number can be looked up by it.
            for uid in &accounts.running {
                if matcher.claim(*uid, None, &accounts).map(|c| c.owner()) == Some(Owner::Uid(*uid)) {
                    prop_assert!(
                        owners.accounts.contains_key(uid)
                            || owners.range_of(*uid) != Some(&Whose::Newcomers)
                    );
                }
            }
        }
    }

    #[test]
    fn thousands_of_names_in_a_range_leave_it_whole() {
        let named = |uid: u32| (uid..=uid, key(&format!("user{uid}")));
        let everyone = Some((vec![1_000..=u32::MAX - 1], None));
        let uids: Vec<_> = (2_000..12_000).step_by(7).map(named).collect();
        let owners = Matcher { uids, everyone, ..Matcher::default() }.owners(&Accounts::default());
        assert_eq!(owners.accounts.len(), 1_429);
        assert_eq!(owners.ranges, [(1_000..=u32::MAX - 1, Whose::Newcomers)]);
    }

    #[test]
    fn names_that_were_cut_out_of_a_line_of_numbers_leave_it_whole() {
        let uids = vec![(10..=19, key("a")), (20..=20, key("b")), (21..=29, key("a"))];
        let owners = Matcher { uids, ..Matcher::default() }.owners(&Accounts::default());
        assert_eq!(owners.ranges, [(10..=29, Whose::Owner(Owner::User(key("a"))))]);
        assert_eq!(owners.of(20), Some(Owner::User(key("b"))));
    }
}
