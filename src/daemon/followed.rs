//! Processes that were moved a moment ago, or are about to be moved. Children that they forked
//! before are still elsewhere, and the events of these forks come later. Pure; all times are those
//! by which the kernel stamps its events.

use std::collections::{HashMap, HashSet};

/// How long after a process was looked at its forks are looked at too, in nanoseconds: a fork may
/// have begun before, and its event comes at the end of the fork.
const WINDOW: u64 = 1_000_000_000;
/// The same for forks that name the parent of a process that is about to be looked at
/// (CLONE_PARENT).
const SHORT: u64 = 20_000_000;
/// From how many entries on the oldest are forgotten.
const MANY: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Followed {
    /// By pid: until when forks that name it as their parent are looked at, and in the turn of
    /// which uid.
    until: HashMap<u32, (u64, u32)>,
    /// How many entries of `until` there may be before those that are over are forgotten, where it
    /// is more than [`MANY`].
    room: usize,
    /// The time of the latest event. In a storm events are heard long after their time, so an entry
    /// is over only when an event came that is later.
    heard: u64,
    /// By pid: the parent. Two generations: those forked lately, and those before.
    parents: [HashMap<u32, u32>; 2],
    /// By pid: the real uid of a process that was found in its class, in which its children are
    /// born. Two generations: those found lately, and those before.
    homes: [HashMap<u32, u32>; 2],
    /// Processes that became another user than their parent. Until they are placed, their children,
    /// and processes that they fork with CLONE_PARENT, are born elsewhere.
    changed: HashSet<u32>,
}

impl Followed {
    /// Notes a fork.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        keep(&mut self.parents, child, parent);
        self.leave_home(child);
        self.changed.remove(&child);
    }

    /// Notes the real uid that a process has now, which may have been another before.
    pub(super) fn became(&mut self, pid: u32, uid: u32) {
        self.leave_home(pid);
        let parents = self.parent(pid).and_then(|parent| self.home(parent));
        if parents != Some(uid) {
            if self.changed.len() >= MANY {
                // Then of no process it is known that its uid is its parent's.
                self.changed.clear();
                self.homes = Default::default();
            }
            self.changed.insert(pid);
        }
    }

    /// Notes that a process was found or put in its class.
    pub(super) fn at_home(&mut self, pid: u32, uid: u32) {
        keep(&mut self.homes, pid, uid);
    }

    /// Notes that a process is about to be looked at. Its forks until then may name the process, or
    /// with CLONE_PARENT (`copy_process`, kernel/fork.c) its parent.
    pub(super) fn announce(&mut self, pid: u32, uid: u32, now: u64) {
        self.heard = self.heard.max(now);
        self.note(pid, uid, now.saturating_add(WINDOW));
        if let Some(parent) = self.parent(pid).filter(|parent| self.may_be_elsewhere(pid, *parent))
        {
            self.note(parent, uid, now.saturating_add(SHORT));
        }
    }

    /// Has the forks of a process followed that was not where it belongs until now, or has ended.
    /// `parent`: as the look found it.
    pub(super) fn follow(&mut self, pid: u32, parent: Option<u32>, uid: u32, now: u64) {
        self.note(pid, uid, now.saturating_add(WINDOW));
        let parent = self.parent(pid).or(parent);
        if let Some(parent) = parent.filter(|parent| self.may_be_elsewhere(pid, *parent)) {
            self.note(parent, uid, now.saturating_add(WINDOW));
        }
        self.changed.remove(&pid);
    }

    /// Notes that a process was where it belongs.
    pub(super) fn stayed(&mut self, pid: u32) {
        self.changed.remove(&pid);
    }

    /// Whether a process may be elsewhere than its parent, which is in its class. Otherwise the
    /// process was born there, and so were its children. (In a storm of forks most processes have
    /// ended before they are looked at, and without this each would have the next ones looked at,
    /// without end.)
    fn may_be_elsewhere(&self, pid: u32, parent: u32) -> bool {
        self.changed.contains(&pid) || self.home(parent).is_none()
    }

    fn home(&self, pid: u32) -> Option<u32> {
        self.homes.iter().find_map(|known| known.get(&pid)).copied()
    }

    fn leave_home(&mut self, pid: u32) {
        for known in &mut self.homes {
            known.remove(&pid);
        }
    }

    fn note(&mut self, pid: u32, uid: u32, until: u64) {
        if self.until.len() >= self.room.max(MANY) {
            self.until.retain(|_, (until, _)| *until > self.heard);
            // Where few are over, the next ones are not forgotten one by one.
            self.room = 2 * self.until.len();
        }
        let entry = self.until.entry(pid).or_insert((until, uid));
        entry.0 = entry.0.max(until);
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        self.parents.iter().find_map(|known| known.get(&pid)).copied()
    }

    /// Whether a child of `parent` that was forked at that time must be looked at, and in the turn
    /// of which uid.
    pub(super) fn includes(&self, parent: u32, at: u64) -> Option<u32> {
        self.until.get(&parent).filter(|(until, _)| at <= *until).map(|(_, uid)| *uid)
    }
}

