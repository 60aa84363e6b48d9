//! Work that may block for as long as it likes, in a child that can be killed: an answer comes
//! through a pipe, or does not come.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// A child at work. Dropped, it is killed and reaped.
pub struct Offspring {
    pid: Pid,
    pipe: File,
    said: Vec<u8>,
}

impl Offspring {
    /// Forks a child that does `work` and says its result. The process must have one thread.
    pub fn start(work: impl FnOnce() -> Vec<u8>) -> io::Result<Offspring> {
        let (ours, theirs): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: this process has one thread, so the child may go on as it likes.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                Ok(Offspring { pid: child, pipe: File::from(ours), said: Vec::new() })
            }
            ForkResult::Child => {
                // Ends with its parent, and by the signals that its parent blocks.
                let _mask = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
                let _ends = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                drop(ours);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let written = result.map(|bytes| File::from(theirs).write_all(&bytes));
                // SAFETY: ends this process without running what its parent has at exit.
                unsafe { libc::_exit(i32::from(!matches!(written, Ok(Ok(()))))) }
            }
        }
    }

    /// Takes what has been said so far; once it is all, that is the answer. Never blocks.
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
        let _reaped = waitpid(self.pid, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

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
        let mut child = Offspring::start(|| vec![7; 300_000]).unwrap();
        assert_eq!(wait(&mut child), vec![7; 300_000]);
    }

    #[test]
    fn a_child_that_panics_says_nothing_and_one_that_hangs_is_killed() {
        let mut child = Offspring::start(|| panic!("on purpose")).unwrap();
        assert_eq!(wait(&mut child), Vec::<u8>::new());
        let mut child = Offspring::start(|| {
            std::thread::sleep(Duration::from_secs(600));
            Vec::new()
        })
        .unwrap();
        assert_eq!(child.answer(), None);
        let start = Instant::now();
        drop(child);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
