//! The clock that senders, receivers and counters share: `CLOCK_MONOTONIC`, the same in every
//! process of one kernel. And the one way to wait: for a condition, not for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

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

/// Waits until something is true, and says how long that took; panics after `limit`. The condition
/// is tested once more when the time is up, since a busy machine may have stopped this process too.
#[track_caller]
pub fn soon(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        let late = start.elapsed() > limit;
        if holds() {
            return start.elapsed();
        }
        assert!(!late, "not after {:?}: {what}", start.elapsed());
        sleep(pause(start.elapsed()));
    }
}

/// What is soon there is seen soon, and what takes seconds is not asked for a hundred times in each
/// of them: most conditions start a program.
fn pause(waited: Duration) -> Duration {
    (waited / 16).clamp(Duration::from_millis(5), Duration::from_millis(40))
}
