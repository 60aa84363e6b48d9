//! All links with their roots, and the trees of ours on them, read so that no object that stands
//! counts as absent, whatever others come and go meanwhile.
//!
//! - Links: the kernel says whether any came or went during the list. Where they come and go all
//!   the time, several lists are put together, and a link that is in some of them only, or is named
//!   and in none, is asked for by itself.
//! - Roots and leaves: the list of qdiscs may skip entries without a sign ([`Witness`]). A qdisc
//!   that a link names as its root (`IFLA_QDISC`), or a class as its leaf (`tcm_info`), and that
//!   the list lacks, is asked for by itself; so is the clsact of a shaped link.
//! - Classes and filters of one link: their lists are read again when anything of the link's
//!   traffic control changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use log::{debug, warn};
use nix::errno::Errno;

use super::arriving::{self, Ifbs};
use super::error::ObserveError;
use super::servers;
use super::tree::{OurRoot, SeenTree};
use crate::facts::{self, Beside, LinkFacts, RootQdisc};
use crate::host::Kernel;
use crate::netlink::decode::{self, DefaultRoute, LinkRecord, QdiscRecord};
use crate::netlink::extack::KernelError;
use crate::netlink::flow_name::Reads;
use crate::netlink::hooks;
use crate::netlink::request::{self, dump};
use crate::sys::route::{List, Netlink, PATIENCE, SocketError};
use crate::sys::witness::Witness;
use crate::tree::{
    Clsact, Direction, Family, LinkName, MapIds, Parent, Port, Pref, Seat, StrangeFilter,
};
use crate::units::ClassId;

/// How many lists of links are put together when none of them is complete, and how often qdiscs are
/// listed. A list lacks a link that exists only if another one went at the moment that a datagram
/// ended, so hardly all lists do.
const TORN_LISTS: usize = 4;

pub(super) type Links = BTreeMap<LinkName, LinkFacts>;
pub(super) type Trees = Vec<(Port, SeenTree)>;

/// The links and trees of the network namespace.
#[derive(Default)]
pub(super) struct Seen {
    pub links: Links,
    pub trees: Trees,
    pub clsact: BTreeMap<LinkName, Clsact>,
    /// What is strange there, by the port of the side.
    pub at_clsact: BTreeMap<Port, BTreeMap<Seat, StrangeFilter>>,
    pub ifbs: Ifbs,
    /// What others have at hooks, by link.
    pub beside: BTreeMap<LinkName, Vec<Beside>>,
    /// The root qdisc of each ifb of ours.
    pub ifb_roots: BTreeMap<LinkName, RootQdisc>,
    /// The maps of flows that are in use, by link.
    pub flows: BTreeMap<LinkName, u32>,
    /// Where each program is that notes flows or labels by source, and which maps of owners it
    /// reads.
    pub learning: BTreeMap<facts::Seat, MapIds>,
    /// Links with an `ingress` qdisc.
    pub ingress: BTreeSet<LinkName>,
}

