//! What the daemon has done, counted for the metrics, and when that is written down. Pure but for
//! the clock that callers pass in.

use std::time::{Duration, Instant};

use crate::sample::{Deed, Upkeep};

/// How long further deeds are waited for before all are written down together.
const GATHER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Counts {
    upkeep: Upkeep,
    /// When it is written down next; `None`: all of it is.
    due: Option<Instant>,
}

impl Counts {
    /// Goes on from what the daemon before has counted.
    pub(super) fn new(upkeep: Upkeep) -> Counts {
        Counts { upkeep, due: None }
    }

    pub(super) fn note(&mut self, deed: &Deed, now: Instant) {
        self.upkeep.note(deed);
        self.due.get_or_insert(now + GATHER);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The text to be written down, whether or not it has been.
    pub(super) fn text(&mut self) -> String {
        self.due = None;
        self.upkeep.print()
    }

    /// The same, if it is time; `None` of `now`: as the daemon ends.
    pub(super) fn news(&mut self, now: Option<Instant>) -> Option<String> {
        let due = self.due?;
        now.is_none_or(|now| due <= now).then(|| self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_are_written_down_together_and_once() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        assert_eq!((counts.due(), counts.news(None)), (None, None));
        counts.note(&Deed::Lost, now);
        counts.note(&Deed::Lost, now + GATHER / 2);
        assert_eq!(counts.news(Some(now)), None);
        let text = counts.news(Some(now + GATHER)).unwrap();
        assert_eq!(Upkeep::parse(&text).unwrap().lost(), 2);
        assert_eq!((counts.due(), counts.news(None)), (None, None));
        counts.note(&Deed::Lost, now);
        assert_eq!(counts.news(None), Some(counts.text()), "the daemon ends");
    }
}
