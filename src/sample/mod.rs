//! What classes have counted, over time: the difference between two looks at the counters, for each
//! class and, where an owner's class was made again or replaced, for each owner. Pure.

mod ledger;
mod passing;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::host::observe::{Passage, Snapshot};
use crate::tree::{Claim, Counted, Counters, LinkName, Owner, Port};
use crate::units::ClassId;

pub use ledger::Ledger;
pub use passing::{Passed, suspects};
pub use upkeep::{Deed, Repair, Repairs, Upkeep};

/// Whose packets a class counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// All of the link's, but the unshaped ones.
    Link,
    /// Packets that passed no class at all.
    Direct,
    /// Nobody's in particular: those of the default class.
    Default,
    /// Those of the class outside every limit.
    Unshaped,
    /// An owner's.
    Owner(Owner),
    /// A retired class's whose last owner is not known.
    Retired,
}

/// The counters of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    whose: Whose,
    counters: Counters,
}

/// Whose packets each class counts: found out once for all samples between two looks at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(Arc<BTreeMap<ClassId, Whose>>);

/// The counters of all classes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    at: Duration,
    owners: Owners,
    counted: Counted,
    passages: BTreeMap<LinkName, Passage>,
}

/// What was counted between two samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    over: Duration,
    counted: Counted,
    passed: BTreeMap<LinkName, Passed>,
}

/// What a class does now: what was counted over an interval, for each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bits a second, with link-layer headers.
    pub bits: u64,
    /// Packets a second, rounded.
    pub packets: u64,
    /// Packets that found the queue full or were dropped to keep it short, in 1,000 seconds.
    pub drops_in_1000: u64,
    /// Of the packets sent, the share on what a parent had left over, in percent.
    pub borrowed_percent: u8,
}

impl Owners {
    /// Whose each class is that a look has seen.
    pub fn of(snapshot: &Snapshot) -> Owners {
        let claims = &snapshot.observation.state.claims;
        let owned = claims.iter().filter_map(|(claim, classid)| {
            let whose = match claim {
                Claim::Owner(owner) | Claim::Retired(_, Some(owner)) => Whose::Owner(owner.clone()),
                Claim::Retired(_, None) => Whose::Retired,
                // The same class as its owner's.
                Claim::Pinned(_) => return None,
            };
            Some((classid.our_class()?, whose))
        });
        let mut by_class: BTreeMap<ClassId, Whose> = owned.collect();
        by_class.insert(ClassId::LINK, Whose::Link);
        by_class.insert(ClassId::DEFAULT, Whose::Default);
        by_class.insert(ClassId::UNSHAPED, Whose::Unshaped);
        // No class has this number.
        by_class.insert(ClassId::ROOT, Whose::Direct);
        Owners(Arc::new(by_class))
    }
}

impl Sample {
    /// What a look has counted; `at`: the moment of the look, after any moment that is the same for
    /// all samples.
    pub fn of(snapshot: &Snapshot, at: Duration) -> Sample {
        Sample::by(Owners::of(snapshot), snapshot, at)
    }

    /// The same, where it is known whose the classes are.
    pub fn by(owners: Owners, snapshot: &Snapshot, at: Duration) -> Sample {
        let mut counted = Counted::new();
        for (port, classes) in &snapshot.counters {
            // The classes of shards count what their users' classes count.
            let known = classes.iter().filter(followed(&owners.0));
            let known = known.map(|(classid, counters)| (*classid, *counters)).collect();
            counted.insert(port.clone(), known);
        }
        for (port, packets) in &snapshot.direct_packets {
            let counters = Counters { sent_packets: u64::from(*packets), ..Counters::default() };
            counted.entry(port.clone()).or_default().insert(ClassId::ROOT, counters);
        }
        Sample { at, owners, counted, passages: snapshot.passages.clone() }
    }

    /// What was counted since an earlier sample.
    pub fn since(&self, earlier: &Sample) -> Differences {
        let none = BTreeMap::new();
        let is_same = Arc::ptr_eq(&self.owners.0, &earlier.owners.0);
        let has_same_owner =
            |id: &ClassId| is_same || self.owners.0.get(id) == earlier.owners.0.get(id);
        let of_port = |(port, classes): (&Port, &BTreeMap<ClassId, Counters>)| {
            let mut before = earlier.counted.get(port).unwrap_or(&none).iter().peekable();
            let of_class = |(classid, now): (&ClassId, &Counters)| {
                while before.next_if(|(earlier, _)| *earlier < classid).is_some() {}
                let before = before.next_if(|(earlier, _)| *earlier == classid);
                let before = before.filter(|_| has_same_owner(classid));
                let before = before.map(|(_, counters)| *counters).unwrap_or_default();
                (*classid, counted(&before, now))
            };
            (port.clone(), classes.iter().map(of_class).collect())
        };
        let counted = self.counted.iter().map(of_port).collect();
        let over = self.at.saturating_sub(earlier.at);
        let passed = self.passages.iter().filter_map(|(link, now)| {
            Some((link.clone(), Passed::between(earlier.passages.get(link)?, now, over)))
        });
        Differences { over, counted, passed: passed.collect() }
    }

