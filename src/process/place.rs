//! Moves processes until none needs it. Writes `cgroup.procs` of the instance's directories and of
//! the hierarchy's root, nothing else.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use nix::libc;

use crate::cgroup::{Attached, Doors, Error, Instance};
use crate::state::{Claim, Owner};
use crate::sys::threads::in_parts;
use crate::text::Foreign;

use super::scan::{Listing, Reader, Scan};
use super::{Decision, HandedOver, Handover, Process, Reason};

/// More passes than this are a storm of forks.
const CALM: u32 = 4;

/// Forks race with a pass: a child that was forked after the list was taken, by a parent that was
/// not moved yet, is missed by it. Up to 23 passes were needed under a fork storm; beyond this
/// many, somebody else is moving the same processes.
const MAX_PASSES: u32 = 64;

/// So many more passes, at most, because of processes that ended while we looked: one that was not
/// in its claim may have left a child that was not listed. Bounded apart, because on a busy host
/// there are always some.
const MAX_EXTRA_PASSES: u32 = 20;

/// What to do with a process, and with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    /// The user for whom a process of root's acts ([`super::acts_for`]).
    pub acts_for: Option<u32>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Verdict {
        Verdict { decision, acts_for: None }
    }
}

/// What was done, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Came into one of our claims.
    pub added: u32,
    /// From one of our claims to another.
    pub moved: u32,
    /// Taken out of our directories: nobody claims them any more.
    pub gone: u32,
    /// In our namespace, but in a directory of somebody else: left alone.
    pub foreign: Vec<ForeignProcess>,
    pub failed: Vec<Failed>,
    /// Claims that have processes but no directory yet, and how many: accounts that came since the
    /// plan was made. Their processes are in nobody's class until the next run.
    pub waiting: BTreeMap<Claim, u32>,
    /// Processes whose network namespace we may not read (CAP_SYS_PTRACE): left alone.
    pub unknown_namespace: u32,
    /// Connections of root's that went to the users whose processes came into their claims.
    pub handed_over: HandedOver,
    pub passes: u32,
    /// The last pass found every process in its place. Otherwise they keep being moved or forked
    /// faster than we can follow.
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProcess {
    pub pid: u32,
    pub comm: Foreign,
    /// Below the hierarchy's root.
    pub path: Foreign,
    /// Whose it would be; `None`: nobody's.
    pub owner: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub pid: u32,
    pub comm: Foreign,
    /// `None`: an error without a number.
    pub errno: Option<i32>,
    pub message: String,
}

/// Asks `decide` about every process below `proc_root` and does what it says, again until a pass
/// changes nothing. The first pass reads every process, the others only those that are new. A process
/// that cannot be moved, or is gone, is no error.
///
/// # Errors
/// A process that cannot be read, or no descriptor or memory to move one.
pub fn place<V: Into<Verdict>>(
    proc_root: &Path,
    instance: &Instance,
    decide: impl Fn(&Process) -> V + Sync,
) -> Result<Placement, Error> {
    place_seen(proc_root, instance, None, decide)
}

/// As [`place`]; `seen` is the first pass, where `/proc` was looked at a moment ago.
pub fn place_seen<V: Into<Verdict>>(
    proc_root: &Path,
    instance: &Instance,
    seen: Option<Scan>,
    decide: impl Fn(&Process) -> V + Sync,
) -> Result<Placement, Error> {
    let mut run = Run {
        hands: Hands {
            proc_root,
            instance,
            name: instance.name(),
            decide: |process: &Process| decide(process).into(),
            told: false,
        },
        placement: Placement::default(),
        handover: Handover::default(),
        users: HashSet::new(),
        done: HashSet::new(),
        extra_passes: 0,
        looked_again: false,
    };
    if let Some(seen) = seen {
        run.begin(seen)?;
    }
    while !run.placement.settled && run.placement.passes < MAX_PASSES {
        run.pass()?;
    }
    run.handover.leave_shared(proc_root, &run.users.into_iter().collect::<Vec<_>>());
    run.placement.handed_over = run.handover.give();
    Ok(run.placement)
}

/// What came of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedOne {
    pub placement: Placement,
    /// It was where it belongs, and so is all that it forks. Otherwise (also when it has ended)
    /// what it forked until now may be elsewhere.
    pub stayed: bool,
    /// What it holds of root's, for the caller to give: after all that became users at the same time.
    pub handover: Handover,
    /// Its parent; `None`: it has ended.
    pub parent: Option<u32>,
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
    let hands = Hands { proc_root, instance, name: instance.name(), decide, told: true };
    let mut part = Part::default();
    let stayed = hands.place(&mut Reader::default(), &mut Doors::default(), pid, &mut part)?;
    let placement = Placement { passes: 1, settled: true, ..part.placement };
    Ok(PlacedOne { placement, stayed, handover: part.handover, parent: part.parent })
}