/// Reads all links and our trees. `named`: links that are asked for by name if no list has them.
/// `own_sockets_only` ([`crate::facts::Facts`]): no filter of ours is wanted at the clsact of a
/// link for what it sends.
pub(super) fn links_and_trees(
    kernel: &mut Kernel,
    named: &BTreeSet<String>,
    claimed: &BTreeSet<ClassId>,
    own_sockets_only: bool,
) -> Result<Seen, ObserveError> {
    let mut routes = kernel.netlink.dump(&dump::routes(Family::V4), decode::default_route)?;
    routes.extend(kernel.netlink.dump(&dump::routes(Family::V6), decode::default_route)?);
    let records = links(&mut kernel.netlink, named)?;
    let mut by_link: BTreeMap<u32, Vec<QdiscRecord>> = BTreeMap::new();
    for qdisc in kernel.netlink.dump(&dump::qdiscs(), decode::qdisc)? {
        by_link.entry(qdisc.ifindex).or_default().push(qdisc);
    }
    let mut witness = Witness::open()?;
    let (ifbs, beside) = (Ifbs::among(&records, kernel.mark), generic_xdp(&records));
    let mut all = Seen { ifbs, beside, ..Seen::default() };
    let mut maps_read: BTreeMap<LinkName, MapsRead> = BTreeMap::new();
    for record in records {
        let name = record.name.clone();
        let mut qdiscs = by_link.remove(&record.ifindex).unwrap_or_default();
        if lacks_root(&record, &qdiscs) {
            match root_of(kernel, record.ifindex)? {
                Some(root) => qdiscs.extend(root),
                None => continue,
            }
        }
        let mut link = link_facts(kernel, record, &qdiscs, &routes);
        let is_ifb = all.ifbs.has(&name);
        let port = if is_ifb { all.ifbs.port(&name) } else { Some(name.egress()) };
        if let (RootQdisc::Ours, Some(port)) = (&link.root, port) {
            let root = OurRoot { port, ifindex: link.ifindex, qdiscs: &qdiscs };
            let seen = steady(kernel, &mut witness, &root, |kernel| root.tree(kernel, claimed))?;
            let Some(seen) = seen else { continue };
            link.shaped_at = seen.tree.classes.get(&ClassId::LINK).map(|class| class.rate);
            all.trees.push((root.port, seen));
        }
        if is_ifb {
            all.ifb_roots.insert(name, link.root);
            continue;
        }
        let has_ifb = all.ifbs.of(&name).is_some();
        let is_shaped = link.root == RootQdisc::Ours || has_ifb;
        if has_ifb {
            maps_read.entry(name.clone()).or_default();
        }
        let is_listed = qdiscs.iter().any(|qdisc| qdisc.parent == Some(ClassId::CLSACT));
        if is_shaped && (!own_sockets_only || has_ifb) && !is_listed {
            let question = request::clsact::get(link.ifindex);
            qdiscs.extend(kernel.netlink.get(&question, decode::qdisc)?.ok().flatten());
        }
        if qdiscs.iter().any(|qdisc| qdisc.kind == request::clsact::KIND) {
            let found = clsact_of(kernel, link.ifindex, all.ifbs.of(&name))?;
            maps_read.insert(name.clone(), all.add_clsact(&name, found));
        } else if qdiscs.iter().any(|qdisc| qdisc.kind == "ingress") {
            all.ingress.insert(name.clone());
        }
        all.links.insert(name, link);
    }
    // Links that went meanwhile are left out, since only parts of them were read.
    let gone = witness.told(kernel.netlink.port())?.gone;
    all.forget(&gone);
    let found = all.trees.iter().flat_map(|(_, seen)| seen.finders.values());
    let named = found.map(|finds| finds.servers).collect();
    let servers = servers::in_force(kernel, &named);
    all.read_maps(maps_read, servers);
    Ok(all)
}

/// The programs of generic XDP, by link.
fn generic_xdp(records: &[LinkRecord]) -> BTreeMap<LinkName, Vec<Beside>> {
    let program = |record: &LinkRecord| Some(vec![Beside::GenericXdp(record.generic_xdp?)]);
    records.iter().filter_map(|it| Some((it.name.clone(), program(it)?))).collect()
}

pub(super) fn link_facts(
    kernel: &Kernel,
    record: LinkRecord,
    qdiscs: &[QdiscRecord],
    routes: &[DefaultRoute],
) -> LinkFacts {
    let metric = |family: Family| {
        let here =
            |route: &&DefaultRoute| route.family == family && route.links.contains(&record.ifindex);
        routes.iter().filter(here).map(|route| route.metric).min()
    };
    LinkFacts {
        ifindex: record.ifindex,
        altnames: record.altnames,
        mtu: record.mtu,
        speed: None,
        default_route_v4: metric(Family::V4),
        default_route_v6: metric(Family::V6),
        root: decode::root(qdiscs, record.qdisc.as_deref(), kernel.mark),
        kind: record.kind,
        master: record.master,
        lower: record.lower,
        peer_namespace: record.peer_namespace,
        loopback: record.loopback,
        ethernet: record.ethernet,
        up: record.up,
        shaped_at: None,
    }
}

impl Seen {
    /// Leaves out what was seen of links that went meanwhile.
    fn forget(&mut self, gone: &BTreeSet<u32>) {
        self.links.retain(|_, link| !gone.contains(&link.ifindex));
        self.ifbs.forget(gone);
        let Seen { links, trees, clsact, at_clsact, ifbs, .. } = self;
        let is_there = |port: &Port| match port.direction {
            Direction::Egress => links.contains_key(&port.link),
            Direction::Ingress => links.contains_key(&port.link) && ifbs.has(&port.device()),
        };
        trees.retain(|(port, _)| is_there(port));
        clsact.retain(|name, _| links.contains_key(name));
        at_clsact.retain(|port, _| links.contains_key(&port.link));
    }

