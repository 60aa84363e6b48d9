//! Refusals that say nothing of what was asked.

use std::io;

/// This process or the system has no descriptor, memory or buffer left: whatever was asked for may
/// be there all the same, or may be possible.
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
