//! Our classes with their limits and counters, and whose they are: what metrics are made of, and a
//! small part of a whole look.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use super::arriving::Ifbs;
use super::error::ObserveError;
use super::links::{link_facts, links, root_of, steady, steady_list};
use super::snapshot::Snapshot;
use super::tree::OurRoot;
use crate::facts::RootQdisc;
use crate::host::Kernel;
use crate::netlink::decode::{self, Decoded, LinkRecord, QdiscRecord};
use crate::netlink::request::dump;
use crate::netlink::{Message, htb};
use crate::sys::route::{Netlink, SocketError};
use crate::sys::witness::Witness;
use crate::tree::Mark;
use crate::units::ClassId;

/// Reads the classes of all links of the instance, with their counters, and the claims. Of anything
/// else the snapshot has nothing: neither leaves, filters and what is foreign, nor `pinned` claims.
///
/// # Errors
/// Whatever cannot be read.
pub fn limited(kernel: &mut Kernel) -> Result<Snapshot, ObserveError> {
    let mut snapshot = Snapshot::default();
    let claims = kernel.instance().map(|instance| instance.classids()).transpose()?;
    let claims = claims.unwrap_or_default();
    let claimed: BTreeSet<ClassId> = claims.values().filter_map(|id| id.our_class()).collect();
    snapshot.observation.state.claims = claims;
    let records = links(&mut kernel.netlink, &BTreeSet::new())?;
    let ifbs = Ifbs::among(&records, kernel.mark);
    let is_htb = |record: &&LinkRecord| record.qdisc.as_deref() == Some(htb::KIND);
    let with_htb = records.iter().filter(is_htb).map(|record| record.ifindex).collect();
    let mut qdiscs = roots_and_dropping(with_htb, kernel.mark)?;
    let mut witness = Witness::open()?;
    for record in records {
        let (name, is_ifb) = (record.name.clone(), ifbs.has(&record.name));
        let mut here = qdiscs.remove(&record.ifindex).unwrap_or_default();
        if is_htb(&&record) && !here.iter().any(|qdisc| qdisc.parent.is_none()) {
            here.extend(root_of(kernel, record.ifindex)?.flatten());
        }
        let port = if is_ifb { ifbs.port(&name) } else { Some(name.egress()) };
        let mut link = link_facts(kernel, record, &here, &[]);
        if let (RootQdisc::Ours, Some(port)) = (&link.root, port) {
            let root = OurRoot { port, ifindex: link.ifindex, qdiscs: &here };
            let seen =
                steady(kernel, &mut witness, &root, |kernel| root.limited(kernel, &claimed))?;
            let Some(seen) = seen else { continue };
            link.shaped_at = seen.tree.classes.get(&ClassId::LINK).map(|class| class.rate);
            snapshot.add_tree(root.port, seen);
        }
        if !is_ifb {
            snapshot.observation.facts.links.insert(name, link);
        }
    }
    // A link that went meanwhile has taken its ifb along.
    let gone = witness.told(kernel.netlink.port())?.gone;
    let facts = &mut snapshot.observation.facts;
    facts.links.retain(|_, link| !gone.contains(&link.ifindex));
    let links = &facts.links;
    snapshot.observation.state.trees.retain(|port, _| links.contains_key(&port.link));
    snapshot.counters.retain(|port, _| links.contains_key(&port.link));
    snapshot.direct_packets.retain(|port, _| links.contains_key(&port.link));
    Ok(snapshot)
}

/// The root qdiscs of these links, and, if a root of ours has dropped a packet, all qdiscs that
/// have. Where a leaf drops one, each qdisc above it counts it, too (`qdisc_tree_reduce_backlog`,
/// net/sched/sch_api.c; `htb_enqueue`), and of each link the kernel lists the root first.
fn roots_and_dropping(
    links: BTreeSet<u32>,
    mark: Mark,
) -> Result<BTreeMap<u32, Vec<QdiscRecord>>, SocketError> {
    let mut by_link: BTreeMap<u32, Vec<QdiscRecord>> = BTreeMap::new();
    if links.is_empty() {
        return Ok(by_link);
    }
    let list = steady_list(&links, |netlink| {
        let (mut missing, mut have_dropped) = (links.clone(), false);
        let is_enough = |qdisc: &QdiscRecord| {
            if qdisc.parent.is_none() && missing.remove(&qdisc.ifindex) {
                let is_ours = decode::root(slice::from_ref(qdisc), None, mark) == RootQdisc::Ours;
                have_dropped |= is_ours && qdisc.counters.drops > 0;
            }
            missing.is_empty() && !have_dropped
        };
        netlink.beginning(&dump::qdiscs(), root_or_dropping, is_enough)
    })?;
    let qdiscs = match list.is_whole {
        true => list.entries,
        false => Netlink::open()?.dump(&dump::qdiscs(), root_or_dropping)?,
    };
    for qdisc in qdiscs {
        by_link.entry(qdisc.ifindex).or_default().push(qdisc);
    }
    Ok(by_link)
}

/// Reads a qdisc that is a link's root, or has dropped something.
fn root_or_dropping(message: Message<'_>) -> Decoded<QdiscRecord> {
    let is_needed = |it: &QdiscRecord| it.parent.is_none() || it.counters.drops > 0;
    Ok(decode::qdisc(message)?.filter(is_needed))
}
