//! Moves processes until each is where it belongs. Writes only `cgroup.procs` of the instance's
//! directories and of the hierarchy's root.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::{Doors, Error, Instance};
use crate::sys::threads::in_parts;

use super::hands::{Hands, Part};
use super::placement::{Placement, Verdict};
use super::scan::{Listing, Reader, Scan, newest};
use super::{Decision, Handover, Process};

/// After more passes than this there is a storm of forks.
const CALM: u32 = 4;

/// How many looks at new processes there are before they are given up, at least. Forks race with a
/// look: it misses a process that is forked after it began, by one that was not moved yet. So
/// processes born since are looked at, again and again. A chain of processes, each of which forks
/// the next and ends after 100 µs, is caught within some dozen of these looks, seldom only within
/// some hundred. A process that is still ahead after so many looks, and after the caller's time too
/// (see [`place`] and [`place_seen`]), forks faster than it can be followed.
const MIN_LOOKS: u32 = 50;
/// How long births are followed for a daemon: events tell it of later births, and logins wait
/// meanwhile.
const BESIDE_EVENTS: Duration = Duration::from_millis(200);
/// How long births are followed for a run after which nobody looks.
const ALONE: Duration = Duration::from_secs(1);

/// The most forks that had a pid when a look began but no process that could be listed.
const UNFINISHED: u32 = 64;

/// The most passes over all processes, where the kernel does not say which pid was given out last:
/// under a fork storm up to 23 were needed.
const MAX_PASSES: u32 = 64;

/// The most further passes because of processes that ended during a pass: one that was not in its
/// claim may have left a child that was not listed. They have a bound of their own, because on a
/// busy host some process always ends.
const MAX_EXTRA_PASSES: u32 = 20;

/// Asks `decide` about every process below `proc_root` and carries that out. The first look is at
/// every process, the others are at processes born since, until there are none. A process that
/// cannot be moved, or has ended, is no error.
///
/// # Errors
/// A process that cannot be read, or no descriptor or memory to move one.
pub fn place<V: Into<Verdict>>(
    proc_root: &Path,
    instance: &Instance,
    decide: impl Fn(&Process) -> V + Sync,
) -> Result<Placement, Error> {
    place_within(BESIDE_EVENTS, proc_root, instance, None, decide)
}

/// A look at all processes from before placing.
pub enum Seen {
    /// From a moment ago: it serves as the first look.
    JustNow(Scan),
    /// From before the steps: every process is read again, those that are to be moved only in part.
    Before(Scan),
}

/// As [`place`], for a run after which nobody looks; `seen`: an earlier look, where there was one.
///
/// # Errors
/// As [`place`].
pub fn place_seen<V: Into<Verdict>>(
    proc_root: &Path,
    instance: &Instance,
    seen: Option<Seen>,
    decide: impl Fn(&Process) -> V + Sync,
) -> Result<Placement, Error> {
    place_within(ALONE, proc_root, instance, seen, decide)
}

fn place_within<V: Into<Verdict>>(
    patience: Duration,
    proc_root: &Path,
    instance: &Instance,
    seen: Option<Seen>,
    decide: impl Fn(&Process) -> V + Sync,
) -> Result<Placement, Error> {
    let decide = |process: &Process| decide(process).into();
    let mut run = Run::new(Hands::new(proc_root, instance, decide));
    match run.first_look(seen)? {
        Some(before) => run.follow_births(before, patience, || newest(proc_root))?,
        None => run.repeat_passes()?,
    }
    Ok(run.finish())
}

/// What came of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedOne {
    /// What was done with it.
    pub placement: Placement,
    /// The process was where it belongs, and so are all its children. Otherwise (also when it has
    /// ended) children that it has forked may be elsewhere.
    pub stayed: bool,
    /// The sockets of root's in the process. The caller gives them after looking at all processes
    /// that became users at the same time.
    pub handover: Handover,
    /// The pid of its parent; `None`: the process has ended.
    pub parent: Option<u32>,
    /// The real uid of the process, if it is in its class now and not root's.
    pub home: Option<u32>,
}