    /// What stands at a link's clsact, and what is strange there. Returns which
    /// maps our filters there read.
    fn add_clsact(&mut self, link: &LinkName, found: Hooks) -> MapsRead {
        let Hooks { clsact, strange, labels, maps, others } = found;
        if !others.is_empty() {
            self.beside.entry(link.clone()).or_default().extend(others);
        }
        self.clsact.insert(link.clone(), clsact);
        let seat = |pref| (link.ingress(), ClassId::INGRESS, pref);
        self.learning.extend(labels.into_iter().map(|(pref, maps)| (seat(pref), maps)));
        for (seat, filter) in strange {
            let port = match seat.parent {
                Parent::Ingress => link.ingress(),
                _ => link.egress(),
            };
            self.at_clsact.entry(port).or_default().insert(seat, filter);
        }
        maps
    }

    /// Which filters read one map of flows, and which one map of the ifb's pulse. `servers`: the
    /// map of bound sockets that is in force.
    fn read_maps(&mut self, at_clsact: BTreeMap<LinkName, MapsRead>, servers: Option<u32>) {
        for (link, MapsRead { learners, redirects }) in at_clsact {
            let mut no_clsact = Clsact::default();
            let clsact = self.clsact.get_mut(&link).unwrap_or(&mut no_clsact);
            let port = link.ingress();
            let seen = self.trees.iter_mut().find(|(at, _)| *at == port).map(|(_, seen)| seen);
            let (mut tree, mut finders, pulses) = match seen {
                Some(SeenTree { tree, finders, pulses, .. }) => {
                    (Some(tree), finders.clone(), pulses.clone())
                }
                None => Default::default(),
            };
            finders.retain(|_, finds| Some(finds.servers) == servers);
            let (flows, mut strange) =
                arriving::common_flows(&learners, &finders, clsact, tree.as_deref_mut());
            strange.extend(arriving::common_pulse(&redirects, &pulses, clsact, tree));
            for (seat, filter) in strange {
                let at = if seat.parent == Parent::Egress { link.egress() } else { port.clone() };
                self.at_clsact.entry(at).or_default().insert(seat, filter);
            }
            self.flows.extend(flows.map(|flows| (link.clone(), flows)));
            for (pref, Reads { owners, .. }) in learners {
                let seat = (link.egress(), ClassId::EGRESS, pref);
                self.learning.extend(owners.map(|owners| (seat, owners)));
            }
        }
    }
}

/// What stands at a link's clsact.
struct Hooks {
    clsact: Clsact,
    strange: BTreeMap<Seat, StrangeFilter>,
    /// What those of our filters read that label by source.
    labels: BTreeMap<Pref, MapIds>,
    maps: MapsRead,
    /// Others' filters.
    others: Vec<Beside>,
}

/// What our filters at a link's clsact read.
#[derive(Default)]
struct MapsRead {
    /// Those that note flows.
    learners: BTreeMap<Pref, Reads>,
    /// Those that redirect: the map of the ifb's pulse.
    redirects: BTreeMap<Pref, u32>,
}

/// Reads a link's clsact. `ifb`: that of the link.
fn clsact_of(kernel: &mut Kernel, ifindex: u32, ifb: Option<u32>) -> Result<Hooks, ObserveError> {
    let mut side = |side| kernel.netlink.dump(&dump::filters(ifindex, side), decode::filter);
    let (ingress, egress) = (side(ClassId::INGRESS)?, side(ClassId::EGRESS)?);
    let (clsact, strange) = hooks::clsact(kernel.mark, ifb, &ingress, &egress);
    let (learners, redirects) = (hooks::learners(&egress), hooks::pulses(&ingress));
    let labels = hooks::labels(&ingress);
    let mut others = hooks::others(Direction::Ingress, &clsact.ingress, &ingress);
    others.extend(hooks::others(Direction::Egress, &clsact.egress, &egress));
    others.retain(Beside::matters);
    let maps = MapsRead { learners, redirects };
    Ok(Hooks { clsact, strange, labels, maps, others })
}

