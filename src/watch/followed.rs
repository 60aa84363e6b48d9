//! Processes that were moved a moment ago, or are about to be: what they forked before is elsewhere
//! still, and the kernel tells of it after it told of them. Pure.

use std::collections::HashMap;

/// For so long after a process was looked at, its forks are looked at too: they may have begun
/// before, and the event is sent at the end of a fork. In nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// Beyond so many it is worth forgetting the oldest.
const MANY: usize = 4_096;

/// By pid, the time until which forks of the process are looked at, by the monotonic clock.
#[derive(Debug, Default)]
pub struct Followed(HashMap<u32, u64>);

impl Followed {
    pub fn follow(&mut self, pid: u32, now: u64) {
        if self.0.len() >= MANY {
            self.0.retain(|_, until| *until > now);
        }
        self.0.insert(pid, now.saturating_add(WINDOW));
    }

    /// Whether a child of `parent`, forked then, must be looked at.
    pub fn includes(&self, parent: u32, at: u64) -> bool {
        self.0.get(&parent).is_some_and(|until| at <= *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_followed_for_a_while() {
        let mut followed = Followed::default();
        assert!(!followed.includes(7, 0));
        followed.follow(7, 10);
        assert!(followed.includes(7, 5) && followed.includes(7, WINDOW + 10));
        assert!(!followed.includes(7, WINDOW + 11));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut followed = Followed::default();
        for n in 0..20_000 {
            followed.follow(n, u64::from(n) * WINDOW);
        }
        assert!(followed.0.len() <= MANY);
        assert!(followed.includes(19_999, 19_999 * WINDOW));
    }
}
