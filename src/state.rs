//! What the kernel holds, as one value: the same type says what is (observed) and what should be
//! (desired), in the units that the kernel echoes back, so that equality is `==` and dry run,
//! verify, undo and clear are all the same diff. Also the facts that desired depends on, frozen
//! with the plan, and the marks by which we know our own. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod claim;
mod filter;
mod owners;
mod program_rules;
mod subuid;
mod u32;

pub use self::claim::{Claim, Key, NotAClaim, Owner};
pub use self::filter::{
    Bits, Classifier, Family, Filter, Match, MptcpLayout, Pref, Program, Protocol, Sockets, Tag,
    TagHelper,
};
pub use self::owners::{MapIds, OwnerChange, OwnerTable, UidPrefix, Uids};
pub use self::program_rules::{Packets, ProgramRule, Ranges, RuleMapIds, RuleProgram, Senders};
pub use self::subuid::{NotARange, SubordinateUids, Subuids, UidRange};
pub use self::u32::{U32Hash, U32Key, U32Link, U32Node, U32Rule, U32Rules, U32Table};
use crate::units::{Bytes, ClassId, Psched, Rate, Shard, Ticks};

/// Everything of one instance: its trees on links and its claims in the `net_cls` hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    pub net_cls: NetCls,
    /// The links that have our root qdisc, and the tree below it.
    pub links: BTreeMap<LinkName, Tree>,
    /// The qdiscs `clsact` that stand, whatever root qdisc their links have.
    pub clsact: BTreeMap<LinkName, Clsact>,
    /// The directories below the instance's, each with the classid it holds.
    pub claims: BTreeMap<Claim, ClassId>,
    /// What the maps of the deciding programs hold; `None` where no program of ours stands.
    pub owners: Option<OwnerTable>,
}

/// A link's qdisc `clsact`. At its egress side a packet passes filters before it comes to the root
/// qdisc. It belongs to nobody and carries no mark: it goes with the last filter of ours, unless
/// there are others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clsact {
    /// Ours, at its egress side.
    pub filters: BTreeMap<Pref, Filter>,
    /// Prefs of others at its egress side, where we put nothing.
    pub foreign: BTreeSet<Pref>,
    /// Others have filters in it, at either side.
    pub shared: bool,
}

/// Where the `net_cls` hierarchy is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetCls {
    /// Nowhere that we can see.
    #[default]
    Unmounted,
    /// At our own place: mounted by an earlier run.
    Ours,
    /// Somewhere else, by the host.
    Host,
}

/// A network interface's name, as the kernel allows it: 1–15 bytes, no `/`, no white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// Mirrors `dev_valid_name` (net/core/dev.c).
    pub fn new(name: &str) -> Option<LinkName> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let valid =
            (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad);
        valid.then(|| LinkName(name.to_string()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands below our root qdisc on one link. The qdisc itself (`htb`, handle `1:`, default
/// `0xfffe`, r2q = [`Mark`]) has nothing that could differ: HTB refuses to change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Of the root qdisc and of the shards below it.
    pub classes: BTreeMap<ClassId, Class>,
    /// Leaf qdiscs by the class they hang under; the qdisc's own handle is `minor:`.
    pub leaves: BTreeMap<ClassId, LeafQdisc>,
    /// The filters of the root qdisc.
    pub filters: BTreeMap<Pref, Filter>,
    /// u32 hash tables, by number, whose pref is gone. They keep the classes that their rules send
    /// to from being deleted, and nothing lists them. Never desired.
    pub left_tables: BTreeSet<u16>,
    /// The filters of each shard's qdisc.
    pub shards: BTreeMap<Shard, BTreeMap<Pref, Filter>>,
}

impl Tree {
    /// The class that this one hangs in, also across the border of a shard's qdisc: `e000:1` hangs
    /// in `1:e000`.
    pub fn above(&self, classid: ClassId) -> Option<ClassId> {
        match classid.shard() {
            Some(shard) if classid == shard.root() => Some(shard.class()),
            _ => self.classes.get(&classid)?.parent,
        }
    }

    /// What the policy calls its parent, the link's class or a group's: shards are looked through.
    pub fn parent(&self, classid: ClassId) -> Option<ClassId> {
        let mut parent = self.above(classid)?;
        while parent.shard().is_some() || Shard::of_class(parent).is_some() {
            parent = self.above(parent)?;
        }
        Some(parent)
    }
}

/// An HTB class (`struct tc_htb_opt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// In the same qdisc. `None`: a root class, directly below the qdisc.
    pub parent: Option<ClassId>,
    pub rate: Rate,
    pub ceil: Rate,
    /// Time to send the burst at `rate` (`buffer`).
    pub burst: Ticks,
    /// Time to send the cburst at `ceil` (`cbuffer`).
    pub cburst: Ticks,
    pub role: Role,
}

/// Inner classes ignore prio and quantum (the kernel takes them and says nothing), so they have
/// none; which role a class has follows from its minor ([`Minor::is_inner`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Inner,
    Leaf {
        /// 0 (served first) to 7.
        prio: u8,
        /// Bytes a turn when classes share what is left over.
        quantum: u32,
    },
}

