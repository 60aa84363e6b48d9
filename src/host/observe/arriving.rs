//! What leads packets that arrive through our trees: the ifbs, and which filters at clsact and on
//! the ifbs read one map of flows, or of an ifb's pulse.

use std::collections::{BTreeMap, BTreeSet};

use log::debug;
use nix::errno::Errno;

use crate::facts::{Beside, Facts, LinkFacts, Observation};
use crate::host::Kernel;
use crate::netlink::decode::{self, LinkRecord};
use crate::netlink::flow_name::{Finds, Reads};
use crate::netlink::nftables::{self, AtIngress};
use crate::netlink::received::received;
use crate::netlink::request::{dump, ifb};
use crate::plan::LEARNT;
use crate::sys::bpf::{self, Flows};
use crate::sys::modules;
use crate::sys::route::{Netlink, SocketError};
use crate::tree::{
    Clsact, Direction, Filter, Ifb, LinkName, Mark, Parent, Port, Pref, Seat, StrangeFilter, Tree,
};
use crate::units::ClassId;

/// The ifbs of this instance, by name, each with the link that it is for; `None`: that is gone.
#[derive(Debug, Default)]
pub(super) struct Ifbs {
    by_name: BTreeMap<LinkName, (u32, Ifb, Option<LinkName>)>,
    by_link: BTreeMap<LinkName, LinkName>,
}

impl Ifbs {
    /// Those among all links of the namespace.
    pub(super) fn among(records: &[LinkRecord], mark: Mark) -> Ifbs {
        let alias = ifb::alias(mark);
        let is_ours = |record: &&LinkRecord| {
            record.kind.as_deref() == Some("ifb") && record.alias.as_deref() == Some(&alias)
        };
        let mut ifbs = Ifbs::default();
        let links: BTreeMap<LinkName, &LinkName> =
            records.iter().map(|record| (record.name.ifb(), &record.name)).collect();
        for record in records.iter().filter(is_ours) {
            let link = links.get(&record.name).map(|link| (*link).clone());
            ifbs.by_link.extend(link.clone().map(|link| (link, record.name.clone())));
            let ifb = (record.ifindex, Ifb { up: record.up }, link);
            ifbs.by_name.insert(record.name.clone(), ifb);
        }
        ifbs
    }

    /// Whether the device is one.
    pub(super) fn has(&self, name: &LinkName) -> bool {
        self.by_name.contains_key(name)
    }

    /// The port whose packets pass the device.
    pub(super) fn port(&self, name: &LinkName) -> Option<Port> {
        let (.., link) = self.by_name.get(name)?;
        link.as_ref().map(LinkName::ingress)
    }

    /// The ifindex of the link's ifb.
    pub(super) fn of(&self, link: &LinkName) -> Option<u32> {
        let (ifindex, ..) = self.by_name.get(self.by_link.get(link)?)?;
        Some(*ifindex)
    }

    /// As facts have them, and as the state has them.
    pub(super) fn known(&self) -> (BTreeMap<LinkName, u32>, BTreeMap<LinkName, Ifb>) {
        let each = || self.by_name.iter();
        (
            each().map(|(name, (ifindex, ..))| (name.clone(), *ifindex)).collect(),
            each().map(|(name, (_, ifb, _))| (name.clone(), *ifb)).collect(),
        )
    }

    /// Of those that are left, what a look has seen of devices that went meanwhile is forgotten.
    pub(super) fn forget(&mut self, gone: &BTreeSet<u32>) {
        self.by_name.retain(|_, (ifindex, ..)| !gone.contains(ifindex));
    }
}

/// The ifindexes of these ifbs, as far as they are there.
///
/// # Errors
/// The netlink socket failed.
pub fn indexes<'n>(
    netlink: &mut Netlink,
    names: impl IntoIterator<Item = &'n LinkName>,
) -> Result<BTreeMap<LinkName, u32>, SocketError> {
    let mut indexes = BTreeMap::new();
    for name in names {
        let device = netlink.get(&dump::link_named(name.as_str()), decode::link)?;
        let device = device.ok().flatten();
        indexes.extend(device.map(|device| (name.clone(), device.ifindex)));
    }
    Ok(indexes)
}

/// Asks for what others have at the hooks of links that are to have a `down`: what of nftables has
/// the ingress hook, and programs of tcx on these links.
///
/// # Errors
/// The netlink socket failed, or a list was refused.
pub fn beside(
    kernel: &mut Kernel,
    facts: &mut Facts,
    is_asked: impl Fn(&LinkName, &LinkFacts) -> bool,
) -> Result<(), SocketError> {
    facts.firewalls = firewalls(kernel)?;
    for (name, link) in facts.links.iter().filter(|(name, link)| is_asked(name, link)) {
        for side in [Direction::Ingress, Direction::Egress] {
            let found = match bpf::tcx(link.ifindex, side) {
                Ok(names) => {
                    names.into_iter().map(|what| Beside::Tcx { side, what }).collect::<Vec<_>>()
                }
                Err(error) => vec![Beside::Unasked { why: error.to_string() }],
            };
            let beside = facts.beside.entry(name.clone()).or_default();
            for it in found {
                if !beside.contains(&it) {
                    beside.push(it);
                }
            }
        }
    }
    facts.beside.retain(|_, beside| !beside.is_empty());
    Ok(())
}

