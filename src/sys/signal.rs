//! SIGINT, SIGTERM and SIGHUP, noted and asked about between two steps: a run that is interrupted
//! puts back what was there before it ends.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// From now on these signals end nothing by themselves. System calls that they interrupt are
/// restarted. One that whoever started us ignores (`nohup`) stays ignored.
pub fn catch() {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        match unsafe { sigaction(signal, &action) } {
            Ok(before) if matches!(before.handler(), SigHandler::SigIgn) => {
                // SAFETY: what was in force a moment ago; it runs no code of ours.
                let _restored = unsafe { sigaction(signal, &before) };
            }
            Ok(_) => {}
            Err(errno) => log::warn!("cannot catch {signal}: {errno}"),
        }
    }
}

/// The last of them that came, if one did.
pub fn caught() -> Option<i32> {
    match CAUGHT.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
