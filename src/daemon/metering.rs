//! When the daemon counts what owners with a quota use, and when it writes that down. Pure.

use std::time::{Duration, Instant};

use super::event::Action;
use super::rounds::is_time;
use crate::model::Next;

/// How soon counters are read after an apply, which may have given somebody another pace, and again
/// after they could not be read.
const SOON: Duration = Duration::from_millis(500);
/// After a reading, the rest is at least so many times as long as the reading took, but no longer
/// than [`REST`].
const SHARE: u32 = 20;
/// The longest rest that a slow reading asks for.
const REST: Duration = Duration::from_secs(30);
/// How long what was counted may be nowhere but in memory.
const WRITTEN: Duration = Duration::from_secs(60);

/// Readings, as long as somebody has a quota.
#[derive(Debug, Default)]
pub(super) struct Metering {
    due: Option<Instant>,
    /// Until when the last reading has it rest.
    rests: Option<Instant>,
    /// When it is written down; `None`: nothing was counted since.
    write_by: Option<Instant>,
}

impl Metering {
    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.write_by).min()
    }

    /// After an apply, which has counted too. `is_needed`: somebody has a quota.
    pub(super) fn applied(&mut self, is_needed: bool, now: Instant) {
        if is_needed {
            // Whoever counts next goes on from where the first count was.
            let by = if self.due.is_none() { now } else { now + WRITTEN };
            self.write_by.get_or_insert(by);
        }
        let soon = now + SOON;
        self.due = is_needed.then(|| self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Somebody may have granted an owner more, or had his use begin anew.
    pub(super) fn told(&mut self, now: Instant) {
        // Not at once: opening a file that cannot be read is heard as a change of it.
        let soon = self.rests.map_or(now + SOON, |rests| rests.max(now + SOON));
        self.due = self.due.map(|due| due.min(soon));
    }

    /// What is to be done before all ends.
    pub(super) fn ends(&mut self) -> Option<Action> {
        let counts = self.due.take().is_some();
        let writes = self.write_by.take().is_some();
        match counts {
            true => Some(Action::CountLast),
            false => writes.then_some(Action::WriteUse),
        }
    }

    /// What is to be done now.
    pub(super) fn on_time(&mut self, now: Instant) -> Vec<Action> {
        let counts = self.begins(now).then_some(Action::Count);
        let writes = self.writes(now).then_some(Action::WriteUse);
        counts.into_iter().chain(writes).collect()
    }

    /// Whether the counters are to be read now.
    fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due.is_some_and(|due| is_time(due, now));
        if begins {
            self.due = Some(now + SOON);
        }
        begins
    }

    /// After a reading that took so long; `next`: what follows from it, `None` where the counters
    /// could not be read. Whether an apply is wanted.
    pub(super) fn counted(&mut self, next: Option<Next>, took: Duration, now: Instant) -> bool {
        let rest = match next {
            Some(Next::Look(rest)) => rest,
            Some(Next::Turned) | None => SOON,
        };
        let share = took.saturating_mul(SHARE).min(REST);
        self.rests = Some(now + share);
        self.due = self.due.map(|_| now + rest.max(share));
        self.write_by.get_or_insert(now + WRITTEN);
        next == Some(Next::Turned)
    }

    /// Whether what was counted is to be written down now.
    fn writes(&mut self, now: Instant) -> bool {
        self.write_by.take_if(|by| *by <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_soon_as_somebody_could_have_used_what_he_has_left() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut metering = Metering::default();
        metering.applied(false, now);
        assert_eq!(metering.due(), None, "nobody has a quota");
        metering.applied(true, now);
        assert_eq!(metering.due(), Some(now), "it is written that it begins");
        assert!(metering.writes(now));
        assert_eq!(metering.due(), Some(now + SOON));
        assert!(!metering.begins(now) && metering.begins(now + SOON));
        let now = now + SOON;
        assert!(!metering.counted(Some(Next::Look(7 * second)), Duration::ZERO, now));
        assert_eq!(metering.due(), Some(now + 7 * second));
        // Another apply may have raised somebody's cap.
        metering.applied(true, now + second);
        assert_eq!(metering.due(), Some(now + second + SOON));
        let now = now + second + SOON;
        assert!(metering.begins(now) && metering.counted(Some(Next::Turned), Duration::ZERO, now));
        assert_eq!(metering.due(), Some(now + SOON));
        assert!(metering.begins(now + SOON) && !metering.counted(None, second, now + second));
        assert_eq!(metering.due(), Some(now + 21 * second), "a reading that takes long");
        metering.told(now + 2 * second);
        assert_eq!(
            metering.due(),
            Some(now + 21 * second),
            "somebody was granted more, but it rests"
        );
        assert!(metering.begins(now + 21 * second));
        let now = now + 21 * second;
        assert!(!metering.counted(Some(Next::Look(9 * second)), Duration::ZERO, now));
        metering.told(now + second);
        assert_eq!(metering.due(), Some(now + second + SOON), "heard of at once, and done soon");
        let mut due = 0;
        for tenth in 0..100 {
            let now = now + tenth * second / 10;
            metering.told(now);
            due += u32::from(metering.begins(now));
        }
        assert!(due <= 25, "told without end: {due} times in ten seconds");
        metering.applied(false, now);
        metering.told(now);
        assert!(!metering.begins(now + 60 * second), "nobody has a quota any more");
    }

    #[test]
    fn what_was_counted_is_written_once_a_minute() {
        let now = Instant::now();
        let mut metering = Metering::default();
        metering.applied(true, now);
        for second in 1..=200_u64 {
            let now = now + Duration::from_secs(second);
            let next = Some(Next::Look(Duration::from_secs(1)));
            let _ = metering.begins(now) && metering.counted(next, Duration::ZERO, now);
            assert_eq!(metering.writes(now), [1, 62, 123, 184].contains(&second), "{second}");
        }
        assert!(matches!(metering.ends(), Some(Action::CountLast)) && metering.ends().is_none());
        metering.applied(true, now);
        metering.applied(false, now);
        assert!(matches!(metering.ends(), Some(Action::WriteUse)) && metering.ends().is_none());
    }
}
