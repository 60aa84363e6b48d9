//! Filters under our root: which stand where, and what they say.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{RuleProgram, U32Rules};

/// A filter's preference: lower is asked first. We use the ones named here and no other; a filter
/// of ours under our root at any other pref is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref(pub u16);

impl Pref {
    /// Rules come first, the tag after them; each has two places, so that a changed one is added
    /// whole beside the old one before that is deleted. ip and ipv6 cannot share a pref
    /// (`Protocol mismatch for filter with specified priority`), nor can two kinds. On Ethernet the
    /// rules of both families, which are one filter of protocol all, have the first pair.
    pub const RULES_V4: [Pref; 2] = [Pref(100), Pref(101)];
    /// The u32 rules of IPv6 on a link that is no Ethernet.
    pub const RULES_V6: [Pref; 2] = [Pref(102), Pref(103)];
    /// The prefs of both families.
    pub const RULES: [Pref; 4] =
        [Pref::RULES_V4[0], Pref::RULES_V4[1], Pref::RULES_V6[0], Pref::RULES_V6[1]];
    /// Behind the u32 rules, the rest of the rules as one eBPF program.
    pub const PROGRAM: [Pref; 2] = [Pref(150), Pref(151)];
    /// Whose a packet is; asked last.
    pub const TAG: [Pref; 2] = [Pref(200), Pref(201)];
    /// At clsact's egress: before all others, which may end the search.
    pub const PRIORITY: [Pref; 2] = [Pref(1), Pref(2)];

    /// Whether it is one of those at which this program has filters below the root.
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

/// All that stands at one pref under our root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Explicit rules in order of precedence.
    U32 {
        /// Which packets it is asked about.
        protocol: Protocol,
        /// The rules with their hash tables.
        rules: U32Rules,
    },
    /// From the first rule on that asks whose a packet is or which VLAN it is in: those rules.
    Program(RuleProgram),
    /// Whose packet it is, by its socket; protocol all, or IPv6 escapes it.
    Tag(Tag),
    /// At clsact's egress: clears the priority of packets of other network namespaces' sockets
    /// where it names a class of ours, and lets every packet go on.
    ClearPriority(Sockets),
    /// Something that we do not write at a pref of ours: half an update, or another's hand. Never
    /// desired, so it is always replaced. The text says what was found; `tables` are the numbers of
    /// u32 hash tables, which do not go with their pref.
    Unknown {
        /// Ethertype.
        protocol: u16,
        /// `TCA_KIND`.
        kind: String,
        /// Its hash tables, which stay when the pref goes.
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
    /// Those of one family without a VLAN tag: all there are on links that are no Ethernet. The
    /// kernel compares the ethertype of the outermost tag, where there is one (`skb_protocol` in
    /// `__tcf_classify`, net/sched/cls_api.c).
    Ip(Family),
    /// Every packet: the rules look for themselves where its IP header is.
    All,
}

impl Protocol {
    /// All that our filters have.
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
    /// The protocol that it is for, as an ethertype.
    pub fn protocol(&self) -> u16 {
        match self {
            Filter::U32 { protocol, .. } => protocol.ethertype(),
            Filter::Program(_) | Filter::Tag(_) | Filter::ClearPriority(_) => {
                Protocol::All.ethertype()
            }
            Filter::Unknown { protocol, .. } => *protocol,
        }
    }

    /// Whether it is a set of u32 rules.
    pub fn is_u32(&self) -> bool {
        match self {
            Filter::U32 { .. } => true,
            Filter::Program(_) | Filter::Tag(_) | Filter::ClearPriority(_) => false,
            Filter::Unknown { kind, .. } => kind == "u32",
        }
    }

    /// The hash tables that stay when it is deleted from `pref`, in the order in which they can be:
    /// a table cannot go before what links to it.
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
    /// An eBPF program in `cls_bpf`: by the socket's owner, then by its tag.
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
    /// Which of the two it is.
    pub fn classifier(self) -> Classifier {
        match self {
            Tag::Cgroup => Classifier::Cgroup,
            Tag::Bpf(_) => Classifier::Bpf,
        }
    }

    /// Whether it knows the way to a shard's class.
    pub fn reads_shards(self) -> bool {
        matches!(self, Tag::Bpf(Program { shards: true, .. }))
    }
}

/// What differs between deciding programs of one version of shaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// At the root of a link that has shards: a class of a shard's (`e000:10`) becomes that shard's
    /// class (`1:e000`), whose qdisc asks the program again. `cls_cgroup` would give a classid that
    /// the root qdisc does not know.
    pub shards: bool,
    /// Which function of the kernel reads the tag.
    pub tag: TagHelper,
    /// Whose sockets are asked for their owner.
    pub sockets: Sockets,
    /// Where the owner and the tag of MPTCP connections are read; `None`: their subflows' own
    /// count.
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
/// the *socket's* network namespace, so a guest's uid 1000 reads as 1000, whoever that is here.
/// Such a socket reaches a link only through macvlan, ipvlan and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sockets {
    /// Those of the network namespace with this cookie (`bpf_get_netns_cookie` for tc, Linux 6.15).
    Cookie(u64),
    /// All: there can be no other namespace's.
    All,
    /// Some may be another namespace's, and which cannot be told: the tag goes first, and an owner
    /// is asked for only where there is none.
    #[default]
    Mixed,
}

/// A u32 rule's match as the policy means it: one combination of the file's lists.
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

/// The numbers that have `value` in the bits of `mask`: one, or a power of two of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits<T> {
    /// The bits as they must be; 0 where the mask is.
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
    /// The family that its addresses say; `None`: both.
    pub fn family(&self) -> Option<Family> {
        self.src.or(self.dst).map(|net| match net.addr() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        })
    }
}
