//! The class of a socket's packets, by the uid that owns the socket or by its cgroup, and of a
//! guest's, by their source: the contents of the maps of the deciding program
//! ([`crate::classify::program`]) and of labels ([`crate::classify::inner`]), as a value.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::cgroup::{Cgroup, Turn};
use super::sources::Source;
use crate::units::ClassId;

/// The kernel's numbers of the four maps of one instance: accounts, ranges, given, sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapIds(pub [u32; 4]);

impl fmt::Display for MapIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [accounts, ranges, given, sources] = self.0;
        write!(f, "{accounts},{ranges},{given},{sources}")
    }
}

/// The classes of all uids that the policy claims, the same on every link. Where an account has an
/// entry of its own, that entry decides, whatever range the uid is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerTable {
    /// Uids with an entry of their own. [`ClassId::NONE`]: nobody claims this uid, though it lies
    /// in a range.
    pub accounts: BTreeMap<u32, ClassId>,
    /// Ranges, as the prefixes that a longest-prefix-match trie holds.
    pub ranges: BTreeMap<UidPrefix, ClassId>,
    /// Networks behind inner links that are labelled by source. [`ClassId::NONE`]: nobody's.
    pub sources: BTreeMap<Source, ClassId>,
    /// Cgroups whose sockets have a class, where no tags are read. Of several above a socket the
    /// deepest decides.
    pub cgroups: BTreeMap<(Cgroup, Turn), ClassId>,
}

impl OwnerTable {
    /// The class of a socket that `uid` owns: what the program finds in the maps.
    pub fn class(&self, uid: u32) -> Option<ClassId> {
        let longest = || (0..=32).rev().find_map(|bits| self.ranges.get(&UidPrefix::of(uid, bits)));
        self.accounts.get(&uid).or_else(longest).copied()
    }

    /// Sends a range of uids to a class, but for those that an earlier call sent to another.
    pub fn add_range(&mut self, range: &RangeInclusive<u32>, class: ClassId) {
        let mut pending = prefixes(range);
        while let Some(prefix) = pending.pop() {
            let covered = (0..=prefix.bits)
                .any(|bits| self.ranges.contains_key(&UidPrefix::of(prefix.uid, bits)));
            if covered {
                continue;
            }
            let taken = self.ranges.range(prefix..).next();
            if prefix.bits < 32 && taken.is_some_and(|(other, _)| prefix.holds(other.uid)) {
                pending.extend(prefix.halves());
            } else {
                self.ranges.insert(prefix, class);
            }
        }
    }

    /// The changes after which `self` is `wanted`, in an order in which each uid has its old class
    /// or its new one at every moment. Entries are set before others are removed: prefixes of one
    /// table never overlap, so the longest that fits is the old table's or the new one's. An
    /// account's entry hides the range that the uid is in, so it is set before the ranges and
    /// removed after them; so is a source's longer prefix before and after a shorter one.
    pub fn changes(&self, wanted: &OwnerTable) -> Vec<OwnerChange> {
        let ranges = differences(&self.ranges, &wanted.ranges, OwnerKey::Prefix);
        let accounts = differences(&self.accounts, &wanted.accounts, OwnerKey::Account);
        let sources = differences(&self.sources, &wanted.sources, OwnerKey::Source);
        let cgroups = differences(&self.cgroups, &wanted.cgroups, |(cgroup, turn)| {
            OwnerKey::Cgroup(cgroup, turn)
        });
        let all = accounts.chain(ranges).chain(sources).chain(cgroups);
        let mut changes: Vec<OwnerChange> = all.collect();
        changes.sort_by_key(|change| {
            let goes = change.to.is_none();
            let wide = match change.key {
                OwnerKey::Source(Source { net, .. }) => net.max_prefix_len() - net.prefix_len(),
                _ => 0,
            };
            let hides = matches!(change.key, OwnerKey::Account(_));
            (goes, hides == goes, if goes { u8::MAX - wide } else { wide })
        });
        changes
    }

    /// The class that exactly this entry names; `None`: there is no such entry.
    pub fn entry(&self, key: OwnerKey) -> Option<ClassId> {
        match key {
            OwnerKey::Account(uid) => self.accounts.get(&uid).copied(),
            OwnerKey::Prefix(prefix) => self.ranges.get(&prefix).copied(),
            OwnerKey::Source(source) => self.sources.get(&source).copied(),
            OwnerKey::Cgroup(cgroup, turn) => self.cgroups.get(&(cgroup, turn)).copied(),
        }
    }

    /// Performs one change on the value.
    pub fn perform(&mut self, change: &OwnerChange) {
        let OwnerChange { key, to, .. } = change;
        match key {
            OwnerKey::Account(uid) => put(&mut self.accounts, *uid, *to),
            OwnerKey::Prefix(prefix) => put(&mut self.ranges, *prefix, *to),
            OwnerKey::Source(source) => put(&mut self.sources, *source, *to),
            OwnerKey::Cgroup(cgroup, turn) => put(&mut self.cgroups, (*cgroup, *turn), *to),
        }
    }
}

