//! Rounds that begin by themselves, since the kernel has no event for what they find. Pure.

use std::time::{Duration, Instant};

/// How often something is done without an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The least rest after a round.
    pub least: Duration,
    /// After a round, the rest is at least so many times as long as the round took.
    pub share: u32,
}

/// Looks at bound sockets. A server may wait for one until what nobody answers is its user's.
pub(super) const SOCKETS: Pace = Pace { least: Duration::from_secs(1), share: 200 };
/// Readings of the counters on the way of packets that arrive.
pub(super) const PASSAGES: Pace = Pace { least: Duration::from_secs(2), share: 200 };

/// What begins by itself begins so much sooner where the daemon is awake: so looks that come each
/// second, or each half, come together, and an idle daemon wakes up for all of them at once.
pub(super) const TOGETHER: Duration = Duration::from_millis(100);

/// Whether it is time for what is due then, where nothing is lost if it begins a moment sooner.
pub(super) fn is_time(due: Instant, now: Instant) -> bool {
    due <= now + TOGETHER
}

impl Pace {
    /// The rest after a round.
    pub(super) fn rest(self, took: Duration) -> Duration {
        self.least.max(took.saturating_mul(self.share))
    }
}

/// Rounds, as long as something needs them.
#[derive(Debug)]
pub(super) struct Rounds {
    pace: Pace,
    due: Option<Instant>,
}

impl Rounds {
    /// None, until something needs them.
    pub(super) fn new(pace: Pace) -> Rounds {
        Rounds { pace, due: None }
    }

    /// When the next round is due; `None`: nothing needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// After an apply, which puts no round off.
    pub(super) fn applied(&mut self, are_needed: bool, now: Instant) {
        self.due = are_needed.then(|| self.due.unwrap_or(now + self.pace.least));
    }

    /// Whether a round is to begin now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due.is_some_and(|due| is_time(due, now));
        if begins {
            self.due = Some(now + self.pace.least);
        }
        begins
    }

    /// After a round, or a part of one.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        self.due = self.due.map(|due| due.max(now + self.pace.rest(took)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_rest_in_proportion_and_end_when_nothing_needs_them() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut rounds = Rounds::new(Pace { least: second, share: 200 });
        rounds.applied(false, now);
        assert_eq!(rounds.due(), None);
        rounds.applied(true, now);
        assert!(!rounds.begins(now));
        let next = now + second;
        assert!(!rounds.begins(next - 2 * TOGETHER));
        assert!(rounds.begins(next - TOGETHER), "something else wakes the daemon up");
        assert!(!rounds.begins(next), "it rests from there on");
        assert!(rounds.begins(next - TOGETHER + second));
        let next = next - TOGETHER + second;
        rounds.ended(Duration::from_millis(1), next);
        assert_eq!(rounds.due(), Some(next + second));
        rounds.ended(Duration::from_millis(10), next);
        assert_eq!(rounds.due(), Some(next + 2 * second));
        rounds.ended(Duration::ZERO, next);
        assert_eq!(rounds.due(), Some(next + 2 * second), "the longest rest of its parts");
        rounds.applied(true, next);
        assert_eq!(rounds.due(), Some(next + 2 * second), "an apply puts none off");
        assert!(!rounds.begins(next + second));
        rounds.applied(false, next);
        rounds.ended(second, next);
        assert_eq!(rounds.due(), None);
    }
}
