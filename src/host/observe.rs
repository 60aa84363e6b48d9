//! The kernel → values: what of ours stands, what else stands among it, the facts that desired
//! depends on, and the counters. Reads only.

mod links;
mod owners;
mod privilege;
mod program_rules;
mod sockets;
mod tree;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use crate::accounts::{How, Question};
use crate::cgroup::{self, Instance};
use crate::facts::{Accounts, Facts, Features, Helpers, LinkFacts, Observation};
use crate::host::Kernel;
use crate::netlink::decode::{self, DefaultRoute, LinkRecord, QdiscRecord};
use crate::netlink::request;
use crate::process::{self, Scan};
use crate::sys::route::SocketError;
use crate::sys::{bpf, ethtool, probe};
use crate::tree::{Claim, Counted, Counters, Family, Foreign, LinkName, Owner, Port};
use crate::units::{ClassId, Psched};
pub use owners::open_owners;
pub use privilege::lack;
pub use sockets::tags;

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The netlink socket failed, or a list was refused.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The hierarchy or the instance's directories.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A file that a look needs.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel had no memory or no descriptor for the trial, which says nothing of what it can
    /// do.
    #[error("cannot find out what this kernel can do: {0}")]
    Probe(#[source] io::Error),
    /// The ethtool ioctl failed for want of a descriptor or of memory.
    #[error("cannot ask {link} for its speed: {source}")]
    Speed {
        /// Which link.
        link: LinkName,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What the file says.
    #[error("/proc/net/psched has values that no kernel is known to have: `{0}`")]
    Psched(String),
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What is, and the facts around it.
    pub observation: Observation,
    /// By port, of the classes that are ours.
    pub counters: Counted,
    /// Packets that went past every class, by port: there was no default class for them.
    pub direct_packets: BTreeMap<Port, u32>,
    /// What the lines of `rules` have matched since their filter was made, by port.
    pub rules: BTreeMap<Port, BTreeMap<NonZeroU32, RuleHits>>,
    /// One pass over `/proc`; empty where it was not wanted.
    pub scan: Scan,
}

/// The class that a line of `rules` sends to, and how many packets it has matched; `None` where the
/// kernel does not count them (without CONFIG_CLS_U32_PERF).
pub type RuleHits = (ClassId, Option<u64>);

/// What a look is for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Links that somebody means by name: asked for one by one where no list of all is whole.
    pub links: BTreeSet<String>,
    /// Who the accounts are; `None`: nobody is asked for.
    pub accounts: Option<Whom<'a>>,
    /// Which of `/proc` to read.
    pub processes: Processes,
    /// Which systemd units there are.
    pub units: bool,
    /// Which of the instance's directories are read.
    pub directories: Directories<'a>,
}

/// Which of the instance's directories are read.
#[derive(Clone, Debug, Default)]
pub enum Directories<'a> {
    /// Every one.
    #[default]
    All,
    /// Those of the claims that a run has made, written or removed since the look that saw
    /// `before`. What it did to them has no effect on any other directory, and the lock keeps other
    /// runs away: what else is there was seen by that look.
    Touched {
        /// What that look saw.
        before: &'a Observation,
        /// What the run did something to.
        touched: &'a BTreeSet<Claim>,
    },
}

/// Whether all processes are looked at: where each sits, and so which accounts run.
#[derive(Clone, Debug, Default)]
pub enum Processes {
    /// None: who runs is known, or is of no interest.
    #[default]
    Unwanted,
    /// All of them.
    All,
    /// Somebody looked a moment ago.
    Seen(Scan),
}

/// Who says who the accounts are.
#[derive(Clone, Debug)]
pub enum Whom<'a> {
    /// NSS, which is asked this and about those that run.
    Nss {
        /// The names and uids to ask about.
        question: Question,
        /// In this process or by a child, and for how long.
        how: How,
    },
    /// Somebody asked before.
    Known(&'a Accounts),
}