fn put<K: Ord>(entries: &mut BTreeMap<K, ClassId>, key: K, to: Option<ClassId>) {
    match to {
        Some(class) => entries.insert(key, class),
        None => entries.remove(&key),
    };
}

fn differences<'a, K: Copy + Ord>(
    from: &'a BTreeMap<K, ClassId>,
    to: &'a BTreeMap<K, ClassId>,
    entry: impl Fn(K) -> OwnerKey + Copy + 'a,
) -> impl Iterator<Item = OwnerChange> + 'a {
    let set = to.iter().filter_map(move |(key, class)| {
        let before = from.get(key).copied();
        let change = OwnerChange { key: entry(*key), from: before, to: Some(*class) };
        (before != Some(*class)).then_some(change)
    });
    let gone = from.iter().filter(|(key, _)| !to.contains_key(key));
    let gone = gone.map(move |(key, class)| OwnerChange {
        key: entry(*key),
        from: Some(*class),
        to: None,
    });
    set.chain(gone)
}

/// One entry of the maps that is set, changed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerChange {
    /// Which entry.
    pub key: OwnerKey,
    /// The class that the entry names now; `None`: there is no entry.
    pub from: Option<ClassId>,
    /// The class that the entry is to name; `None`: it is removed.
    pub to: Option<ClassId>,
}

impl fmt::Display for OwnerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (None, Some(to)) => write!(f, "{} in {to}", self.key),
            (Some(from), Some(to)) => write!(f, "{} {from} -> {to}", self.key),
            (_, None) => write!(f, "{} in no class", self.key),
        }
    }
}

/// Whose packets an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerKey {
    /// One uid, in the hash map.
    Account(u32),
    /// All uids that begin with the same bits, in the trie.
    Prefix(UidPrefix),
    /// What comes in by one link from one network, in the other trie.
    Source(Source),
    /// The sockets of a cgroup and of those below it, in the map of what was given on purpose.
    Cgroup(Cgroup, Turn),
}

impl fmt::Display for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnerKey::Account(uid) => write!(f, "uid {uid}"),
            OwnerKey::Source(source) => source.fmt(f),
            OwnerKey::Cgroup(cgroup, Turn::First) => cgroup.fmt(f),
            OwnerKey::Cgroup(cgroup, Turn::AfterOwner) => write!(f, "{cgroup} (without a user)"),
            OwnerKey::Prefix(prefix) => {
                let range = prefix.range();
                write!(f, "uids {}-{}", range.start(), range.end())
            }
        }
    }
}

/// All uids whose first `bits` bits are those of `uid`; the other bits of `uid` are 0. Ordered by
/// uid, the wider first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidPrefix {
    /// The first uid of the prefix: the bits after it are 0.
    pub uid: u32,
    /// How many bits the prefix has: 0 (every uid) to 32 (one uid).
    pub bits: u8,
}

impl UidPrefix {
    /// The prefix of this length that `uid` is in.
    pub fn of(uid: u32, bits: u8) -> UidPrefix {
        let host = 32 - u32::from(bits.min(32));
        UidPrefix { uid: uid.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0), bits }
    }

    /// Whether the uid begins with the same bits.
    pub fn holds(self, uid: u32) -> bool {
        UidPrefix::of(uid, self.bits) == self
    }

    /// First and last of its uids.
    pub fn range(self) -> RangeInclusive<u32> {
        let host = u32::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0);
        self.uid..=(self.uid | host)
    }

    /// The prefix's two halves; none for a prefix of a single uid.
    fn halves(self) -> impl Iterator<Item = UidPrefix> {
        let bits = self.bits + 1;
        let upper = 1_u32.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let both = [UidPrefix { uid: self.uid, bits }, UidPrefix { uid: self.uid | upper, bits }];
        both.into_iter().filter(move |half| half.bits <= 32)
    }
}

