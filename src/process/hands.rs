//! One process after the other, read and put where it belongs.

use std::path::Path;

use crate::cgroup::{Attached, Doors, Error, Instance};
use crate::tree::Claim;

use super::placement::{Failed, ForeignProcess, Placement, Verdict};
use super::scan::Reader;
use super::{Decision, Handover, Process, Reason};

/// What one thread did.
#[derive(Default)]
pub(super) struct Part {
    pub placement: Placement,
    pub done: Vec<u32>,
    /// Somebody ended; what he forked may not have been listed.
    pub ended: bool,
    /// Somebody was moved: what he forked before that is elsewhere still.
    pub acted: bool,
    /// What those who came into a claim hold of root's.
    pub handover: Handover,
    /// Living processes of users: pid and real uid.
    pub users: Vec<(u32, u32)>,
    /// Of the last one that was read.
    pub parent: Option<u32>,
    /// The real uid of the last one that is in its class.
    pub home: Option<u32>,
}

impl Part {
    pub(super) fn user(&mut self, process: &Process) {
        if process.uid != 0 && process.is_alive() {
            self.users.push((process.pid, process.uid));
        }
    }

    pub(super) fn leave(&mut self, process: Process, reason: Reason) {
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

pub(super) struct Hands<'a, D> {
    pub proc_root: &'a Path,
    pub instance: &'a Instance,
    pub decide: D,
    /// The instance's.
    name: String,
    /// The kernel told of the process: it has just become a user.
    told: bool,
}

impl<'a, D: Fn(&Process) -> Verdict> Hands<'a, D> {
    /// For processes that a look found.
    pub(super) fn new(proc_root: &'a Path, instance: &'a Instance, decide: D) -> Hands<'a, D> {
        Hands { proc_root, instance, decide, name: instance.name(), told: false }
    }

    /// For a process that the kernel told of.
    pub(super) fn of_event(proc_root: &'a Path, instance: &'a Instance, decide: D) -> Hands<'a, D> {
        Hands { told: true, ..Hands::new(proc_root, instance, decide) }
    }

    pub(super) fn place_all(&self, pids: impl Iterator<Item = u32>) -> Result<Part, Error> {
        let (mut reader, mut doors) = (Reader::default(), Doors::default());
        let mut part = Part::default();
        for pid in pids {
            self.place(&mut reader, &mut doors, pid, &mut part)?;
        }
        Ok(part)
    }

    /// The same for those who were seen.
    pub(super) fn place_again(&self, seen: &[Process]) -> Result<Part, Error> {
        let (mut reader, mut doors) = (Reader::default(), Doors::default());
        let mut part = Part::default();
        for process in seen {
            let now = reader.again(self.proc_root, process.clone())?;
            // Two small files ago it was the same one.
            self.place_read(now, &mut doors, &mut part, |_| Ok(false))?;
        }
        Ok(part)
    }

    /// Whether it was where it belongs.
    pub(super) fn place(
        &self,
        reader: &mut Reader,
        doors: &mut Doors,
        pid: u32,
        part: &mut Part,
    ) -> Result<bool, Error> {
        loop {
            let process = reader.process(self.proc_root, pid)?;
            let is_another = |process: &Process| {
                let now = reader.starttime(self.proc_root, pid)?;
                Ok(now.is_some_and(|now| now != process.starttime))
            };
            if let Some(stayed) = self.place_read(process, doors, part, is_another)? {
                return Ok(stayed);
            }
        }
    }

    /// `process`: as it was read just now; `None`: it has ended. Between that and the move its pid
    /// may have become another's (`is_another`), of whom nobody has decided yet: then there is no
    /// answer.
    fn place_read(
        &self,
        process: Option<Process>,
        doors: &mut Doors,
        part: &mut Part,
        mut is_another: impl FnMut(&Process) -> Result<bool, Error>,
    ) -> Result<Option<bool>, Error> {
        let Some(process) = process else {
            part.ended = true;
            return Ok(Some(false));
        };
        let mut handover = Handover::default();
        let pid = process.pid;
        part.parent = Some(process.parent);
        part.ended |= process.zombie;
        part.user(&process);
        let Verdict { decision, acts_for } = (self.decide)(&process);
        let acts_for = acts_for.filter(|_| !self.is_pinned(&process));
        if let (Decision::Stay | Decision::MoveTo(_), Some(uid)) = (&decision, acts_for) {
            handover.look_at_server(self.proc_root, pid, uid);
        }
        let outcome = match decision {
            Decision::Stay => {
                // A session that was placed while it was root's becomes its user there (`shaper
                // login`).
                if self.told && self.is_pinned(&process) {
                    handover.look(self.proc_root, &process);
                }
                if !handover.is_empty() && is_another(&process)? {
                    return Ok(None);
                }
                part.handover.merge(handover);
                part.done.push(pid);
                part.home = Some(process.uid);
                return Ok(Some(true));
            }
            Decision::Leave(reason) => {
                part.leave(process, reason);
                return Ok(Some(false));
            }
            Decision::MoveTo(claim) => {
                // One that was in a class already, and was not told of, has long been a user's: a
                // connection of root's that it holds may be another's, who passed it the
                // descriptor.
                if acts_for.is_none() && (self.told || !self.is_inside(&process)) {
                    handover.look(self.proc_root, &process);
                }
                self.move_to(&process, &claim, doors, part)
            }
            Decision::TakeOut => self.take_out(&process, part),
        };
        if is_another(&process)? {
            part.done.retain(|done| *done != pid);
            return Ok(None);
        }
        // What it holds is not another's.
        part.handover.merge(handover);
        match outcome {
            Err(error) if error.is_shortage() => Err(error),
            Err(error) => {
                part.done.push(pid);
                part.placement.failed.push(Failed {
                    pid,
                    comm: process.comm,
                    errno: error.errno(),
                    message: error.to_string(),
                });
                Ok(Some(false))
            }
            Ok(()) => Ok(Some(false)),
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
        part.home = Some(process.uid);
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