/// The same again, with the programs of generic XDP: all that comes and goes at these links without
/// a notice of traffic control.
///
/// # Errors
/// The netlink socket failed, or a list was refused.
pub fn beside_again(
    kernel: &mut Kernel,
    facts: &mut Facts,
    is_asked: impl Fn(&LinkName, &LinkFacts) -> bool,
) -> Result<(), SocketError> {
    for (name, link) in facts.links.iter().filter(|(name, link)| is_asked(name, link)) {
        let device = kernel.netlink.get(&dump::link(link.ifindex), decode::link)?.ok().flatten();
        let xdp = device.and_then(|device| device.generic_xdp).map(Beside::GenericXdp);
        let known = facts.beside.remove(name).unwrap_or_default().into_iter();
        let filters = known.filter(|it| matches!(it, Beside::Filter { .. }));
        facts.beside.insert(name.clone(), xdp.into_iter().chain(filters).collect());
    }
    beside(kernel, facts, is_asked)
}

/// Less than this a link may have received without a connection that lasts: neighbours, name
/// servers.
const QUIET_BYTES: u64 = 64_000;

/// Asks which links are busy, of those whose flows this process does not know, or has noted for
/// less time than is enough.
///
/// # Errors
/// The netlink socket failed.
pub fn busy(
    kernel: &mut Kernel,
    seen: &mut Observation,
    is_asked: impl Fn(&LinkName, &LinkFacts) -> bool,
) -> Result<(), SocketError> {
    let Kernel { netlink, flows, .. } = kernel;
    let is_young = |name: &LinkName| {
        let map = seen.facts.flows.get(name).and_then(|id| flows.get(id));
        map.is_some_and(|map| map.is_younger_than(LEARNT))
    };
    let asked = seen.facts.links.iter().filter(|(name, link)| is_asked(name, link));
    let mut busy = BTreeSet::new();
    for (name, link) in asked.filter(|(name, _)| !seen.keeps_flows(name) || is_young(name)) {
        let counters = netlink.get(&dump::counters(link.ifindex), received)?.ok().flatten();
        if counters.is_some_and(|counters| counters.bytes > QUIET_BYTES) {
            busy.insert(name.clone());
        }
    }
    seen.facts.busy = busy;
    Ok(())
}

/// The module.
const NFTABLES: &str = "nf_tables";

/// What of nftables has the ingress hook of a link, by link. Nothing where the kernel has no
/// nftables, or has still to load it: no question of ours is why it does.
///
/// # Errors
/// The netlink socket failed, or a list was refused.
pub fn firewalls(kernel: &mut Kernel) -> Result<BTreeMap<LinkName, String>, SocketError> {
    let listed = || -> Result<Vec<AtIngress>, SocketError> {
        let mut netlink = Netlink::for_nftables()?;
        let mut found = netlink.dump(&nftables::chains(), nftables::at_ingress)?;
        found.extend(netlink.dump(&nftables::flowtables(), nftables::at_ingress)?);
        Ok(found)
    };
    let mut would_load =
        || *kernel.would_load_nftables.get_or_insert_with(|| modules::would_load(NFTABLES));
    if !modules::is_loaded(NFTABLES) && would_load() {
        return Ok(BTreeMap::new());
    }
    let found = match listed() {
        Err(error) if error.is_not_supported() => Vec::new(),
        // Who may not ask may change nothing.
        Err(SocketError::Refused(error)) if error.errno == Errno::EPERM => Vec::new(),
        other => other?,
    };
    let each = found.into_iter().flat_map(|AtIngress { what, links }| {
        links.into_iter().map(move |link| (link, what.clone()))
    });
    Ok(each.collect())
}

/// Opens the maps of flows that are in use, and closes all others. Returns the links whose map
/// cannot be opened: without CAP_SYS_ADMIN a process has only those that it made.
pub(super) fn open_flows(
    kernel: &mut Kernel,
    in_use: &BTreeMap<LinkName, u32>,
) -> BTreeSet<LinkName> {
    kernel.flows.retain(|id, _| in_use.values().any(|used| used == id));
    let mut closed = BTreeSet::new();
    for (link, id) in in_use {
        if kernel.flows.contains_key(id) {
            continue;
        }
        match Flows::open(*id) {
            Ok(flows) => drop(kernel.flows.insert(*id, flows)),
            Err(error) => {
                debug!("the map of flows {id} of {link}: {error}");
                closed.insert(link.clone());
            }
        }
    }
    closed
}

