//! Network namespaces: which one this thread is in, entering one, and private ones for trying
//! things out.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Why a namespace was not entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("no network namespace `{wanted}`: {}: {source}", path.display())]
    Absent { wanted: String, path: PathBuf, source: io::Error },
    #[error("`{wanted}` cannot be entered as a network namespace: {source}")]
    Enter { wanted: String, source: io::Error },
}

/// Puts this thread, and those that it starts from now on, into a network namespace: a process's by
/// its pid, or the one at a path (anything with a `/`), or a name of `ip netns`. Sockets that are
/// already open stay where they are. /sys is not remounted, so /sys/class/net and /sys/fs/cgroup
/// keep showing what they showed.
pub fn enter(wanted: &str) -> Result<(), NetnsError> {
    let path = if wanted.contains('/') {
        PathBuf::from(wanted)
    } else if !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_digit()) {
        Path::new("/proc").join(wanted).join("ns/net")
    } else {
        Path::new(NAMES).join(wanted)
    };
    let wanted = wanted.to_string();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(NetnsError::Absent { wanted, path, source }),
    };
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetnsError::Enter { wanted, source: errno.into() })
}

/// The inode of this thread's network namespace: what tells two of them apart.
pub fn current() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Whether the namespace at `path` (`/proc/PID/ns/net`) was made by root: only then it belongs to the
/// user namespace of process 1. An ordinary user makes one together with a user namespace of his own.
///
/// # Errors
/// Where it may not be opened, or belongs to a user namespace outside of ours.
pub fn is_made_by_root(path: &Path) -> io::Result<bool> {
    // linux/nsfs.h: _IO(0xb7, 0x1). Answers with a new descriptor (`ns_ioctl`, fs/nsfs.c).
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // linux/nsfs.h (until Linux 6.18 linux/proc_ns.h): PROC_USER_INIT_INO
    const FIRST: u64 = 0xefff_fffd;
    let namespace = File::open(path)?;
    // SAFETY: this request takes no argument and touches no memory of ours.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    Ok(owner.metadata()?.ino() == FIRST)
}

/// Runs `work` on a thread of its own in a new, empty network namespace, which is gone afterwards.
/// EPERM without CAP_SYS_ADMIN; EAGAIN where there may be no thread more.
pub fn private<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, inside)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
