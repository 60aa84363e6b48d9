//! The kernel → values: our own objects that stand, foreign ones among them, the facts on which the
//! desired state depends, and the counters. Reads only.

mod arriving;
mod classes;
mod clock;
mod containers;
mod counted;
mod defaulted;
mod drops;
mod error;
mod limited;
mod links;
mod namespaces;
mod occupied;
mod owners;
mod passage;
mod podman;
mod privilege;
mod program_rules;
mod servers;
mod snapshot;
mod sockets;
mod surroundings;
mod tree;
mod units;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use arriving::{beside, beside_again, busy, firewalls, indexes};
pub use clock::{clock, here};
pub use containers::containers;
pub use counted::{Sent, count_again, passed, sent};
pub use defaulted::{Counted as CountedService, Service, defaulted};
pub use error::ObserveError;
pub use limited::limited;
pub use occupied::{WhoLeft, occupied};
pub use owners::open_owners;
pub use passage::{Led, Passage, passages};
pub use privilege::lack;
pub use servers::servers;
pub use snapshot::Snapshot;
pub use sockets::tags;
pub use surroundings::{
    Unloaded, capabilities, device, is_hosts, kept_by, lro, manager, may_load, net_cls, no_net_cls,
    process_events, release, spared, without_loading,
};
pub use tree::RuleHits;
pub use wanted::{Directories, Processes, Wanted, Whom};

use crate::facts::{Facts, Features, Helpers, LinkFacts, SOCKETS_HAVE_BOTH};
use crate::host::Kernel;
use crate::host::cgroups;
use crate::host::made::Made;
use crate::process;
use crate::sys::{bpf, btf, ethtool, probe};
use crate::tree::{Cgroup, Claim, Foreign, KernelState, LinkName, Owner};
use crate::units::{ClassId, Psched};

/// Looks at the kernel.
///
/// # Errors
/// Whatever cannot be read.
pub fn observe(kernel: &mut Kernel, wanted: Wanted<'_>) -> Result<Snapshot, ObserveError> {
    let mut snapshot = Snapshot::default();
    kernel.made = Made::default();
    let (claims, foreign) = match kernel.instance() {
        Some(instance) => wanted.directories.read(&instance)?,
        None => Default::default(),
    };
    for object in &foreign {
        let Foreign::Directory { classid, below, .. } = object else { continue };
        snapshot.observation.bound.extend(classid.our_class());
        snapshot.observation.held.extend(below.clone());
    }
    snapshot.observation.foreign = foreign;
    let claimed: BTreeSet<ClassId> = claims.values().filter_map(|id| id.our_class()).collect();
    let own_sockets_only = owners::own_sockets_only(&kernel.proc_root)?;
    let links = links::links_and_trees(kernel, &wanted.links, &claimed, own_sockets_only)?;
    for (port, filters) in links.at_clsact {
        snapshot.observation.strange.entry(port).or_default().filters.extend(filters);
    }
    let (ifbs, standing) = links.ifbs.known();
    snapshot.observation.facts.ifbs = ifbs;
    snapshot.observation.facts.ifb_roots = links.ifb_roots;
    snapshot.observation.facts.beside = links.beside;
    snapshot.observation.state.ifbs = standing;
    snapshot.observation.unread.flows = arriving::open_flows(kernel, &links.flows);
    snapshot.observation.facts.flows = links.flows;
    snapshot.observation.deciding = links.learning;
    links.trees.into_iter().for_each(|(port, seen)| snapshot.add_tree(port, seen));
    owners::read(kernel, &mut snapshot);
    program_rules::read(kernel, &mut snapshot);

    let observation = &mut snapshot.observation;
    observation.ingress = links.ingress;
    observation.state.clsact = links.clsact;
    observation.state.claims = claims;
    observation.state.net_cls = kernel.net_cls();
    observation.net_cls = kernel.hierarchy().map(|hierarchy| hierarchy.path.clone());
    observation.neighbours = neighbours(kernel)?;

    observation.facts.pinned_cgroups = pinned_cgroups(kernel, &observation.state)?;
    let facts = &mut observation.facts;
    facts.links = links.links;
    of_the_kernel(&kernel.proc_root, facts)?;
    facts.netns_cookie = kernel.netns_cookie;
    // The kernel has 32 bits for it.
    facts.netns_inode = u32::try_from(kernel.netns).unwrap_or_default();
    facts.own_sockets_only = own_sockets_only;
    let mut running = None;
    if let Some(scan) = wanted.processes.read(&kernel.proc_root)? {
        running = Some(process::running_uids(&scan.processes, &kernel.view()?));
        snapshot.scan = scan;
    }
    if wanted.namespaces {
        facts.guests.namespaces = namespaces::named(&mut kernel.netlink)?;
    }
    if wanted.units {
        facts.units = Some(units::units(Path::new("/"), &snapshot.scan.processes));
        facts.unit_cgroups = Some(cgroups::of_units()?);
    }
    if let Some(whom) = wanted.accounts {
        facts.accounts = whom.accounts(running);
    }
    Ok(snapshot)
}

