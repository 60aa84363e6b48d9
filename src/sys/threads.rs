//! Many small system calls, shared out between processors. The threads end with the call: nothing
//! of ours runs beside the daemon's loop, and there is no other thread when something forks.

use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

/// Starting a thread costs as much as reading some ten files below `/proc` or a cgroup's directory.
const LEAST: usize = 256;

/// A look is over soon, but it is not the only one who works on this host.
const MOST: usize = 4;

/// What `each` says of the parts of `items`, in their order. A few items are one part, and are done
/// by the caller's own thread; so is a part for which there may be no thread more (`TasksMax`).
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

#[cfg(test)]
mod tests {
    use super::*;

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
