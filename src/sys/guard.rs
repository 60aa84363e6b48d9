//! The guard of `--confirm`: a process that outlives the one that started it, and waits to be told
//! that all is well.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, fork, setsid};

use super::threads::expect_one;

/// Which of the two processes this is after the fork.
pub enum Detached {
    /// The process that forked; the pid is the guard's.
    Parent(u32),
    /// The guard, in a session of its own, with its standard streams on /dev/null.
    Guard,
}

/// The signal that confirms.
const CONFIRM: Signal = Signal::SIGUSR1;

/// Forks a guard. The confirming signal is blocked before the fork, so that no confirmation is
/// lost.
///
/// # Errors
/// This process has more than one thread, or no further process can be forked.
pub fn detach() -> io::Result<Detached> {
    expect_one()?;
    let mut waited_for = SigSet::empty();
    waited_for.add(CONFIRM);
    waited_for.thread_block()?;
    // SAFETY: this process has one thread (`expect_one`), so the child may go on as it likes.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Detached::Parent(child.as_raw().cast_unsigned())),
        ForkResult::Child => {
            // Whoever started us may end, hang up, or wait for our output. An error must not make a
            // second parent of this process: it goes on as a guard, which is what it is for.
            if let Err(error) = leave_terminal() {
                log::warn!("the guard keeps its terminal: {error}");
            }
            Ok(Detached::Guard)
        }
    }
}

fn leave_terminal() -> io::Result<()> {
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Waits for the confirmation for at most `time`; whether it came.
pub fn wait(time: Duration) -> bool {
    let mut waited_for = SigSet::empty();
    waited_for.add(CONFIRM);
    let deadline = std::time::Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // SAFETY: both pointers are to values that live through the call; no siginfo is asked for.
        let signal =
            unsafe { libc::sigtimedwait(waited_for.as_ref(), std::ptr::null_mut(), &timeout) };
        if signal == CONFIRM as libc::c_int {
            return true;
        }
    }
}

/// Tells a guard that all is well.
pub fn confirm(pid: u32) -> io::Result<()> {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    Ok(nix::sys::signal::kill(pid, CONFIRM)?)
}
