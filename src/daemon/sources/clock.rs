//! The moment from which the policy in force means something else, and what makes that another
//! moment: a clock that is set, and a host that gets another zone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::watched::WatchedFile;
use crate::times::Timestamp;

/// The host's zone is what this file, or this link to one, says.
const LOCALTIME: &str = "/etc/localtime";

/// The timer, and the host's zone. Neither is there for a policy without windows.
#[derive(Default)]
pub(super) struct Clock {
    timer: Option<TimerFd>,
    /// For which moment the timer is set.
    until: Option<Timestamp>,
    /// The clock was set, which was told when the timer was, and not by the timer.
    turned: bool,
    zone: Option<WatchedFile>,
}

impl Clock {
    /// Has an event come at this moment; `None`: none is wanted.
    pub(super) fn wake_at(&mut self, until: Option<Timestamp>) {
        if self.until == until {
            return;
        }
        match self.set(until) {
            Ok(()) => self.until = until,
            Err(errno) => log::warn!("windows begin and end late: timerfd: {errno}"),
        }
    }

    fn set(&mut self, until: Option<Timestamp>) -> nix::Result<()> {
        let Some(until) = until else {
            self.zone = None;
            return self.timer.as_ref().map_or(Ok(()), TimerFd::unset);
        };
        if self.zone.is_none() {
            let watched = WatchedFile::watch(Path::new(LOCALTIME));
            let watched = watched.inspect_err(|error: &io::Error| {
                log::warn!("another zone of this host is seen late: {error}");
            });
            self.zone = watched.ok();
        }
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => TimerFd::new(
                ClockId::CLOCK_REALTIME,
                TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
            )?,
        };
        // A moment of 0 would be no moment to the timer.
        let at = Duration::try_from(until.as_duration()).unwrap_or_default();
        let at = TimeSpec::from(at.max(Duration::from_nanos(1)));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match timer.set(Expiration::OneShot(at), flags) {
            Ok(()) => {}
            // The clock was set since the timer was read last. The timer runs all the same, and
            // does not tell it again (timerfd_setup, fs/timerfd.c).
            Err(Errno::ECANCELED) => self.turned = true,
            Err(errno) => return Err(errno),
        }
        self.timer = Some(timer);
        Ok(())
    }

    /// The descriptors that have something to tell.
    pub(super) fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.timer.as_ref().map(AsFd::as_fd), self.zone.as_ref().map(AsFd::as_fd)]
    }

    /// Whether there is something to tell that no descriptor shows.
    pub(super) fn is_due(&self) -> bool {
        self.turned
    }

    /// Whether the policy may mean something else now.
    pub(super) fn has_turned(&mut self) -> bool {
        let turned = match self.timer.as_ref().map(TimerFd::wait) {
            None | Some(Err(Errno::EAGAIN)) => false,
            Some(Ok(())) => true,
            Some(Err(_)) => {
                // The clock was set (ECANCELED), and the timer with it.
                self.until = None;
                true
            }
        };
        let told = std::mem::take(&mut self.turned);
        told | turned | self.zone.as_ref().is_some_and(WatchedFile::changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn a_moment_is_told_once_and_not_before() {
        let mut clock = Clock::default();
        assert!(!clock.has_turned());
        let at = Timestamp::now() + Duration::from_millis(50);
        for _ in 0..2 {
            clock.wake_at(Some(at));
        }
        let [Some(timer), Some(_)] = clock.fds() else { panic!("no timer, or no zone") };
        let mut fds = [PollFd::new(timer, PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
        assert!(Timestamp::now() >= at);
        assert!(clock.has_turned());
        clock.wake_at(Some(at));
        assert!(!clock.has_turned(), "of a moment that is over nothing more is told");
        clock.wake_at(None);
        assert!(clock.fds()[1].is_none());
    }

    #[test]
    fn a_clock_that_was_set_before_the_timer_was_is_told_once() {
        let mut clock = Clock { turned: true, ..Clock::default() };
        assert!(clock.is_due() && clock.has_turned());
        assert!(!clock.is_due() && !clock.has_turned());
    }
}
