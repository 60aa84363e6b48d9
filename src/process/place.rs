//! Moves processes until none needs it. Writes `cgroup.procs` of the instance's directories and of
//! the hierarchy's root, nothing else.

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

/// More passes than this are a storm of forks.
const CALM: u32 = 4;

/// Forks race with a look: whoever is forked after it began, by a process that was not moved yet,
/// is missed by it. So those who were born since are looked at, again and again. A chain of
/// processes, each of which forks the next and ends after 100 µs, is caught within some dozen of
/// these looks, and seldom within some hundred; who is still ahead after both so many looks and the
/// time that the caller gives (see [`place`] and [`place_seen`]) forks faster than we can follow.
const MIN_LOOKS: u32 = 50;
/// For a daemon, which is told of later births, and whom logins wait for.
const BESIDE_EVENTS: Duration = Duration::from_millis(200);
/// For a run after which nobody looks.
const ALONE: Duration = Duration::from_secs(1);

/// Forks that had their pid when a look began, and no process to be listed yet, are no more than
/// this.
const UNFINISHED: u32 = 64;

/// The same where the kernel does not say who was born last, and each look is a pass over all of
/// them: up to 23 were needed under a fork storm.
const MAX_PASSES: u32 = 64;

/// So many more passes, at most, because of processes that ended while we looked: one that was not
/// in its claim may have left a child that was not listed. Bounded apart, because on a busy host
/// there are always some.
const MAX_EXTRA_PASSES: u32 = 20;

/// Asks `decide` about every process below `proc_root` and does what it says: the first look is at
/// every process, the others are at those who were born since, until there are none. A process that
/// cannot be moved, or is gone, is no error.
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

/// A look at all processes that was taken before.
pub enum Seen {
    /// A moment ago: it is the first look.
    JustNow(Scan),
    /// Something was done since: everybody is read again, but who is to be moved has less to tell.
    Before(Scan),
}

/// As [`place`], for a run that nobody follows; `seen`: the first look, where there was one.
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
    /// It was where it belongs, and so is all that it forks. Otherwise (also when it has ended)
    /// what it forked until now may be elsewhere.
    pub stayed: bool,
    /// What it holds of root's, for the caller to give: after all that became users at the same
    /// time.
    pub handover: Handover,
    /// Its parent; `None`: it has ended.
    pub parent: Option<u32>,
    /// It is in its class now, and no process of root's: the real uid that it has.
    pub home: Option<u32>,
}

/// The same for one process: what a login needs. What it forked meanwhile is the caller's to look
/// after. A process that has ended is no error.
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
    // A server of root's may act for another user by then.
    let home = home.filter(|uid| *uid != 0);
    Ok(PlacedOne { placement, stayed, handover, parent, home })
}

struct Run<'a, D> {
    hands: Hands<'a, D>,
    placement: Placement,
    handover: Handover,
    /// Living processes of users that a look saw: pid and real uid.
    users: HashSet<(u32, u32)>,
    /// Seen where they belong, or left alone for good: what they fork is born there too.
    done: HashSet<u32>,
    /// Somebody ended during the last look.
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

    /// Returns the newest pid before the look.
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

    /// Hands over what users hold of root's, once all users are known.
    fn finish(mut self) -> Placement {
        let users: Vec<_> = self.users.into_iter().collect();
        self.handover.leave_shared(self.hands.proc_root, &users);
        self.placement.handed_over = self.handover.give();
        self.placement
    }

    /// The first look, which was taken. Whoever is to be moved is read again: the list is old by
    /// now, and the pid may be another process, or its user another one. `is_old`: so are all
    /// others.
    fn begin(&mut self, seen: Scan, is_old: bool) -> Result<(), Error> {
        let mut part = Part { ended: seen.vanished > 0, ..Part::default() };
        let (mut movers, mut others) = (Vec::new(), Vec::new());
        for process in seen.processes {
            part.ended |= process.zombie;
            let Verdict { decision, acts_for } = (self.hands.decide)(&process);
            match decision {
                Decision::MoveTo(_) | Decision::TakeOut => movers.push(process),
                _ if is_old && !process.kernel_thread => others.push(process.pid),
                // What it holds may be another user's since.
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

    /// Looks at everybody who was born since, until nobody was born during a look. Then nobody is
    /// left: at that moment every process that lived had been looked at, and was where it belongs,
    /// or forked its children only afterwards, from there. Where `patience` ends first, somebody
    /// may be left, also when the last look met nobody. `newest_before`: the newest pid before the
    /// first look; `newest`: now.
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
                // Pids begin anew: one that was done may be another process.
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
            // Where that took many passes, pids come round again.
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

    /// All will be read again, and told of again.
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

    /// Each is read and moved at once, so that nothing that was read grows old, by several
    /// processors.
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

    /// Whether nobody can be left after births were followed for `patience`, when the newest pid
    /// rises at each of so many looks.
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
