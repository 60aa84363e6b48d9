//! The facts on which the desired state depends beside the policy and our own objects: links,
//! features, accounts. They are read once and frozen with the plan. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

mod account;
mod accounts;
mod beside;
mod cgroups;
mod guests;
mod subuid;
mod used;

pub use self::account::Account;
pub use self::accounts::Accounts;
pub use self::beside::Beside;
pub use self::cgroups::{NoCgroups, SOCKETS_HAVE_BOTH, UnitCgroups};
pub use self::guests::{Container, Engine, Guests, NamespaceId};
pub use self::subuid::{SubordinateUids, Subuids};
pub use self::used::Used;
use crate::times::{Timestamp, Zones};
use crate::tree::{
    self, Cgroup, Claim, Classifier, Clsact, Direction, Filter, Foreign, KernelState, LinkName,
    MapIds, MptcpLayout, NamespaceLayout, Owner, Parent, Port, Pref, Program, Sockets, Strange,
    StrangeFilter, TagHelper,
};
use crate::units::{ClassId, Psched, Rate};

/// All that the desired state depends on beside the policy and our own objects, as it was when the
/// plan was made.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The moment for which the policy's meaning is asked.
    pub now: Timestamp,
    /// The host's zone, and those that the policy names.
    pub zones: Zones,
    /// What owners with a quota have used.
    pub used: Used,
    /// The clock in whose ticks HTB keeps bursts.
    pub psched: Psched,
    /// The first two numbers of the kernel's release; `None`: it could not be read.
    pub release: Option<(u32, u32)>,
    /// An older kernel's description of its types says that a socket has its cgroup (v2) beside its
    /// tag, as those of Linux 5.15 and later do. Of these it is not read.
    pub has_both: bool,
    /// The network namespace's number in eBPF (`SO_NETNS_COOKIE`, Linux 5.14).
    pub netns_cookie: Option<u64>,
    /// Its inode, by which everybody else knows it.
    pub netns_inode: u32,
    /// No macvlan, ipvlan or the like can bring packets of another namespace's sockets to a link.
    pub own_sockets_only: bool,
    /// All links of the network namespace.
    pub links: BTreeMap<LinkName, LinkFacts>,
    /// What this kernel can do, as tried or as what stands shows.
    pub features: Features,
    /// Whether this kernel can shape what arrives; `None`: nobody has tried.
    pub down: Option<bool>,
    /// What of nftables has the ingress hook of a link, by link: it would see nothing of what is
    /// redirected. Read only for a policy that has a `down`.
    pub firewalls: BTreeMap<LinkName, String>,
    /// What others have at the hooks of a link, by link. Programs of tcx are asked for only for a
    /// policy that has a `down`.
    pub beside: BTreeMap<LinkName, Vec<Beside>>,
    /// The ifindexes of our ifbs, by name.
    pub ifbs: BTreeMap<LinkName, u32>,
    /// The root qdiscs of our ifbs, by name.
    pub ifb_roots: BTreeMap<LinkName, RootQdisc>,
    /// The numbers of the maps of flows, by link.
    pub flows: BTreeMap<LinkName, u32>,
    /// Links by which so much has come that connections may run over them. Asked for only for a
    /// policy that has a `down`, and of links whose flows this process does not know, or has noted
    /// for less than [`LEARNT`](crate::plan::LEARNT).
    pub busy: BTreeSet<LinkName>,
    /// What this process lacks to change links and directories; `None`: nothing.
    pub lacks: Option<Lack>,
    /// This process may load eBPF programs, but none that reads the kernel's own values: it has
    /// CAP_BPF without CAP_PERFMON.
    pub may_not_read_kernel: bool,
    /// What NSS and `/etc/subuid` say of the uids that run and of the names in the policy.
    pub accounts: Accounts,
    /// The systemd units that exist, each with the name of the unit that its processes run in: an
    /// alias has another unit's. `None`: systemd was not asked.
    pub units: Option<BTreeMap<String, String>>,
    /// The cgroups (v2) of systemd's units. `None`: they were not asked for.
    pub unit_cgroups: Option<UnitCgroups>,
    /// The instance's own cgroups (v2), for what `run` and `attach` put into a class, each with the
    /// owner of that. Asked for only where no tags are read.
    pub pinned_cgroups: BTreeMap<Cgroup, Owner>,
    /// Uids with classes that processes of theirs were put into on purpose. Asked for only before
    /// maps are made that are to say so from the beginning.
    pub given: BTreeSet<(u32, ClassId)>,
    /// Containers and named network namespaces.
    pub guests: Guests,
    /// Retired classes that have no backlog and have sent nothing for long enough, on any link.
    pub quiet: BTreeSet<ClassId>,
}

