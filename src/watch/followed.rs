//! Processes that were moved a moment ago, or are about to be: what they forked before is elsewhere
//! still, and the kernel tells of it after it told of them. Pure; all times are the kernel's, by which
//! it stamps its events.

use std::collections::HashMap;

/// For so long after a process was looked at, its forks are looked at too: they may have begun
/// before, and the event is sent at the end of a fork. In nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// The same of forks that name the parent of a process that is about to be looked at.
const SHORT: u64 = 20_000_000;
/// Beyond so many it is worth forgetting the oldest.
const MANY: usize = 4_096;

#[derive(Debug, Default)]
pub struct Followed {
    /// By pid: until when forks that name it as their parent are looked at, and on whose account.
    until: HashMap<u32, (u64, u32)>,
    /// By pid: the parent. Those forked lately, and those before.
    parents: [HashMap<u32, u32>; 2],
}

impl Followed {
    /// A fork was told of.
    pub fn forked(&mut self, parent: u32, child: u32) {
        if self.parents[0].len() >= MANY {
            self.parents.swap(0, 1);
            self.parents[0].clear();
        }
        self.parents[0].insert(child, parent);
    }

    /// A process is about to be looked at; its forks until then may name it, or (CLONE_PARENT,
    /// `copy_process`, kernel/fork.c) its parent.
    pub fn announce(&mut self, pid: u32, uid: u32, now: u64) {
        self.note(pid, uid, now.saturating_add(WINDOW));
        if let Some(parent) = self.parent(pid) {
            self.note(parent, uid, now.saturating_add(SHORT));
        }
    }

    /// It was not where it belongs until now, or has ended. `parent`: as it was found, where it was.
    pub fn follow(&mut self, pid: u32, parent: Option<u32>, uid: u32, now: u64) {
        self.note(pid, uid, now.saturating_add(WINDOW));
        if let Some(parent) = self.parent(pid).or(parent) {
            self.note(parent, uid, now.saturating_add(WINDOW));
        }
    }

    fn note(&mut self, pid: u32, uid: u32, until: u64) {
        if self.until.len() >= MANY {
            let now = until.saturating_sub(WINDOW);
            self.until.retain(|_, (until, _)| *until > now);
        }
        let entry = self.until.entry(pid).or_insert((until, uid));
        entry.0 = entry.0.max(until);
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        self.parents.iter().find_map(|known| known.get(&pid)).copied()
    }

    /// Whether a child of `parent`, forked then, must be looked at, and on whose account.
    pub fn includes(&self, parent: u32, at: u64) -> Option<u32> {
        self.until.get(&parent).filter(|(until, _)| at <= *until).map(|(_, uid)| *uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_followed_for_a_while() {
        let mut followed = Followed::default();
        assert_eq!(followed.includes(7, 0), None);
        followed.follow(7, None, 1000, 10);
        assert_eq!(followed.includes(7, 5), Some(1000));
        assert_eq!(followed.includes(7, WINDOW + 10), Some(1000));
        assert_eq!(followed.includes(7, WINDOW + 11), None);
    }

    #[test]
    fn a_child_that_names_its_grandparent_is_followed() {
        let mut followed = Followed::default();
        followed.forked(1, 7);
        followed.announce(7, 1000, 10);
        assert_eq!(followed.includes(1, 20), Some(1000), "before it was looked at");
        assert_eq!(followed.includes(1, SHORT + 11), None, "it was where it belongs");
        followed.follow(7, None, 1000, 10);
        assert_eq!(followed.includes(1, SHORT + 11), Some(1000));
        followed.follow(8, Some(2), 1000, 10);
        assert_eq!(followed.includes(2, 20), Some(1000), "forked before we listened");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut followed = Followed::default();
        for n in 0..20_000 {
            followed.forked(1, n);
            followed.follow(n, None, 0, u64::from(n) * WINDOW);
        }
        assert!(followed.until.len() <= MANY);
        assert!(followed.parents.iter().all(|known| known.len() <= MANY));
        assert!(followed.includes(19_999, 19_999 * WINDOW).is_some());
    }
}
