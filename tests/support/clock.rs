//! The clock that senders, receivers and counters share: `CLOCK_MONOTONIC`, the same in every
//! process of one kernel.

use nix::time::{ClockId, clock_gettime};

/// Microseconds since some moment before the test.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Micros(pub u64);

impl Micros {
    pub fn now() -> Micros {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the monotonic clock");
        let seconds = u64::try_from(time.tv_sec()).expect("a clock that runs forward");
        let nanos = u64::try_from(time.tv_nsec()).expect("nanoseconds are never negative");
        Micros(seconds * 1_000_000 + nanos / 1_000)
    }

    /// Microseconds from `earlier` to here; 0 when it is the other way round.
    pub fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
