//! When the service manager is told that the daemon is alive. Pure.

use std::time::{Duration, Instant};

/// The service manager's wish for signs of life.
pub(super) struct Watchdog {
    interval: Duration,
    due: Instant,
}

impl Watchdog {
    /// `patience`: how long the service manager waits for a sign of life.
    pub(super) fn new(patience: Duration, now: Instant) -> Watchdog {
        let interval = patience / 2;
        Watchdog { interval, due: now + interval }
    }

    /// When the next sign is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether a sign is to be given now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due <= now;
        if begins {
            self.due = now + self.interval;
        }
        begins
    }
}