    /// Each class's counters, by port and class, with whose they are.
    fn readings(&self) -> impl Iterator<Item = (&Port, ClassId, &Whose, &Counters)> {
        self.counted.iter().flat_map(|(port, classes)| {
            let whose = |classid| self.owners.0.get(classid);
            classes.iter().filter_map(move |(id, counters)| Some((port, *id, whose(id)?, counters)))
        })
    }
}

/// Whether a class is in the map, for classes that are asked for in order.
fn followed<'a, V, W>(
    by_class: &'a BTreeMap<ClassId, V>,
) -> impl FnMut(&(&ClassId, &W)) -> bool + use<'a, V, W> {
    let mut rest = by_class.keys().peekable();
    move |(classid, _)| {
        while rest.next_if(|other| other < classid).is_some() {}
        rest.peek() == Some(classid)
    }
}

impl Differences {
    /// The time between the two samples.
    pub fn over(&self) -> Duration {
        self.over
    }

    /// Whether what came by a link with a `down` went through its ifb.
    pub fn passed(&self, link: &LinkName) -> Passed {
        self.passed.get(link).copied().unwrap_or_default()
    }

    /// What a class does now; `None`: the class was not there, or no time has passed.
    pub fn pace(&self, port: &Port, classid: ClassId) -> Option<Pace> {
        self.pace_of(self.counted.get(port)?.get(&classid)?)
    }

    /// What the classes of a port have counted, in order.
    pub fn counted(&self, port: &Port) -> impl Iterator<Item = (ClassId, &Counters)> {
        self.counted.get(port).into_iter().flatten().map(|(classid, counters)| (*classid, counters))
    }

    /// What a class does now that has counted so much in this time; `None`: no time has passed.
    pub fn pace_of(&self, counted: &Counters) -> Option<Pace> {
        let micros = self.over.as_micros();
        let a_second = |number: u64, seconds: u128| {
            // Most of many classes do nothing, and a division of this width takes its time.
            if number == 0 {
                return (micros > 0).then_some(0);
            }
            let number = u128::from(number) * seconds * 1_000_000 + micros / 2;
            u64::try_from(number.checked_div(micros)?).ok()
        };
        let sent = counted.lends + counted.borrows;
        Some(Pace {
            bits: a_second(counted.sent_bytes.saturating_mul(8), 1)?,
            packets: a_second(counted.sent_packets, 1)?,
            drops_in_1000: a_second(counted.drops, 1000)?,
            borrowed_percent: percent(counted.borrows, sent).min(100) as u8,
        })
    }
}

/// `part` of `whole` in percent, rounded; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> u64 {
    let (part, whole) = (u128::from(part), u128::from(whole));
    let rounded = (part * 100 + whole / 2).checked_div(whole).unwrap_or(0);
    u64::try_from(rounded).unwrap_or(u64::MAX)
}

/// What was counted between two readings of a class. Fewer bytes than before: the class was made
/// again, and has counted from 0. What waits in the queue is no difference, but what waits now.
fn counted(before: &Counters, now: &Counters) -> Counters {
    let none = Counters::default();
    let before = if now.sent_bytes < before.sent_bytes { &none } else { before };
    let more = |of: fn(&Counters) -> u64| more(of(before), of(now));
    Counters {
        sent_bytes: now.sent_bytes - before.sent_bytes,
        sent_packets: more(|it| it.sent_packets),
        drops: dropped(before.drops, now.drops),
        overlimits: more(|it| it.overlimits),
        lends: more(|it| it.lends),
        borrows: more(|it| it.borrows),
        backlog_bytes: now.backlog_bytes,
        backlog_packets: now.backlog_packets,
    }
}

/// How many counters of 32 bits count before they begin again at 0.
const WRAP: u64 = 1 << 32;

/// Whether a counter of 32 bits that is lower now was so near its end that it has begun again.
fn has_wrapped(before: u64, now: u64) -> bool {
    (WRAP / 4 * 3..WRAP).contains(&before) && now < WRAP / 4
}

/// The difference between two readings of a counter of which the kernel keeps 32 bits
/// (`struct tc_htb_xstats`, `struct gnet_stats_queue`): one that was near its end has wrapped; any
/// other that is lower now began at 0.
fn more(before: u64, now: u64) -> u64 {
    match now.checked_sub(before) {
        Some(more) => more,
        None if has_wrapped(before, now) => now + WRAP - before,
        None => now,
    }
}