/// The qdisc that holds a leaf class's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafQdisc {
    /// `flows` cannot be changed later, so any value found is accepted and none is kept here.
    FqCodel,
    Sfq,
    Bfifo {
        limit: Bytes,
    },
    /// Limit in packets.
    Pfifo {
        limit: u32,
    },
    Cake,
    /// The HTB of a shard, below the shard's class; its classes and filters are in the [`Tree`].
    Shard,
    /// Somebody put a qdisc of their own below a class of ours. Never desired, so always replaced.
    Other {
        handle: ClassId,
    },
}

impl LeafQdisc {
    /// Flow queues in an fq_codel leaf: a leaf takes 11 kB with these, 73 kB with the default
    /// 1,024, and only one user's flows share them. `fq_codel_change` refuses to change them later,
    /// so one constant for all.
    pub const FQ_CODEL_FLOWS: u32 = 32;

    /// Its handle below this class.
    pub fn handle(&self, below: ClassId) -> ClassId {
        match self {
            LeafQdisc::Other { handle } => *handle,
            _ => ClassId::qdisc(below.minor().0),
        }
    }

    /// The kind's name, as in `TCA_KIND`.
    pub fn kind(&self) -> &'static str {
        match self {
            LeafQdisc::FqCodel => "fq_codel",
            LeafQdisc::Sfq => "sfq",
            LeafQdisc::Bfifo { .. } => "bfifo",
            LeafQdisc::Pfifo { .. } => "pfifo",
            LeafQdisc::Cake => "cake",
            LeafQdisc::Shard => "htb",
            LeafQdisc::Other { .. } => "foreign",
        }
    }
}

/// The mark in our root qdisc's r2q: `0x5348` ("SH") and a 16-bit hash of the instance's name, so
/// that two instances never take each other's tree. HTB accepts any r2q and uses it only to
/// invent a quantum, which we always give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u32);

impl Mark {
    const PROGRAM: u32 = 0x5348 << 16;
    /// In a shard's qdisc, which needs no instance: it hangs below a class of ours.
    pub const SHARD: Mark = Mark(Self::PROGRAM);

    /// FNV-1a of the instance's name, folded to 16 bits.
    pub fn for_instance(name: &str) -> Mark {
        let hash =
            name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Mark(Self::PROGRAM | ((hash >> 16) ^ (hash & 0xffff)))
    }

    /// Whether an r2q is the mark of some instance of this program.
    pub fn is_shaper(r2q: u32) -> bool {
        r2q & 0xffff_0000 == Self::PROGRAM
    }
}

