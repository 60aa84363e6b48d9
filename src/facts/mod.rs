//! What is true of a host besides our own objects, and that desired depends on: links, features,
//! accounts. Looked at once, and frozen with the plan. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod subuid;

pub use self::subuid::{SubordinateUids, Subuids};
use crate::tree::{
    Claim, Classifier, Filter, Foreign, KernelState, LinkName, MapIds, MptcpLayout, Owner, Port,
    Pref, Program, Sockets, TagHelper, UidRange,
};
use crate::units::{ClassId, Psched, Rate};

/// What was true when the plan was made and that desired depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The clock in whose ticks HTB keeps bursts.
    pub psched: Psched,
    /// The network namespace's number in eBPF (`SO_NETNS_COOKIE`, Linux 5.14).
    pub netns_cookie: Option<u64>,
    /// No macvlan, ipvlan and the like can bring another namespace's sockets to a link.
    pub own_sockets_only: bool,
    /// All links of the network namespace.
    pub links: BTreeMap<LinkName, LinkFacts>,
    /// What this kernel can do, tried once at the start.
    pub features: Features,
    /// What this process lacks to change links and directories; `None`: nothing.
    pub lacks: Option<Lack>,
    /// What name services say of the uids that run and of the names in the policy.
    pub accounts: Accounts,
    /// The systemd units that there are, and under which name their processes are found: an alias
    /// is another's. `None`: nobody asked.
    pub units: Option<BTreeMap<String, String>>,
    /// Retired classes that have no backlog and have sent nothing for long enough, on any link.
    pub quiet: BTreeSet<ClassId>,
}

impl Facts {
    /// The link that traffic to the rest of the world leaves by: of those with an IPv4 default
    /// route the one with the lowest metric, and only where none has one, the same for IPv6. Equal
    /// metrics: the lowest ifindex. Never a loopback.
    pub fn default_route(&self) -> Option<(&LinkName, &LinkFacts)> {
        let best = |metric: fn(&LinkFacts) -> Option<u32>| {
            let candidates = self.links.iter().filter(|(_, device)| !device.loopback);
            candidates
                .filter_map(|(name, device)| Some((metric(device)?, device.ifindex, name, device)))
                .min_by_key(|(metric, ifindex, ..)| (*metric, *ifindex))
                .map(|(_, _, name, device)| (name, device))
        };
        best(|device| device.default_route_v4).or_else(|| best(|device| device.default_route_v6))
    }

    /// Whether sockets of other namespaces can send through the link: macvlan and ipvlan are on
    /// Ethernet, and not on loopback (`macvlan_port_create`, drivers/net/macvlan.c).
    pub fn carries_others(&self, link: &LinkName) -> bool {
        let device = self.links.get(link);
        !self.own_sockets_only && device.is_some_and(|it| it.ethernet && !it.loopback)
    }

    /// The best deciding program here, for a qdisc without shards below it.
    pub fn program(&self) -> Program {
        let Helpers { socket_tag, netns_cookie, mptcp } = self.features.helpers;
        let sockets = match self.netns_cookie.filter(|_| netns_cookie) {
            Some(cookie) => Sockets::Cookie(cookie),
            None if self.own_sockets_only => Sockets::All,
            None => Sockets::Mixed,
        };
        let tag = if socket_tag { TagHelper::Socket } else { TagHelper::Task };
        Program { shards: false, tag, sockets, mptcp }
    }
}

