//! Errors that say nothing of what was asked for.

use std::io;

/// Whether the error says that this process or the system has no descriptor, memory or buffer left:
/// the object that was asked for may exist all the same.
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
