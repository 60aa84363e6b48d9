//! Why the daemon cannot begin, or go on.

use std::io;

use nix::errno::Errno;

use crate::failure::Failure;
use crate::sys::netns::Target;
use crate::sys::route::SocketError;

/// An error that ends the daemon; all others are logged, and tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotGoOn {
    /// signalfd(2), or the mask of blocked signals.
    #[error("signalfd: {0}")]
    Signals(#[source] Errno),
    /// inotify_init(2).
    #[error("inotify: {0}")]
    Inotify(#[source] io::Error),
    /// No netlink socket hears of links.
    #[error(transparent)]
    Links(SocketError),
    /// The socket for process events failed.
    #[error(transparent)]
    Processes(SocketError),
    /// poll(2).
    #[error("cannot wait for what happens: {0}")]
    Wait(#[source] Errno),
    /// The first apply came to no rest: others kept changing what it made, or processes kept
    /// coming.
    #[error("the first apply did not come to rest")]
    Restless,
    /// There is no hierarchy. A hardened service cannot mount it, but the unit that starts the
    /// daemon again can.
    #[error("the net_cls hierarchy is gone, and cannot be mounted")]
    NoHierarchy,
    /// setns(2) failed, back from a namespace that is gone.
    #[error("cannot go back to the namespace that this was started in: {0}")]
    NotHome(#[source] io::Error),
    /// The process that named the namespace has ended; another process may have its pid by now.
    #[error(
        "process {0} has ended or left its network namespace, which is not shaped any more: name it in another way (ip netns, a path), or start this again with the next process"
    )]
    ProcessGone(Target),
}

impl From<CannotGoOn> for Failure {
    fn from(error: CannotGoOn) -> Failure {
        Failure::refused(error)
    }
}
