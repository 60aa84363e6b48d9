//! Network namespaces: which one this thread is in, entering one, and private ones for trying
//! things out.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// This thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// The folder in which `ip netns` has its names.
const NAMES: &str = "/run/netns";

/// The namespaces that ip-netns(8) lists, each with its file, which is open. What cannot be opened
/// is left out: somebody may remove it at any time.
pub fn named() -> impl Iterator<Item = (String, File)> {
    let entries = std::fs::read_dir(NAMES).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, File::open(entry.path()).ok()?))
    })
}

/// Why a namespace was not entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is no such namespace.
    #[error("no network namespace `{wanted}`: {}: {source}", path.display())]
    Absent {
        /// As the caller wrote it.
        wanted: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What opening that path said.
        source: io::Error,
    },
    /// setns(2) refused the namespace, or the path is another file.
    #[error("`{wanted}` cannot be entered as a network namespace: {source}")]
    Enter {
        /// As the caller wrote it.
        wanted: String,
        /// What setns(2) said.
        source: io::Error,
    },
}

/// A network namespace as people name it: a process's by its pid, the one at a path (anything with
/// a `/`), or a name of `ip netns`.
#[derive(Clone, Debug)]
pub struct Target {
    wanted: String,
    path: PathBuf,
    is_process: bool,
}

impl Target {
    /// Digits are a process, a text with a `/` is a path, and everything else a name.
    pub fn new(wanted: &str) -> Target {
        let is_process = !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_digit());
        let path = if wanted.contains('/') {
            PathBuf::from(wanted)
        } else if is_process {
            Path::new("/proc").join(wanted).join("ns/net")
        } else {
            Path::new(NAMES).join(wanted)
        };
        Target { wanted: wanted.to_string(), path, is_process }
    }

    /// What `ip netns` calls the namespace, if it was named so.
    pub fn name(&self) -> Option<&str> {
        let is_name = !self.is_process && !self.wanted.contains('/');
        is_name.then_some(self.wanted.as_str())
    }

    /// Where the namespace's file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the namespace was named by a process, and so ends with that process.
    pub fn is_process(&self) -> bool {
        self.is_process
    }

    /// Puts this thread, and those that it starts from now on, into the namespace. Sockets that are
    /// already open stay where they are. /sys is not remounted, so /sys/class/net and
    /// /sys/fs/cgroup keep showing what they showed.
    pub fn enter(&self) -> Result<(), NetnsError> {
        let wanted = self.wanted.clone();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(source) => {
                return Err(NetnsError::Absent { wanted, path: self.path.clone(), source });
            }
        };
        setns(file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetnsError::Enter { wanted, source: errno.into() })
    }

    /// The inode of the namespace that the name or path now stands for; as long as somebody uses
    /// that namespace, no other has the same inode. `None`: it stands for none any more. (A name of
    /// `ip netns` is a file without a namespace for a moment; a process that has ended has none.)
    ///
    /// # Errors
    /// The path cannot be looked up (stat(2)) for lack of a descriptor, memory or permission.
    pub fn inode(&self) -> io::Result<Option<u64>> {
        let own = std::fs::metadata(OWN)?;
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev() == own.dev()).then_some(found.ino())),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH)
                    || error.kind() == io::ErrorKind::NotADirectory =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.wanted)
    }
}

/// A network namespace to which a thread can go back.
pub struct Home(File);

impl Home {
    /// The namespace that this thread is in now.
    pub fn here() -> io::Result<Home> {
        File::open(OWN).map(Home)
    }

    /// Puts this thread back into that namespace. Needs CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

/// The inode of this thread's network namespace, which no other namespace has at the same time.
pub fn current() -> io::Result<u64> {
    Ok(std::fs::metadata(OWN)?.ino())
}

/// Whether root made the namespace at `path` (`/proc/PID/ns/net`): only then it belongs to the user
/// namespace of process 1. An ordinary user makes one together with a user namespace of his own.
///
/// # Errors
/// The namespace may not be opened, or belongs to a user namespace outside of ours.
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

/// `SO_NETNS_COOKIE` (asm-generic/socket.h), which libc does not have.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number by which eBPF programs know this thread's network namespace; `None` before Linux
/// 5.14.
///
/// # Errors
/// No socket can be opened, so the number is not known.
pub fn cookie() -> io::Result<Option<u64>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is a u64, and `length` says so.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Ok((answer == 0 && length as usize == size_of::<u64>()).then_some(cookie))
}

/// Runs `work` on a thread of its own in a new, empty network namespace, which is gone afterwards.
/// EPERM without CAP_SYS_ADMIN; EAGAIN where no further thread can be started.
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
