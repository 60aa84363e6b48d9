//! The one way to ask NSS: which process asks, for how long, and what the answer is.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SUBUID;
use super::lookup::{lookup, read_files};
use super::question::Question;
use crate::facts::Accounts;
use crate::sys::offspring::{Offspring, Signs};

/// How long NSS may take; after that the child that asks is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// For the whole question.
    Whole(Duration),
    /// From one of its answers to the next: of 10,000 names each may take a moment.
    Each(Duration),
}

impl Limit {
    /// For whoever can wait until all is answered, but not for ever. Longer than a client of LDAP
    /// tries the first of its servers (10 s by nslcd's `bind_timelimit`), so that the second one is
    /// heard.
    pub const PATIENT: Limit = Limit::Each(Duration::from_secs(12));

    fn time(self) -> Duration {
        match self {
            Limit::Whole(time) | Limit::Each(time) => time,
        }
    }
}

/// Why there is no answer at all. Where NSS answered only a part of the question,
/// [`Accounts::unavailable`] says why.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// fork(2) or pipe(2) failed, or this process has a second thread.
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
    /// What the host's own files say instead of NSS.
    pub fn accounts(&self, question: Question) -> Accounts {
        read_files(question, Path::new(SUBUID), self.to_string())
    }
}

impl Question {
    /// Has a child ask, and waits. What NSS says does not exist is `None` in `by_name` and
    /// `groups`, and a uid that no account has is in `absent`; what it could not answer is in none
    /// of the maps, and `unavailable` says why.
    pub fn ask(self, limit: Limit) -> Result<Accounts, Unanswered> {
        self.start(limit)?.wait()
    }

    /// The same; where NSS does not answer, what the host's own files say.
    pub fn ask_or_read(self, limit: Limit) -> Accounts {
        let question = self.clone();
        self.ask(limit).unwrap_or_else(|why| why.accounts(question))
    }

    /// As [`Question::ask`], in this process, however long it takes. It loads NSS's modules for
    /// good, and those may start threads and hold locks: a process that asked so must not fork
    /// later.
    pub fn ask_here(self) -> Accounts {
        lookup(self, Path::new(SUBUID), &mut || {})
    }

    /// Has a child ask, while this process does something else.
    pub fn start(self, limit: Limit) -> Result<Asking<Accounts>, Unanswered> {
        Asking::start(limit, move |signs| lookup(self, Path::new(SUBUID), &mut || signs.of_life()))
    }
}

/// A question that a child is asking. Its descriptor is readable when there is more to hear.
/// Dropped, the child is killed.
pub struct Asking<A> {
    child: Offspring,
    /// When the time began that it has.
    since: Instant,
    /// What it had said by then.
    taken: usize,
    limit: Limit,
    answer: PhantomData<A>,
}

impl<A: Serialize + DeserializeOwned> Asking<A> {
    /// Has a child ask.
    ///
    /// # Errors
    /// No child can be started.
    pub fn start(limit: Limit, ask: impl FnOnce(&mut Signs) -> A) -> Result<Asking<A>, Unanswered> {
        let child = |signs: &mut Signs| serde_json::to_vec(&ask(signs)).unwrap_or_default();
        let child = Offspring::start(child).map_err(Unanswered::NoChild)?;
        Ok(Asking { child, since: Instant::now(), taken: 0, limit, answer: PhantomData })
    }

    /// When it will have taken too long, unless there is more to hear by then.
    pub fn due(&self) -> Instant {
        self.since + self.limit.time()
    }

    /// What came of it; `None`: nothing so far, and there is time left. Never blocks.
    pub fn answer(&mut self) -> Option<Result<A, Unanswered>> {
        if let Some(said) = self.child.answer() {
            return Some(parse(&said));
        }
        if matches!(self.limit, Limit::Each(_)) && self.child.taken() > self.taken {
            (self.since, self.taken) = (Instant::now(), self.child.taken());
        }
        let time = self.limit.time();
        (self.since.elapsed() >= time).then_some(Err(Unanswered::TimedOut(time)))
    }

    /// What comes of it, at the latest when it is due.
    ///
    /// # Errors
    /// There is no answer by then, or the child ended without one.
    pub fn wait(mut self) -> Result<A, Unanswered> {
        loop {
            if let Some(answer) = self.answer() {
                return answer;
            }
            // Not shorter than the time that is left, or this would loop without a pause.
            let left = self.due().saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left + Duration::from_millis(1));
            let wait = wait.unwrap_or(PollTimeout::MAX);
            // Whatever ends the wait early, the pipe is read again.
            let _readable = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], wait);
        }
    }
}

impl<A> AsFd for Asking<A> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

fn parse<A: DeserializeOwned>(said: &[u8]) -> Result<A, Unanswered> {
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
            let minute = Duration::from_secs(60);
            for limit in [Limit::Whole(minute), Limit::Each(minute)] {
                let answer = question.clone().ask(limit).unwrap();
                assert_eq!(answer.by_uid[&0].name, "root");
                assert_eq!(answer.absent, [3_999_999_999].into());
                assert_eq!(answer, question.clone().ask_here());
            }
        });
    }

    #[test]
    fn who_says_nothing_is_no_answer() {
        let why = parse::<Accounts>(b"").unwrap_err();
        assert!(why.to_string().starts_with("the one who asked it ended"), "{why}");
        let running = [3_999_999_999].into();
        let accounts = why.accounts(Question { running, ..Question::default() });
        assert_eq!(accounts.running, [3_999_999_999].into());
        assert_eq!(accounts.unavailable, Some(why.to_string()));
        assert!(!accounts.has_answer(3_999_999_999));
    }

    #[test]
    fn a_question_that_takes_too_long_is_given_up() {
        alone(|| {
            let child = Offspring::start(|_| {
                std::thread::sleep(Duration::from_secs(600));
                Vec::new()
            });
            let (time, since) = (Duration::from_secs(1), Instant::now());
            let limit = Limit::Each(time);
            let mut asking = Asking::<Accounts> {
                child: child.unwrap(),
                since,
                taken: 0,
                limit,
                answer: PhantomData,
            };
            assert!(asking.answer().is_none());
            assert!(asking.due() > Instant::now());
            asking.since -= time;
            let why = asking.answer().unwrap().unwrap_err();
            assert_eq!(why.to_string(), "no answer within 1 s");
        });
    }

    /// Ten answers, each after a tenth of a second and more.
    #[test]
    fn a_question_that_is_answered_bit_by_bit_may_take_longer_as_a_whole() {
        alone(|| {
            let slow = || {
                let child = Offspring::start(|signs| {
                    for _ in 0..10 {
                        std::thread::sleep(Duration::from_millis(120));
                        signs.of_life();
                    }
                    serde_json::to_vec(&Accounts::default()).unwrap()
                });
                child.unwrap()
            };
            let came_of_it = |limit| {
                let since = Instant::now();
                let mut asking = Asking::<Accounts> {
                    child: slow(),
                    since,
                    taken: 0,
                    limit,
                    answer: PhantomData,
                };
                loop {
                    if let Some(answer) = asking.answer() {
                        return (answer, since.elapsed());
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let time = Duration::from_secs(1);
            let (answer, took) = came_of_it(Limit::Each(time));
            assert_eq!(answer.unwrap(), Accounts::default());
            assert!(took > time, "{took:?}");
            let (answer, _) = came_of_it(Limit::Whole(time));
            assert!(matches!(answer, Err(Unanswered::TimedOut(_))));
        });
    }
}