/// What a process lacks that may not change links and directories.
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
    /// Its number, which the kernel gives to no other link of the namespace while it lives.
    pub ifindex: u32,
    /// Other names that the kernel knows it by (`IFLA_ALT_IFNAME`), up to 127 bytes each.
    pub altnames: Vec<String>,
    /// The largest packet, in bytes, without the link-layer header.
    pub mtu: u32,
    /// `None` where the driver does not know (virtio, or no carrier), or nobody means the link.
    pub speed: Option<Rate>,
    /// `IFLA_INFO_KIND`: `veth`, `vlan`, `bond`, `tun`…; `None` for hardware.
    pub kind: Option<String>,
    /// The bond or bridge that this link is a slave of, by ifindex.
    pub master: Option<u32>,
    /// The link below (`IFLA_LINK` of a VLAN), by ifindex, when it is in the same namespace.
    pub lower: Option<u32>,
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
            loopback: false,
            ethernet: true,
            up: true,
            default_route_v4: None,
            default_route_v6: None,
            root: RootQdisc::Kernel { kind: "noqueue".to_string() },
            shaped_at: None,
        }
    }

    /// Whether a default route of either family goes over it.
    pub fn has_default_route(&self) -> bool {
        self.default_route_v4.is_some() || self.default_route_v6.is_some()
    }
}

/// What stands at a link's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootQdisc {
    /// Handle `0:`: the kernel put it there itself.
    Kernel {
        /// `TCA_KIND`, such as `fq_codel` or `noqueue`.
        kind: String,
    },
    /// HTB with this instance's mark.
    Ours,
    /// Somebody's; also another instance's of this program.
    Foreign {
        /// `TCA_KIND`, such as `htb` or `cake`.
        kind: String,
        /// Its major is not 0: a qdisc with handle `0:` is the kernel's own.
        handle: ClassId,
        /// `rate2quantum` where it is HTB: another instance's mark, if it is one's.
        r2q: Option<u32>,
        /// `TCA_OPTIONS` as dumped, to put it back when taking it over fails.
        options: Vec<u8>,
    },
}

/// What this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// All was tried. Otherwise this is what stands, and so is known to work; there may be more.
    pub tried: bool,
    /// HTB qdiscs can be made (`sch_htb`).
    pub htb: bool,
    /// Filters that can tell whose a packet is: `cls_cgroup`, or `cls_bpf` with our program.
    pub classifiers: BTreeSet<Classifier>,
    /// What such a program may ask the kernel.
    pub helpers: Helpers,
    /// Programs at clsact's egress, which clear a packet's priority.
    pub clsact: bool,
    /// Leaf qdisc kinds.
    pub leaves: BTreeSet<&'static str>,
}

/// Functions of the kernel that the deciding eBPF program can call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Helpers {
    /// `bpf_skb_cgroup_classid`.
    pub socket_tag: bool,
    /// `bpf_get_netns_cookie`, for programs of tc.
    pub netns_cookie: bool,
    /// `bpf_skc_to_mptcp_sock` (Linux 5.19), where the kernel describes its types; needs
    /// CAP_PERFMON.
    pub mptcp: Option<MptcpLayout>,
}

/// What NSS and `/etc/subuid` said, for the names in the policy and the uids that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Uids that have a process in the links' network namespace.
    pub running: BTreeSet<u32>,
    /// By uid; only accounts that were asked for or run.
    pub by_uid: BTreeMap<u32, Account>,
    /// Account names in the policy → uid; `None`: NSS says there is no such account.
    pub by_name: BTreeMap<String, Option<u32>>,
    /// Group names in the policy → gid; `None`: no such group.
    pub groups: BTreeMap<String, Option<u32>>,
    /// Uids that run or were asked for and that NSS says no account has.
    pub absent: BTreeSet<u32>,
    /// `/etc/subuid`.
    pub subuids: SubordinateUids,
    /// Ranges of subordinate uids whose one class somebody runs in.
    #[serde(skip)]
    pub running_ranges: BTreeSet<UidRange>,
    /// NSS could not answer: not the same as "no such account".
    pub unavailable: Option<String>,
}

/// An account as NSS has it; its uid is the key under which it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's name: of several with one uid, the one that NSS answers with.
    pub name: String,
    /// Primary and supplementary.
    pub gids: BTreeSet<u32>,
}

