//! Whether the kernel's clock is kept right by somebody.

/// Whether a time server has set the clock and keeps it (adjtimex(2)). Nobody says so of a host
/// without one, however right its clock is.
pub fn is_synchronized() -> bool {
    // SAFETY: all bits zero are a `timex` that asks for no change.
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `answer` is a `timex` that lives as long as the call, which writes nothing else.
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    state >= 0 && state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0
}