struct Run<'a, D> {
    hands: Hands<'a, D>,
    placement: Placement,
    handover: Handover,
    /// Living processes of users that a pass saw: pid and real uid.
    users: HashSet<(u32, u32)>,
    /// Seen where they belong, or left alone for good: what they fork is born there too.
    done: HashSet<u32>,
    extra_passes: u32,
    looked_again: bool,
}

impl<D: Fn(&Process) -> Verdict + Sync> Run<'_, D> {
    /// The first pass, over what was seen. Whoever is to be moved is read again: the list is old by
    /// now, and the pid may be another process, or its user another one.
    fn begin(&mut self, seen: Scan) -> Result<(), Error> {
        let mut part = Part { ended: seen.vanished > 0, ..Part::default() };
        let mut movers = Vec::new();
        for process in seen.processes {
            part.ended |= process.zombie;
            part.user(&process);
            let Verdict { decision, acts_for } = (self.hands.decide)(&process);
            match decision {
                // What it holds may be another user's since.
                Decision::Stay if acts_for.is_some() => movers.push(process.pid),
                Decision::Stay => part.done.push(process.pid),
                Decision::Leave(reason) => part.leave(process, reason),
                Decision::MoveTo(_) | Decision::TakeOut => movers.push(process.pid),
            }
        }
        self.placement.passes += 1;
        self.placement.settled = true;
        self.take_in(part);
        self.work(&movers)?;
        self.conclude();
        Ok(())
    }

    fn pass(&mut self) -> Result<(), Error> {
        self.placement.passes += 1;
        self.placement.settled = true;
        for pids in Listing::open(self.hands.proc_root)? {
            let mut pids = pids?;
            pids.retain(|pid| !self.done.contains(pid));
            self.work(&pids)?;
        }
        self.conclude();
        Ok(())
    }

    /// Each is read and moved at once, so that nothing that was read grows old, by several processors.
    fn work(&mut self, pids: &[u32]) -> Result<(), Error> {
        for part in in_parts(pids, |pids| self.hands.place_all(pids)) {
            self.take_in(part?);
        }
        Ok(())
    }

    fn take_in(&mut self, part: Part) {
        self.done.extend(part.done);
        self.users.extend(part.users);
        self.handover.merge(part.handover);
        self.placement.settled &= !part.acted;
        if part.ended && self.extra_passes < MAX_EXTRA_PASSES && self.placement.settled {
            self.extra_passes += 1;
            self.placement.settled = false;
        }
        self.placement.take_in(part.placement);
    }

    /// Where that took many passes, pids come round again: one that was done may be another process.
    fn conclude(&mut self) {
        if self.placement.settled && self.placement.passes > CALM && !self.looked_again {
            self.looked_again = true;
            self.done.clear();
            let Placement { added, moved, gone, passes, .. } = self.placement;
            self.placement = Placement { added, moved, gone, passes, ..Placement::default() };
        }
    }
}

/// What one thread did.
#[derive(Default)]
struct Part {
    placement: Placement,
    done: Vec<u32>,
    /// Somebody ended; what he forked may not have been listed.
    ended: bool,
    /// Somebody was moved: what he forked before that is elsewhere still.
    acted: bool,
    /// What those who came into a claim hold of root's.
    handover: Handover,
    /// Living processes of users: pid and real uid.
    users: Vec<(u32, u32)>,
    /// Of the last one that was read.
    parent: Option<u32>,
}

impl Part {
    fn user(&mut self, process: &Process) {
        if process.uid != 0 && process.is_alive() {
            self.users.push((process.pid, process.uid));
        }
    }

    fn leave(&mut self, process: Process, reason: Reason) {
        self.done.push(process.pid);
        match reason {
            Reason::Foreign { owner } => self.placement.foreign.push(ForeignProcess {
                pid: process.pid,
                comm: process.comm,
                path: process.net_cls.unwrap_or_default().into(),
                owner,
            }),
            Reason::UnknownNamespace => self.placement.unknown_namespace += 1,
            Reason::NotAlive | Reason::Guest | Reason::OtherInstance { .. } | Reason::Unclaimed => {
            }
        }
    }
}

