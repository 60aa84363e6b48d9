//! Classes that are retired, or whose account has left, and that are not quiet yet: two looks at
//! them, far enough apart, are compared.

use std::time::{Duration, Instant};

use crate::apply::QUIET;

/// The longest time between two looks, when earlier ones did not find the classes quiet.
const LONGEST: Duration = Duration::from_secs(60);

/// The last look at these classes, and when the next one is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// How many pairs of looks have not found the classes quiet.
    round: u32,
    /// When the look was taken with which the next one is compared.
    began: Instant,
    /// When the next look is due.
    pub(super) until: Instant,
    /// Whether the look was compared with a later one.
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

    /// After a pair of looks that did not find the classes quiet: another look is taken now, and
    /// the next one is due after twice as long.
    pub(super) fn again(self, now: Instant) -> Drain {
        let round = self.round.saturating_add(1);
        let pause = QUIET.saturating_mul(2_u32.saturating_pow(round)).min(LONGEST);
        Drain { round, began: now, until: now + pause, is_compared: false }
    }
}
