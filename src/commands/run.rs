//! `shaper run` and `shaper attach`: put a command, or processes that run, into a user's class,
//! to stay there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::{scope, whom};
use crate::apply::may_change;
use crate::cgroup::{Attached, Instance, Locked, Unified};
use crate::cli::Global;
use crate::facts::NoCgroups;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe;
use crate::process;
use crate::text::{Foreign, shown};
use crate::tree::{Claim, Owner};
use crate::units::ClassId;

/// shaper's own failures of `run`, as env(1), nohup(1) and timeout(1) have them.
const FAILED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Replaces this process by the command, inside the user's class; returns only when it cannot.
pub(super) fn run(global: &Global, user: &str, command: &[OsString]) -> Failure {
    let mut words = command.iter();
    let Some(program) = words.next() else {
        return Failure::Run { status: FAILED, message: "no command to run".to_string() };
    };
    if let Err(failure) = enter(global, user) {
        return Failure::Run { status: FAILED, message: failure.message() };
    }
    let error = std::process::Command::new(program).args(words).exec();
    let status = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    };
    Failure::Run {
        status,
        message: format!("cannot run {}: {error}", shown(&program.to_string_lossy())),
    }
}

/// Moves this very process, so that the command is in the class from its first packet.
fn enter(global: &Global, user: &str) -> Result<(), Failure> {
    let place = Place::of(global, user)?;
    let _gone = place.kernel.sweep_pinned();
    match place.put(std::process::id())? {
        Attached::Moved => Ok(()),
        came_of_it => Err(RunError::NotEntered { user: user.into(), came_of_it }.into()),
    }
}

/// Why nothing is put into a class by hand.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// A word of `attach` that names no single process: 0 and negative numbers mean groups of them
    /// to kill(2).
    #[error("{0} is no process id; name processes one by one")]
    NotAProcessId(i32),
    /// A process that runs, but whose packets are not one user's, or not this instance's.
    #[error("process {pid} ({comm}) cannot be attached: {why}")]
    Unattachable { pid: u32, comm: Foreign, why: Unattachable },
    /// No instance stands here, so there is no class.
    #[error("nothing is shaped here yet: `shaper apply` first")]
    NothingShaped,
    /// No link goes by tags, and none can go by cgroups.
    #[error(
        "{}, and every link here goes by the owner of a packet's socket (`classifier: uid`), which stays whose it is; write `classifier: bpf`, where this host has net_cls (`shaper doctor`)",
        why.map_or_else(|| "this kernel tells no program the cgroup of a socket".to_string(), |why| why.to_string())
    )]
    NoTags { why: Option<NoCgroups> },
    /// A line or an account without a class, or a name that is neither.
    #[error("{0} has no class; `shaper status` lists who has, `shaper why {0}` says why")]
    NoClass(Foreign),
    /// Another run removed the user's class after it was found.
    #[error("{0}'s class went away meanwhile")]
    ClassGone(Foreign),
    /// Processes that have ended; those named beside them are in the class.
    #[error("no such process: {}", .0.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))]
    NoSuchProcess(Vec<u32>),
    /// `run` itself could not be moved.
    #[error("cannot enter {user}'s class: {came_of_it:?}")]
    NotEntered { user: Foreign, came_of_it: Attached },
}

/// What is wrong with a process that was named to `attach`.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unattachable {
    /// Process 1 of its namespace.
    #[error("it starts everything else here, which would come along")]
    Init,
    /// Its sockets have no tag of their own.
    #[error("it is a kernel thread, which is in no class; give its traffic one by a rule")]
    KernelThread,
    /// The process is in a directory of this other instance.
    #[error("it is the instance `{0}`'s (--cgroup), which would take it back")]
    OtherInstance(Foreign),
}

/// What the command line asks for and cannot be is exit status 2; what happened meanwhile, 1.
impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::NotAProcessId(_)
            | RunError::Unattachable { .. }
            | RunError::NothingShaped
            | RunError::NoTags { .. }
            | RunError::NoClass(_) => Failure::Usage(error.to_string()),
            RunError::ClassGone(_) | RunError::NoSuchProcess(_) | RunError::NotEntered { .. } => {
                Failure::refused(error)
            }
        }
    }
}

#[derive(Serialize)]
struct Document<'p> {
    version: u32,
    attached: &'p [u32],
    to: String,
}

pub(super) fn attach(global: &Global, user: &str, pids: &[i32]) -> Result<Output, Failure> {
    let numbers: Vec<u32> = pids
        .iter()
        .map(|pid| {
            let number = u32::try_from(*pid).ok().filter(|pid| *pid > 0);
            number.ok_or(RunError::NotAProcessId(*pid))
        })
        .collect::<Result<_, _>>()?;
    let place = Place::of(global, user)?;
    let _gone = place.kernel.sweep_pinned();
    // Before any of them is moved.
    numbers.iter().try_for_each(|pid| may_be_put(&place.kernel, *pid))?;
    let mut dead = Vec::new();
    for pid in &numbers {
        match place.put(*pid)? {
            Attached::Moved | Attached::Counted => {}
            Attached::Dead => dead.push(*pid),
            Attached::NoDirectory => return Err(RunError::ClassGone(user.into()).into()),
        }
    }
    if !dead.is_empty() {
        return Err(RunError::NoSuchProcess(dead).into());
    }
    if global.json {
        let document = Document { version: 1, attached: &numbers, to: place.claim.to_string() };
        return Ok(Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?));
    }
    let since = match place.is_for_new_sockets() {
        true => "; connections and sockets from before stay whose they were (`classifier: uid`)",
        false => "",
    };
    Ok(Output::text(match (global.quiet, numbers.len()) {
        (true, _) => String::new(),
        (false, 1) => format!("1 process is in {user}'s class, and stays there{since}\n"),
        (false, n) => format!("{n} processes are in {user}'s class, and stay there{since}\n"),
    }))
}

