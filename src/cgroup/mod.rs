//! The `net_cls` hierarchy (cgroup v1, Documentation/admin-guide/cgroup-v1/net_cls.rst): where it
//! is mounted, and the directories of one instance in it, each holding a classid and processes.
//! Touches files below the paths that it is given, and mounts only where it is told to.

mod confirmation;
mod doors;
mod hierarchy;
mod instance;
mod keeper;
mod lock;
mod mountinfo;
mod namespace;
mod observed;
mod retired;
mod said;

use std::io;
use std::path::{Path, PathBuf};

pub use doors::Doors;
pub use hierarchy::{DEFAULT_MOUNT, Hierarchy, Unmounted, find, mount, unmount};
pub use instance::{Attached, Instance};
pub use keeper::Keeping;
pub use lock::Lock;
pub use mountinfo::{Mount, net_cls_mount, parse_mountinfo};
pub use namespace::named_after;

/// What can go wrong in the hierarchy. Each says the path and, for a write, the data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {verb} {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {data} to {}: {source}", path.display())]
    Write { data: String, path: PathBuf, source: io::Error },
    #[error("wrote {data} to {}, but it reads back as `{found}`", path.display())]
    ReadBack { data: String, path: PathBuf, found: String },
    #[error("cannot remove {}: it still has {what}", path.display())]
    Occupied { path: PathBuf, what: String },
    #[error("another run holds the lock on {}", path.display())]
    Locked { path: PathBuf },
    #[error(
        "cannot mount net_cls at {}: the kernel was started with `cgroup_no_v1`, which switches \
         it off; take `net_cls` (or `all`) off that parameter and boot again",
        at.display()
    )]
    Disabled { at: PathBuf },
    #[error("the net_cls hierarchy is mounted nowhere any more")]
    NotMounted,
    #[error("this kernel has no net_cls (CONFIG_CGROUP_NET_CLASSID)")]
    NoNetCls,
    #[error(
        "cannot mount net_cls at {}: its hierarchy is tied to {with}, and is not mounted where it \
         can be seen from here; mount it with `mount -t cgroup -o {options} net_cls {}`",
        at.display(), at.display()
    )]
    Paired { at: PathBuf, with: String, options: String },
    #[error("cannot mount net_cls at {}: something else is mounted there", at.display())]
    MountPointTaken { at: PathBuf },
}

impl Error {
    /// For `map_err`: what was being done, to what.
    pub(crate) fn io<'a>(
        verb: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io { verb, path: path.to_path_buf(), source }
    }

    /// The system's error number, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } | Error::Write { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
