//! What the classes sent between two moments, and how near it is to what the policy says.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use super::counters::{Classes, classes};
use super::harness::Place;

/// Bits a second.
pub const KBIT: u64 = 1_000;
pub const MBIT: u64 = 1_000_000;

/// Two readings of a link's counters.
#[derive(Clone, Debug)]
pub struct Interval {
    pub before: Classes,
    pub after: Classes,
}

/// Reads the counters now and after so long.
pub fn over(link: &str, time: Duration) -> Interval {
    let before = classes(link);
    sleep(time);
    Interval { before, after: classes(link) }
}

impl Interval {
    /// From a reading made earlier until now.
    pub fn since(before: Classes, link: &str) -> Interval {
        Interval { before, after: classes(link) }
    }

    /// Bytes, with link-layer headers, that a class sent in the interval.
    pub fn bytes(&self, id: &str) -> u64 {
        let before = self.before.by_id.get(id).map_or(0, |class| class.bytes);
        self.after.class(id).bytes.saturating_sub(before)
    }

    /// Bits a second of a class over the interval.
    pub fn rate(&self, id: &str) -> u64 {
        self.bytes(id) * 8 * 1_000_000 / self.after.at.since(self.before.at).max(1)
    }

    /// The bytes of every leaf (a class that is no other's parent).
    pub fn leaves(&self) -> BTreeMap<&str, u64> {
        let parents: Vec<&String> =
            self.after.by_id.values().filter_map(|class| class.parent.as_ref()).collect();
        self.after
            .by_id
            .keys()
            .filter(|id| !parents.contains(id))
            .map(|id| (id.as_str(), self.bytes(id)))
            .collect()
    }

    /// Panics unless the class sent its rate within so many percent.
    #[track_caller]
    pub fn class_sends(&self, id: &str, expected: u64, percent: u64) {
        within(&format!("class {id}"), self.rate(id), expected, percent);
    }

    /// Panics unless every leaf but these sent less than so many bytes: neighbour discovery and ARP
    /// pass through the default at any time, a user's stream never does.
    #[track_caller]
    pub fn others_stay_below(&self, bytes: u64, but: &[&str]) {
        for (id, sent) in self.leaves() {
            assert!(
                but.contains(&id) || sent < bytes,
                "class {id} sent {sent} bytes, which are not its own: {:?}",
                self.leaves()
            );
        }
    }
}

/// Panics unless `measured` is `expected` within so many percent; in the emulated machine ten percent
/// more are allowed below, never above: its CPUs wake up later than a burst lasts, and HTB gives
/// nothing back for that.
#[track_caller]
pub fn within(what: &str, measured: u64, expected: u64, percent: u64) {
    let late = if Place::current() == Place::Qemu { 10 } else { 0 };
    let (low, high) = (100 - percent - late, 100 + percent);
    between(what, measured, expected * low / 100, expected * high / 100);
}

/// Panics unless `measured` lies between the two, and prints it either way.
#[track_caller]
pub fn between(what: &str, measured: u64, low: u64, high: u64) {
    println!("{what}: {} kbit/s (expected {} to {})", measured / KBIT, low / KBIT, high / KBIT);
    assert!(
        (low..=high).contains(&measured),
        "{what}: {} kbit/s is not between {} and {} kbit/s",
        measured / KBIT,
        low / KBIT,
        high / KBIT
    );
}

/// The value below which so many percent of the values lie.
pub fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}
