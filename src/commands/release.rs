//! `shaper release`: undoes `attach`, `run` and `login`. What was put into a class by hand goes to
//! where the policy has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::run::{self, Pinned, RunError};
use super::{daemon, scope};
use crate::apply::{self, Options, Request, Session, may_change};
use crate::cgroup::{Attached, Error, Instance};
use crate::cli::Global;
use crate::facts::Accounts;
use crate::failure::{Failure, JsonErrors};
use crate::host::Kernel;
use crate::host::observe;
use crate::model::Matcher;
use crate::process::{self, Decision, Process};
use crate::text::{Foreign, shown};
use crate::tree::Claim;

/// How often a user's processes are listed again: those that wait to be moved fork meanwhile.
const MOST_PASSES: usize = 64;

/// Why a process stays where it is.
#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    /// Neither `run` nor `attach` nor `login` put it there. `None`: it is in no class of ours.
    #[error("process {pid} ({comm}) was put nowhere by hand: it is {}", directory(.sits_in.as_ref()))]
    NotByHand { pid: u32, comm: Foreign, sits_in: Option<Claim> },
    /// A user's processes fork faster than they are moved.
    #[error("processes keep coming into {0}: some are there still")]
    KeepComing(Claim),
}

fn directory(sits_in: Option<&Claim>) -> String {
    match sits_in {
        Some(claim) => format!("in {claim}, where the policy has it"),
        None => "in no class of ours".to_string(),
    }
}

/// A process that cannot be meant is exit status 2; processes that cannot all be moved, 1.
impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Failure {
        match error {
            ReleaseError::NotByHand { .. } => Failure::Usage(error.to_string()),
            ReleaseError::KeepComing(_) => Failure::refused(error),
        }
    }
}

#[derive(Serialize)]
struct Document {
    version: u32,
    released: Vec<Released>,
    /// Why no process was placed in another class: there is no policy that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Why not all were released.
    #[serde(flatten)]
    errors: Option<JsonErrors>,
}

#[derive(Serialize)]
struct Released {
    pid: u32,
    from: String,
    /// `None`: the process is in nobody's class now.
    to: Option<String>,
}

pub(super) fn release(
    global: &Global,
    subjects: &[String],
    file: Option<&Path>,
) -> Result<Output, Failure> {
    let kernel = scope::open(global)?;
    may_change(&kernel)?;
    let named = file.is_some();
    let file = match file {
        Some(file) => file.to_path_buf(),
        None => daemon::policy_in_force(&kernel)?,
    };
    let instance = run::standing(&kernel)?;
    let _lock = instance.lock(global.wait)?;
    let mut named_before = BTreeSet::new();
    let subjects = subjects.iter().filter(|subject| named_before.insert(*subject));
    let wanted = subjects.map(|subject| Wanted::new(&instance, subject, &file));
    let wanted: Vec<Wanted> = wanted.collect::<Result<_, _>>()?;
    // Where there is no policy (any more), the next apply says whose they are.
    let whose = match apply::read(&file) {
        Ok(policy) => {
            let options = Options {
                skip_unknown: true,
                takeover: true,
                absent_links: true,
                ..Options::default()
            };
            let mut session = Session::without_names(kernel);
            let meaning = session.look(&Request::new(policy, options))?.meaning;
            Ok((session.kernel, meaning.model.matcher, meaning.observation.facts.accounts))
        }
        Err(failure) if named => return Err(failure),
        Err(failure) => Err((kernel, failure.message())),
    };
    let (kernel, whose, note) = match whose {
        Ok((kernel, matcher, accounts)) => (kernel, Some((matcher, accounts)), None),
        Err((kernel, why)) => {
            let note = format!("whose they are is for the next apply to say: {why}");
            (kernel, None, Some(note))
        }
    };
    let mut kernel = kernel;
    let asks_cgroups = observe::open_owners(&mut kernel)?;
    let (stay, ended) = (BTreeMap::new(), BTreeSet::new());
    let mut release = Release { kernel, instance, whose, asks_cgroups, stay, ended };
    // A word that is wrong is said before anything is released.
    for wanted in &wanted {
        if let Wanted::Process(pid) = wanted {
            release.put_by_hand(*pid)?;
        }
    }
    let mut released = Vec::new();
    let done = wanted.iter().try_for_each(|wanted| release.all(wanted, &mut released));
    let Release { stay, ended, .. } = release;
    match with_stay(done, stay.into_values().flatten()) {
        Err(failure) if released.is_empty() => Err(failure),
        done => output(global, (released, ended), note, done.err()),
    }
}