/// The map of flows that is in use: one that is both written and read at the root of the ifb, else
/// the one that is read there, else one that is written. Filters that use another are taken out of
/// the state: what one of them notes the others do not find.
pub(super) fn common_flows(
    learners: &BTreeMap<Pref, Reads>,
    finders: &BTreeMap<(ClassId, Pref), Finds>,
    clsact: &mut Clsact,
    tree: Option<&mut Tree>,
) -> (Option<u32>, BTreeMap<Seat, StrangeFilter>) {
    let flows = |parent: Parent, pref| Some(finders.get(&(parent.classid(), pref))?.flows);
    let read = || Pref::TAG.into_iter().filter_map(|pref| flows(Parent::Root, pref));
    let mut written = learners.values().map(|reads| reads.flows);
    let both = written.clone().find(|id| read().any(|other| other == *id));
    let common = both.or(read().next()).or(written.next());
    let mut strange = BTreeMap::new();
    let mut keep = |seat: Seat, filter: &Filter, reads: Option<u32>| {
        let is_about_flows = matches!(filter, Filter::Learn(_) | Filter::Find { .. });
        let stays = !is_about_flows || (reads.is_some() && reads == common);
        if !stays {
            let (protocol, kind) = (filter.protocol(), "bpf, reads other flows".to_string());
            strange.insert(seat, StrangeFilter { protocol, kind, tables: Vec::new() });
        }
        stays
    };
    clsact.egress.filters.retain(|pref, filter| {
        keep(Parent::Egress.at(*pref), filter, learners.get(pref).map(|reads| reads.flows))
    });
    for (parent, filters) in tree.into_iter().flat_map(Tree::filters_mut) {
        filters.retain(|pref, filter| keep(parent.at(*pref), filter, flows(parent, *pref)));
    }
    (common, strange)
}

