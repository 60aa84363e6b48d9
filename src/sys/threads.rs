//! Many small system calls, shared out between processors. The threads end with the call, so that
//! none runs beside the daemon's loop, and none exists when something forks.

use std::io;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// The least number of items for which a thread is worth starting, which costs as much as reading
/// some ten files below `/proc` or in a cgroup's directory.
const LEAST: usize = 256;

/// The most threads: a look is soon over, and the host has other work to do.
const MOST: usize = 4;

/// The results of `each` for the parts of `items`, in their order. A few items are one part, which
/// the caller's own thread does; so is a part for which no further thread can be started
/// (`TasksMax`).
pub fn in_parts<T: Sync, R: Send>(items: &[T], each: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let processors = || thread::available_parallelism().map_or(1, NonZero::get).min(MOST);
    let parts = match items.len() / LEAST {
        0 | 1 => 1,
        worth => worth.min(processors()),
    };
    let mut chunks = items.chunks(items.len().div_ceil(parts).max(1));
    let own = chunks.next().unwrap_or_default();
    thread::scope(|scope| {
        let each = &each;
        let start = |part| (part, thread::Builder::new().spawn_scoped(scope, move || each(part)));
        let others: Vec<_> = chunks.map(start).collect();
        let mut answers = vec![each(own)];
        for (part, other) in others {
            answers.push(match other.map(ScopedJoinHandle::join) {
                Ok(Ok(answer)) => answer,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => each(part),
            });
        }
        answers
    })
}

/// How long a thread that was joined may still be counted by the kernel.
const MOMENT: Duration = Duration::from_millis(100);

/// Fails where this process has more than one thread: the child of a fork has only the forking
/// thread, and every lock that another thread held stays locked there.
///
/// # Errors
/// There are more threads, or `/proc` does not say how many.
pub(super) fn expect_one() -> io::Result<()> {
    let until = Instant::now() + MOMENT;
    loop {
        // `proc_task_getattr` (fs/proc/base.c) adds the threads to the two links of any directory.
        let threads = std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2);
        if threads == 1 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!(
                "this process has {threads} threads, so a child may wait for their locks for ever"
            )));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Does `test` in a child that has one thread; the process of a Rust test has two.
#[cfg(test)]
pub(crate) fn alone(test: impl FnOnce()) {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    // SAFETY: of what the other thread, which waits for this test, may have locked, the child needs
    // the allocator alone, and glibc's own fork sees to that.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "see above");
        }
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            if let Err(panic) = &done {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let line = format!("{}\n", text.unwrap_or("it panicked"));
                let _ = nix::unistd::write(io::stderr(), line.as_bytes());
            }
            // SAFETY: ends this process without running what its parent has at exit.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_thread_is_seen_and_one_that_was_joined_is_none() {
        alone(|| {
            expect_one().unwrap();
            for _ in 0..500 {
                thread::scope(|scope| scope.spawn(|| ()).join().unwrap());
                expect_one().unwrap();
            }
            let (wake, woken) = std::sync::mpsc::channel::<()>();
            let other = thread::spawn(move || woken.recv());
            let error = expect_one().unwrap_err().to_string();
            assert!(error.starts_with("this process has 2 threads"), "{error}");
            drop(wake);
            assert!(other.join().unwrap().is_err());
            expect_one().unwrap();
        });
    }

    #[test]
    fn every_item_is_in_one_part_and_parts_are_in_order() {
        for count in [0, 1, LEAST, 2 * LEAST, 2 * LEAST + 1, 10_000] {
            let items: Vec<usize> = (0..count).collect();
            let parts = in_parts(&items, <[usize]>::to_vec);
            assert!(parts.len() <= MOST, "{count}: {}", parts.len());
            assert_eq!(parts.concat(), items);
        }
    }

    #[test]
    fn a_few_items_start_no_thread() {
        let items = [0; LEAST];
        let here = thread::current().id();
        assert_eq!(in_parts(&items, |_| thread::current().id()), [here]);
    }
}
