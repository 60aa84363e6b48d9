//! When the daemon tells accounts what they used and which limits hold. Pure.

use std::time::{Duration, Instant};

/// How many accounts are told in one turn: some milliseconds.
pub(super) const TURN: usize = 100;
/// How soon after an apply, or after more was granted, accounts are told.
const SOON: Duration = Duration::from_secs(1);
/// How old may be what they are told.
const EVERY: Duration = Duration::from_secs(60);
/// After a turn, the rest is at least so many times as long as the turn took.
const SHARE: u32 = 10;

/// Turns, one after the other, until all are told; and again after a while.
#[derive(Debug, Default)]
pub(super) struct Telling {
    due: Option<Instant>,
    /// Not before: so that a crowd that logs in does not have all told without end.
    rests: Option<Instant>,
    /// There is something to tell.
    is_needed: bool,
}

impl Telling {
    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Limits may be others, or what was used of them counts anew. `is_needed`: there is something
    /// to tell; once there is nothing any more, what was told is taken back.
    pub(super) fn changed(&mut self, is_needed: bool, now: Instant) {
        if !std::mem::replace(&mut self.is_needed, is_needed) && !is_needed {
            return;
        }
        let soon = self.rests.map_or(now + SOON, |rests| rests.max(now + SOON));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Whether it is time.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// After a turn that took so long; `is_last`: all are told.
    pub(super) fn told(&mut self, is_last: bool, took: Duration, now: Instant) {
        let share = took.saturating_mul(SHARE);
        if is_last {
            self.rests = Some(now + share.max(SOON));
            let next = self.is_needed.then(|| now + EVERY.max(share));
            self.due = self.due.into_iter().chain(next).min();
        } else {
            self.due = Some(now + share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_told_by_turns_once_a_minute_and_soon_after_a_change() {
        let (mut now, took) = (Instant::now(), Duration::from_millis(5));
        let mut telling = Telling::default();
        assert_eq!(telling.due(), None, "nothing is in force yet");
        telling.changed(false, now);
        assert_eq!(telling.due(), None, "there is nothing to tell");
        telling.changed(true, now);
        assert!(!telling.begins(now) && telling.begins(now + SOON));
        now += SOON;
        for _ in 0..3 {
            telling.told(false, took, now);
            assert_eq!(telling.due(), Some(now + took * SHARE), "others have the processor");
            now += took * SHARE;
            assert!(telling.begins(now));
        }
        telling.told(true, took, now);
        assert_eq!(telling.due(), Some(now + EVERY));
        telling.changed(false, now);
        assert_eq!(telling.due(), Some(now + SOON));
        assert!(telling.begins(now + SOON));
        telling.told(true, took, now + SOON);
        assert_eq!(telling.due(), None, "what was told is taken back, and no more");
        telling.changed(false, now + SOON);
        assert_eq!(telling.due(), None);
    }

    #[test]
    fn applies_without_end_have_all_told_once_a_second_at_most() {
        let (start, mut rounds) = (Instant::now(), 0);
        let mut telling = Telling::default();
        for hundredth in 0..1_000 {
            let now = start + Duration::from_millis(10) * hundredth;
            telling.changed(true, now);
            if telling.begins(now) {
                rounds += 1;
                telling.told(true, Duration::from_millis(1), now);
            }
        }
        assert!((8..=10).contains(&rounds), "{rounds} in ten seconds");
    }
}
