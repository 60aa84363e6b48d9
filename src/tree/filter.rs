//! Filters below our root qdisc and at clsact: at which pref each is, and what it decides.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{RuleProgram, U32Rules};

/// A filter's preference: lower is asked first. We use the ones named here and no other; a filter
/// of ours under our root at any other pref is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref(pub u16);

impl Pref {
    /// The u32 rules of IPv4, which are asked before the tag. Each kind of filter has a pair of
    /// prefs, so that a changed filter is added whole at one of them before the old one is deleted
    /// at the other. Two protocols cannot share a pref (`Protocol mismatch for filter with
    /// specified priority`), nor can two kinds. On Ethernet the rules of both families are one
    /// filter of protocol all, at this pair.
    pub const RULES_V4: [Pref; 2] = [Pref(100), Pref(101)];
    /// The u32 rules of IPv6 on a link that is no Ethernet.
    pub const RULES_V6: [Pref; 2] = [Pref(102), Pref(103)];
    /// The prefs of the u32 rules of both families.
    pub const RULES: [Pref; 4] =
        [Pref::RULES_V4[0], Pref::RULES_V4[1], Pref::RULES_V6[0], Pref::RULES_V6[1]];
    /// The eBPF program of the rules that u32 cannot decide, asked after the u32 rules.
    pub const PROGRAM: [Pref; 2] = [Pref(150), Pref(151)];
    /// The filter that says whose a packet is, asked last.
    pub const TAG: [Pref; 2] = [Pref(200), Pref(201)];
    /// The program that clears priorities at clsact's egress, asked before all other filters there,
    /// which may end the search.
    pub const PRIORITY: [Pref; 2] = [Pref(1), Pref(2)];

    /// Whether shaper has filters at this pref below the root.
    pub fn is_ours(self) -> bool {
        [Pref::RULES_V4, Pref::RULES_V6, Pref::PROGRAM, Pref::TAG]
            .iter()
            .any(|pair| pair.contains(&self))
    }
}

impl fmt::Display for Pref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All that stands at one pref below our root or at clsact's egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Explicit rules in order of precedence.
    U32 {
        /// Which packets the filter is asked about.
        protocol: Protocol,
        /// The rules with their hash tables.
        rules: U32Rules,
    },
    /// The rules from the first one on that asks whose a packet is or which VLAN it is in, as one
    /// eBPF program.
    Program(RuleProgram),
    /// Says whose a packet is, by the packet's socket. Protocol all, or IPv6 would escape it.
    Tag(Tag),
    /// At clsact's egress: clears a priority that names a class of ours, but not where a socket of
    /// our own network namespace asked for it and can be told from others', and lets every packet
    /// go on.
    ClearPriority(Sockets),
    /// At a pref of ours, something that shaper does not write: half an update, or another
    /// program's filter. Never desired, so always replaced.
    Unknown {
        /// Ethertype.
        protocol: u16,
        /// `TCA_KIND`.
        kind: String,
        /// The numbers of its u32 hash tables, which stay when the pref is deleted.
        tables: Vec<u16>,
    },
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// In host order.
    pub fn ethertype(self) -> u16 {
        match self {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        }
    }
}

/// Which packets a u32 filter is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Packets of one family without a VLAN tag: all packets of that family on links that are no
    /// Ethernet. Where a packet has a VLAN tag, the kernel compares the ethertype of the outermost
    /// one (`skb_protocol` in `__tcf_classify`, net/sched/cls_api.c).
    Ip(Family),
    /// Every packet: the rules find the IP header by themselves.
    All,
}

impl Protocol {
    /// All protocols that our filters have.
    pub const ALL: [Protocol; 3] =
        [Protocol::Ip(Family::V4), Protocol::Ip(Family::V6), Protocol::All];

    /// In host order.
    pub fn ethertype(self) -> u16 {
        match self {
            Protocol::Ip(family) => family.ethertype(),
            // ETH_P_ALL (linux/if_ether.h).
            Protocol::All => 3,
        }
    }
}

impl From<Family> for Protocol {
    fn from(family: Family) -> Protocol {
        Protocol::Ip(family)
    }
}

impl Filter {
    /// The protocol of the filter, as an ethertype in host order.
    pub fn protocol(&self) -> u16 {
        match self {
            Filter::U32 { protocol, .. } => protocol.ethertype(),
            Filter::Program(_) | Filter::Tag(_) | Filter::ClearPriority(_) => {
                Protocol::All.ethertype()
            }
            Filter::Unknown { protocol, .. } => *protocol,
        }
    }

    /// Whether the filter is a set of u32 rules, ours or another's.
    pub fn is_u32(&self) -> bool {
        match self {
            Filter::U32 { .. } => true,
            Filter::Program(_) | Filter::Tag(_) | Filter::ClearPriority(_) => false,
            Filter::Unknown { kind, .. } => kind == "u32",
        }
    }

