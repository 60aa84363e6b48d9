//! SIGINT, SIGTERM and SIGHUP are noted, and asked about between two steps: a run that is
//! interrupted undoes its steps before it ends.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// From now on these signals do not end the process. System calls that they interrupt are
/// restarted. A signal that was ignored at the start (`nohup`) stays ignored.
pub fn catch() {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        match unsafe { sigaction(signal, &action) } {
            Ok(before) if matches!(before.handler(), SigHandler::SigIgn) => {
                // SAFETY: restores the action of a moment ago, which runs no code of ours.
                let _restored = unsafe { sigaction(signal, &before) };
            }
            Ok(_) => {}
            Err(errno) => log::warn!("cannot catch {signal}: {errno}"),
        }
    }
}

/// The number of the last such signal that came; `None`: none came.
pub fn caught() -> Option<i32> {
    match CAUGHT.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}

/// A signal that came so far is as if it had not come.
pub fn forget() {
    CAUGHT.store(0, Ordering::Relaxed);
}