/// The instance's cgroups (v2), where no tags are read and something was put there.
fn pinned_cgroups(
    kernel: &Kernel,
    state: &KernelState,
) -> Result<BTreeMap<Cgroup, Owner>, ObserveError> {
    let is_untagged = state.asks_cgroups() || !kernel.places();
    if !is_untagged || !state.claims.keys().any(|claim| claim.pinned().is_some()) {
        return Ok(BTreeMap::new());
    }
    let mut found = kernel.pinned()?;
    // One whose claim is gone, and which nobody could remove, is nobody's.
    found.retain(|it| state.claims.contains_key(&Claim::Pinned(it.owner.clone())));
    Ok(found.into_iter().map(|it| (it.cgroup, it.owner)).collect())
}

/// Fills in what the kernel is, and what this process may do there.
fn of_the_kernel(proc_root: &Path, facts: &mut Facts) -> Result<(), ObserveError> {
    facts.psched = psched(proc_root)?;
    facts.release = release(proc_root);
    let is_old = facts.release.is_some_and(|release| release < SOCKETS_HAVE_BOTH);
    facts.has_both = is_old && btf::layouts().is_ok_and(|known| known.has_both);
    facts.lacks = lack(proc_root)?;
    facts.may_not_read_kernel = bpf::may_not_read_kernel();
    Ok(())
}

/// Fills in all that is known of guests without their engines, after a look that did not want it.
///
/// # Errors
/// `/proc` cannot be listed; the netlink socket's.
pub fn guests(kernel: &mut Kernel, seen: &mut Snapshot) -> Result<(), ObserveError> {
    seen.observation.facts.guests.namespaces = namespaces::named(&mut kernel.netlink)?;
    containers(kernel, seen)
}

/// Asks the devices of some links for their speed: not of all, since that takes two ioctls each,
/// and a host may have a thousand links that no line means.
///
/// # Errors
/// No descriptor or memory to ask one.
pub fn speeds(
    snapshot: &mut Snapshot,
    of: impl Fn(&LinkName, &LinkFacts) -> bool,
) -> Result<(), ObserveError> {
    for (name, link) in &mut snapshot.observation.facts.links {
        // A tun or tap answers with a placeholder: 10 Gbit, or 10 Mbit on older kernels.
        if link.kind.as_deref() != Some("tun") && of(name, link) {
            link.speed = ethtool::speed(name)
                .map_err(|source| ObserveError::Speed { link: name.clone(), source })?;
        }
    }
    Ok(())
}

fn psched(proc_root: &Path) -> Result<Psched, ObserveError> {
    // A symlink to the reading process's own namespace, which setns may have changed.
    let path = proc_root.join("net/psched");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| ObserveError::Read { path: path.display().to_string(), source })?;
    Psched::parse(&text).ok_or(ObserveError::Psched(text.trim().to_string()))
}

/// The names of all directories in the hierarchy but this instance's.
fn neighbours(kernel: &Kernel) -> Result<BTreeSet<String>, ObserveError> {
    let Some(hierarchy) = kernel.hierarchy() else { return Ok(BTreeSet::new()) };
    let read = |source| ObserveError::Read { path: hierarchy.path.display().to_string(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&hierarchy.path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != *kernel.name {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Tries what this kernel can do, in a network namespace made for it. `known`: functions of the
/// kernel that need not be tried, since a standing program calls them.
///
/// # Errors
/// No memory or no descriptor for the trial.
pub fn try_features(known: Option<Helpers>) -> Result<Features, ObserveError> {
    probe::features_beside(known).map_err(ObserveError::Probe)
}

/// Tries whether this kernel can shape what arrives, where it harms nobody.
///
/// # Errors
/// No memory or no descriptor for the trial.
pub fn try_down() -> Result<bool, ObserveError> {
    probe::down().map_err(ObserveError::Probe)
}
