//! What this kernel can do, found out by trying it on `lo` of a new network namespace, which ends
//! with the trial. Trying also loads the kernel modules that exist. Where no namespace can be made
//! (no CAP_SYS_ADMIN, as in some containers), the modules are looked up on disk instead.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use log::debug;
use nix::unistd::geteuid;

use super::modules::Modules;
use super::route::{Netlink, SocketError};
use super::shortage::is_shortage;
use super::{bpf, netns};
use crate::facts::{Features, Helpers};
use crate::netlink::flow_name::Redirects;
use crate::netlink::request::filter::{self, Loaded};
use crate::netlink::request::{class, clsact, dump, hook, ifb, leaf, root};
use crate::netlink::{Request, assemble, decode, hooks};
use crate::tree::{
    Class, Classifier, Family, Filter, FoundFilter, LeafQdisc, LinkName, Mark, Pref, Program,
    Quantum, Role, Sockets, Tag, TagHelper, U32Key, U32Rule, U32Rules,
};
use crate::units::{Bytes, ClassId, Minor, Rate, Ticks};

/// `lo` has index 1 in every namespace (net/core/dev.c, `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// The leaf qdiscs that are tried.
const LEAVES: [LeafQdisc; 5] = [
    LeafQdisc::FqCodel,
    LeafQdisc::Sfq,
    LeafQdisc::Bfifo { limit: Bytes(10_000) },
    LeafQdisc::Pfifo { limit: 10 },
    LeafQdisc::Cake,
];

/// Tries all features. A feature that cannot be tried is looked up, and one that is not found
/// counts as absent.
///
/// # Errors
/// This machine or process has no descriptor, memory or buffer left, which says nothing of what the
/// kernel can do.
pub fn features() -> io::Result<Features> {
    features_beside(None)
}

/// As [`features`], where a deciding program stands: `known` are the functions that it calls, which
/// need not be tried.
///
/// # Errors
/// As [`features`].
pub fn features_beside(known: Option<Helpers>) -> io::Result<Features> {
    match netns::private(|| tried(known, &BTreeSet::new())).flatten() {
        Ok(features) => Ok(Features { tried: true, ..features }),
        Err(error) if is_shortage(&error) => Err(error),
        Err(error) => {
            debug!("the kernel's features cannot be tried: {error}");
            Ok(looked_up(&Modules::of(Path::new("/"))))
        }
    }
}

/// The modules that a kernel may load where what shaper makes is made for the first time.
const MODULES: [&str; 10] = [
    "sch_htb",
    "sch_fq_codel",
    "sch_sfq",
    "sch_cake",
    "sch_ingress",
    "cls_cgroup",
    "cls_bpf",
    "cls_u32",
    "act_mirred",
    "ifb",
];

/// The modules that shaping what arrives takes.
const OF_DOWN: [&str; 4] = ["ifb", "act_mirred", "sch_ingress", "cls_bpf"];

/// The classifiers, each with its module.
const CLASSIFIERS: [(Classifier, &str); 3] = [
    (Classifier::Cgroup, "cls_cgroup"),
    (Classifier::Bpf, "cls_bpf"),
    (Classifier::Uid, "cls_bpf"),
];

/// What can be told of a kernel without having it load a module.
#[derive(Clone, Debug, Default)]
pub struct Unloaded {
    /// The features that were found.
    pub features: Features,
    /// Whether there is u32, by which rules are asked.
    pub u32: bool,
    /// Whether what arrives can be shaped.
    pub down: bool,
    /// What was not found is not there: all of that was tried, or this kernel has lists of what is
    /// built into it.
    pub known: bool,
    /// The modules that the kernel has still to load.
    pub would_load: BTreeSet<&'static str>,
}

