//! How many processes owners have in their directories.

use std::collections::BTreeMap;

use crate::cgroup::{Error, Instance};
use crate::host::Kernel;
use crate::process;
use crate::tree::{Claim, Owner};
use crate::units::ClassId;

/// Counts the processes of each owner, with those that `run` and `attach` put there: by a walk over
/// `/proc` where that reads fewer files than a look into each directory does (two, of an owner's
/// and of the one that may be below it). `may_walk`: the caller sees all processes.
///
/// # Errors
/// A directory that cannot be read.
pub(super) fn placed(
    kernel: &Kernel,
    instance: &Instance,
    claims: &BTreeMap<Claim, ClassId>,
    may_walk: bool,
) -> Result<BTreeMap<Owner, usize>, Error> {
    // Where processes are hidden the directories say how many there are.
    let walk = || process::inhabited(&kernel.proc_root, &kernel.view()?, claims.len());
    let found = if may_walk { walk() } else { Ok(None) };
    let found = found.inspect_err(|error| log::debug!("{error}")).ok().flatten();
    let owners = claims.keys().filter_map(|claim| match claim {
        Claim::Owner(owner) => Some((claim, owner)),
        _ => None,
    });
    let count = |(claim, owner): (&Claim, &Owner)| -> Result<(Owner, usize), Error> {
        let pinned = Claim::Pinned(owner.clone());
        let count = match &found {
            Some(found) => [claim, &pinned].iter().filter_map(|it| found.get(*it)).sum(),
            None => instance.count(claim)? + instance.count(&pinned)?,
        };
        Ok((owner.clone(), count))
    };
    owners.map(count).collect()
}
