//! When all processes are looked at: seldom where the kernel sends process events, otherwise every
//! second or so. Pure.

use std::time::{Duration, Instant};

use super::rounds::Pace;

/// Sweeps where there are process events, which tell almost everything.
const BESIDE: Pace = Pace { least: Duration::from_secs(600), share: 2_000 };
/// Sweeps where there are no process events.
const INSTEAD: Pace = Pace { least: Duration::from_secs(1), share: 10 };

/// The last sweep, and what sweeps are for.
#[derive(Debug)]
pub(super) struct Sweeps {
    /// There are no process events, so only sweeps find new processes.
    pub are_all: bool,
    ended: Instant,
    took: Duration,
}

impl Sweeps {
    pub(super) fn new(are_all: bool, now: Instant) -> Sweeps {
        Sweeps { are_all, ended: now, took: Duration::ZERO }
    }

    /// When the next sweep is due, if the one that begins now fails.
    pub(super) fn begin(&self, now: Instant) -> Instant {
        now + self.pause(Duration::ZERO)
    }

    /// When the next sweep is due after one that has ended.
    pub(super) fn ended(&mut self, start: Instant, now: Instant) -> Instant {
        (self.ended, self.took) = (now, now.saturating_duration_since(start));
        now + self.pause(self.took)
    }

    /// When a sweep is due that is wanted soon. Where sweeps take so long that events are lost
    /// meanwhile, they do not follow each other directly.
    pub(super) fn soon(&self, now: Instant) -> Instant {
        (self.ended + self.took).max(now)
    }

    fn pause(&self, took: Duration) -> Duration {
        let pace = if self.are_all { INSTEAD } else { BESIDE };
        pace.rest(took)
    }
}

/// The time between two complaints about the same.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A complaint that is logged at most once a minute.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<Instant>);

impl Complaint {
    pub(super) fn may_be_said(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now.saturating_duration_since(last) > SAY_AGAIN);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_seldom_where_events_tell_and_rest_in_proportion() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut sweeps = Sweeps::new(false, start);
        assert_eq!(sweeps.begin(start), start + BESIDE.least);
        assert_eq!(sweeps.ended(start, start + second), start + second + BESIDE.share * second);
        assert_eq!(sweeps.soon(start + second), start + 2 * second, "not one after the other");
        assert_eq!(sweeps.soon(start + 5 * second), start + 5 * second);
        sweeps.are_all = true;
        assert_eq!(sweeps.begin(start), start + INSTEAD.least);
        assert_eq!(sweeps.ended(start, start + second), start + 11 * second);
    }

    #[test]
    fn a_complaint_is_said_once_a_minute() {
        let (mut complaint, now) = (Complaint::default(), Instant::now());
        let may =
            [0, 1, 60, 61, 62, 200].map(|s| complaint.may_be_said(now + Duration::from_secs(s)));
        assert_eq!(may, [true, false, false, true, false, true]);
    }
}