/// As [`features`] and [`down`] for all that the kernel need load no module for; for the rest what
/// the lists of modules say.
///
/// # Errors
/// As [`features`].
pub fn without_loading() -> io::Result<Unloaded> {
    let modules = Modules::of(Path::new("/"));
    let would_load: BTreeSet<_> =
        MODULES.into_iter().filter(|module| modules.would_load(module)).collect();
    // All that is tried is tried below HTB.
    if !would_load.contains("sch_htb") && modules.are_known() {
        let trial = || {
            let features = tried(None, &would_load)?;
            let u32 = would_load.contains("cls_u32")
                || features.htb && tried_u32().map_err(Trial::into_io)?;
            Ok::<_, io::Error>((Features { tried: true, ..features }, u32))
        };
        match netns::private(trial).flatten() {
            Ok((features, u32)) => {
                let features = with_untried(features, &would_load, &modules);
                let down = match OF_DOWN.iter().any(|module| would_load.contains(module)) {
                    true => has_down(&modules),
                    false => down()?,
                };
                return Ok(Unloaded { features, u32, down, known: true, would_load });
            }
            Err(error) if is_shortage(&error) => return Err(error),
            Err(error) => debug!("the kernel's features cannot be tried: {error}"),
        }
    }
    Ok(Unloaded {
        features: looked_up(&modules),
        u32: modules.has("cls_u32"),
        down: has_down(&modules),
        known: modules.has_lists(),
        would_load,
    })
}