/// What was true when the plan was made and that desired depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub psched: Psched,
    /// The network namespace's number in eBPF (`SO_NETNS_COOKIE`, Linux 5.14).
    pub netns_cookie: Option<u64>,
    /// No macvlan, ipvlan and the like can bring another namespace's sockets to a link.
    pub own_sockets_only: bool,
    /// All links of the network namespace.
    pub links: BTreeMap<LinkName, LinkFacts>,
    pub features: Features,
    pub accounts: Accounts,
    /// The systemd units that there are, and under which name their processes are found: an alias
    /// is another's. `None`: nobody asked.
    pub units: Option<BTreeMap<String, String>>,
    /// Retired classes that have no backlog and have sent nothing for long enough, on any link.
    pub quiet: BTreeSet<ClassId>,
}

impl Facts {
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

/// One link, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    pub ifindex: u32,
    /// Other names that the kernel knows it by (`IFLA_ALT_IFNAME`), up to 127 bytes each.
    pub altnames: Vec<String>,
    pub mtu: u32,
    /// `None` where the driver does not know (virtio, or no carrier), or nobody means the link.
    pub speed: Option<Rate>,
    /// `IFLA_INFO_KIND`: `veth`, `vlan`, `bond`, `tun`…; `None` for hardware.
    pub kind: Option<String>,
    /// The bond or bridge that this link is a slave of, by ifindex.
    pub master: Option<u32>,
    /// The link below (`IFLA_LINK` of a VLAN), by ifindex, when it is in the same namespace.
    pub lower: Option<u32>,
    pub loopback: bool,
    /// Frames begin with an Ethernet header (`ARPHRD_ETHER`), so they can have VLAN tags.
    pub ethernet: bool,
    pub up: bool,
    /// The lowest metric of an IPv4 default route over this link, if it has one.
    pub default_route_v4: Option<u32>,
    pub default_route_v6: Option<u32>,
    pub root: RootQdisc,
    /// The rate of class 1:1 where our tree stands.
    pub shaped_at: Option<Rate>,
}

/// What stands at a link's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootQdisc {
    /// Handle `0:`: the kernel put it there itself.
    Kernel { kind: String },
    /// HTB with this instance's mark.
    Ours,
    /// Somebody's; also another instance's of this program.
    Foreign {
        kind: String,
        handle: ClassId,
        r2q: Option<u32>,
        /// `TCA_OPTIONS` as dumped, to put it back when taking it over fails.
        options: Vec<u8>,
    },
}

/// What this kernel can do, as tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    pub htb: bool,
    pub classifiers: BTreeSet<Classifier>,
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
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
    pub state: KernelState,
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
    /// Somebody else has directories in the hierarchy, so our mount of it stays.
    pub net_cls_shared: bool,
}

/// An object that stands among ours and carries no claim of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    Class {
        link: LinkName,
        classid: ClassId,
    },
    Filter {
        link: LinkName,
        /// The qdisc: the root or a shard's.
        parent: ClassId,
        pref: Pref,
        /// Ethertype.
        protocol: u16,
        kind: String,
    },
    Directory {
        path: String,
        /// Its tag, which it has from the directory that it was made in unless somebody wrote it.
        classid: ClassId,
        /// The claim whose directory it is in, which cannot be removed while it is there.
        below: Option<Claim>,
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Class { link, classid } => write!(f, "class {classid} on {link}"),
            Foreign::Filter { link, pref, kind, .. } => {
                write!(f, "{kind} filter pref {pref} on {link}")
            }
            Foreign::Directory { path, .. } => write!(f, "directory {path}"),
        }
    }
}

/// Counters of one class (`TCA_STATS2`, `struct tc_htb_xstats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub drops: u64,
    pub overlimits: u64,
    pub backlog_bytes: u64,
    pub backlog_packets: u64,
    pub lends: u64,
    pub borrows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_marks_of_their_own() {
        let (a, b) = (Mark::for_instance("shaper"), Mark::for_instance("shaper-4026531840"));
        assert_ne!(a, b);
        assert!(Mark::is_shaper(a.0) && Mark::is_shaper(b.0));
        assert!(!Mark::is_shaper(10), "tc's default r2q");
    }
}
