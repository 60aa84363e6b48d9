//! What a caller who is not root is told: what he has himself and what is above it, and nothing of
//! others'.

use std::collections::BTreeSet;
use std::time::SystemTime;

use nix::unistd;

use super::whom;
use crate::failure::Failure;
use crate::host::{Kernel, told};
use crate::process::{self, Process};
use crate::status::Told;
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// That the file says nothing of what is told.
pub(super) const ALL_THERE_IS: &str =
    "this is what the kernel has: the policy is refused, or cannot be read";

/// What is for root alone to see.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForRoot {
    #[error(
        "what {0} has only root may see, and whose it is; `shaper status` without a name says what you have"
    )]
    Others(Foreign),
    #[error("{0} are of all users, and for root to see: run it with sudo")]
    Everybody(&'static str),
    #[error(
        "where a connection's packets go is by the policy, which is not yours to read: run it with sudo"
    )]
    Connections,
}

impl From<ForRoot> for Failure {
    fn from(error: ForRoot) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// The caller, who is not root.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub uid: u32,
    /// Whose classes his processes are in, or would be.
    pub owners: BTreeSet<Owner>,
    /// What he is told of his limits and of what he used.
    pub told: Option<Told>,
    /// Until when that was counted.
    pub told_at: Option<SystemTime>,
}

/// What a caller who is not root asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A process of his, which is in the directory of this owner; `None`: in none of the
    /// instance's.
    Process(Option<Owner>),
    /// A line of `users` whose class he is in.
    Line(Owner),
    /// His account.
    Himself,
}

/// The uid of a caller who is not root.
pub(super) fn caller() -> Option<u32> {
    (!unistd::geteuid().is_root()).then(|| unistd::getuid().as_raw())
}

impl Own {
    /// What the caller has; `None`: he is root, who sees everything. The kernel says so: by the
    /// directories in which his processes are. Only where none is in any the policy is asked, if he
    /// may read it.
    pub(super) fn of(kernel: &Kernel) -> Result<Option<Own>, Failure> {
        let Some(uid) = caller() else { return Ok(None) };
        let view = kernel.view()?;
        let scan = process::scan(&kernel.proc_root)?;
        let mine = scan.processes.iter().filter(|process| process.uid == uid);
        let claims = mine.filter_map(|process| process::claim_of(process, &view));
        let mut owners: BTreeSet<Owner> = claims.filter_map(owner_of).collect();
        if owners.is_empty() {
            owners.extend(whom::claimant(&kernel.name, uid, None).ok().flatten());
        }
        owners.insert(Owner::Uid(uid));
        let read = told::read(&kernel.name, uid);
        let read = read.inspect_err(|error| log::debug!("what you are told of yourself: {error}"));
        let read = read.ok().flatten();
        let told = read.and_then(|(text, at)| Some((Told::parse(&text)?, at)));
        // It may be of another namespace, or of an account that had the uid before.
        let (told, told_at) =
            told.filter(|(told, _)| told.is_for(whom::name(uid).as_deref(), kernel.netns)).unzip();
        owners.extend(told.as_ref().and_then(Told::owner));
        Ok(Some(Own { uid, owners, told, told_at }))
    }

    /// Refuses a name that is neither his nor that of a class which he is in.
    pub(super) fn admit(&self, name: &str) -> Result<Asked, Failure> {
        let is_line = |owner: &&Owner| matches!(owner, Owner::User(key) if key.as_str() == name);
        if let Some(line) = self.owners.iter().find(is_line) {
            return Ok(Asked::Line(line.clone()));
        }
        match whom::uid(name).ok().flatten() == Some(self.uid) {
            true => Ok(Asked::Himself),
            false => Err(ForRoot::Others(name.into()).into()),
        }
    }

    /// As [`Own::admit`], of all that `why` answers about; admits a process of his, too. A bare
    /// number is a process if there is one, whatever uid has the same number.
    pub(super) fn admit_subject(&self, kernel: &Kernel, subject: &str) -> Result<Asked, Failure> {
        let others = || Err(ForRoot::Others(subject.into()).into());
        if let Some(uid) = subject.strip_prefix("uid:") {
            return if uid.parse::<u32>() == Ok(self.uid) { Ok(Asked::Himself) } else { others() };
        }
        let pid = subject.strip_prefix("pid:");
        let number = pid.unwrap_or(subject).parse::<u32>().ok();
        let process = number.map(|pid| process::read_one(&kernel.proc_root, pid)).transpose()?;
        match process.flatten() {
            Some(process) if self.is_his(&process) => {
                let claim = process::claim_of(&process, &kernel.view()?);
                Ok(Asked::Process(claim.and_then(owner_of)))
            }
            None if pid.is_none() => self.admit(subject),
            _ => others(),
        }
    }

    /// Whether he may be told of a process.
    pub(super) fn is_his(&self, process: &Process) -> bool {
        process.uid == self.uid
    }
}

fn owner_of(claim: Claim) -> Option<Owner> {
    match claim {
        Claim::Owner(owner) | Claim::Pinned(owner) => Some(owner),
        Claim::Retired(..) => None,
    }
}
