//! Classes that are retired, or whose account has left, and that have still to become quiet: two
//! looks at them that lie far enough apart are compared.

use std::time::{Duration, Instant};

use crate::apply::QUIET;

/// Between two looks, when the ones before did not find them quiet.
const LONGEST: Duration = Duration::from_secs(60);

/// One look that was taken of them, and the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Pairs of looks that did not find them quiet.
    round: u32,
    /// When the look was taken with which the next one is compared.
    began: Instant,
    /// When that is due.
    pub(super) until: Instant,
    /// It was compared with a later one.
    pub(super) is_compared: bool,
}

impl Drain {
    /// The look is taken now.
    pub(super) fn begin(now: Instant) -> Drain {
        Drain { round: 0, began: now, until: now + QUIET, is_compared: false }
    }

    /// Whether a look now may be compared with the one that was taken.
    pub(super) fn is_old_enough(self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= QUIET
    }

    /// They were not quiet: another look is taken now, and waits twice as long for the next.
    pub(super) fn again(self, now: Instant) -> Drain {
        let round = self.round.saturating_add(1);
        let pause = QUIET.saturating_mul(2_u32.saturating_pow(round)).min(LONGEST);
        Drain { round, began: now, until: now + pause, is_compared: false }
    }
}
