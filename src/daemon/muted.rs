//! Muted processes: those that change their uid so often that the kernel is made to drop their
//! events. One process can make 155,000 events a second, which fill any buffer and hide the events
//! of others. Muted processes are looked at every [`LOOK`] instead. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// From how many events in one go a process is muted: a login makes three.
const STORM: u32 = 64;
/// The time between two looks at a muted process.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How long a process stays muted before its events come again.
const WHILE: Duration = Duration::from_secs(10);
/// The most muted processes, which a socket filter has room for; more storms at once would take
/// more processors than that.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Muted {
    /// By pid: until when it is muted, and in the turn of which uid it is looked at.
    pids: HashMap<u32, (Instant, u32)>,
    /// By pid: the events of this go.
    counts: HashMap<u32, u32>,
}

impl Muted {
    /// Counts an event of a process.
    pub(super) fn count(&mut self, pid: u32) {
        *self.counts.entry(pid).or_default() += 1;
    }

    /// Mutes the processes of which too many events came in this go. Whether there are any new
    /// ones.
    pub(super) fn decide(&mut self, uid_of: impl Fn(u32) -> u32, now: Instant) -> bool {
        let before = self.pids.len();
        for (pid, count) in self.counts.drain() {
            if count >= STORM && self.pids.len() < MOST {
                self.pids.insert(pid, (now + WHILE, uid_of(pid)));
            }
        }
        self.pids.len() > before
    }

    /// The muted processes to look at now, each with the uid in whose turn; and whether the events
    /// of any are to come again.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<(u32, u32)>, bool) {
        let all = self.pids.iter().map(|(pid, (_, uid))| (*pid, *uid)).collect();
        let before = self.pids.len();
        self.pids.retain(|_, (until, _)| *until > now);
        (all, self.pids.len() < before)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.pids.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_muted_for_a_while_and_looked_at_meanwhile() {
        let (mut muted, now) = (Muted::default(), Instant::now());
        (0..1_000).for_each(|_| muted.count(7));
        (0..3).for_each(|_| muted.count(8));
        assert!(muted.decide(|_| 1000, now));
        assert_eq!(muted.pids(), [7]);
        assert_eq!(muted.due(now + LOOK), (vec![(7, 1000)], false));
        assert_eq!(muted.due(now + WHILE), (vec![(7, 1000)], true), "a last look");
        assert!(muted.pids().is_empty());
    }

    #[test]
    fn what_comes_one_by_one_is_no_storm() {
        let (mut muted, now) = (Muted::default(), Instant::now());
        for _ in 0..1_000 {
            muted.count(7);
            assert!(!muted.decide(|_| 1000, now));
        }
    }
}
