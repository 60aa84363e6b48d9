//! Processes that wait to be placed: each once, however many events it had, and every uid in turn,
//! so that the processes of a user who makes a storm of events wait behind his own only. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

/// The most processes of one uid that wait; beyond that a look at all processes is cheaper.
const MANY: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By uid: pids, each with the time of the event for which it waits.
    of: HashMap<u32, VecDeque<(u32, Option<u64>)>>,
    /// Uids with processes that wait, the next one first.
    turns: VecDeque<u32>,
    pids: HashSet<u32>,
}

impl Queue {
    /// Adds a process to the turn of `uid`. `at`: the time of the event that told of it, if one
    /// did. False: too many of that uid wait already, and it was not added.
    pub(super) fn push(&mut self, uid: u32, pid: u32, at: Option<u64>) -> bool {
        if self.pids.contains(&pid) {
            return true;
        }
        let waiting = self.of.entry(uid).or_default();
        if waiting.len() >= MANY {
            return false;
        }
        if waiting.is_empty() {
            self.turns.push_back(uid);
        }
        waiting.push_back((pid, at));
        self.pids.insert(pid);
        true
    }

    /// Removes and returns the next process, with the uid whose turn it is before it, and the time
    /// of its first event behind it.
    pub(super) fn pop(&mut self) -> Option<(u32, u32, Option<u64>)> {
        let uid = self.turns.pop_front()?;
        let waiting = self.of.get_mut(&uid)?;
        let (pid, at) = waiting.pop_front()?;
        if waiting.is_empty() {
            self.of.remove(&uid);
        } else {
            self.turns.push_back(uid);
        }
        self.pids.remove(&pid);
        Some((uid, pid, at))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(_, pid, _)| pid).collect()
    }

    #[test]
    fn whoever_comes_often_comes_once() {
        let mut queue = Queue::default();
        for at in 0..155_000 {
            assert!(queue.push(1000, 7, Some(at)));
        }
        assert_eq!(queue.pop(), Some((1000, 7, Some(0))), "he waits since then");
        assert!(queue.is_empty());
    }

    #[test]
    fn every_uid_has_its_turn() {
        let mut queue = Queue::default();
        (100..110).for_each(|pid| assert!(queue.push(1000, pid, None)));
        queue.push(2000, 7, None);
        queue.push(2000, 8, None);
        assert_eq!(drained(&mut queue)[..5], [100, 7, 101, 8, 102]);
    }

    #[test]
    fn one_uid_fills_its_own_queue_only() {
        let mut queue = Queue::default();
        let taken = (0..20_000).filter(|pid| queue.push(1000, *pid, None)).count();
        assert_eq!(taken, MANY);
        assert!(queue.push(2000, 30_000, None));
    }
}