/// Places one process, as a login needs. The caller looks after the children that it forked
/// meanwhile. A process that has ended is no error.
///
/// # Errors
/// As [`place`].
pub fn place_one<V: Into<Verdict>>(
    proc_root: &Path,
    instance: &Instance,
    pid: u32,
    decide: impl Fn(&Process) -> V,
) -> Result<PlacedOne, Error> {
    let decide = |process: &Process| decide(process).into();
    let hands = Hands::of_event(proc_root, instance, decide);
    let mut part = Part::default();
    let stayed = hands.place(&mut Reader::default(), &mut Doors::default(), pid, &mut part)?;
    let placement = Placement { passes: 1, settled: true, ..std::mem::take(&mut part.placement) };
    let Part { handover, parent, home, .. } = part;
    // A server of root's may soon act for another user.
    let home = home.filter(|uid| *uid != 0);
    Ok(PlacedOne { placement, stayed, handover, parent, home })
}

struct Run<'a, D> {
    hands: Hands<'a, D>,
    placement: Placement,
    handover: Handover,
    /// Living processes of users that a look saw: pid and real uid.
    users: HashSet<(u32, u32)>,
    /// Pids of processes that are where they belong, or are left alone for good: their children are
    /// born there too.
    done: HashSet<u32>,
    /// A process ended during the last look.
    ended: bool,
    looked_again: bool,
}

