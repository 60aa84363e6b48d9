//! Why a step was not performed, and what that says of the plan.

use std::io;

use nix::errno::Errno;

use crate::cgroup;
use crate::netlink::extack::KernelError;
use crate::netlink::request::filter;
use crate::plan::Step;
use crate::sys::route::SocketError;

/// A step that was not performed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Failed {
    /// The step.
    pub step: Box<Step>,
    /// Which of the step's messages the kernel refused, counted from 0; `None`: it was none of
    /// them.
    pub message: Option<usize>,
    /// Why it was not done.
    #[source]
    pub source: Box<Cause>,
}

/// Why a step was not performed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel refused a message.
    #[error("{0}")]
    Kernel(#[source] KernelError),
    /// The netlink socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A directory of the instance, or the mount.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// bpf(2) refused a program or a map.
    #[error("an eBPF program, or the maps of the one that decides whose a packet is: {0}")]
    Bpf(#[source] io::Error),
    /// The u32 rules cannot be written as messages.
    #[error(transparent)]
    Rules(#[from] filter::CannotWrite),
    /// ENODEV, or the link has another number now: it ends the link's own steps and no others.
    #[error("the link is gone")]
    LinkGone,
    /// Every step was performed, and the look after it still finds something to do.
    #[error("the kernel took every step but does not show the result; still to do:\n{0}")]
    Unverified(String),
    /// The signal's number.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// The gate stopped the run, with this sentence.
    #[error("{0}")]
    Stopped(String),
}

impl Cause {
    /// Whether another look may show something else than the one that the plan was made with.
    pub fn may_be_outdated(&self) -> bool {
        match self {
            Cause::Kernel(error) => !matches!(error.errno, Errno::EPERM | Errno::EOPNOTSUPP),
            Cause::Unverified(_) | Cause::LinkGone => true,
            Cause::Cgroup(_) => self.contradicts(),
            _ => false,
        }
    }

    /// Whether the kernel says that an object that is to be made exists, or that one that is to be
    /// changed does not.
    pub fn contradicts(&self) -> bool {
        let contradiction = [Errno::EEXIST, Errno::ENOENT, Errno::ENODEV];
        self.errno().is_some_and(|errno| contradiction.contains(&Errno::from_raw(errno)))
    }

    /// The system's error number, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Cause::Kernel(error) => Some(error.errno as i32),
            Cause::Cgroup(error) => error.errno(),
            Cause::Bpf(error) => error.raw_os_error(),
            _ => None,
        }
    }
}
