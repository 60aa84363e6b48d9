//! Moves processes until none needs it. Writes `cgroup.procs` of the instance's directories and of
//! the hierarchy's root, nothing else.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::cgroup::{self, Attached, Instance};
use crate::state::{Claim, Owner};
use crate::text::Foreign;

use super::scan::{Scan, scan_except};
use super::{Decision, HandedOver, Handover, Process, Reason, read_one};

/// Forks race with a pass: a child that was forked after the list was taken, by a parent that was
/// not moved yet, is missed by it. Up to 23 passes were needed under a fork storm; beyond this
/// many, somebody else is moving the same processes.
const MAX_PASSES: u32 = 64;

/// So many more passes, at most, because of processes that ended while we looked: one that was not
/// in its claim may have left a child that was not listed. Bounded apart, because on a busy host
/// there are always some.
const MAX_EXTRA_PASSES: u32 = 20;

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
/// changes nothing. The first pass reads every process, the others only those that are new or were
/// moved. A process that cannot be moved, or is gone, is no error.
pub fn place(
    proc_root: &Path,
    instance: &Instance,
    decide: impl Fn(&Process) -> Decision,
) -> Result<Placement, cgroup::Error> {
    place_seen(proc_root, instance, None, decide)
}

/// As [`place`]; `seen` is the first pass, where `/proc` was looked at a moment ago.
pub fn place_seen(
    proc_root: &Path,
    instance: &Instance,
    seen: Option<Scan>,
    decide: impl Fn(&Process) -> Decision,
) -> Result<Placement, cgroup::Error> {
    let mut run = Run {
        proc_root,
        instance,
        name: instance.name(),
        decide,
        placement: Placement::default(),
        handover: Handover::default(),
        users: HashSet::new(),
        done: HashSet::new(),
        extra_passes: 0,
    };
    if let Some(seen) = seen {
        run.pass(seen);
    }
    while !run.placement.settled && run.placement.passes < MAX_PASSES {
        let seen = scan_except(proc_root, |pid| run.done.contains(&pid))
            .map_err(cgroup::Error::io("list", proc_root))?;
        run.pass(seen);
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
}

/// The same for one process: what a login needs. What it forked meanwhile is the caller's to look
/// after. A process that has ended is no error.
pub fn place_one(
    proc_root: &Path,
    instance: &Instance,
    pid: u32,
    decide: impl Fn(&Process) -> Decision,
) -> PlacedOne {
    let mut run = Run {
        proc_root,
        instance,
        name: instance.name(),
        decide,
        placement: Placement { passes: 1, settled: true, ..Placement::default() },
        handover: Handover::default(),
        users: HashSet::new(),
        done: HashSet::new(),
        extra_passes: 0,
    };
    let Some(process) = read_one(proc_root, pid) else { return PlacedOne::default() };
    let decision = (run.decide)(&process);
    let stayed = match decision {
        Decision::Stay => {
            // A session that was placed while it was root's becomes its user there (`shaper login`).
            if run.is_pinned(&process) {
                run.handover.look(proc_root, &process);
            }
            true
        }
        Decision::Leave(reason) => {
            run.leave(process, reason);
            false
        }
        Decision::MoveTo(_) | Decision::TakeOut => {
            if matches!(decision, Decision::MoveTo(_)) {
                run.handover.look(proc_root, &process);
            }
            run.carry_out(&process, &decision);
            false
        }
    };
    PlacedOne { placement: run.placement, stayed, handover: run.handover }
}

struct Run<'a, D> {
    proc_root: &'a Path,
    instance: &'a Instance,
    name: String,
    decide: D,
    placement: Placement,
    handover: Handover,
    /// Living processes of users that a pass saw: pid and real uid.
    users: HashSet<(u32, u32)>,
    /// Seen where they belong, or left alone for good: what they fork is born there too.
    done: HashSet<u32>,
    extra_passes: u32,
}

impl<D: Fn(&Process) -> Decision> Run<'_, D> {
    fn pass(&mut self, seen: Scan) {
        self.placement.passes += 1;
        self.placement.settled = true;
        let mut ended = seen.vanished > 0;
        for process in seen.processes {
            ended |= process.zombie;
            if process.uid != 0 && process.is_alive() {
                self.users.insert((process.pid, process.uid));
            }
            match (self.decide)(&process) {
                Decision::Stay => {
                    self.done.insert(process.pid);
                }
                Decision::Leave(reason) => self.leave(process, reason),
                decision => self.act(&process, &decision),
            }
        }
        if self.placement.settled && ended && self.extra_passes < MAX_EXTRA_PASSES {
            self.extra_passes += 1;
            self.placement.settled = false;
        }
    }

    fn leave(&mut self, process: Process, reason: Reason) {
        self.done.insert(process.pid);
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

    fn act(&mut self, process: &Process, decision: &Decision) {
        // The list is old by now: the pid may be another process, or its user another one.
        if !self.still_so(process, decision) {
            self.placement.settled = false;
            return;
        }
        // One that was in a class already has long been a user's: a connection of root's that it holds
        // may be another's, who passed it the descriptor.
        if matches!(decision, Decision::MoveTo(_)) && !self.is_inside(process) {
            self.handover.look(self.proc_root, process);
        }
        self.carry_out(process, decision);
    }

    fn carry_out(&mut self, process: &Process, decision: &Decision) {
        let outcome = match decision {
            Decision::MoveTo(claim) => self.move_to(process, claim),
            _ => self.take_out(process),
        };
        if let Err(error) = outcome {
            self.done.insert(process.pid);
            self.placement.failed.push(Failed {
                pid: process.pid,
                comm: process.comm.clone(),
                errno: error.errno(),
                message: error.to_string(),
            });
        }
    }

    fn still_so(&self, process: &Process, decision: &Decision) -> bool {
        read_one(self.proc_root, process.pid).is_some_and(|now| {
            now.starttime == process.starttime && (self.decide)(&now) == *decision
        })
    }

    fn move_to(&mut self, process: &Process, claim: &Claim) -> Result<(), cgroup::Error> {
        match self.instance.attach(process.pid, claim)? {
            // Should the pid have become another process in the last microseconds, then the next
            // pass, which this one makes necessary, puts that one back where it belongs.
            Attached::Moved if self.is_inside(process) => self.placement.moved += 1,
            Attached::Moved => self.placement.added += 1,
            // What it forked since the list was taken is not in its claim.
            Attached::Dead => {}
            Attached::NoDirectory => {
                *self.placement.waiting.entry(claim.clone()).or_default() += 1;
                self.done.insert(process.pid);
                // Until it has a class of its own it must not use another's.
                return if self.is_inside(process) { self.take_out(process) } else { Ok(()) };
            }
        }
        self.placement.settled = false;
        Ok(())
    }

    fn take_out(&mut self, process: &Process) -> Result<(), cgroup::Error> {
        if self.instance.release(process.pid)? == Attached::Moved {
            self.placement.gone += 1;
        }
        self.placement.settled = false;
        Ok(())
    }

    /// Whether it sat below the instance's directory.
    fn is_inside(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        path.trim_start_matches('/').split('/').next() == Some(self.name.as_str())
    }

    /// Whether `run`, `attach` or `login` put it where it is.
    fn is_pinned(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        let below = path.trim_start_matches('/').strip_prefix(&self.name);
        let claim = below.and_then(|below| below.strip_prefix('/')?.parse().ok());
        matches!(claim, Some(Claim::Pinned(_)))
    }
}