impl Placement {
    fn take_in(&mut self, part: Placement) {
        self.added += part.added;
        self.moved += part.moved;
        self.gone += part.gone;
        self.foreign.extend(part.foreign);
        self.failed.extend(part.failed);
        for (claim, count) in part.waiting {
            *self.waiting.entry(claim).or_default() += count;
        }
        self.unknown_namespace += part.unknown_namespace;
    }
}

struct Hands<'a, D> {
    proc_root: &'a Path,
    instance: &'a Instance,
    name: String,
    decide: D,
    /// The kernel told of the process: it has just become a user.
    told: bool,
}

impl<D: Fn(&Process) -> Verdict> Hands<'_, D> {
    fn place_all(&self, pids: &[u32]) -> Result<Part, Error> {
        let (mut reader, mut doors) = (Reader::default(), Doors::default());
        let mut part = Part::default();
        for pid in pids {
            self.place(&mut reader, &mut doors, *pid, &mut part)?;
        }
        Ok(part)
    }

    /// Whether it was where it belongs.
    fn place(
        &self,
        reader: &mut Reader,
        doors: &mut Doors,
        pid: u32,
        part: &mut Part,
    ) -> Result<bool, Error> {
        let Some(process) = reader.process(self.proc_root, pid)? else {
            part.ended = true;
            return Ok(false);
        };
        part.parent = Some(process.parent);
        part.ended |= process.zombie;
        part.user(&process);
        let Verdict { decision, acts_for } = (self.decide)(&process);
        let acts_for = acts_for.filter(|_| !self.is_pinned(&process));
        if let (Decision::Stay | Decision::MoveTo(_), Some(uid)) = (&decision, acts_for) {
            part.handover.look_at_server(self.proc_root, pid, uid);
        }
        let outcome = match decision {
            Decision::Stay => {
                // A session that was placed while it was root's becomes its user there (`shaper login`).
                if self.told && self.is_pinned(&process) {
                    part.handover.look(self.proc_root, &process);
                }
                part.done.push(pid);
                return Ok(true);
            }
            Decision::Leave(reason) => {
                part.leave(process, reason);
                return Ok(false);
            }
            Decision::MoveTo(claim) => {
                // One that was in a class already, and was not told of, has long been a user's: a connection
                // of root's that it holds may be another's, who passed it the descriptor.
                if acts_for.is_none() && (self.told || !self.is_inside(&process)) {
                    part.handover.look(self.proc_root, &process);
                }
                self.move_to(&process, &claim, doors, part)
            }
            Decision::TakeOut => self.take_out(&process, part),
        };
        match outcome {
            Err(error) if error.errno().is_some_and(is_want) => Err(error),
            Err(error) => {
                part.done.push(pid);
                part.placement.failed.push(Failed {
                    pid,
                    comm: process.comm,
                    errno: error.errno(),
                    message: error.to_string(),
                });
                Ok(false)
            }
            Ok(()) => Ok(false),
        }
    }

    fn move_to(
        &self,
        process: &Process,
        claim: &Claim,
        doors: &mut Doors,
        part: &mut Part,
    ) -> Result<(), Error> {
        match doors.attach(self.instance, process.pid, claim)? {
            Attached::Moved if self.is_inside(process) => part.placement.moved += 1,
            Attached::Moved => part.placement.added += 1,
            // What it forked since the list was taken is not in its claim.
            Attached::Dead => {
                part.acted = true;
                return Ok(());
            }
            Attached::NoDirectory => {
                *part.placement.waiting.entry(claim.clone()).or_default() += 1;
                part.done.push(process.pid);
                // Until it has a class of its own it must not use another's.
                return if self.is_inside(process) { self.take_out(process, part) } else { Ok(()) };
            }
        }
        part.acted = true;
        part.done.push(process.pid);
        Ok(())
    }

    fn take_out(&self, process: &Process, part: &mut Part) -> Result<(), Error> {
        if self.instance.release(process.pid)? == Attached::Moved {
            part.placement.gone += 1;
            part.done.push(process.pid);
        }
        part.acted = true;
        Ok(())
    }

    /// Whether `run`, `attach` or `login` put it where it is.
    fn is_pinned(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        let below = path.trim_start_matches('/').strip_prefix(&self.name);
        let claim = below.and_then(|below| below.strip_prefix('/')?.parse().ok());
        matches!(claim, Some(Claim::Pinned(_)))
    }

    /// Whether it sat below the instance's directory.
    fn is_inside(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        path.trim_start_matches('/').split('/').next() == Some(self.name.as_str())
    }
}

/// No descriptor or memory: it says nothing of the process.
fn is_want(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM)
}