impl Facts {
    /// The link of the default route ([`default_route`]).
    pub fn default_route(&self) -> Option<(&LinkName, &LinkFacts)> {
        default_route(&self.links)
    }

    /// The number of the device at which a port's tree is.
    pub fn ifindex(&self, port: &Port) -> Option<u32> {
        match port.direction {
            Direction::Egress => Some(self.links.get(&port.link)?.ifindex),
            Direction::Ingress => self.ifbs.get(&port.device()).copied(),
        }
    }

    /// Whether sockets of other namespaces can send through the link: macvlan and ipvlan are on
    /// Ethernet, and not on loopback (`macvlan_port_create`, drivers/net/macvlan.c).
    pub fn carries_others(&self, link: &LinkName) -> bool {
        let device = self.links.get(link);
        !self.own_sockets_only && device.is_some_and(|it| it.ethernet && !it.loopback)
    }

    /// A sentence for each of others' that matters to what arrives by a link with a `down`.
    pub fn said_beside(&self, link: &LinkName) -> Vec<String> {
        let firewall = self
            .firewalls
            .get(link)
            .map(|what| format!("the nftables {what} sees nothing of what goes through the ifb"));
        let others = self.beside.get(link).into_iter().flatten().map(ToString::to_string);
        firewall.into_iter().chain(others).collect()
    }

    /// The best deciding program here, for a qdisc without shards below it, where there are no
    /// guests.
    pub fn program(&self) -> Program {
        let Helpers { socket_tag, netns_cookie, namespace, mptcp, .. } = self.features.helpers;
        let sockets = match (self.netns_cookie.filter(|_| netns_cookie), namespace) {
            (Some(cookie), _) => Sockets::Cookie(cookie),
            (None, _) if self.own_sockets_only => Sockets::All,
            (None, Some(layout)) => Sockets::Inode(self.netns_inode, layout),
            (None, None) => Sockets::Mixed,
        };
        let tag = Some(if socket_tag { TagHelper::Socket } else { TagHelper::Task });
        Program { shards: false, tag, cgroups: false, sockets, mptcp, labels: false }
    }
}

/// The link of the default route: of the links with an IPv4 default route the one with the lowest
/// metric; only where there is none, the same for IPv6. Of equal metrics the lowest ifindex. Never
/// a loopback.
pub fn default_route(links: &BTreeMap<LinkName, LinkFacts>) -> Option<(&LinkName, &LinkFacts)> {
    let best = |metric: fn(&LinkFacts) -> Option<u32>| {
        let candidates = links.iter().filter(|(_, device)| !device.loopback);
        candidates
            .filter_map(|(name, device)| Some((metric(device)?, device.ifindex, name, device)))
            .min_by_key(|(metric, ifindex, ..)| (*metric, *ifindex))
            .map(|(_, _, name, device)| (name, device))
    };
    best(|device| device.default_route_v4).or_else(|| best(|device| device.default_route_v6))
}

/// The privilege that this process lacks for changing links and directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// CAP_NET_ADMIN in the links' user namespace.
    #[error(
        "this needs the capability CAP_NET_ADMIN, which this process lacks: run it as root (sudo shaper …)"
    )]
    NetAdmin,
    /// Uid 0, which may write another user's process into `cgroup.procs`.
    #[error("moving processes into net_cls cgroups needs root: run it with sudo")]
    Root,
}

