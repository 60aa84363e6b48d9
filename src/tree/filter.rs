//! Filters below our root qdisc and at clsact: at which pref each is, and what it decides.

use std::net::IpAddr;

use ipnet::IpNet;

use super::label::Label;
use super::pref::Pref;
use super::program::{Sockets, Tag};
use super::program_rules::{Asks, RuleProgram};
use super::u32::U32Rules;

/// All that stands at one pref below our root or at clsact.
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
    /// At clsact's egress: notes the sender's class under the packet's flow, and lets every packet
    /// go on. Finds the sender as the tag's filter at the root does. Has its map of flows in common
    /// with each [`Filter::Find`] of the link.
    Learn(Tag),
    /// At the root of an ifb, and of its shards, where a link's root has the tag: the class noted
    /// under the packet's flow.
    Find {
        /// At the root of a tree that has shards: as in a deciding program.
        shards: bool,
        /// Before rules that ask whose a packet is: tells them the class, and matches nothing.
        for_rules: bool,
    },
    /// At the root of an ifb, before all others: notes that packets come there.
    Pulse,
    /// At clsact's ingress: sends packets through the link's ifb, and lets them pass where that is
    /// gone or the link's [`Filter::Pulse`], with which it has a map in common, notes none. One
    /// that sends them elsewhere is unknown.
    Redirect,
    /// At clsact's ingress of an inner link: says whose a guest's packets are, and lets every
    /// packet go on.
    Label(Label),
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
    /// Whether the filter says whose a packet is, after the rules.
    pub fn is_tag(&self) -> bool {
        matches!(self, Filter::Tag(_) | Filter::Find { for_rules: false, .. })
    }

    /// Whether the filter knows the way to shards.
    pub fn reads_shards(&self) -> bool {
        match self {
            Filter::Tag(tag) => tag.reads_shards(),
            Filter::Find { shards, .. } => *shards,
            _ => false,
        }
    }

    /// Whether the filter believes what a guest's link has labelled.
    pub fn reads_labels(&self) -> bool {
        match self {
            Filter::Tag(Tag::Bpf(program)) | Filter::Learn(Tag::Bpf(program)) => program.labels,
            Filter::Program(RuleProgram { asks: Some(Asks::Socket(program)), .. }) => {
                program.labels
            }
            _ => false,
        }
    }

    /// The protocol of the filter, as an ethertype in host order.
    pub fn protocol(&self) -> u16 {
        match self {
            Filter::U32 { protocol, .. } => protocol.ethertype(),
            Filter::Program(_)
            | Filter::Tag(_)
            | Filter::ClearPriority(_)
            | Filter::Learn(_)
            | Filter::Find { .. }
            | Filter::Pulse
            | Filter::Redirect
            | Filter::Label(_) => Protocol::All.ethertype(),
        }
    }

    /// Whether the filter is a set of u32 rules.
    pub fn is_u32(&self) -> bool {
        matches!(self, Filter::U32 { .. })
    }

    /// The numbers of the hash tables that stay when the filter is deleted from `pref`, in the
    /// order in which they can be deleted: a table cannot go before the tables that link to it.
    pub fn tables(&self, pref: Pref) -> Vec<u16> {
        match self {
            Filter::U32 { rules, .. } => {
                let first = pref.tables().start;
                rules.tables.keys().rev().map(|number| first + number).collect()
            }
            _ => Vec::new(),
        }
    }
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
    /// The match of the packets that answer these: what was their source is the destination.
    pub fn mirrored(&self) -> Match {
        let Match { src, dst, sport, dport, proto } = *self;
        Match { src: dst, dst: src, sport: dport, dport: sport, proto }
    }

    /// The family of the match's addresses; `None`: it has none, and is for both.
    pub fn family(&self) -> Option<Family> {
        self.src.or(self.dst).map(|net| match net.addr() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        })
    }
}
