//! How the scheduler treats this process.

/// How long a process can ask to run in one turn, in nanoseconds (`sched_attr::sched_runtime`,
/// kernel/sched/syscalls.c).
const SHORTEST: u64 = 100_000;
const LONGEST: u64 = 100_000_000;

/// Prefers this process to ordinary ones (nice -10), unless somebody gave it a niceness already.
/// False without CAP_SYS_NICE.
///
/// Also asks for short turns, which needs no right: since Linux 6.12 a process that wakes up and
/// asks for a shorter turn than the running one goes first (`PREEMPT_SHORT`, kernel/sched/fair.c);
/// otherwise it waits until that turn is over, which is 3 ms. Older kernels go by niceness alone.
pub fn before_others() -> bool {
    const NICE: libc::c_int = -10;
    // SAFETY: these take numbers only. -1 is an answer as well, and one that is left as it is.
    let prefers = unsafe {
        libc::getpriority(libc::PRIO_PROCESS, 0) != 0
            || libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0
    };
    if let Err(error) = ask_for_turns(SHORTEST) {
        log::debug!("no short turns on a processor: {error}");
    }
    prefers
}

/// Lets others go first, for work that may wait for some milliseconds: asks for turns as long as
/// the kernel grants. Then whoever wakes up beside this process and asks for a shorter turn, as all
/// do that ask for none, need not wait for the end of this one's. Its share stays the same, so that
/// it goes on where everybody is busy.
pub fn behind_others() {
    if let Err(error) = ask_for_turns(LONGEST) {
        log::debug!("no long turns on a processor: {error}");
    }
}

/// Asks for turns of so many nanoseconds and keeps the niceness. A process that somebody gave
/// another policy (`chrt --idle`, `CPUSchedulingPolicy=`) keeps that one: asking sets both.
fn ask_for_turns(length: u64) -> std::io::Result<()> {
    if policy() != Some(libc::SCHED_OTHER) {
        return Ok(());
    }
    // SAFETY: all zeroes is a value of this structure of integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = u32::try_from(size_of_val(&attributes)).unwrap_or(0);
    attributes.sched_policy = libc::SCHED_OTHER.cast_unsigned();
    // SAFETY: getpriority takes numbers only.
    attributes.sched_nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    attributes.sched_runtime = length;
    // SAFETY: the kernel reads the structure, whose size it has, and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The scheduling policy of this thread. By the system call: musl's function only refuses.
fn policy() -> Option<libc::c_int> {
    // SAFETY: this takes a number only.
    let result = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    result.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy is a thread's own, so that other tests keep theirs.
    #[test]
    fn whoever_was_given_another_policy_keeps_it() {
        for given in [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE] {
            let thread = std::thread::spawn(move || {
                // SAFETY: all zeroes is a value of this structure of integers.
                let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
                let call = libc::SYS_sched_setscheduler;
                // SAFETY: the kernel reads the structure, and keeps no pointer.
                let set = unsafe { libc::syscall(call, 0, given, &raw const parameters) };
                behind_others();
                (set, policy())
            });
            assert_eq!(thread.join().unwrap(), (0, Some(given)));
        }
    }
}
