//! The counters of known trees, read again without looking at anything else: for who looks every
//! second.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ObserveError;
use super::passage::passages;
use super::snapshot::Snapshot;
use super::tree::Ours;
use crate::facts::Observation;
use crate::host::Kernel;
use crate::netlink::decode;
use crate::netlink::request::{dump, root};
use crate::netlink::sent;
use crate::sys::route::{Netlink, SocketError};
use crate::tree::{Counted, KernelState, LinkName, Port};
use crate::units::ClassId;

/// Reads the counters of the trees that `snapshot` has. False, and nothing is changed: other
/// classes stand there by now, or with other limits, so the whole must be looked at again.
///
/// # Errors
/// The socket; a list that the kernel refuses means that the link is gone.
pub fn count_again(kernel: &mut Kernel, snapshot: &mut Snapshot) -> Result<bool, ObserveError> {
    let Observation { state, facts, strange, .. } = &snapshot.observation;
    let mut ports = Vec::new();
    for (port, tree) in &state.trees {
        let Some(ifindex) = facts.ifindex(port) else { return Ok(false) };
        ports.push((port, tree, ifindex));
    }
    let roots = ports.iter().map(|(.., ifindex)| *ifindex).collect();
    let is_told = strange.values().all(|strange| strange.leaves.is_empty());
    snapshot.drops.read(&roots, is_told)?;
    let claimed: BTreeSet<ClassId> =
        state.claims.values().filter_map(|id| id.our_class()).collect();
    let ours = Ours::new(&claimed);
    let mut counted = Counted::new();
    let mut netlink = Netlink::in_parts()?;
    for (port, tree, ifindex) in ports {
        let mut records = Vec::with_capacity(tree.classes.len());
        for qdisc in ours.qdiscs() {
            let question = dump::classes_of(ifindex, qdisc);
            match netlink.dump(&question, decode::class) {
                Ok(classes) => records.extend(classes),
                Err(SocketError::Refused(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        // The kernel lists classes by hash. In order they are compared without a search for each.
        records.sort_unstable_by_key(|record| record.classid);
        let mut known = tree.classes.iter().peekable();
        let mut counters = Vec::with_capacity(tree.classes.len());
        for record in &records {
            match known.next_if(|(classid, _)| **classid == record.classid) {
                Some((_, class)) if *class == record.class => {
                    counters.push((record.classid, snapshot.drops.count(record)));
                }
                None if !ours.has(record.classid) => {}
                _ => return Ok(false),
            }
        }
        if counters.len() != tree.classes.len() {
            return Ok(false);
        }
        counted.insert(port.clone(), counters.into_iter().collect());
    }
    let index = |name: &LinkName| match facts.links.get(name) {
        Some(link) => Some(link.ifindex),
        None => facts.ifbs.get(name).copied(),
    };
    snapshot.passages = passages(kernel, state, index)?;
    for port in counted.keys() {
        let now = facts.ifindex(port).and_then(|ifindex| snapshot.drops.direct_packets(ifindex));
        if let (Some(packets), Some(now)) = (snapshot.direct_packets.get_mut(port), now) {
            *packets = now;
        }
    }
    snapshot.counters = counted;
    Ok(true)
}

/// What classes have sent, by the port at which they stand.
pub type Sent = BTreeMap<Port, Vec<(ClassId, u64)>>;

/// Reads what the classes that stand have sent, by a state that is known, and nothing else.
/// `index`: the number of a link or an ifb. `None`: some of them were not there. A list
/// that lacks a class may only have been changed while it was read.
///
/// # Errors
/// The netlink socket's.
pub fn sent(
    kernel: &mut Kernel,
    state: &KernelState,
    index: impl Fn(&LinkName) -> Option<u32>,
) -> Result<Option<Sent>, ObserveError> {
    let claimed: BTreeSet<ClassId> =
        state.claims.values().filter_map(|id| id.our_class()).collect();
    let ours = Ours::new(&claimed);
    let mut all = Sent::new();
    for (port, tree) in &state.trees {
        let Some(ifindex) = index(&port.device()) else { return Ok(None) };
        let mut here = Vec::with_capacity(tree.classes.len());
        for qdisc in ours.qdiscs() {
            match kernel.netlink.dump(&dump::classes_of(ifindex, qdisc), sent::sent) {
                Ok(classes) => {
                    let known = classes.into_iter().filter(|(id, _)| tree.classes.contains_key(id));
                    here.extend(known);
                }
                Err(SocketError::Refused(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        if here.len() != tree.classes.len() {
            return Ok(None);
        }
        all.insert(port.clone(), here);
    }
    Ok(Some(all))
}

/// What has passed the root qdiscs of all trees together, which is at least what all of their
/// classes have sent. `None`: a root is gone, or is not ours any more.
///
/// # Errors
/// The netlink socket's.
pub fn passed(
    kernel: &mut Kernel,
    state: &KernelState,
    index: impl Fn(&LinkName) -> Option<u32>,
) -> Result<Option<BTreeMap<u32, u64>>, ObserveError> {
    let mut passed = BTreeMap::new();
    for port in state.trees.keys() {
        let Some(ifindex) = index(&port.device()) else { return Ok(None) };
        let Ok(Some(root)) = kernel.netlink.get(&root::get(ifindex), decode::qdisc)? else {
            return Ok(None);
        };
        if root.handle != ClassId::ROOT {
            return Ok(None);
        }
        passed.insert(ifindex, root.counters.sent_bytes);
    }
    Ok(Some(passed))
}
