//! Processes that change their uid so often that the kernel had better not tell of it: one makes
//! 155,000 events a second, which fill any buffer and hide what others do. They are looked at so
//! often instead. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many events of one process in one go are a storm: a login makes three.
const STORM: u32 = 64;
/// Between two looks at one that is not listened to.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// So long none is listened to, before it may show that it has become calm.
const WHILE: Duration = Duration::from_secs(10);
/// A filter has room for so many; more storms than that take a processor each.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Muted {
    /// Until when, and on whose account.
    pids: HashMap<u32, (Instant, u32)>,
    /// What came in one go.
    counts: HashMap<u32, u32>,
}

impl Muted {
    /// An event came of a process that is now of this uid.
    pub(super) fn count(&mut self, pid: u32) {
        *self.counts.entry(pid).or_default() += 1;
    }

    /// All of one go has come. Whether there is anybody new.
    pub(super) fn decide(&mut self, uid_of: impl Fn(u32) -> u32, now: Instant) -> bool {
        let before = self.pids.len();
        for (pid, count) in self.counts.drain() {
            if count >= STORM && self.pids.len() < MOST {
                self.pids.insert(pid, (now + WHILE, uid_of(pid)));
            }
        }
        self.pids.len() > before
    }

    /// Whom to look at now, and on whose account, and whether any of them is listened to again.
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
