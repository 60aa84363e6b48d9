//! Which owners have a process: by the directories, or, where processes are placed in none, by who
//! runs.

use std::collections::BTreeSet;

use super::ObserveError;
use crate::host::Kernel;
use crate::process::{self, Running};
use crate::tree::{Claim, Owner};

/// Those of the owners whose directories have a process, or, where processes are placed in none,
/// as whose uids one runs.
///
/// # Errors
/// A directory or a process that cannot be read.
pub fn occupied(kernel: &Kernel, owners: BTreeSet<Owner>) -> Result<BTreeSet<Owner>, ObserveError> {
    let Some(instance) = kernel.instance() else { return Ok(BTreeSet::new()) };
    if !instance.places() {
        if owners.is_empty() {
            return Ok(owners);
        }
        let scan = process::scan(&kernel.proc_root)?;
        let running = process::running_uids(&scan.processes, &kernel.view()?);
        return by_uids(kernel, owners, &running);
    }
    let mut occupied = BTreeSet::new();
    for owner in owners {
        if instance.is_occupied(&owner)? {
            occupied.insert(owner);
        }
    }
    Ok(occupied)
}

/// Those of the owners as whose uids a process runs, or who have one that was put there by hand.
fn by_uids(
    kernel: &Kernel,
    owners: BTreeSet<Owner>,
    running: &BTreeSet<u32>,
) -> Result<BTreeSet<Owner>, ObserveError> {
    let is_pinned = |it: &Owner| {
        let claim = Claim::Pinned(it.clone());
        kernel.instance().is_some_and(|instance| instance.directory(&claim).is_dir())
    };
    let pinned = match owners.iter().any(is_pinned) {
        true => kernel.pinned_owners()?,
        false => BTreeSet::new(),
    };
    let runs = |owner: &Owner| match owner {
        _ if pinned.contains(owner) => true,
        Owner::Uid(uid) => running.contains(uid),
        Owner::Subuids(range) => running.iter().any(|uid| range.contains(*uid)),
        _ => true,
    };
    Ok(owners.into_iter().filter(runs).collect())
}

/// A look at which of these owners have no process any more, in turns of some milliseconds.
pub struct WhoLeft {
    owners: BTreeSet<Owner>,
    /// `None`: no process was read yet.
    running: Option<Running>,
}

impl WhoLeft {
    /// Before the first turn.
    #[must_use]
    pub fn new(owners: BTreeSet<Owner>) -> WhoLeft {
        WhoLeft { owners, running: None }
    }

    /// The next turn; after the last one, those of the owners who have none. Where processes have
    /// directories there is one turn. What is born meanwhile may not be seen: the look of the run
    /// that removes a class decides.
    ///
    /// # Errors
    /// As [`occupied`].
    pub fn turn(&mut self, kernel: &Kernel) -> Result<Option<BTreeSet<Owner>>, ObserveError> {
        let places = kernel.instance().is_none_or(|instance| instance.places());
        let occupied = if places || self.owners.is_empty() {
            occupied(kernel, self.owners.clone())?
        } else {
            let running = match &mut self.running {
                Some(running) => running,
                none => none.insert(Running::begin(&kernel.proc_root)?),
            };
            let Some(uids) = running.turn(&kernel.view()?)? else { return Ok(None) };
            by_uids(kernel, self.owners.clone(), uids)?
        };
        Ok(Some(&self.owners - &occupied))
    }
}