/// Looks at the kernel.
pub fn observe(kernel: &mut Kernel, wanted: Wanted<'_>) -> Result<Snapshot, ObserveError> {
    let mut snapshot = Snapshot::default();
    let mut routes =
        kernel.netlink.dump(&request::dump::routes(Family::V4), decode::default_route)?;
    routes.extend(kernel.netlink.dump(&request::dump::routes(Family::V6), decode::default_route)?);
    let (claims, foreign) = match kernel.instance() {
        Some(instance) => directories(&instance, wanted.directories)?,
        None => Default::default(),
    };
    for object in &foreign {
        let Foreign::Directory { classid, below, .. } = object else { continue };
        snapshot.observation.bound.extend(classid.our_class());
        snapshot.observation.held.extend(below.clone());
    }
    let claimed: BTreeSet<ClassId> = claims.values().filter_map(|id| id.our_class()).collect();
    snapshot.observation.foreign = foreign;
    let own_sockets_only = owners::own_sockets_only(&kernel.proc_root)?;
    let links = links::links_and_trees(kernel, &wanted.links, &routes, &claimed, own_sockets_only)?;
    snapshot.observation.facts.links = links.links;
    snapshot.observation.state.clsact = links.clsact;
    snapshot.observation.ingress = links.ingress;
    for (link, filters) in links.at_clsact {
        snapshot.observation.strange.entry(link.egress()).or_default().filters.extend(filters);
    }
    for (port, seen) in links.trees {
        snapshot.observation.state.trees.insert(port.clone(), seen.tree);
        if !seen.strange.is_empty() {
            let strange = snapshot.observation.strange.entry(port.clone()).or_default();
            strange.filters.extend(seen.strange.filters);
            (strange.leaves, strange.tables) = (seen.strange.leaves, seen.strange.tables);
        }
        snapshot.observation.foreign.extend(seen.foreign);
        snapshot.observation.bound.extend(seen.bound);
        snapshot.direct_packets.extend(seen.direct_packets.map(|packets| (port.clone(), packets)));
        let maps = seen.maps.into_iter();
        snapshot
            .observation
            .deciding
            .extend(maps.map(|((at, pref), ids)| ((port.clone(), at, pref), ids)));
        let programs = seen.programs.into_iter();
        snapshot
            .observation
            .unread
            .rules
            .extend(programs.map(|(pref, text)| ((port.clone(), pref), text)));
        snapshot.rules.insert(port.clone(), seen.rules);
        snapshot.counters.insert(port, seen.counters);
    }
    owners::read(kernel, &mut snapshot);
    program_rules::read(kernel, &mut snapshot);
    snapshot.observation.state.claims = claims;
    snapshot.observation.state.net_cls = kernel.net_cls();
    snapshot.observation.net_cls = kernel.hierarchy().map(|hierarchy| hierarchy.path.clone());
    snapshot.observation.neighbours = neighbours(kernel)?;

    let facts = &mut snapshot.observation.facts;
    facts.psched = psched(&kernel.proc_root)?;
    facts.lacks = lack(&kernel.proc_root)?;
    facts.may_not_read_kernel = bpf::may_not_read_kernel();
    facts.netns_cookie = kernel.netns_cookie;
    facts.own_sockets_only = own_sockets_only;
    let mut running = None;
    let scan = match wanted.processes {
        Processes::Unwanted => None,
        Processes::All => Some(process::scan(&kernel.proc_root)?),
        Processes::Seen(scan) => Some(scan),
    };
    if let Some(scan) = scan {
        snapshot.scan = scan;
        running = Some(process::running_uids(&snapshot.scan.processes, &kernel.view()?));
    }
    if wanted.units {
        let mut units = units::unit_files(Path::new("/"));
        let running = snapshot.scan.processes.iter().filter_map(|process| process.unit.clone());
        units.extend(running.map(|unit| (unit.clone(), unit)));
        facts.units = Some(units);
    }
    match wanted.accounts {
        Some(Whom::Nss { mut question, how }) => {
            question.running.extend(running.unwrap_or_default());
            let running = question.running.clone();
            facts.accounts = question.ask(how).unwrap_or_else(|why| why.accounts(running));
        }
        Some(Whom::Known(accounts)) => {
            facts.accounts = accounts.clone();
            facts.accounts.running = running.unwrap_or_else(|| accounts.running.clone());
        }
        None => {}
    }
    Ok(snapshot)
}

fn directories(
    instance: &Instance,
    which: Directories<'_>,
) -> Result<(BTreeMap<Claim, ClassId>, Vec<Foreign>), cgroup::Error> {
    match which {
        // Most of them: a look at all of them is shared out between processors.
        Directories::Touched { before, touched }
            if touched.len() <= before.state.claims.len() / 4 =>
        {
            let claims = instance.observe_again(before.state.claims.clone(), touched)?;
            let is_directory = |it: &&Foreign| matches!(it, Foreign::Directory { .. });
            Ok((claims, before.foreign.iter().filter(is_directory).cloned().collect()))
        }
        _ => instance.observe(),
    }
}

/// Asks devices for their speed: of these links only, since each is asked by two ioctls, and a host
/// may have a thousand links that nobody means.
///
/// # Errors
/// No descriptor or memory to ask one.
pub fn speeds(
    snapshot: &mut Snapshot,
    of: impl Fn(&LinkName, &LinkFacts) -> bool,
) -> Result<(), ObserveError> {
    for (name, link) in &mut snapshot.observation.facts.links {
        // What a tun or tap says is a placeholder: 10 Gbit, or 10 Mbit on older kernels.
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

fn link_facts(
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
        loopback: record.loopback,
        ethernet: record.ethernet,
        up: record.up,
        shaped_at: None,
    }
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

/// In whose directories somebody is, of these accounts and ranges of subordinate uids.
///
/// # Errors
/// A directory that cannot be read.
pub fn occupied(kernel: &Kernel, owners: BTreeSet<Owner>) -> Result<BTreeSet<Owner>, ObserveError> {
    let Some(instance) = kernel.instance() else { return Ok(BTreeSet::new()) };
    let mut occupied = BTreeSet::new();
    for owner in owners {
        if instance.is_occupied(&owner)? {
            occupied.insert(owner);
        }
    }
    Ok(occupied)
}

/// Tries what this kernel can do, where it harms nobody. `known`: functions of the kernel that need
/// not be tried, since a deciding program that calls them stands.
///
/// # Errors
/// No memory or no descriptor for the trial.
pub fn try_features(known: Option<Helpers>) -> Result<Features, ObserveError> {
    probe::features_beside(known).map_err(ObserveError::Probe)
}

impl Snapshot {
    /// Facts without the observation's state: enough to build a model.
    pub fn facts(&self) -> &Facts {
        &self.observation.facts
    }

    /// What a class of ours has counted.
    pub fn counters(&self, port: &Port, classid: ClassId) -> Option<&Counters> {
        self.counters.get(port)?.get(&classid)
    }
}
