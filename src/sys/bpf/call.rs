//! bpf(2): one command, tried again while the kernel has no memory at hand for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

pub(super) fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// How often a command is tried for which the kernel has no memory at hand, and the pause between
/// two tries. Entries of maps come from small reserves that the kernel fills up a moment later
/// (kernel/bpf/memalloc.c), and the memory of deleted maps comes back as late.
const TRIES: u32 = 100;
const REFILL: Duration = Duration::from_millis(10);

/// # Safety
/// `attr` has the layout that the command reads and writes, and what it points to is valid for it.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let mut tries = 0;
    loop {
        // SAFETY: by the caller.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
        if answer >= 0 {
            return i32::try_from(answer).map_err(io::Error::other);
        }
        let error = io::Error::last_os_error();
        tries += 1;
        if error.raw_os_error() != Some(libc::ENOMEM) || tries == TRIES {
            return Err(error);
        }
        std::thread::sleep(REFILL);
    }
}

/// # Safety
/// As of [`bpf`]; the command answers with a new descriptor.
pub(super) unsafe fn new_descriptor<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: by the caller.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
