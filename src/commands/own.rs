//! What a caller who is not root is told: what he has himself and what is above it, and nothing of
//! others'.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use nix::unistd;

use super::whom;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::process;
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// What is for root alone to see.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForRoot {
    #[error(
        "what {0} has is for root, or {0}, to see; `shaper status` without a name says what you have"
    )]
    Others(Foreign),
    #[error("{0} are of all users, and for root to see: run it with sudo")]
    Everybody(&'static str),
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
        let mut owners: BTreeSet<Owner> = claims
            .filter_map(|claim| match claim {
                Claim::Owner(owner) | Claim::Pinned(owner) => Some(owner),
                Claim::Retired(..) => None,
            })
            .collect();
        if owners.is_empty() {
            owners.extend(whom::claimant(&kernel.name, uid, None).ok().flatten());
        }
        owners.insert(Owner::Uid(uid));
        Ok(Some(Own { uid, owners }))
    }

    /// Refuses a name that is neither his nor that of a class which he is in.
    pub(super) fn admit(&self, name: &str) -> Result<(), Failure> {
        let is_line = |owner: &Owner| matches!(owner, Owner::User(key) if key.as_str() == name);
        let is_his =
            self.owners.iter().any(is_line) || whom::uid(name).ok().flatten() == Some(self.uid);
        match is_his {
            true => Ok(()),
            false => Err(ForRoot::Others(name.into()).into()),
        }
    }

    /// As [`Own::admit`], and admits a process of his.
    pub(super) fn admit_process(&self, kernel: &Kernel, subject: &str) -> Result<(), Failure> {
        let subject = subject.strip_prefix("uid:").unwrap_or(subject);
        let pid = subject.strip_prefix("pid:").unwrap_or(subject);
        let process = pid.parse::<u32>().ok().map(|pid| kernel.proc_root.join(pid.to_string()));
        let owner = process.and_then(|path| std::fs::metadata(path).ok()).map(|meta| meta.uid());
        match owner == Some(self.uid) {
            true => Ok(()),
            false => self.admit(subject),
        }
    }
}