/// All links of the namespace.
pub(super) fn links(
    netlink: &mut Netlink,
    named: &BTreeSet<String>,
) -> Result<Vec<LinkRecord>, SocketError> {
    let mut earlier: BTreeMap<u32, LinkRecord> = BTreeMap::new();
    let mut last = netlink.list(&dump::links(), decode::link)?;
    for _ in 1..TORN_LISTS {
        if last.is_whole {
            return Ok(last.entries);
        }
        debug!("links came or went while they were listed; listing them again");
        earlier.extend(last.entries.into_iter().map(|link| (link.ifindex, link)));
        last = netlink.list(&dump::links(), decode::link)?;
    }
    let mut links = last.entries;
    links.iter().for_each(|link| drop(earlier.remove(&link.ifindex)));
    let by_index = earlier.keys().map(|index| dump::link(*index));
    let has = |link: &LinkRecord, name| link.name.as_str() == name || link.altnames.contains(name);
    let missing = named.iter().filter(|name| !links.iter().any(|link| has(link, name)));
    let by_name = missing.map(|name| dump::link_named(name));
    let questions: Vec<_> = by_index.chain(by_name).collect();
    for question in questions {
        match netlink.get(&question, decode::link)? {
            Ok(found) => links.extend(found),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(SocketError::Refused(error)),
        }
    }
    links.sort_by_key(|link| link.ifindex);
    links.dedup_by_key(|link| link.ifindex);
    Ok(links)
}

/// `noop` is never listed, and `noqueue` not on older kernels.
fn lacks_root(link: &LinkRecord, qdiscs: &[QdiscRecord]) -> bool {
    let kind = link.qdisc.as_deref().unwrap_or("noop");
    let is_listed = qdiscs.iter().any(|qdisc| qdisc.parent.is_none());
    !is_listed && !matches!(kind, "noop" | "noqueue")
}

/// The root qdisc of a link, asked for by itself; `None`: the link is gone, or its root is one that
/// the kernel never lists.
pub(super) fn root_of(
    kernel: &mut Kernel,
    ifindex: u32,
) -> Result<Option<Option<QdiscRecord>>, SocketError> {
    match kernel.netlink.get(&request::root::get(ifindex), decode::qdisc)? {
        Ok(root) => Ok(Some(root)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(SocketError::Refused(error)),
    }
}

/// Whether the answer says that the link is gone, or that its root is one that the kernel never
/// lists.
fn is_gone(error: &KernelError) -> bool {
    matches!(error.errno, Errno::ENODEV | Errno::ENOENT | Errno::EINVAL)
}

/// What `list` lists of the qdiscs of these links, over a new socket each time: again where one of
/// them, or any link, may have gone meanwhile, and so others have been left out. What was listed
/// last is not whole where that was so each time.
pub(super) fn steady_list<T>(
    links: &BTreeSet<u32>,
    mut list: impl FnMut(Netlink) -> Result<List<T>, SocketError>,
) -> Result<List<T>, SocketError> {
    let mut times = 0;
    loop {
        let (mut witness, netlink) = (Witness::open()?, Netlink::open()?);
        let own = netlink.port();
        let mut listed = list(netlink)?;
        let told = witness.told(own)?;
        listed.is_whole &= !told.lost && told.gone.is_empty() && told.changed.is_disjoint(links);
        times += 1;
        if listed.is_whole || times == TORN_LISTS {
            return Ok(listed);
        }
        debug!("traffic control changed while qdiscs were listed; listing them again");
    }
}

/// What `read` reads of a link's tree, as it was at one moment; `None`: the link is gone. Where
/// somebody keeps changing the tree for longer than [`PATIENCE`], the last reading counts: the
/// kernel refuses steps that contradict it, and then the run looks again.
pub(super) fn steady(
    kernel: &mut Kernel,
    witness: &mut Witness,
    root: &OurRoot<'_>,
    read: impl Fn(&mut Kernel) -> Result<SeenTree, ObserveError>,
) -> Result<Option<SeenTree>, ObserveError> {
    let began = Instant::now();
    let (own, OurRoot { port, ifindex, .. }) = (kernel.netlink.port(), root);
    loop {
        witness.told(own)?;
        let seen = read(kernel)?;
        let told = witness.told(own)?;
        if told.gone.contains(ifindex) {
            return Ok(None);
        }
        if !told.lost && !told.changed.contains(ifindex) {
            return Ok(Some(seen));
        }
        if began.elapsed() > PATIENCE {
            warn!(
                "the classes and filters of {port} kept being changed by somebody else for {} s; they are taken as they were seen last",
                PATIENCE.as_secs()
            );
            return Ok(Some(seen));
        }
        debug!("traffic control on {port} changed while it was listed; listing it again");
    }
}