    /// The numbers of the hash tables that stay when the filter is deleted from `pref`, in the
    /// order in which they can be deleted: a table cannot go before the tables that link to it.
    pub fn tables(&self, pref: Pref) -> Vec<u16> {
        match self {
            Filter::U32 { rules, .. } => {
                let first = pref.tables().start;
                rules.tables.keys().rev().map(|number| first + number).collect()
            }
            Filter::Program(_) | Filter::Tag(_) | Filter::ClearPriority(_) => Vec::new(),
            Filter::Unknown { tables, .. } => tables.clone(),
        }
    }
}

/// What tells users apart (`classifier` in the policy), the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Classifier {
    /// An eBPF program in `cls_bpf`: by the owner of the packet's socket, then by the socket's tag.
    Bpf,
    /// `cls_cgroup`: by the tag alone.
    Cgroup,
}

/// The filter after the rules, which finds the class of whoever sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// `cls_cgroup`.
    Cgroup,
    /// The deciding eBPF program. It reads the instance's one set of maps
    /// ([`super::KernelState::owners`]).
    Bpf(Program),
}

impl Tag {
    /// The classifier that the filter is of.
    pub fn classifier(self) -> Classifier {
        match self {
            Tag::Cgroup => Classifier::Cgroup,
            Tag::Bpf(_) => Classifier::Bpf,
        }
    }

    /// Whether the filter turns the tag of a shard's user into the shard's class.
    pub fn reads_shards(self) -> bool {
        matches!(self, Tag::Bpf(Program { shards: true, .. }))
    }
}

/// What differs between deciding programs of one version of shaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// At the root of a link that has shards: the class of a shard's user (`e000:10`) becomes the
    /// shard's own class (`1:e000`), whose qdisc asks the program again. `cls_cgroup` would answer
    /// with a classid that the root qdisc does not know.
    pub shards: bool,
    /// Which function of the kernel reads the tag.
    pub tag: TagHelper,
    /// Whose sockets are asked for their owner.
    pub sockets: Sockets,
    /// Where the owner and the tag of an MPTCP connection are read; `None`: the owner and the tag
    /// of each subflow count.
    pub mptcp: Option<MptcpLayout>,
}

/// Where an MPTCP socket keeps its owner (`sk_uid`) and its tag, in bytes from its beginning. Its
/// subflows, which send the packets, have an owner and a tag of their own, which neither fchown nor
/// a move of their process reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MptcpLayout {
    /// Bytes from the start of the MPTCP socket to its owner's uid.
    pub owner: i16,
    /// Bytes from the start of the MPTCP socket to its tag.
    pub tag: i16,
}

/// The function that reads a packet's `net_cls` classid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagHelper {
    /// `bpf_skb_cgroup_classid` (151, Linux 5.10): the socket's.
    Socket,
    /// `bpf_get_cgroup_classid` (17): the current task's in process context, else the socket's.
    #[default]
    Task,
}

/// Which sockets' owners are believed. The kernel translates an owner through the user namespace of
/// the *socket's* network namespace, so a guest's uid 1000 reads as our uid 1000. A guest's socket
/// reaches a link only through macvlan, ipvlan and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sockets {
    /// Sockets of the network namespace with this cookie (`bpf_get_netns_cookie` for tc, Linux
    /// 6.15).
    Cookie(u64),
    /// All sockets: none of another namespace can send here.
    All,
    /// Some sockets may be another namespace's, and the program cannot tell which: the tag decides,
    /// and the owner only where there is no tag.
    #[default]
    Mixed,
}

/// One combination of the lists of a line of `rules`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Source network; `None`: any.
    pub src: Option<IpNet>,
    /// Destination network; `None`: any.
    pub dst: Option<IpNet>,
    /// Source port; `None`: any.
    pub sport: Option<Bits<u16>>,
    /// Destination port; `None`: any.
    pub dport: Option<Bits<u16>>,
    /// IP protocol number.
    pub proto: Option<Bits<u8>>,
}

/// The numbers that have `value` in the bits of `mask`. With all bits in the mask that is one
/// number; with the last ones open, a power of two of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits<T> {
    /// The compared bits, as they must be; 0 where the mask is 0.
    pub value: T,
    /// Which bits are compared.
    pub mask: T,
}

impl From<u16> for Bits<u16> {
    fn from(value: u16) -> Bits<u16> {
        Bits { value, mask: u16::MAX }
    }
}

impl From<u8> for Bits<u8> {
    fn from(value: u8) -> Bits<u8> {
        Bits { value, mask: u8::MAX }
    }
}

impl Match {
    /// The family of the match's addresses; `None`: it has none, and is for both.
    pub fn family(&self) -> Option<Family> {
        self.src.or(self.dst).map(|net| match net.addr() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        })
    }
}
