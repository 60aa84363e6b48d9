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

/// How often a rate is measured again.
const AGAIN: usize = 3;

/// Classes, the bits a second that they should send together, and within how many percent.
pub type Expected<'a> = (&'a [&'a str], u64, u64);

/// Reads the counters now and after so long, and panics unless the classes sent what is expected. A
/// rate that is too high is wrong at once; one that is too low is measured again, a few times: a
/// machine whose CPUs are taken away for a moment sends late and HTB gives nothing back for that,
/// but a class with a wrong rate is slow every time. So is one whose time is not known to half of
/// the percent asked, because `tc` itself had to wait; at last it gets the benefit of that doubt.
#[track_caller]
pub fn expect(link: &str, time: Duration, expected: &[Expected<'_>]) -> Interval {
    for last in (0..=AGAIN).map(|attempt| attempt == AGAIN) {
        let interval = over(link, time);
        let (span, doubt) = (interval.span(), interval.before.off + interval.after.off);
        let unsettled = |(ids, rate, percent): &&Expected<'_>| {
            let bytes: u64 = ids.iter().map(|id| interval.bytes(id)).sum();
            let vague = doubt * 200 > span * percent;
            let over = |micros: u64| bytes * 8_000_000 / micros.max(1);
            let measured = match (over(span) > *rate, vague) {
                (_, false) => over(span),
                (true, true) => over(span + doubt).max(*rate),
                (false, true) => over(span.saturating_sub(doubt)).min(*rate),
            };
            let too_low = measured < lowest(*rate, *percent);
            // In the lab it is always so, and time is short.
            let again = too_low || (vague && Place::current() == Place::Host);
            if last || !again {
                within(&format!("class {}", ids.join(" and ")), measured, *rate, *percent);
            }
            again
        };
        let more = expected.iter().filter(unsettled).count() > 0;
        if last || !more {
            return interval;
        }
        println!("measured again ({doubt} of {span} us in doubt): {:?}", interval.leaves());
    }
    unreachable!("the last attempt returns or panics")
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
        self.bytes(id) * 8 * 1_000_000 / self.span().max(1)
    }

    /// Microseconds between the two readings.
    fn span(&self) -> u64 {
        self.after.at.since(self.before.at)
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

    /// How much of all bytes was this class's, in percent; panics below `least`, and prints it
    /// either way.
    #[track_caller]
    pub fn has_share(&self, what: &str, id: &str, least: f64) {
        let all: u64 = self.leaves().values().sum();
        let share = self.bytes(id) as f64 * 100.0 / all.max(1) as f64;
        println!("{what}: {share:.4} % of {all} bytes (wanted {least} %)");
        assert!(share >= least, "{what}: {share:.4} % of {all} bytes: {:?}", self.leaves());
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

/// Panics unless `measured` is `expected` within so many percent.
#[track_caller]
pub fn within(what: &str, measured: u64, expected: u64, percent: u64) {
    let high = expected * (100 + percent) / 100;
    between(what, measured, lowest(expected, percent), high);
}

/// On the emulated machine more is allowed below, never above: its CPUs wake up later than a burst
/// lasts.
fn lowest(expected: u64, percent: u64) -> u64 {
    let late = match Place::current() {
        Place::Host | Place::Uml => 0,
        Place::Qemu | Place::Newest => 10,
    };
    expected * (100 - percent - late) / 100
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