/// What stays where it is fails the release, where nothing else did: the first, and others are
/// warned of.
fn with_stay(
    done: Result<(), Failure>,
    mut stay: impl Iterator<Item = Error>,
) -> Result<(), Failure> {
    let done = match done {
        Ok(()) => stay.next().map_or(Ok(()), |first| Err(first.into())),
        failed => failed,
    };
    stay.for_each(|other| log::warn!("{other}"));
    done
}

/// What was released, and why not all of it was.
fn output(
    global: &Global,
    (released, ended): (Vec<Released>, BTreeSet<u32>),
    note: Option<String>,
    failure: Option<Failure>,
) -> Result<Output, Failure> {
    let status = failure.as_ref().map_or(0, Failure::exit_status);
    if global.json {
        let errors = failure.as_ref().map(Failure::errors);
        let document = Document { version: 1, released, note, errors };
        let text = serde_json::to_string(&document).map_err(Failure::refused)?;
        return Ok(Output { status, ..Output::json(&text) });
    }
    let stdout = if global.quiet { String::new() } else { text(&released, &ended) };
    let mut stderr = note.map_or_else(String::new, |note| format!("note: {note}\n"));
    if let Some(failure) = failure {
        stderr.push_str(&format!("error: {}\n", failure.message()));
    }
    Ok(Output { stdout, stderr, status })
}

/// What a word of the command line means.
enum Wanted {
    Process(u32),
    /// All that was put into this directory.
    All(Claim),
}

impl Wanted {
    fn new(instance: &Instance, subject: &str, file: &Path) -> Result<Wanted, Failure> {
        if let Ok(pid) = subject.parse::<u32>() {
            return Ok(Wanted::Process(pid));
        }
        let Pinned { owner, .. } = run::class_of(instance, subject, Some(file))?;
        Ok(Wanted::All(Claim::Pinned(owner)))
    }
}

struct Release {
    kernel: Kernel,
    instance: Instance,
    whose: Option<(Matcher, Accounts)>,
    /// Whether packets go by the cgroups (v2) of their sockets.
    asks_cgroups: bool,
    /// What cannot leave its cgroup, and why; `None`: its class does not go by that.
    stay: BTreeMap<u32, Option<Error>>,
    /// Processes that were to be released and have ended meanwhile.
    ended: BTreeSet<u32>,
}

impl Release {
    fn all(&mut self, wanted: &Wanted, released: &mut Vec<Released>) -> Result<(), Failure> {
        let claim = match wanted {
            Wanted::Process(pid) => return self.process(*pid, released),
            Wanted::All(claim) => claim,
        };
        for _ in 0..MOST_PASSES {
            let mut members = self.members(claim)?;
            members.retain(|pid| !self.stay.contains_key(pid));
            if members.is_empty() {
                let _gone = self.kernel.sweep_pinned();
                return Ok(());
            }
            for pid in members {
                if let Some(process) = process::read_one(&self.kernel.proc_root, pid)? {
                    self.one(&process, claim, released)?;
                }
            }
        }
        Err(ReleaseError::KeepComing(claim.clone()).into())
    }

    /// A process that is there by hand, unless the word before it, its user's, has released it.
    fn process(&mut self, pid: u32, released: &mut Vec<Released>) -> Result<(), Failure> {
        let is_done = |released: &[Released]| released.iter().any(|it| it.pid == pid);
        if is_done(released) {
            return Ok(());
        }
        let put = self.put_by_hand(pid);
        let done = put.and_then(|(process, claim)| self.one(&process, &claim, released));
        let _gone = self.kernel.sweep_pinned();
        if !is_done(released) && self.alive(pid)?.is_none() {
            self.ended.insert(pid);
            return Ok(());
        }
        done
    }

    fn alive(&self, pid: u32) -> Result<Option<Process>, Failure> {
        Ok(process::read_one(&self.kernel.proc_root, pid)?.filter(Process::is_alive))
    }

    /// What was put into this directory, or into cgroups where no tags are read.
    fn members(&self, claim: &Claim) -> Result<BTreeSet<u32>, Failure> {
        let mut members: BTreeSet<u32> = self.instance.members(claim)?.into_iter().collect();
        if let Some(owner) = claim.pinned() {
            members.extend(self.kernel.pinned_members(owner)?);
        }
        Ok(members)
    }