/// Adds a rule beside what [`tried`] has left in this thread's network namespace.
fn tried_u32() -> Result<bool, Trial> {
    let key = U32Key { value: 0, mask: 0, offset: 0 };
    let rule = U32Rule { keys: vec![key], to: ClassId::DEFAULT, line: None };
    let rules = U32Rules::from(vec![rule]);
    let Ok(add) = filter::add_rules(LOOPBACK, Pref::RULES[0], Family::V4, &rules) else {
        return Ok(false);
    };
    let mut netlink = Netlink::open()?;
    for request in add.tables.iter().chain(&add.root) {
        if let Err(error) = netlink.change(request)? {
            debug!("probe: {error}");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tries in this thread's network namespace, which must be one that was made for it; what is of one
/// of the modules `but` is not tried.
fn tried(known: Option<Helpers>, but: &BTreeSet<&str>) -> io::Result<Features> {
    try_all(known, but).map_err(Trial::into_io)
}

/// The features that were tried, and those whose modules the kernel has still to load.
fn with_untried(tried: Features, untried: &BTreeSet<&str>, modules: &Modules<'_>) -> Features {
    if untried.is_empty() {
        return tried;
    }
    let mut features = tried;
    let listed = looked_up(modules);
    let is_untried = |module: &str| untried.contains(module);
    let leaves = listed.leaves.iter().filter(|kind| is_untried(&format!("sch_{kind}")));
    features.leaves.extend(leaves);
    let classifiers = CLASSIFIERS.into_iter().filter(|(_, module)| is_untried(module));
    let classifiers = classifiers.map(|(classifier, _)| classifier);
    features.classifiers.extend(classifiers.filter(|it| listed.classifiers.contains(it)));
    if is_untried("sch_ingress") || is_untried("cls_bpf") {
        features.clsact = listed.clsact;
    }
    features
}

/// Why the trial ended early.
enum Trial {
    Socket(SocketError),
    Bpf(io::Error),
}

impl Trial {
    fn into_io(self) -> io::Error {
        match self {
            Trial::Socket(
                SocketError::Open(error) | SocketError::Send(error) | SocketError::Receive(error),
            )
            | Trial::Bpf(error) => error,
            Trial::Socket(error) => io::Error::other(error.to_string()),
        }
    }
}

impl From<SocketError> for Trial {
    fn from(error: SocketError) -> Trial {
        Trial::Socket(error)
    }
}

fn works(netlink: &mut Netlink, request: &Request) -> Result<bool, SocketError> {
    Ok(netlink.change(request)?.inspect_err(|error| debug!("probe: {error}")).is_ok())
}

fn try_all(known: Option<Helpers>, but: &BTreeSet<&str>) -> Result<Features, Trial> {
    let mut netlink = Netlink::open()?;
    let mut features = Features::default();
    let mark = Mark::for_instance("probe");
    features.htb = works(&mut netlink, &root::add(LOOPBACK, mark))?;
    if !features.htb {
        return Ok(features);
    }
    let classid = ClassId::ours(Minor::FIRST_USER);
    works(&mut netlink, &class::add(LOOPBACK, classid, &any_class()))?;
    let is_tried = |module: &str| !but.contains(module);
    for qdisc in LEAVES.into_iter().filter(|it| is_tried(&format!("sch_{}", it.kind()))) {
        if works(&mut netlink, &leaf::add(LOOPBACK, classid, &qdisc))? {
            features.leaves.insert(qdisc.kind());
            works(&mut netlink, &leaf::delete(LOOPBACK, classid, LeafQdisc::handle(classid)))?;
        }
    }
    // Return codes are not believed: a filter counts when it is read back.
    if is_tried("cls_cgroup") {
        works(&mut netlink, &filter::add_cgroup(LOOPBACK, ClassId::ROOT, Pref::TAG[0]))?;
    }
    match known.map_or_else(bpf::helpers, Ok).and_then(|helpers| Ok((helpers, trial()?))) {
        Ok((helpers, (program, maps, file))) => {
            features.helpers = helpers;
            let (root, pref) = (ClassId::ROOT, Pref::TAG[1]);
            let loaded = Loaded::deciding(program, maps.ids(), file.as_fd());
            if is_tried("cls_bpf") {
                works(&mut netlink, &filter::add_bpf(LOOPBACK, root, pref, loaded))?;
            }
        }
        Err(error) if is_shortage(&error) => return Err(Trial::Bpf(error)),
        Err(error) => debug!("probe: bpf(2): {error}"),
    }
    features.clsact =
        is_tried("sch_ingress") && is_tried("cls_bpf") && tried_clsact(&mut netlink, mark)?;
    let records = netlink.dump(&dump::filters(LOOPBACK, ClassId::ROOT), decode::filter)?;
    features.classifiers = assemble::filters(records)
        .into_values()
        .flat_map(|found| match found {
            // The kernel's function that reads a tag is as old as `cls_bpf`.
            FoundFilter::Ours(Filter::Tag(Tag::Bpf(_))) => vec![Classifier::Bpf, Classifier::Uid],
            FoundFilter::Ours(Filter::Tag(Tag::Cgroup)) => vec![Classifier::Cgroup],
            _ => Vec::new(),
        })
        .collect();
    Ok(features)
}

/// Whether a program can clear priorities at clsact.
fn tried_clsact(netlink: &mut Netlink, mark: Mark) -> Result<bool, Trial> {
    if !works(netlink, &clsact::add(LOOPBACK))? {
        return Ok(false);
    }
    match bpf::load_clear_priority(Sockets::Mixed) {
        Ok(file) => {
            let program = Loaded::clearing(Sockets::Mixed, mark, file.as_fd());
            Ok(works(netlink, &hook::add_egress(LOOPBACK, Pref::PRIORITY[0], program))?)
        }
        Err(error) if is_shortage(&error) => Err(Trial::Bpf(error)),
        Err(_) => Ok(false),
    }
}

/// Whether what arrives can be shaped: an ifb is made, and what redirects to it is read back. Only
/// for whoever wants that: the kernel's module makes two devices of its own.
///
/// # Errors
/// As [`features`].
pub fn down() -> io::Result<bool> {
    match netns::private(|| tried_down().map_err(Trial::into_io)).flatten() {
        Err(error) if is_shortage(&error) => Err(error),
        Err(error) => {
            debug!("an ifb cannot be tried: {error}");
            Ok(has_down(&Modules::of(Path::new("/"))))
        }
        Ok(works) => Ok(works),
    }
}

/// Whether the modules are there that shaping what arrives takes.
fn has_down(modules: &Modules<'_>) -> bool {
    // Loading a program needs no namespace.
    let loads = || bpf::Pulse::create().and_then(|it| it.load_redirect(LOOPBACK)).is_ok();
    OF_DOWN.iter().all(|module| modules.has(module)) && loads()
}

fn tried_down() -> Result<bool, Trial> {
    let mut netlink = Netlink::open()?;
    let mark = Mark::for_instance("probe");
    let Some(name) = LinkName::new("probe") else { return Ok(false) };
    for request in [ifb::add(&name), clsact::add(LOOPBACK)] {
        if let Err(error) = netlink.change(&request)? {
            debug!("probe: {error}");
            return Ok(false);
        }
    }
    let device = netlink.get(&dump::link_named(name.as_str()), decode::link)?;
    let Some(device) = device.ok().flatten() else { return Ok(false) };
    let flows = bpf::Flows::for_trial().map_err(Trial::Bpf)?;
    let servers = bpf::ServerMap::for_trial().map_err(Trial::Bpf)?;
    flows.load_find((true, false), &servers).map_err(Trial::Bpf)?;
    flows.load_learn(Tag::Cgroup, None).map_err(Trial::Bpf)?;
    let pulse = bpf::Pulse::create().map_err(Trial::Bpf)?;
    pulse.load_pulse().map_err(Trial::Bpf)?;
    let file = pulse.load_redirect(device.ifindex).map_err(Trial::Bpf)?;
    let redirects = Redirects { ifb: device.ifindex, pulse: pulse.id() };
    let program = Loaded::redirecting(mark, redirects, file.as_fd());
    let add = hook::add_redirect(LOOPBACK, Pref::REDIRECT[0], program, device.ifindex);
    if let Err(error) = netlink.change(&add)? {
        debug!("probe: {error}");
        return Ok(false);
    }
    let records = netlink.dump(&dump::filters(LOOPBACK, ClassId::INGRESS), decode::filter)?;
    let (found, _) = hooks::clsact(mark, Some(device.ifindex), &records, &[]);
    Ok(found.ingress.filters.values().eq([&Filter::Redirect]))
}

/// A deciding program that every kernel accepts that accepts one at all.
fn trial() -> io::Result<(Program, bpf::Maps, OwnedFd)> {
    let maps = bpf::Maps::for_trial()?;
    let program = Program {
        shards: false,
        tag: Some(TagHelper::Task),
        cgroups: false,
        sockets: Sockets::All,
        mptcp: None,
        labels: false,
    };
    let file = bpf::load(program, &maps)?;
    Ok((program, maps, file))
}

fn any_class() -> Class {
    let rate = Rate::MIN_GUARANTEE;
    let burst = Ticks(100_000);
    let role = Role::Leaf { prio: 0, quantum: Quantum(60_000) };
    Class { parent: None, rate, ceil: rate, burst, cburst: burst, role }
}

/// The features whose modules are there. Whether programs may be loaded root can try; to others is
/// told what root would find.
fn looked_up(modules: &Modules<'_>) -> Features {
    let has = |module: &str| modules.has(module);
    let leaves = LEAVES.iter().map(LeafQdisc::kind);
    let decides = || !geteuid().is_root() || trial().is_ok();
    let works = |classifier| classifier == Classifier::Cgroup || decides();
    Features {
        tried: true,
        htb: has("sch_htb"),
        no_net_cls: None,
        spared: None,
        // The fifos are part of the packet scheduler itself.
        leaves: leaves
            .filter(|kind| kind.ends_with("fifo") || has(&format!("sch_{kind}")))
            .collect(),
        classifiers: CLASSIFIERS
            .into_iter()
            .filter(|(classifier, module)| has(module) && works(*classifier))
            .map(|(classifier, _)| classifier)
            .collect(),
        clsact: has("sch_ingress")
            && has("cls_bpf")
            && bpf::load_clear_priority(Sockets::Mixed).is_ok(),
        // Loading a program needs no namespace.
        helpers: bpf::helpers().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::modules::write_files;

    #[test]
    fn modules_count_when_loaded_built_in_or_on_disk() {
        let host = tempfile::tempdir().unwrap();
        let dep = "kernel/net/sched/cls_cgroup.ko.xz:\nkernel/net/sched/my_sch_sfq.ko:\n";
        let files = [
            ("proc/sys/kernel/osrelease", "6.1.0\n"),
            ("sys/module/sch_htb/refcnt", "1"),
            ("lib/modules/6.1.0/modules.builtin", "kernel/net/sched/sch_fq_codel.ko\n"),
            ("lib/modules/6.1.0/modules.dep", dep),
        ];
        write_files(host.path(), &files);
        let features = looked_up(&Modules::of(host.path()));
        let wanted = Features {
            tried: true,
            htb: true,
            classifiers: [Classifier::Cgroup].into(),
            no_net_cls: None,
            spared: None,
            helpers: features.helpers,
            clsact: false,
            leaves: ["fq_codel", "bfifo", "pfifo"].into(),
        };
        assert_eq!(features, wanted);
    }
}
