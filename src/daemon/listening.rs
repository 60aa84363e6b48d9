//! When the daemon looks which sockets are bound: the kernel has no event for that. Pure.

use std::time::{Duration, Instant};

use super::sweeps::Complaint;

/// The least time between two looks, by which a server may wait until what nobody answers is its
/// user's.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a look, the rest is at least so many times as long as the look took.
const IDLE_SHARE: u32 = 200;

/// Looks at bound sockets, as long as something is shaped that arrives.
#[derive(Debug, Default)]
pub(super) struct Listening {
    due: Option<Instant>,
    complaint: Complaint,
}

impl Listening {
    /// When the next look is due; `None`: nobody needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// After an apply, which has looked itself. `arrives`: something is shaped that arrives.
    pub(super) fn applied(&mut self, arrives: bool, now: Instant) {
        self.due = arrives.then(|| self.due.unwrap_or(now + INTERVAL));
    }

    /// Whether a look is to begin now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due.is_some_and(|due| due <= now);
        if begins {
            self.due = Some(now + INTERVAL);
        }
        begins
    }

    /// After a look.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        let rest = INTERVAL.max(took.saturating_mul(IDLE_SHARE));
        self.due = self.due.map(|_| now + rest);
    }

    /// Whether to say that one has failed.
    pub(super) fn may_complain(&mut self, now: Instant) -> bool {
        self.complaint.may_be_said(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_rest_in_proportion_and_end_with_what_arrives() {
        let now = Instant::now();
        let mut listening = Listening::default();
        listening.applied(false, now);
        assert_eq!(listening.due(), None);
        listening.applied(true, now);
        assert!(!listening.begins(now));
        let next = now + INTERVAL;
        assert!(listening.begins(next));
        listening.ended(Duration::from_millis(1), next);
        assert_eq!(listening.due(), Some(next + INTERVAL));
        listening.ended(Duration::from_millis(10), next);
        assert_eq!(listening.due(), Some(next + Duration::from_secs(2)));
        listening.applied(true, next);
        assert_eq!(listening.due(), Some(next + Duration::from_secs(2)), "an apply puts none off");
        listening.applied(false, next);
        assert_eq!(listening.due(), None);
    }
}