    /// A process that `run`, `attach` or `login` put somewhere, and where.
    fn put_by_hand(&self, pid: u32) -> Result<(Process, Claim), Failure> {
        let process = self.alive(pid)?.ok_or(RunError::NoSuchProcess(vec![pid]))?;
        if let Some(pinned) = self.kernel.pinned_process(pid) {
            return Ok((process, Claim::Pinned(pinned.owner)));
        }
        match process::claim_of(&process, &self.kernel.view()?) {
            Some(claim @ Claim::Pinned(_)) => Ok((process, claim)),
            sits_in => Err(ReleaseError::NotByHand { pid, comm: process.comm, sits_in }.into()),
        }
    }

    /// Takes a process out of its cgroup (v2); whether it is to be placed.
    fn leaves_cgroup(&mut self, pid: u32) -> Result<bool, Failure> {
        match self.kernel.unpin(pid) {
            // It keeps no other from being released.
            Err(error @ Error::NoWayBack { .. }) if self.asks_cgroups => {
                self.stay.insert(pid, Some(error));
                Ok(false)
            }
            Err(error @ Error::NoWayBack { .. }) => {
                log::debug!("{error}");
                self.stay.insert(pid, None);
                Ok(true)
            }
            left => Ok(left? != Attached::Dead),
        }
    }

    /// Undoes what [`run::Place::put`] did to a process.
    fn one(
        &mut self,
        process: &Process,
        from: &Claim,
        released: &mut Vec<Released>,
    ) -> Result<(), Failure> {
        if !self.leaves_cgroup(process.pid)? {
            return Ok(());
        }
        // Decided as for a process that comes from outside our directories.
        let free = Process { net_cls: Some("/".to_string()), ..process.clone() };
        let view = self.kernel.view()?;
        let decision = self
            .whose
            .as_ref()
            .map(|(matcher, accounts)| self.kernel.decide(&free, matcher, accounts, &view));
        let to = match decision {
            Some(Decision::MoveTo(claim)) => match self.instance.attach(process.pid, &claim)? {
                Attached::Moved | Attached::Counted => Some(claim),
                Attached::Dead => return Ok(()),
                // The next apply, or the daemon, makes the class and places the process.
                Attached::NoDirectory => None,
            },
            _ => None,
        };
        if to.is_none() && self.instance.release(process.pid)? == Attached::Dead {
            return Ok(());
        }
        self.take_back(process, from);
        released.push(Released {
            pid: process.pid,
            from: from.to_string(),
            to: to.map(|claim| claim.to_string()),
        });
        Ok(())
    }

    /// Ends what [`Kernel::give`] began: packets of the process's uid no longer count for the
    /// class, unless another process of that uid is still there. Where a unit's line claims the
    /// process, they count for that line.
    fn take_back(&self, process: &Process, from: &Claim) {
        let proc_root = &self.kernel.proc_root;
        let read = |pid| process::read_one(proc_root, pid).ok().flatten();
        let uid_of = |pid| read(pid).map(|process: Process| process.uid);
        let mut left = self.members(from).unwrap_or_default();
        // What is in a cgroup that says nothing of its class.
        left.retain(|pid| !matches!(self.stay.get(pid), Some(None)));
        if left.into_iter().any(|pid| uid_of(pid) == Some(process.uid)) {
            return;
        }
        self.kernel.take_back(process.uid, from);
        if let (Some((matcher, accounts)), Some(now), Ok(view)) =
            (&self.whose, read(process.pid), self.kernel.view())
        {
            let _gives = self.kernel.decide(&now, matcher, accounts, &view);
        }
    }
}

fn text(released: &[Released], ended: &BTreeSet<u32>) -> String {
    if released.is_empty() && ended.is_empty() {
        return "nothing was put there by hand\n".to_string();
    }
    let line = |Released { pid, from, to }: &Released| {
        let from = from.trim_end_matches("/pinned");
        match to {
            Some(to) => format!("process {pid}: from {} to {}\n", shown(from), shown(to)),
            None => format!("process {pid}: from {} to nobody's class\n", shown(from)),
        }
    };
    let ended = ended.iter().map(|pid| format!("process {pid} has ended\n"));
    released.iter().map(line).chain(ended).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_was_there_by_hand() {
        assert_eq!(text(&[], &BTreeSet::new()), "nothing was put there by hand\n");
        let one = Released { pid: 6, from: "user/ann/pinned".to_string(), to: None };
        let said = "process 6: from user/ann to nobody's class\nprocess 7 has ended\n";
        assert_eq!(text(&[one], &[7].into()), said);
    }
}
