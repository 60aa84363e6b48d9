//! NSS, asked by a child: its modules may hang, start threads, or hold locks, and this process
//! wants to go on, or to fork.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Question, SUBUID, lookup};
use crate::facts::Accounts;
use crate::sys::offspring::Offspring;

/// Starts a child that asks; [`answer`] reads what it says.
pub fn ask(question: Question) -> io::Result<Offspring> {
    Offspring::start(move || {
        let accounts = lookup(question, Path::new(SUBUID));
        serde_json::to_vec(&accounts).unwrap_or_default()
    })
}

/// What a child of [`ask`] said; an error in words, where it ended before it said all.
pub fn answer(said: &[u8]) -> Result<Accounts, String> {
    serde_json::from_slice(said).map_err(|error| format!("the one who asked it ended: {error}"))
}

/// As [`lookup`], and waits as long as that would; no module is loaded into this process.
pub fn lookup_apart(question: Question) -> Accounts {
    let running = question.running.clone();
    let unanswered = |why| Accounts { running, unavailable: Some(why), ..Accounts::default() };
    let mut child = match ask(question) {
        Ok(child) => child,
        Err(error) => return unanswered(format!("cannot start a child that asks: {error}")),
    };
    loop {
        if let Some(said) = child.answer() {
            return answer(&said).unwrap_or_else(unanswered);
        }
        // Whatever ends it early, the pipe is read again.
        let _readable =
            poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_answers_as_this_process_would() {
        let question = Question { running: [0, 3_999_999_999].into(), ..Question::default() };
        let here = lookup(question.clone(), Path::new(SUBUID));
        assert_eq!(lookup_apart(question), here);
    }

    #[test]
    fn who_says_nothing_is_no_answer() {
        assert!(answer(b"").unwrap_err().starts_with("the one who asked it ended"));
    }
}
