//! The errors of the hierarchy.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::shortage::is_shortage;

/// An error in the hierarchy. Each names the path and, for a write, the data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file or directory failed.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `make`, `lock`.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// write(2) into a file of a cgroup failed.
    #[error("cannot write {data} to {}: {source}", path.display())]
    Write {
        /// What was to be written.
        data: String,
        /// Into which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel accepted a number and stored another.
    #[error("wrote {data} to {}, but it reads back as `{found}`", path.display())]
    ReadBack {
        /// What was written.
        data: String,
        /// Into which file.
        path: PathBuf,
        /// What the file has now.
        found: String,
    },
    /// A directory cannot be removed, because it is not empty.
    #[error("cannot remove {}: it still has {what}", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What is in it: `processes`, or the name of a directory.
        what: String,
    },
    /// A cgroup of the name that ours would have was made by a user, below one of his own.
    #[error("{} is not root's: somebody else has made it; remove it", path.display())]
    NotOurs {
        /// The cgroup.
        path: PathBuf,
    },
    /// The kernel's program asks for no cgroup as deep as that.
    #[error(
        "{} is a cgroup as deep as the program asks ({deepest} levels): there is no room for one below it; start the program from a shallower one",
        path.display()
    )]
    TooDeep {
        /// The cgroup below which one was to be made.
        path: PathBuf,
        /// At which level one may be.
        deepest: u8,
    },
    /// A process cannot go back to the cgroup above the one that was made for it.
    #[error(
        "process {pid} cannot leave {}: the cgroup above it shares out controllers by now ({} has `{controllers}`), and takes no process any more; end the process, or move it to another cgroup by hand",
        path.display(), above.display()
    )]
    NoWayBack {
        /// The process.
        pid: u32,
        /// Our cgroup, in which it is.
        path: PathBuf,
        /// `cgroup.subtree_control` of the one above.
        above: PathBuf,
        /// What that has.
        controllers: String,
    },
    /// This process may not write to the hierarchy.
    #[error(
        "cannot make {}: it is read-only here, as a unit's ProtectControlGroups= or a container has it; do it from where cgroup v2 can be written to",
        path.display()
    )]
    ReadOnly {
        /// The cgroup that was to be made.
        path: PathBuf,
    },
    /// The same, where what was put into a class by tags is to stay there without.
    #[error(
        "what `run` and `attach` put into a class would lose it: {} cannot be made, which is read-only here (ProtectControlGroups=); `systemctl restart shaper` or a `shaper apply` by hand takes it along, and after `shaper release` there is nothing to take",
        path.display()
    )]
    LeftBehind {
        /// The cgroup that was to be made.
        path: PathBuf,
    },
    /// The kernel's map of cgroups cannot be written.
    #[error("cannot tell the kernel whose the cgroup's sockets are: {source}")]
    Untold {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another run has the instance's lock, and has kept it for as long as was waited.
    #[error("another run holds the lock on {}", path.display())]
    Locked {
        /// The directory that is locked.
        path: PathBuf,
    },
    /// `net_cls` was switched off when the kernel booted.
    #[error(
        "cannot mount net_cls at {}: the kernel was started with `cgroup_no_v1`, which switches \
         it off; take `net_cls` (or `all`) off that parameter and boot again",
        at.display()
    )]
    Disabled {
        /// Where it was to be mounted.
        at: PathBuf,
    },
    /// The hierarchy was mounted when the run began, and somebody has unmounted it.
    #[error("the net_cls hierarchy is mounted nowhere any more")]
    NotMounted,
    /// The kernel was built without `net_cls`.
    #[error("this kernel has no net_cls (CONFIG_CGROUP_NET_CLASSID)")]
    NoNetCls,
    /// `net_cls` is in one hierarchy with other controllers, which a mount must name too.
    #[error(
        "cannot mount net_cls at {}: its hierarchy is tied to {with}, and is not mounted where it \
         can be seen from here; mount it with `mount -t cgroup -o {options} net_cls {}`",
        at.display(), at.display()
    )]
    Paired {
        /// Where it was to be mounted.
        at: PathBuf,
        /// The other controllers.
        with: String,
        /// What the mount must say.
        options: String,
    },
    /// Something else is mounted at shaper's own mount point.
    #[error("cannot mount net_cls at {}: something else is mounted there", at.display())]
    MountPointTaken {
        /// The mount point.
        at: PathBuf,
    },
}

impl Error {
    /// For `map_err`: adds what was tried with which path to an error.
    pub(crate) fn io<'a>(
        verb: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io { verb, path: path.to_path_buf(), source }
    }

    /// Whether the error says only that no descriptor or memory was left, and nothing of the file.
    pub(crate) fn is_shortage(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::Write { source, .. } => is_shortage(source),
            _ => false,
        }
    }

    /// The system's error number, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } | Error::Write { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
