//! Whether somebody has a file open for writing: the kernel grants a read lease (fcntl(2),
//! F_SETLEASE) only where nobody has.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// Sets the signal that the kernel sends when somebody else opens the file during the lease
/// (include/uapi/asm-generic/fcntl.h).
const F_SETSIG: libc::c_int = 10;

/// Whether anybody has the file open for writing now. `file` is open for reading only. False where
/// the kernel does not say: on file systems without leases (NFS), and for files of others without
/// CAP_LEASE.
pub fn is_being_written(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // The kernel sends a signal when somebody opens the file during the lease: it is set to one
    // that ends nothing. SAFETY: these take numbers only, and `file` keeps the descriptor open.
    let taken = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        Errno::result(libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK))
    };
    match taken {
        Ok(_) => {
            // SAFETY: as above.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) })?;
            Ok(false)
        }
        Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::EINVAL | Errno::EACCES | Errno::EPERM | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(is_being_written(&reader).unwrap());
        drop(writer);
        assert!(!is_being_written(&reader).unwrap());
        assert!(!is_being_written(&reader).unwrap(), "the lease was given back");
    }
}