/// The fewest prefixes that make up a range, at most 62.
fn prefixes(range: &RangeInclusive<u32>) -> Vec<UidPrefix> {
    let (mut next, last) = (u64::from(*range.start()), u64::from(*range.end()));
    let mut prefixes = Vec::new();
    while next <= last {
        let aligned = if next == 0 { 32 } else { next.trailing_zeros().min(32) };
        let room = (last - next + 1).ilog2();
        let host = aligned.min(room);
        prefixes.push(UidPrefix { uid: next as u32, bits: (32 - host) as u8 });
        next += 1_u64 << host;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::net::IpAddr;

    use ipnet::IpNet;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::units::Minor;

    type Ranges = Vec<(RangeInclusive<u32>, u16)>;

    fn class(minor: u16) -> ClassId {
        ClassId::ours(Minor(minor))
    }

    /// Ranges small enough to meet each other, and some at both ends of the numbers.
    fn range() -> impl Strategy<Value = RangeInclusive<u32>> {
        let bounds = prop_oneof![
            (0..300_u32, 0..300_u32),
            (0..300_u32, Just(u32::MAX)),
            (u32::MAX - 300.., u32::MAX - 300..),
        ];
        bounds.prop_map(|(a, b)| a.min(b)..=a.max(b))
    }

    fn table() -> impl Strategy<Value = (Ranges, Vec<(u32, u16)>)> {
        (vec((range(), 0x10..0x16_u16), 0..4), vec((0..300_u32, 0x10..0x16_u16), 0..6))
    }

    fn made(ranges: &[(RangeInclusive<u32>, u16)], accounts: &[(u32, u16)]) -> OwnerTable {
        let mut table = OwnerTable::default();
        for (range, minor) in ranges {
            table.add_range(range, class(*minor));
        }
        table.accounts = accounts.iter().map(|(uid, minor)| (*uid, class(*minor))).collect();
        table
    }

    /// Uids beside every border in the tables, and some far from all.
    fn uids(tables: &[&OwnerTable]) -> BTreeSet<u32> {
        let accounts = tables.iter().flat_map(|table| table.accounts.keys().copied());
        let prefixes = tables.iter().flat_map(|table| table.ranges.keys());
        let ends = prefixes.flat_map(|prefix| [*prefix.range().start(), *prefix.range().end()]);
        let beside = |uid: u32| [uid.saturating_sub(1), uid, uid.saturating_add(1)];
        let uids = accounts.chain(ends).flat_map(beside);
        uids.chain([0, 150, 1 << 16, 1 << 31, u32::MAX]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

        #[test]
        fn the_first_range_that_holds_a_uid_has_it((ranges, accounts) in table()) {
            let table = made(&ranges, &accounts);
            for uid in uids(&[&table]) {
                let single = accounts.iter().rev().find(|(account, _)| *account == uid);
                let first = ranges.iter().find(|(range, _)| range.contains(&uid));
                let minor = single.map(|(_, minor)| minor).or(first.map(|(_, minor)| minor));
                prop_assert_eq!(table.class(uid), minor.map(|minor| class(*minor)), "uid {}", uid);
            }
        }

        #[test]
        fn at_every_moment_of_a_change_a_uid_has_its_old_class_or_its_new_one(
            (old_ranges, old_accounts) in table(),
            (new_ranges, new_accounts) in table(),
        ) {
            let old = made(&old_ranges, &old_accounts);
            let new = made(&new_ranges, &new_accounts);
            let uids = uids(&[&old, &new]);
            let mut table = old.clone();
            for change in old.changes(&new) {
                table.perform(&change);
                for &uid in &uids {
                    let class = table.class(uid);
                    let allowed = [old.class(uid), new.class(uid)];
                    prop_assert!(allowed.contains(&class), "uid {} {:?}", uid, class);
                }
            }
            prop_assert_eq!(&table, &new);
            prop_assert!(new.changes(&new).is_empty());
        }
    }

    fn sources() -> impl Strategy<Value = BTreeMap<Source, ClassId>> {
        let net = ((0..4_u8).prop_map(|third| [10, 8, third << 6, 0]), 0..33_u8);
        let source = net.prop_map(|(address, bits)| {
            let net = IpNet::new(IpAddr::from(address), bits).unwrap().trunc();
            Source { ifindex: 7, net }
        });
        btree_map(source, (0x10..0x16_u16).prop_map(class), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(200)
        })]

        #[test]
        fn at_every_moment_of_a_change_a_source_has_its_old_class_or_its_new_one(
            (old, new) in (sources(), sources()),
        ) {
            let found = |sources: &BTreeMap<Source, ClassId>, address: IpAddr| {
                let holds = |it: &&Source| it.net.contains(&address);
                let longest = sources.keys().filter(holds).max_by_key(|it| it.net.prefix_len());
                longest.map(|source| sources[source])
            };
            let [old, new] =
                [old, new].map(|sources| OwnerTable { sources, ..OwnerTable::default() });
            let mut table = old.clone();
            for change in old.changes(&new) {
                table.perform(&change);
                for last in (0..=255_u8).step_by(5) {
                    let address = IpAddr::from([10, 8, last, 1]);
                    let now = found(&table.sources, address);
                    let allowed = [found(&old.sources, address), found(&new.sources, address)];
                    prop_assert!(allowed.contains(&now), "{}: {:?} after {}", address, now, change);
                }
            }
            prop_assert_eq!(&table, &new);
        }
    }

    #[test]
    fn a_range_is_few_prefixes() {
        let mut table = OwnerTable::default();
        table.add_range(&(0..=u32::MAX), class(0x10));
        assert_eq!(table.ranges.len(), 1);
        let mut table = OwnerTable::default();
        table.add_range(&(1_000..=4_294_967_294), class(0x10));
        assert!(table.ranges.len() <= 54, "{}", table.ranges.len());
        let said: Vec<String> = OwnerTable::default()
            .changes(&made(&[(1000..=1003, 0x10)], &[(7, 0x11)]))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(said, ["uid 7 in 1:11", "uids 1000-1003 in 1:10"]);
    }
}