/// Where what is put into a user's class by hand goes; `release` undoes it.
pub(super) struct Place {
    kernel: Kernel,
    /// Keeps an `apply` from putting other maps in the place of these, and from removing the
    /// user's own directory, in which the claim's is, meanwhile.
    locked: Locked,
    claim: Claim,
    classid: ClassId,
    /// Where links go by the cgroups (v2) of sockets.
    unified: Option<Unified>,
}

impl Place {
    /// Makes the directory if there is none.
    fn of(global: &Global, user: &str) -> Result<Place, Failure> {
        let mut kernel = scope::open(global)?;
        may_change(&kernel)?;
        let locked = standing(&kernel)?.lock(global.wait)?;
        let Pinned { claims, owner, classid } = class_of(&locked, user, None)?;
        let asks_cgroups = observe::open_owners(&mut kernel)?;
        let unified = match asks_cgroups.then(Unified::find).transpose()? {
            Some(Ok(unified)) => Ok(unified),
            Some(Err(why)) => Err(Some(why)),
            None => Err(None),
        };
        if let (Err(why), false) = (&unified, locked.places()) {
            return Err(RunError::NoTags { why: *why }.into());
        }
        // Before the claim is there again, to which what is left would belong.
        kernel.tidy(&locked, &claims);
        let claim = pin(&locked, &claims, owner, classid)?;
        Ok(Place { kernel, locked, claim, classid, unified: unified.ok() })
    }

    /// Puts the process into the directory, and where no tags are read into a cgroup. Before that,
    /// what its uid sends from there is made the class's ([`Kernel::give`]).
    fn put(&self, pid: u32) -> Result<Attached, Failure> {
        if let Some(process) = process::read_one(&self.kernel.proc_root, pid)? {
            self.kernel.give(process.uid, &self.claim);
        }
        if let (Some(unified), Some(owner)) = (&self.unified, self.claim.pinned()) {
            let put = self.kernel.pin(unified, pid, owner, self.classid)?;
            if put != Attached::Moved || !self.locked.places() {
                return Ok(put);
            }
        }
        Ok(self.locked.attach(pid, &self.claim)?)
    }

    /// Whether only the sockets count that the processes make from now on.
    fn is_for_new_sockets(&self) -> bool {
        !self.locked.places()
    }
}

/// Refuses processes whose packets are not one user's, or not ours. One that is gone is for
/// [`Place::put`] to find.
fn may_be_put(kernel: &Kernel, pid: u32) -> Result<(), Failure> {
    let Some(process) = process::read_one(&kernel.proc_root, pid)? else { return Ok(()) };
    let why = if pid == 1 {
        Unattachable::Init
    } else if process.kernel_thread {
        Unattachable::KernelThread
    } else if let Some(other) = process::held_by_another(&process, &kernel.view()?) {
        Unattachable::OtherInstance(other.into())
    } else {
        return Ok(());
    };
    Err(RunError::Unattachable { pid, comm: process.comm, why }.into())
}

/// The instance, where there is one.
pub(super) fn standing(kernel: &Kernel) -> Result<Instance, Failure> {
    let instance = kernel.instance().filter(|instance| instance.root().exists());
    Ok(instance.ok_or(RunError::NothingShaped)?)
}

/// A class that was found, and all claims of its instance.
pub(super) struct Pinned {
    pub claims: BTreeMap<Claim, ClassId>,
    pub owner: Owner,
    pub classid: ClassId,
}

/// The class that a name on the command line means: a line's, an account's own, or that of the line
/// which claims the account in the policy (`file`, or the one in force).
pub(super) fn class_of(
    instance: &Instance,
    user: &str,
    file: Option<&Path>,
) -> Result<Pinned, Failure> {
    let (claims, _) = instance.observe()?;
    let class = |owner: Owner| {
        let classid = *claims.get(&Claim::Owner(owner.clone()))?;
        (classid != ClassId::NONE).then_some((owner, classid))
    };
    // A line's class needs no answer of NSS's.
    let found = match whom::line(user).and_then(class) {
        Some(found) => Some(found),
        None => match whom::uid(user)? {
            Some(uid) => match class(Owner::Uid(uid)) {
                Some(found) => Some(found),
                None => whom::claimant(&instance.name(), uid, file)?.and_then(class),
            },
            None => None,
        },
    };
    let (owner, classid) = found.ok_or_else(|| RunError::NoClass(user.into()))?;
    Ok(Pinned { claims, owner, classid })
}

/// The directory for what stays in the owner's class; made if there is none.
pub(super) fn pin(
    locked: &Locked,
    claims: &BTreeMap<Claim, ClassId>,
    owner: Owner,
    classid: ClassId,
) -> Result<Claim, Failure> {
    let claim = Claim::Pinned(owner);
    if claims.get(&claim) != Some(&classid) {
        locked.make(&claim, classid)?;
    }
    Ok(claim)
}