impl<'a, D: Fn(&Process) -> Verdict + Sync> Run<'a, D> {
    fn new(hands: Hands<'a, D>) -> Run<'a, D> {
        Run {
            hands,
            placement: Placement::default(),
            handover: Handover::default(),
            users: HashSet::new(),
            done: HashSet::new(),
            ended: false,
            looked_again: false,
        }
    }

    /// Takes the first look; returns the newest pid from before it.
    fn first_look(&mut self, seen: Option<Seen>) -> Result<Option<u32>, Error> {
        let (scan, is_old) = match seen {
            Some(Seen::JustNow(scan)) => (scan, false),
            Some(Seen::Before(scan)) => (scan, true),
            None => {
                let newest = newest(self.hands.proc_root);
                self.pass()?;
                return Ok(newest);
            }
        };
        let newest = scan.newest;
        self.begin(scan, is_old)?;
        Ok(newest)
    }

    /// Hands over the sockets of root's in users' processes, once all users are known.
    fn finish(mut self) -> Placement {
        let users: Vec<_> = self.users.into_iter().collect();
        self.handover.leave_shared(self.hands.proc_root, &users);
        self.placement.handed_over = self.handover.give();
        self.placement
    }

    /// Begins with a look that was taken before. Processes that are to be moved are read again,
    /// because by now the pid may be another process, or the process another user. `is_old`: all
    /// other processes are read again, too.
    fn begin(&mut self, seen: Scan, is_old: bool) -> Result<(), Error> {
        let mut part = Part { ended: seen.vanished > 0, ..Part::default() };
        let (mut movers, mut others) = (Vec::new(), Vec::new());
        for process in seen.processes {
            part.ended |= process.zombie;
            let Verdict { decision, acts_for } = (self.hands.decide)(&process);
            match decision {
                Decision::MoveTo(_) | Decision::TakeOut => movers.push(process),
                _ if is_old && !process.kernel_thread => others.push(process.pid),
                // Its connections may serve another user by now.
                Decision::Stay if acts_for.is_some() => others.push(process.pid),
                Decision::Stay => {
                    part.user(&process);
                    part.done.push(process.pid);
                }
                Decision::Leave(reason) => {
                    part.user(&process);
                    part.leave(process, reason);
                }
            }
        }
        self.start_look();
        self.take_in(part);
        for part in in_parts(&movers, |movers| self.hands.place_again(movers)) {
            self.take_in(part?);
        }
        self.work(&others)
    }

    fn start_look(&mut self) {
        self.placement.passes += 1;
        self.placement.settled = true;
        self.ended = false;
    }

    /// Looks at all processes born since, until none is born during a look. Then none is left: at
    /// that moment every living process had been looked at, and was where it belongs before it
    /// forked any child that was not looked at. Where `patience` ends first, a process may be left,
    /// even when the last look met none. `newest_before`: the newest pid before the first look;
    /// `newest`: the newest pid now.
    fn follow_births(
        &mut self,
        newest_before: u32,
        patience: Duration,
        mut newest: impl FnMut() -> Option<u32>,
    ) -> Result<(), Error> {
        let mut last = newest_before.saturating_sub(UNFINISHED);
        let (began, mut looks) = (Instant::now(), 0);
        while looks < MIN_LOOKS || began.elapsed() <= patience {
            looks += 1;
            let Some(newest) = newest() else {
                return self.repeat_passes();
            };
            match newest.cmp(&last) {
                Ordering::Equal => {
                    self.placement.settled = true;
                    return Ok(());
                }
                // By one thread, the oldest first: a pid that was given out and has no process yet
                // is its parent's, who is older and was moved before, and so goes into the fork as
                // moved, or was waited for by the move (`cgroup_threadgroup_rwsem`,
                // kernel/cgroup/cgroup.c).
                Ordering::Greater => {
                    self.start_look();
                    let born = (last + 1..=newest).filter(|pid| !self.done.contains(pid));
                    let part = self.hands.place_all(born)?;
                    self.take_in(part);
                }
                // Pids have begun anew, so a pid that is done may be another process.
                Ordering::Less => {
                    self.forget_done();
                    self.pass()?;
                }
            }
            last = newest;
        }
        self.placement.settled = false;
        Ok(())
    }

    fn repeat_passes(&mut self) -> Result<(), Error> {
        let mut extra = 0;
        loop {
            let again = self.ended && self.placement.settled && extra < MAX_EXTRA_PASSES;
            extra += u32::from(again);
            if again {
                self.placement.settled = false;
            }
            // After many passes pids may have come round again.
            if self.placement.settled && self.placement.passes > CALM && !self.looked_again {
                self.looked_again = true;
                self.forget_done();
                self.placement.settled = false;
            }
            if self.placement.settled || self.placement.passes >= MAX_PASSES {
                return Ok(());
            }
            self.pass()?;
        }
    }

    /// All processes are to be read again, and their findings noted again.
    fn forget_done(&mut self) {
        self.done.clear();
        let Placement { added, moved, gone, passes, .. } = self.placement;
        self.placement = Placement { added, moved, gone, passes, ..Placement::default() };
    }

    fn pass(&mut self) -> Result<(), Error> {
        self.start_look();
        for pids in Listing::open(self.hands.proc_root)? {
            let mut pids = pids?;
            pids.retain(|pid| !self.done.contains(pid));
            self.work(&pids)?;
        }
        Ok(())
    }

    /// Several processors read and move these processes; each is moved as soon as it is read, so
    /// that the reading is not old.
    fn work(&mut self, pids: &[u32]) -> Result<(), Error> {
        for part in in_parts(pids, |pids| self.hands.place_all(pids.iter().copied())) {
            self.take_in(part?);
        }
        Ok(())
    }

    fn take_in(&mut self, part: Part) {
        self.done.extend(part.done);
        self.users.extend(part.users);
        self.handover.merge(part.handover);
        self.placement.settled &= !part.acted;
        self.ended |= part.ended;
        self.placement.take_in(part.placement);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether following births finds everybody within `patience` when the newest pid rises at each
    /// of the first `births` looks.
    fn is_settled(births: u32, patience: Duration) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        let decide = |_: &Process| Verdict::from(Decision::Stay);
        let mut run = Run::new(Hands::new(folder.path(), &instance, decide));
        let mut newest = 1_000;
        let end = newest + births;
        let rise = || {
            newest = end.min(newest + 1);
            Some(newest)
        };
        run.follow_births(1_000 + UNFINISHED, patience, rise).unwrap();
        run.placement.settled
    }

    #[test]
    fn who_is_still_ahead_when_patience_ends_may_be_left() {
        let minute = Duration::from_secs(60);
        assert!(is_settled(10, Duration::ZERO));
        assert!(!is_settled(u32::MAX / 2, Duration::ZERO));
        assert!(is_settled(1_000, minute), "however many looks that takes");
    }
}