/// One link, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The link's number, which no other link of the namespace has while this one exists.
    pub ifindex: u32,
    /// Other names that the kernel knows it by (`IFLA_ALT_IFNAME`), up to 127 bytes each.
    pub altnames: Vec<String>,
    /// The largest packet, in bytes, without the link-layer header.
    pub mtu: u32,
    /// The device's speed. `None` where the driver does not know (virtio, or no carrier), or was
    /// not asked because no line means the link.
    pub speed: Option<Rate>,
    /// `IFLA_INFO_KIND`: `veth`, `vlan`, `bond`, `tun`…; `None` for hardware.
    pub kind: Option<String>,
    /// The bond or bridge that this link is a slave of, by ifindex.
    pub master: Option<u32>,
    /// The link below (`IFLA_LINK` of a VLAN), by ifindex, when it is in the same namespace.
    pub lower: Option<u32>,
    /// The network namespace in which the link's peer is (`IFLA_LINK_NETNSID` of a veth); `None`:
    /// this one, or there is no peer.
    pub peer_namespace: Option<NamespaceId>,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Frames begin with an Ethernet header (`ARPHRD_ETHER`), so they can have VLAN tags.
    pub ethernet: bool,
    /// `IFF_UP`: an administrator switched it on, whether or not it has a carrier.
    pub up: bool,
    /// The lowest metric of an IPv4 default route over this link, if it has one.
    pub default_route_v4: Option<u32>,
    /// The same for IPv6.
    pub default_route_v6: Option<u32>,
    /// The qdisc that packets which leave by the link meet first.
    pub root: RootQdisc,
    /// The rate of class 1:1 where our tree stands.
    pub shaped_at: Option<Rate>,
}

impl LinkFacts {
    /// An Ethernet device of that number, up, with an MTU of 1,500 bytes and the kernel's own
    /// `noqueue` at its root; its speed is unknown, and no route leads over it.
    pub fn ethernet(ifindex: u32) -> LinkFacts {
        LinkFacts {
            ifindex,
            altnames: Vec::new(),
            mtu: 1500,
            speed: None,
            kind: None,
            master: None,
            lower: None,
            peer_namespace: None,
            loopback: false,
            ethernet: true,
            up: true,
            default_route_v4: None,
            default_route_v6: None,
            root: RootQdisc::Kernel { kind: "noqueue".to_string() },
            shaped_at: None,
        }
    }

    /// Whether a default route of either family leaves by the link.
    pub fn has_default_route(&self) -> bool {
        self.default_route_v4.is_some() || self.default_route_v6.is_some()
    }
}

/// The root qdisc of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootQdisc {
    /// A qdisc with handle `0:`: the kernel put it there itself.
    Kernel {
        /// `TCA_KIND`, such as `fq_codel` or `noqueue`.
        kind: String,
    },
    /// HTB with this instance's mark.
    Ours,
    /// A qdisc that somebody else made, or another instance of shaper.
    Foreign {
        /// `TCA_KIND`, such as `htb` or `cake`.
        kind: String,
        /// The qdisc's handle; the major is not 0, which is the kernel's own.
        handle: ClassId,
        /// `rate2quantum` of an HTB qdisc, which is the mark of another instance where one made it.
        r2q: Option<u32>,
        /// `TCA_OPTIONS` as dumped, with which the qdisc is made again when taking over fails.
        options: Vec<u8>,
    },
}

/// What this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Everything was tried. Otherwise the features are those of the objects that stand, and the
    /// kernel may have more.
    pub tried: bool,
    /// HTB qdiscs can be made (`sch_htb`).
    pub htb: bool,
    /// The classifiers that work here, as far as traffic control goes.
    pub classifiers: BTreeSet<Classifier>,
    /// Why `net_cls` cannot be had, without which there is no tag; `None`: it is mounted, or can
    /// be.
    pub no_net_cls: Option<NoNetCls>,
    /// Why `classifier: auto` does without `net_cls` all the same.
    pub spared: Option<Spared>,
    /// The kernel's functions that the deciding program can call.
    pub helpers: Helpers,
    /// Whether a program at clsact's egress can be made, which clears a packet's priority.
    pub clsact: bool,
    /// The kinds of leaf qdisc that can be made, as in `TCA_KIND`.
    pub leaves: BTreeSet<&'static str>,
}

