//! Work that may block for as long as it likes, in a child that can be killed: an answer comes
//! through a pipe, or does not come.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::threads::expect_one;

/// Children that were killed and have not ended: one in uninterruptible sleep (a hung NFS mount, a
/// broken disk) ends only when its system call does, if ever. Those that have ended are reaped
/// whenever an [`Offspring`] is started or dropped.
static DYING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How many such children there may be: where so many hang, the next one would hang too.
const MOST_DYING: usize = 4;

/// Between two signs of life of a child, at least.
const OFTEN: Duration = Duration::from_millis(100);

/// What a child shows while it works: blanks before its answer.
pub struct Signs {
    pipe: File,
    last: Instant,
}

impl Signs {
    /// The work goes on. Costs nothing where it was shown a moment ago.
    pub fn of_life(&mut self) {
        if self.last.elapsed() >= OFTEN {
            self.last = Instant::now();
            // Whoever does not listen any more kills it.
            let _gone = self.pipe.write_all(b" ");
        }
    }
}

/// A child at work. Dropped, it is killed, and reaped as soon as it has ended; nobody waits for
/// that.
#[derive(Debug)]
pub struct Offspring {
    pid: Pid,
    pipe: File,
    said: Vec<u8>,
}

impl Offspring {
    /// Forks a child that does `work` and writes the result into a pipe; until then it may show
    /// [`Signs`] of life.
    ///
    /// # Errors
    /// This process has more than one thread; no further process or pipe can be made; there are too
    /// many children that cannot be killed.
    pub fn start(work: impl FnOnce(&mut Signs) -> Vec<u8>) -> io::Result<Offspring> {
        expect_one()?;
        if bury(None) >= MOST_DYING {
            return Err(io::Error::other(format!(
                "{MOST_DYING} of its kind hang so that they cannot even be killed"
            )));
        }
        let (ours, theirs): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: this process has one thread (`expect_one`), so the child may go on as it likes.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                Ok(Offspring { pid: child, pipe: File::from(ours), said: Vec::new() })
            }
            ForkResult::Child => {
                // The child ends with its parent, and by signals that the parent blocks.
                let _mask = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
                let _ends = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                drop(ours);
                let mut signs = Signs { pipe: File::from(theirs), last: Instant::now() };
                let work = std::panic::AssertUnwindSafe(|| work(&mut signs));
                let result = std::panic::catch_unwind(work);
                let written = result.map(|bytes| signs.pipe.write_all(&bytes));
                // SAFETY: ends this process without running what its parent has at exit.
                unsafe { libc::_exit(i32::from(!matches!(written, Ok(Ok(()))))) }
            }
        }
    }

    /// How many bytes were read of what the child wrote: more of them are a sign of life.
    pub fn taken(&self) -> usize {
        self.said.len()
    }

    /// Reads what the child has written so far; once that is all, it is the answer. Never blocks.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.pipe.read_to_end(&mut self.said) {
                Ok(_) => return Some(std::mem::take(&mut self.said)),
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("cannot read a child's answer: {error}");
                    return Some(Vec::new());
                }
            }
        }
    }
}

impl AsFd for Offspring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Offspring {
    fn drop(&mut self) {
        let _gone_already = kill(self.pid, Signal::SIGKILL);
        // A child that has answered is about to end by itself; a killed one takes a moment to end.
        let until = Instant::now() + MOMENT;
        bury(Some(self.pid));
        while is_dying(self.pid) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
            bury(None);
        }
    }
}

/// How long a child that was killed is waited for.
const MOMENT: Duration = Duration::from_millis(20);

/// Reaps the killed children that have ended, `one_more` among them; returns how many have not.
fn bury(one_more: Option<Pid>) -> usize {
    let mut dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
    dying.extend(one_more);
    dying.retain(|pid| waitpid(*pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
    dying.len()
}

fn is_dying(pid: Pid) -> bool {
    DYING.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::alone;

    fn wait(child: &mut Offspring) -> Vec<u8> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = child.answer() {
                return answer;
            }
            assert!(Instant::now() < until, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn an_answer_larger_than_a_pipe_comes_whole() {
        alone(|| {
            let mut child = Offspring::start(|_| vec![7; 300_000]).unwrap();
            assert_eq!(wait(&mut child), vec![7; 300_000]);
        });
    }

    #[test]
    fn a_child_that_panics_says_nothing_and_one_that_hangs_is_killed() {
        alone(|| {
            let mut child = Offspring::start(|_| panic!("on purpose")).unwrap();
            assert_eq!(wait(&mut child), Vec::<u8>::new());
            let mut child = Offspring::start(|_| {
                std::thread::sleep(Duration::from_secs(600));
                Vec::new()
            })
            .unwrap();
            assert_eq!(child.answer(), None);
            let start = Instant::now();
            drop(child);
            assert!(start.elapsed() < Duration::from_secs(20));
        });
    }

    #[test]
    fn a_process_with_two_threads_starts_none() {
        let error = Offspring::start(|_| Vec::new()).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("this process has "), "{error}");
    }

    /// A traced child that was killed cannot be reaped until its tracer lets it go, as one in
    /// uninterruptible sleep cannot until its system call ends.
    #[test]
    fn one_that_cannot_be_reaped_is_not_waited_for() {
        alone(|| {
            let child = Offspring::start(|_| {
                std::thread::sleep(Duration::from_secs(600));
                Vec::new()
            })
            .unwrap();
            let pid = child.pid;
            let (reads, writes) = nix::unistd::pipe().unwrap();
            // SAFETY: the child makes system calls only.
            let tracer = match unsafe { fork() }.unwrap() {
                ForkResult::Parent { child } => child,
                // SAFETY: `ptrace` and `_exit` are given no memory of ours.
                ForkResult::Child => unsafe {
                    let none = std::ptr::null_mut::<libc::c_void>();
                    let seized = libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), none, none);
                    let _ = nix::unistd::write(&writes, if seized == 0 { b"+" } else { b"-" });
                    libc::sleep(600);
                    libc::_exit(0)
                },
            };
            let mut seized = [0];
            nix::unistd::read(&reads, &mut seized).unwrap();
            assert_eq!(&seized, b"+", "it is traced");
            let start = Instant::now();
            drop(child);
            assert!(start.elapsed() < Duration::from_secs(5), "waited for {:?}", start.elapsed());
            assert!(is_dying(pid));
            kill(tracer, Signal::SIGKILL).unwrap();
            waitpid(tracer, None).unwrap();
            let until = Instant::now() + Duration::from_secs(20);
            while is_dying(pid) {
                bury(None);
                assert!(Instant::now() < until, "never reaped");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}