impl Accounts {
    /// Whether NSS has said what it has to say about `uid`.
    pub fn has_answer(&self, uid: u32) -> bool {
        self.by_uid.contains_key(&uid) || self.absent.contains(&uid)
    }

    /// Whether an account, or somebody in a range of subordinate uids, has a process.
    pub fn runs(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Uid(uid) => self.running.contains(uid),
            Owner::Subuids(range) => {
                let UidRange { first, last } = *range;
                self.running_ranges.contains(range)
                    || self.running.range(first..=last).next().is_some()
            }
            _ => false,
        }
    }

    /// Takes it as one that has none.
    pub fn dismiss(&mut self, owner: &Owner) {
        match owner {
            Owner::Uid(uid) => {
                self.running.remove(uid);
            }
            Owner::Subuids(range) => {
                self.running_ranges.remove(range);
            }
            _ => {}
        }
    }

    /// Takes it as one that has.
    pub fn admit(&mut self, owner: &Owner) {
        match owner {
            Owner::Uid(uid) => {
                self.running.insert(*uid);
            }
            Owner::Subuids(range) => {
                self.running_ranges.insert(*range);
            }
            _ => {}
        }
    }
}

/// What one observation saw: our own objects as values, and what else stands in our trees.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The links' trees, the directories and the maps, as they are.
    pub state: KernelState,
    /// What is so around them.
    pub facts: Facts,
    /// Under our root or in our directory, but not ours: reported, left alone, never reused.
    pub foreign: Vec<Foreign>,
    /// Classes that foreign objects hold: a filter sends to the class, a class hangs below it, a
    /// directory has its tag. The kernel deletes no such class, or another's packets would be in
    /// whoever gets the minor next; so they stay retired.
    pub bound: BTreeSet<ClassId>,
    /// Links with an `ingress` qdisc, which has clsact's place.
    pub ingress: BTreeSet<LinkName>,
    /// Claims with somebody else's directory below them: they cannot be removed.
    pub held: BTreeSet<Claim>,
    /// Where the `net_cls` hierarchy is mounted; `None`: nowhere that we can see.
    pub net_cls: Option<PathBuf>,
    /// The names of the other directories in the hierarchy: other instances', and those of other
    /// programs. While there are any our mount of it stays.
    pub neighbours: BTreeSet<String>,
    /// Accounts, and ranges of subordinate uids, in whose directories somebody is, of those that
    /// were looked into.
    pub occupied: BTreeSet<Owner>,
    /// Where each deciding program stands, and which maps it reads.
    pub deciding: BTreeMap<Seat, MapIds>,
    /// What stands and could not be read.
    pub unread: Unread,
}

/// Where a filter stands: the port, the qdisc, the pref.
pub type Seat = (Port, ClassId, Pref);

/// What stands and could not be read: without CAP_SYS_ADMIN nobody opens maps by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    /// Why the maps of the deciding programs could not be read; `None`: they were, or there are
    /// none.
    pub owners: Option<String>,
    /// The names of the programs of rules whose maps could not be read.
    pub rules: BTreeMap<(Port, Pref), String>,
}

impl Observation {
    /// Deciding programs that read no maps of these numbers (`None`: any that is there) become
    /// filters that we do not know, so that each plan replaces them.
    pub fn distrust_all_but(&mut self, ids: Option<MapIds>) {
        let others = self.deciding.iter().filter(|(_, reads)| Some(**reads) != ids);
        for ((port, parent, pref), _) in others {
            let Some(tree) = self.state.trees.get_mut(port) else { continue };
            let filters = match parent.shard() {
                None => Some(&mut tree.filters),
                Some(shard) => tree.shards.get_mut(&shard),
            };
            let filter = filters.and_then(|filters| filters.get_mut(pref));
            if let Some(filter @ Filter::Tag(_)) = filter {
                let (protocol, kind) = (filter.protocol(), "bpf, reads other maps".to_string());
                *filter = Filter::Unknown { protocol, kind, tables: Vec::new() };
            }
        }
    }
}
