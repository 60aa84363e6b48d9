//! Why the kernel could not be read.

use std::io;

use crate::cgroup;
use crate::sys::route::SocketError;
use crate::tree::LinkName;

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The netlink socket failed, or a list was refused.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The hierarchy or the instance's directories.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A file that a look needs.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel had no memory or no descriptor for the trial of features, which says nothing of
    /// what it can do.
    #[error("cannot find out what this kernel can do: {0}")]
    Probe(#[source] io::Error),
    /// The ethtool ioctl failed for want of a descriptor or of memory.
    #[error("cannot ask {link} for its speed: {source}")]
    Speed {
        /// Which link.
        link: LinkName,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What the file says.
    #[error("/proc/net/psched has values that no kernel is known to have: `{0}`")]
    Psched(String),
}
