//! Questions to the person at the terminal.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};

use super::output::stderr;
use crate::failure::Failure;
use crate::sys::signal;

/// A signal may come just before the wait begins, so that the wait does not end by it.
const TURN: Duration = Duration::from_millis(200);

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This line, without blanks around it; nothing where the terminal was closed.
    Said(String),
    /// The time is over.
    Silence,
    /// A signal that is caught ([`signal::catch`]) came.
    Signal(i32),
}

/// Asks, and waits for a line until `until`. What was typed before the question is no answer to it.
///
/// # Errors
/// The terminal cannot be written or read.
pub(super) fn ask(question: &str, until: Option<Instant>) -> Result<Answer, Failure> {
    let broken =
        |error: io::Error| Failure::refused(format!("the terminal does not answer: {error}"));
    let stdin = io::stdin();
    // A terminal that is gone says so when it is read.
    let _no_terminal_keeps_nothing = tcflush(&stdin, FlushArg::TCIFLUSH);
    stderr(question).map_err(broken)?;
    loop {
        if let Some(signal) = signal::caught() {
            return Ok(Answer::Signal(signal));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Answer::Silence);
        }
        let turn = PollTimeout::try_from(left.unwrap_or(TURN).min(TURN));
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, turn.unwrap_or(PollTimeout::ZERO)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(broken(errno.into())),
            // A terminal gives a whole line, or its end.
            Ok(_) => {
                let mut line = String::new();
                stdin.read_line(&mut line).map_err(broken)?;
                return Ok(Answer::Said(line.trim().to_string()));
            }
        }
    }
}
