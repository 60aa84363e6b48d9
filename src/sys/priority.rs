//! Which process the scheduler prefers.

/// Puts this process before ordinary ones (nice -10), unless somebody gave it a niceness already. Whether
/// it could: CAP_SYS_NICE.
pub fn before_others() -> bool {
    const NICE: libc::c_int = -10;
    // SAFETY: these take numbers only. -1 is an answer as well, and one that is left as it is.
    unsafe {
        libc::getpriority(libc::PRIO_PROCESS, 0) != 0
            || libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0
    }
}