/// The same of what a class that has gone on counting has dropped, or its leaf, whichever is more:
/// of a leaf that was made again what the class itself has counted is left, and that was counted
/// before.
fn dropped(before: u64, now: u64) -> u64 {
    if now < before && !has_wrapped(before, now) { 0 } else { more(before, now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Key, LinkName};
    use crate::units::Minor;

    fn user(name: &str) -> Owner {
        Owner::User(Key::new(name).unwrap())
    }

    /// A look that saw these claims, each with what its class has counted.
    fn look(classes: &[(Claim, u16, Counters)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (claim, minor, counters) in classes {
            let classid = ClassId::ours(Minor(*minor));
            snapshot.observation.state.claims.insert(claim.clone(), classid);
            snapshot.counters.entry(port()).or_default().insert(classid, *counters);
        }
        snapshot
    }

    fn port() -> Port {
        LinkName::new("eth0").unwrap().egress()
    }

    fn sent(bytes: u64, packets: u64) -> Counters {
        Counters { sent_bytes: bytes, sent_packets: packets, lends: packets, ..Counters::default() }
    }

    fn between(before: &Snapshot, now: &Snapshot, over: Duration) -> Differences {
        Sample::of(now, Duration::from_secs(7) + over)
            .since(&Sample::of(before, Duration::from_secs(7)))
    }

    #[test]
    fn a_pace_is_for_each_second_and_rounded() {
        let ann = || Claim::Owner(user("ann"));
        let now = Counters { drops: 3, borrows: 100, ..sent(1_000_000, 900) };
        let over = Duration::from_millis(1_500);
        let differences = between(
            &look(&[(ann(), 0x10, sent(250_000, 600))]),
            &look(&[(ann(), 0x10, now)]),
            over,
        );
        assert_eq!(differences.over(), over);
        let pace = differences.pace(&port(), ClassId::ours(Minor(0x10))).unwrap();
        let expected =
            Pace { bits: 4_000_000, packets: 200, drops_in_1000: 2_000, borrowed_percent: 25 };
        assert_eq!(pace, expected);
        assert_eq!(differences.pace(&port(), ClassId::ours(Minor(0x11))), None);
        let at_once =
            between(&look(&[(ann(), 0x10, now)]), &look(&[(ann(), 0x10, now)]), Duration::ZERO);
        assert_eq!(at_once.pace(&port(), ClassId::ours(Minor(0x10))), None, "no time has passed");
    }

    #[test]
    fn a_class_that_was_made_again_or_has_another_owner_counts_from_nothing() {
        let (ann, bob) = (Claim::Owner(user("ann")), Claim::Owner(user("bob")));
        let bits = |before: &[(Claim, u16, Counters)], now: &[(Claim, u16, Counters)]| {
            let differences = between(&look(before), &look(now), Duration::from_secs(1));
            differences.pace(&port(), ClassId::ours(Minor(0x10))).unwrap().bits
        };
        let [few, many] = [sent(100, 1), sent(1_000, 10)];
        assert_eq!(bits(&[(ann.clone(), 0x10, many)], &[(ann.clone(), 0x10, few)]), 800);
        assert_eq!(bits(&[], &[(ann.clone(), 0x10, few)]), 800, "a new class");
        assert_eq!(bits(&[(bob, 0x10, few)], &[(ann.clone(), 0x10, many)]), 8_000, "it was bob's");
        // What drains from ann's old class is hers.
        let retired = Claim::Retired(Minor(0x10), Some(user("ann")));
        assert_eq!(bits(&[(ann, 0x10, few)], &[(retired, 0x10, many)]), 7_200);
    }

    #[test]
    fn counters_of_32_bits_wrap_and_others_that_are_lower_began_at_0() {
        assert_eq!(more(u64::from(u32::MAX), 4), 5);
        assert_eq!(more(9, 9), 0);
        assert_eq!(more(1_000, 4), 4);
        assert_eq!(more(1 << 40, 4), 4, "no counter of 32 bits");
    }

    #[test]
    fn a_leaf_that_is_made_again_has_dropped_nothing_twice() {
        let drops = |before: (u64, u64), now: (u64, u64)| {
            let read = |(bytes, drops)| Counters { drops, ..sent(bytes, 1) };
            counted(&read(before), &read(now)).drops
        };
        // Of 100 that the leaf had dropped, the class itself had counted 90.
        assert_eq!(drops((1_000, 100), (1_500, 90)), 0);
        assert_eq!(drops((1_500, 90), (1_600, 97)), 7);
        assert_eq!(drops((1_000, 100), (500, 90)), 90, "the class was made again, too");
        assert_eq!(drops((1_000, u64::from(u32::MAX)), (1_500, 4)), 5, "it has wrapped");
    }

    #[test]
    fn what_waits_is_what_waits_now() {
        let before = Counters { backlog_bytes: 9_000, ..sent(100, 1) };
        let now = Counters { backlog_bytes: 500, backlog_packets: 2, ..sent(300, 3) };
        let counted = counted(&before, &now);
        assert_eq!((counted.backlog_bytes, counted.backlog_packets), (500, 2));
        assert_eq!(counted.sent_bytes, 200);
    }
}