impl Features {
    /// Whether eBPF programs can decide.
    pub fn has_programs(&self) -> bool {
        [Classifier::Bpf, Classifier::Uid].iter().any(|it| self.classifiers.contains(it))
    }
}

/// Why a host has no `net_cls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNetCls {
    /// `CONFIG_CGROUP_NET_CLASSID` is not set.
    #[error("this kernel is built without net_cls (CONFIG_CGROUP_NET_CLASSID)")]
    Kernel,
    /// `cgroup_no_v1`.
    #[error("the kernel was started with `cgroup_no_v1`, which switches net_cls off")]
    Forbidden,
}

/// Why `net_cls` is left unmounted where nothing says that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spared {
    /// Users run an old Podman.
    #[error(
        "users here run Podman before 5.3, whose services with containers fail while net_cls is mounted, wherever that is"
    )]
    Podman,
    /// Somebody has it together with others in one hierarchy, whose mount cannot be seen from here.
    #[error(
        "its hierarchy is tied to other controllers (the same number in /proc/cgroups), and is mounted nowhere that can be seen from here"
    )]
    Tied,
    /// It is mounted for reading only, and the instance is not there.
    #[error("it is mounted for reading only")]
    ReadOnly,
    /// This process (the daemon, or one in a container) may not mount it.
    #[error("nothing here has it mounted, and this process may not (CAP_SYS_ADMIN)")]
    Unmountable,
}

/// Functions of the kernel that the deciding eBPF program can call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Helpers {
    /// `bpf_skb_cgroup_classid`.
    pub socket_tag: bool,
    /// `bpf_get_netns_cookie`, for programs of tc.
    pub netns_cookie: bool,
    /// Where the inode of a socket's namespace is, where a program may read it there
    /// (`bpf_probe_read_kernel`) and the kernel describes its types; needs CAP_PERFMON.
    pub namespace: Option<NamespaceLayout>,
    /// `bpf_skc_to_mptcp_sock` (Linux 5.19), where the kernel describes its types; needs
    /// CAP_PERFMON.
    pub mptcp: Option<MptcpLayout>,
    /// `bpf_skb_ancestor_cgroup_id` (Linux 4.19, CONFIG_SOCK_CGROUP_DATA, which net_cls brings
    /// along).
    pub ancestor_cgroup: bool,
}

/// Which classes the sockets of a network namespace carry as their tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// These, and no others.
    Known(BTreeSet<ClassId>),
    /// There may be a socket that carries any.
    Hidden,
}

/// What one observation saw: our own objects as values, and what else stands in our trees.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Our own objects: the links' trees, the directories and the maps.
    pub state: KernelState,
    /// What stands where only objects of ours should be, and is none that shaper writes.
    pub strange: BTreeMap<Port, Strange>,
    /// The facts of the same look.
    pub facts: Facts,
    /// Objects below our roots or in our directory that are not ours: reported and left alone, and
    /// their numbers are given to nobody.
    pub foreign: Vec<Foreign>,
    /// Classes that cannot be removed because of a foreign object: a filter sends to the class, a
    /// class hangs below it, or a directory has its classid. The kernel refuses to delete the
    /// class, or the foreign packets would come to the next owner of the minor; so such a class
    /// stays retired.
    pub bound: BTreeSet<ClassId>,
    /// Links with an `ingress` qdisc, beside which there can be no clsact.
    pub ingress: BTreeSet<LinkName>,
    /// Claims that cannot be removed because somebody else's directory is below theirs.
    pub held: BTreeSet<Claim>,
    /// Where the `net_cls` hierarchy is mounted; `None`: nowhere that this process can see.
    pub net_cls: Option<PathBuf>,
    /// The names of the other directories at the top of the hierarchy, other instances' and other
    /// programs'. While there are any, our own mount of the hierarchy stays.
    pub neighbours: BTreeSet<String>,
    /// Accounts, and ranges of subordinate uids, whose directories have a process; only of those
    /// whose directories were read.
    pub occupied: BTreeSet<Owner>,
    /// Which maps each deciding program reads.
    pub deciding: BTreeMap<Seat, MapIds>,
    /// What stands and could not be read.
    pub unread: Unread,
}