/// What redirects and what notes that packets come to the ifb have a map in common, by which the
/// one knows of the other. Filters without such a counterpart are taken out of the state.
pub(super) fn common_pulse(
    redirects: &BTreeMap<Pref, u32>,
    pulses: &BTreeMap<Pref, u32>,
    clsact: &mut Clsact,
    tree: Option<&mut Tree>,
) -> BTreeMap<Seat, StrangeFilter> {
    // One that does something else than its name says is no counterpart.
    let is_ours = |pref: &Pref| clsact.ingress.filters.get(pref) == Some(&Filter::Redirect);
    let redirects: BTreeMap<Pref, u32> = redirects
        .iter()
        .filter(|(pref, _)| is_ours(pref))
        .map(|(pref, map)| (*pref, *map))
        .collect();
    let root = tree.as_ref().map(|tree| &tree.filters);
    let is_ours = |pref: &Pref| root.and_then(|it| it.get(pref)) == Some(&Filter::Pulse);
    let pulses: BTreeMap<Pref, u32> =
        pulses.iter().filter(|(pref, _)| is_ours(pref)).map(|(pref, map)| (*pref, *map)).collect();
    let (redirects, pulses) = (&redirects, &pulses);
    let mut strange = BTreeMap::new();
    let mut keep =
        |seat: Seat, filter: &Filter, own: &BTreeMap<Pref, u32>, there: &BTreeMap<_, _>| {
            let is_about_it = matches!(filter, Filter::Redirect | Filter::Pulse);
            let map = own.get(&seat.pref);
            let stays = !is_about_it || map.is_some_and(|map| there.values().any(|it| it == map));
            if !stays {
                let (protocol, kind) = (filter.protocol(), "bpf, reads another pulse".to_string());
                strange.insert(seat, StrangeFilter { protocol, kind, tables: Vec::new() });
            }
            stays
        };
    let ingress = &mut clsact.ingress.filters;
    ingress.retain(|pref, filter| keep(Parent::Ingress.at(*pref), filter, redirects, pulses));
    if let Some(tree) = tree {
        let filters = &mut tree.filters;
        filters.retain(|pref, filter| keep(Parent::Root.at(*pref), filter, pulses, redirects));
    }
    strange
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tag;

    fn learner(flows: u32) -> Reads {
        Reads { flows, owners: None }
    }

    /// What is known of filters that note flows (pref, map) and that find them at the root.
    fn common(learn: &[(u16, u32)], find: &[(u16, u32)]) -> (Option<u32>, Vec<u16>, Vec<u16>) {
        let mut clsact = Clsact::default();
        let (mut tree, mut finders) = (Tree::default(), BTreeMap::new());
        let mut learners = BTreeMap::new();
        for (pref, flows) in learn {
            learners.insert(Pref(*pref), learner(*flows));
            clsact.egress.filters.insert(Pref(*pref), Filter::Learn(Tag::Cgroup));
        }
        for (pref, flows) in find {
            let finds = Finds { flows: *flows, servers: 1 };
            finders.insert((Parent::Root.classid(), Pref(*pref)), finds);
            tree.filters.insert(Pref(*pref), Filter::Find { shards: false, for_rules: false });
        }
        let (common, strange) = common_flows(&learners, &finders, &mut clsact, Some(&mut tree));
        let known = |filters: &BTreeMap<Pref, Filter>| {
            filters.keys().map(|pref| pref.0).collect::<Vec<u16>>()
        };
        let stay = clsact.egress.filters.len() + tree.filters.len();
        assert_eq!(strange.len() + stay, learn.len() + find.len());
        (common, known(&clsact.egress.filters), known(&tree.filters))
    }

    #[test]
    fn what_does_something_else_than_its_name_says_is_no_counterpart() {
        let known = |redirects: bool, pulses: bool| {
            let (mut clsact, mut tree) = (Clsact::default(), Tree::default());
            if redirects {
                clsact.ingress.filters.insert(Pref::REDIRECT[0], Filter::Redirect);
            }
            if pulses {
                tree.filters.insert(Pref::PULSE[0], Filter::Pulse);
            }
            let maps = |pref| BTreeMap::from([(pref, 7)]);
            let named = (maps(Pref::REDIRECT[0]), maps(Pref::PULSE[0]));
            let strange = common_pulse(&named.0, &named.1, &mut clsact, Some(&mut tree));
            (clsact.ingress.filters.len() + tree.filters.len(), strange.len())
        };
        assert_eq!(known(true, true), (2, 0));
        assert_eq!(known(false, true), (0, 1), "it redirects elsewhere: both are made again");
        assert_eq!(known(true, false), (0, 1), "it notes elsewhere");
    }

    #[test]
    fn what_notes_and_what_finds_use_one_map() {
        assert_eq!(common(&[(3, 7)], &[(200, 7)]), (Some(7), vec![3], vec![200]));
        assert_eq!(common(&[(3, 7)], &[(200, 8)]), (Some(8), vec![], vec![200]));
        // The others are made again, and use the same map.
        assert_eq!(common(&[(3, 7)], &[]), (Some(7), vec![3], vec![]));
        assert_eq!(common(&[], &[(200, 8)]), (Some(8), vec![], vec![200]));
        assert_eq!(common(&[], &[]), (None, vec![], vec![]));
        // Killed between the new learner and the end of the old one.
        let half = common(&[(3, 7), (4, 8)], &[(200, 7)]);
        assert_eq!(half, (Some(7), vec![3], vec![200]));
        let half = common(&[(3, 7), (4, 8)], &[(201, 8)]);
        assert_eq!(half, (Some(8), vec![4], vec![201]));
    }

    #[test]
    fn what_redirects_and_what_notes_that_packets_come_have_one_map_or_neither_is_known() {
        let known = |redirects: &[(u16, u32)], pulses: &[(u16, u32)]| {
            let by_pref = |pairs: &[(u16, u32)]| -> BTreeMap<Pref, u32> {
                pairs.iter().map(|(pref, map)| (Pref(*pref), *map)).collect()
            };
            let (redirects, pulses) = (by_pref(redirects), by_pref(pulses));
            let (mut clsact, mut tree) = (Clsact::default(), Tree::default());
            let at = |prefs: &BTreeMap<Pref, u32>, filter: Filter| {
                prefs.keys().map(|pref| (*pref, filter.clone())).collect()
            };
            clsact.ingress.filters = at(&redirects, Filter::Redirect);
            tree.filters = at(&pulses, Filter::Pulse);
            common_pulse(&redirects, &pulses, &mut clsact, Some(&mut tree));
            let stay = |filters: &BTreeMap<Pref, Filter>| {
                filters.keys().map(|pref| pref.0).collect::<Vec<u16>>()
            };
            (stay(&clsact.ingress.filters), stay(&tree.filters))
        };
        assert_eq!(known(&[(65_000, 7)], &[(50, 7)]), (vec![65_000], vec![50]));
        assert_eq!(known(&[(65_000, 7)], &[(50, 8)]), (vec![], vec![]));
        assert_eq!(known(&[(65_000, 7)], &[]), (vec![], vec![]));
        assert_eq!(known(&[], &[(50, 7)]), (vec![], vec![]));
        // Killed before the old ones went.
        let half = known(&[(65_000, 7)], &[(50, 7), (51, 8)]);
        assert_eq!(half, (vec![65_000], vec![50]));
    }
}
