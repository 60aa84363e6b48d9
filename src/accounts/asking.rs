//! The one way to ask NSS: which process asks, for how long, and what the answer is.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::SUBUID;
use super::lookup::lookup;
use super::question::Question;
use crate::facts::Accounts;
use crate::sys::offspring::Offspring;

/// Which process asks NSS, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// This process asks and waits. It loads NSS's modules for good, and those may start threads
    /// and hold locks, so a process that forks later must not ask so.
    Here,
    /// A child asks, and this process waits as long as that takes.
    Apart,
    /// A child asks, and is killed after this time.
    Within(Duration),
}

/// Why there is no answer at all. Where NSS answered only a part of the question,
/// [`Accounts::unavailable`] says why.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// fork(2) or pipe(2) failed.
    /// No child could be forked, or this process has a second thread.
    #[error("cannot start a child that asks: {0}")]
    NoChild(#[source] io::Error),
    /// The child ended, or was killed, before its answer was complete.
    #[error("the one who asked it ended: {0}")]
    Ended(#[source] serde_json::Error),
    /// The child was killed after so long. NSS took longer than the given time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Unanswered {
    /// The accounts without an answer: only who runs is known, and that NSS was unavailable.
    pub fn accounts(&self, running: BTreeSet<u32>) -> Accounts {
        Accounts { running, unavailable: Some(self.to_string()), ..Accounts::default() }
    }
}

impl Question {
    /// Asks and waits. What NSS says does not exist is `None` in `by_name` and `groups`, and a uid
    /// that no account has is in `absent`; what it could not answer is in none of the maps, and
    /// `unavailable` says why.
    pub fn ask(self, how: How) -> Result<Accounts, Unanswered> {
        let limit = match how {
            How::Here => return Ok(lookup(self, Path::new(SUBUID))),
            How::Apart => None,
            How::Within(limit) => Some(limit),
        };
        let mut asking = self.start(limit)?;
        loop {
            if let Some(answer) = asking.answer() {
                return answer;
            }
            let left = asking.due().map(|due| due.saturating_duration_since(Instant::now()));
            // Not shorter than the time that is left, or this would loop without a pause.
            let wait = left.map(|left| left + Duration::from_millis(1));
            let wait = wait.map_or(PollTimeout::NONE, |wait| {
                PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
            });
            // Whatever ends the wait early, the pipe is read again.
            let _readable = poll(&mut [PollFd::new(asking.as_fd(), PollFlags::POLLIN)], wait);
        }
    }

    /// Has a child ask, while this process does something else. After `limit` the child is killed.
    pub fn start(self, limit: Option<Duration>) -> Result<Asking, Unanswered> {
        let child = Offspring::start(move || {
            let accounts = lookup(self, Path::new(SUBUID));
            serde_json::to_vec(&accounts).unwrap_or_default()
        });
        let child = child.map_err(Unanswered::NoChild)?;
        Ok(Asking { child, since: Instant::now(), limit })
    }
}

/// A question that a child is asking. Its descriptor is readable when there is more to hear.
/// Dropped, the child is killed.
pub struct Asking {
    child: Offspring,
    since: Instant,
    limit: Option<Duration>,
}

impl Asking {
    /// When the child will be killed; `None`: never.
    pub fn due(&self) -> Option<Instant> {
        Some(self.since + self.limit?)
    }

    /// The answer; `None`: the child has not finished, and there is time left. Never blocks.
    pub fn answer(&mut self) -> Option<Result<Accounts, Unanswered>> {
        if let Some(said) = self.child.answer() {
            return Some(parse(&said));
        }
        let limit = self.limit.filter(|limit| self.since.elapsed() >= *limit)?;
        Some(Err(Unanswered::TimedOut(limit)))
    }
}

impl AsFd for Asking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

fn parse(said: &[u8]) -> Result<Accounts, Unanswered> {
    serde_json::from_slice(said).map_err(Unanswered::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::alone;

    #[test]
    fn a_child_answers_as_this_process_would() {
        alone(|| {
            let question = Question { running: [0, 3_999_999_999].into(), ..Question::default() };
            let here = question.clone().ask(How::Here).unwrap();
            assert_eq!(question.clone().ask(How::Apart).unwrap(), here);
            assert_eq!(question.ask(How::Within(Duration::from_secs(60))).unwrap(), here);
            assert_eq!(here.by_uid[&0].name, "root");
        });
    }

    #[test]
    fn who_says_nothing_is_no_answer() {
        let why = parse(b"").unwrap_err();
        assert!(why.to_string().starts_with("the one who asked it ended"), "{why}");
        let accounts = why.accounts([7].into());
        assert_eq!((accounts.running, accounts.unavailable), ([7].into(), Some(why.to_string())));
    }

    #[test]
    fn a_question_that_takes_too_long_is_given_up() {
        alone(|| {
            let child = Offspring::start(|| {
                std::thread::sleep(Duration::from_secs(600));
                Vec::new()
            });
            let limit = Duration::from_secs(1);
            let mut asking = Asking { child: child.unwrap(), since: Instant::now(), limit: None };
            assert_eq!(asking.due(), None);
            assert!(asking.answer().is_none());
            asking.limit = Some(limit);
            assert!(asking.due().is_some_and(|due| due > Instant::now()));
            asking.since -= limit;
            let why = asking.answer().unwrap().unwrap_err();
            assert_eq!(why.to_string(), "no answer within 1 s");
        });
    }
}