/// A filter's key over all ports: the port, the qdisc or side of clsact, the pref.
pub type Seat = (Port, ClassId, Pref);

/// What stands and could not be read: without CAP_SYS_ADMIN nobody opens maps by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    /// Why the maps of the deciding programs could not be read; `None`: they were read, or there
    /// are none.
    pub owners: Option<String>,
    /// Links whose map of flows could not be opened.
    pub flows: BTreeSet<LinkName>,
    /// The names of the programs of rules whose maps could not be read.
    pub rules: BTreeMap<(Port, Pref), String>,
}

impl Observation {
    /// Whether this process has the map of flows that the link's programs use, and so new programs
    /// can go on with it. One that may change nothing plans for somebody who may open the map.
    pub fn keeps_flows(&self, link: &LinkName) -> bool {
        let is_closed = self.facts.lacks.is_none() && self.unread.flows.contains(link);
        self.facts.flows.contains_key(link) && !is_closed
    }

    /// Whether nothing is strange.
    pub fn is_plain(&self) -> bool {
        self.strange.values().all(Strange::is_empty)
    }

    /// Whether there is a filter at this seat that shaper does not write.
    pub fn is_strange(&self, port: &Port, seat: tree::Seat) -> bool {
        self.strange.get(port).is_some_and(|strange| strange.filters.contains_key(&seat))
    }

    /// Whether the link's clsact has a filter with this instance's mark, also a strange one.
    pub fn has_hooks(&self, link: &LinkName) -> bool {
        let strange = [(link.egress(), Parent::Egress), (link.ingress(), Parent::Ingress)];
        self.state.clsact.get(link).is_some_and(Clsact::is_used)
            || strange.into_iter().any(|(port, parent)| {
                let strange = self.strange.get(&port);
                strange.is_some_and(|strange| strange.filters_of(parent).next().is_some())
            })
    }

    /// Which maps are in force of those that deciding programs read: the ones that this process
    /// has `open`, otherwise those with the highest numbers, since the kernel counts upwards.
    /// `None`: no deciding program stands.
    pub fn maps_in_force(&self, open: Option<MapIds>) -> Option<MapIds> {
        let read = || self.deciding.values().copied();
        read().find(|ids| Some(*ids) == open).or_else(|| read().max())
    }

    /// Makes every deciding program that reads other maps than these (`None`: every deciding
    /// program) a strange filter, so that the plan replaces it.
    pub fn distrust_all_but(&mut self, ids: Option<MapIds>) {
        let others = self.deciding.iter().filter(|(_, reads)| Some(**reads) != ids);
        for ((port, parent, pref), _) in others {
            let tree = self.state.trees.get_mut(port);
            let (parent, filters) = match parent.shard() {
                _ if *parent == ClassId::EGRESS => {
                    let clsact = self.state.clsact.get_mut(&port.link);
                    (Parent::Egress, clsact.map(|clsact| &mut clsact.egress.filters))
                }
                _ if *parent == ClassId::INGRESS => {
                    let clsact = self.state.clsact.get_mut(&port.link);
                    (Parent::Ingress, clsact.map(|clsact| &mut clsact.ingress.filters))
                }
                None => (Parent::Root, tree.map(|tree| &mut tree.filters)),
                Some(shard) => {
                    (Parent::Shard(shard), tree.and_then(|tree| tree.shards.get_mut(&shard)))
                }
            };
            let Some(filters) = filters else { continue };
            if let Some(Filter::Tag(_) | Filter::Learn(_) | Filter::Label(_)) = filters.get(pref)
                && let Some(filter) = filters.remove(pref)
            {
                let (protocol, kind) = (filter.protocol(), "bpf, reads other maps".to_string());
                let filter = StrangeFilter { protocol, kind, tables: Vec::new() };
                let strange = self.strange.entry(port.clone()).or_default();
                strange.filters.insert(parent.at(*pref), filter);
            }
        }
    }
}
