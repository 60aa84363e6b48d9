//! Processes are read one after the other and moved where they belong.

use std::path::Path;

use crate::cgroup::{Attached, Doors, Error, Instance};
use crate::tree::Claim;

use super::placement::{Failed, ForeignProcess, Placement, Verdict};
use super::scan::Reader;
use super::{Decision, Handover, Process, Reason};

/// What one thread has done.
#[derive(Default)]
pub(super) struct Part {
    pub placement: Placement,
    pub done: Vec<u32>,
    /// A process ended; its children may not have been listed.
    pub ended: bool,
    /// A process was moved; children that it forked before are still elsewhere.
    pub acted: bool,
    /// The sockets of root's in processes that came into a claim.
    pub handover: Handover,
    /// Living processes of users: pid and real uid.
    pub users: Vec<(u32, u32)>,
    /// The parent of the last process that was read.
    pub parent: Option<u32>,
    /// The real uid of the last process that was found or put in its class.
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

/// What came of a process that belongs in a claim.
enum Came {
    /// It is there, and was before.
    Home,
    /// It was moved, has ended, or waits.
    Moved,
}

pub(super) struct Hands<'a, D> {
    pub proc_root: &'a Path,
    pub instance: &'a Instance,
    pub decide: D,
    /// The instance's name.
    name: String,
    /// An event told of the process: it has just become a user.
    told: bool,
}

impl<'a, D: Fn(&Process) -> Verdict> Hands<'a, D> {
    /// For processes that a look found.
    pub(super) fn new(proc_root: &'a Path, instance: &'a Instance, decide: D) -> Hands<'a, D> {
        Hands { proc_root, instance, decide, name: instance.name(), told: false }
    }

    /// For a process that an event told of.
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

    /// Places processes that a look has seen before.
    pub(super) fn place_again(&self, seen: &[Process]) -> Result<Part, Error> {
        let (mut reader, mut doors) = (Reader::default(), Doors::default());
        let mut part = Part::default();
        for process in seen {
            let now = reader.again(self.proc_root, process.clone())?;
            // The process was the same one two small files ago.
            self.place_read(now, &mut doors, &mut part, |_| Ok(false))?;
        }
        Ok(part)
    }

    /// Places one process; whether it was where it belongs.
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

    /// Places a process that was read just now (`None`: it has ended). By the time of the move the
    /// pid may be another process's (`is_another`), about which nothing was decided: then there is
    /// no answer.
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
                // `shaper login` places a session while it is root's; there the session becomes its
                // user.
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
                // A process that was in a class already, and that no event told of, has been a
                // user's for a while: a connection of root's in it may serve another user, who
                // passed the descriptor on.
                if acts_for.is_none() && (self.told || !self.is_inside(&process)) {
                    handover.look(self.proc_root, &process);
                }
                self.move_to(&process, &claim, doors, part)
            }
            Decision::TakeOut => self.take_out(&process, part).map(|()| Came::Moved),
        };
        if is_another(&process)? {
            part.done.retain(|done| *done != pid);
            return Ok(None);
        }
        // The process is still the one that was decided about, so its sockets count.
        part.handover.merge(handover);
        match outcome {
            Ok(Came::Home) => Ok(Some(true)),
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
            Ok(Came::Moved) => Ok(Some(false)),
        }
    }

    fn move_to(
        &self,
        process: &Process,
        claim: &Claim,
        doors: &mut Doors,
        part: &mut Part,
    ) -> Result<Came, Error> {
        match doors.attach(self.instance, process.pid, claim)? {
            Attached::Moved if self.is_inside(process) => part.placement.moved += 1,
            Attached::Moved => part.placement.added += 1,
            // Children that it forked since it was listed are not in its claim.
            Attached::Dead => {
                part.acted = true;
                return Ok(Came::Moved);
            }
            // Its packets are in the class by their sockets' owner, and so are its children's.
            Attached::Counted => {
                part.done.push(process.pid);
                part.home = Some(process.uid);
                return Ok(Came::Home);
            }
            Attached::NoDirectory => {
                *part.placement.waiting.entry(claim.clone()).or_default() += 1;
                part.done.push(process.pid);
                // Until the process has a class of its own it must not use another's.
                if self.is_inside(process) {
                    self.take_out(process, part)?;
                }
                return Ok(Came::Moved);
            }
        }
        part.acted = true;
        part.done.push(process.pid);
        part.home = Some(process.uid);
        Ok(Came::Moved)
    }

    fn take_out(&self, process: &Process, part: &mut Part) -> Result<(), Error> {
        if self.instance.release(process.pid)? == Attached::Moved {
            part.placement.gone += 1;
            part.done.push(process.pid);
        }
        part.acted = true;
        Ok(())
    }

    /// Whether `run`, `attach` or `login` put the process where it is.
    fn is_pinned(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        let below = path.trim_start_matches('/').strip_prefix(&self.name);
        let claim = below.and_then(|below| below.strip_prefix('/')?.parse().ok());
        matches!(claim, Some(Claim::Pinned(_)))
    }

    /// Whether the process was below the instance's directory.
    fn is_inside(&self, process: &Process) -> bool {
        let path = process.net_cls.as_deref().unwrap_or("/");
        path.trim_start_matches('/').split('/').next() == Some(self.name.as_str())
    }
}