/// Adds to the later of two generations; when that is full, it replaces the earlier one.
fn keep(known: &mut [HashMap<u32, u32>; 2], key: u32, value: u32) {
    if known[0].len() >= MANY {
        known.swap(0, 1);
        known[0].clear();
    }
    known[0].insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A storm of forks is heard late: when a process is looked at, younger ones have come already,
    /// and their events have not.
    #[test]
    fn what_is_followed_is_not_forgotten_before_its_events_are_heard() {
        let mut followed = Followed::default();
        let (maker, first, lag) = (7, 10_000, 2 * SHORT);
        let forks = 3 * u32::try_from(MANY).unwrap();
        followed.follow(first - 1, Some(maker), 1000, 0);
        let mut looked = 0..;
        for (at, child) in (WINDOW..).step_by(100_000).zip(first..first + forks) {
            followed.forked(maker, child);
            // The first is followed because it became another user.
            let uid = if child == first { Some(1000) } else { followed.includes(maker, at) };
            assert_eq!(uid, Some(1000), "{}", child - first);
            followed.announce(child, 1000, at);
            // A look at one that ended long ago, in the queue before these.
            followed.follow(500_000 + looked.next().unwrap(), None, 1000, at + lag);
        }
        assert!(followed.until.len() <= 16 * MANY, "{}", followed.until.len());
    }

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

    /// A storm of forks by a process in its class; the children have ended before they are looked
    /// at.
    #[test]
    fn the_forks_of_who_is_in_his_class_are_not_followed_without_end() {
        let mut followed = Followed::default();
        followed.at_home(7, 1000);
        followed.follow(7, None, 1000, 0);
        for child in 10..20 {
            followed.forked(7, child);
            followed.announce(child, 1000, WINDOW);
            followed.follow(child, None, 1000, WINDOW);
            assert!(followed.includes(child, WINDOW).is_some());
        }
        assert_eq!(followed.includes(7, WINDOW + 1), None);
        // A set-uid program: the real uid stays.
        followed.forked(7, 30);
        followed.became(30, 1000);
        followed.follow(30, None, 1000, 2 * WINDOW);
        assert_eq!(followed.includes(7, 2 * WINDOW), None);
    }

    /// A process that became another user forks with CLONE_PARENT.
    #[test]
    fn a_child_that_became_another_has_its_parents_forks_followed() {
        let mut followed = Followed::default();
        followed.at_home(7, 1000);
        followed.forked(7, 30);
        followed.became(30, 2000);
        followed.announce(30, 2000, 0);
        assert_eq!(followed.includes(7, SHORT), Some(2000), "before it was looked at");
        followed.follow(30, None, 2000, 0);
        assert_eq!(followed.includes(7, WINDOW), Some(2000));
        followed.became(7, 2000);
        followed.forked(7, 40);
        followed.follow(40, None, 2000, 2 * WINDOW);
        assert_eq!(followed.includes(7, 3 * WINDOW), Some(2000), "its parent became another");
        followed.at_home(30, 2000);
        followed.forked(7, 30);
        assert_eq!(followed.home(30), None, "another process with that pid");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut followed = Followed::default();
        for n in 0..20_000 {
            followed.forked(1, n);
            followed.announce(n, 0, u64::from(n) * WINDOW);
            followed.follow(n, None, 0, u64::from(n) * WINDOW);
            followed.became(n, 1);
            followed.at_home(n, 1);
        }
        assert!(followed.changed.len() <= MANY);
        assert!(followed.homes.iter().all(|known| known.len() <= MANY));
        assert!(followed.until.len() <= MANY);
        assert!(followed.parents.iter().all(|known| known.len() <= MANY));
        assert!(followed.includes(19_999, 19_999 * WINDOW).is_some());
    }
}
