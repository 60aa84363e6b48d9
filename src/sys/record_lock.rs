//! Record locks (fcntl(2)) on whole files. The kernel says which process has one, drops it with the
//! process, and does not pass it on to children. A process loses such a lock when it closes any
//! descriptor of the file.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// How many processes may have the lock at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any number; enough to be found. The file is open for reading.
    Shared,
    /// One. The file is open for writing.
    Alone,
}

/// Takes a lock without waiting; whether it was free.
///
/// # Errors
/// Those of fcntl(2).
pub fn take(file: &File, kind: Kind) -> io::Result<bool> {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Alone => libc::F_WRLCK,
    };
    match fcntl(file, FcntlArg::F_SETLK(&whole(kind))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The pid of another process that has a lock on the file, or 0 where that is in another process
/// namespace; `None`: nobody has.
///
/// # Errors
/// Those of fcntl(2).
pub fn holder(file: &File) -> io::Result<Option<u32>> {
    let mut lock = whole(libc::F_WRLCK);
    match fcntl(file, FcntlArg::F_GETLK(&mut lock)) {
        Ok(_) if libc::c_int::from(lock.l_type) == libc::F_UNLCK => Ok(None),
        Ok(_) => Ok(Some(u32::try_from(lock.l_pid).unwrap_or(0))),
        Err(Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
