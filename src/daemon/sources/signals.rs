//! The signals that end the daemon, or have it read its file again.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::daemon::event::Wish;

/// Reads signals once they are blocked ([`Signals::block`]); until then each has its usual effect.
pub(crate) struct Signals {
    set: SigSet,
    fd: SignalFd,
}

impl Signals {
    pub(crate) fn open() -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| set.add(s));
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { set, fd })
    }

    /// From now on signals come only through the descriptor, to this thread.
    pub(crate) fn block(&self) -> nix::Result<()> {
        self.set.thread_block()
    }

    /// The next signal that has come; `None`: no further one has.
    pub(crate) fn next(&self) -> Option<Wish> {
        let signal = self.fd.read_signal().ok().flatten()?;
        Some(match signal.ssi_signo == Signal::SIGHUP as u32 {
            true => Wish::ReadAgain,
            false => Wish::End,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
