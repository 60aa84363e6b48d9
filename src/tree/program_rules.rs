//! Rules that the kernel's u32 cannot decide, because they ask whose a packet is or which VLAN it
//! is in, and those that stand behind such a one in the file: what their eBPF program decides, as a
//! value.

use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Program;
use crate::units::ClassId;

/// The kernel's numbers of the two maps that each program of rules has for itself: the text of its
/// rules, and what they have counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleMapIds {
    /// The number of the map that has the rules as JSON.
    pub text: u32,
    /// The number of the map that has their counts.
    pub counts: u32,
}

/// All that a program of rules decides ([`crate::classify::program_rules`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProgram {
    /// How it finds whose a packet is, as the deciding program does; `None`: no rule asks.
    pub asks: Option<Program>,
    /// Whether frames begin with an Ethernet header.
    pub ethernet: bool,
    /// The first that matches decides.
    pub rules: Vec<ProgramRule>,
}

impl RuleProgram {
    /// The same where these rules' senders have other classes as well.
    pub fn with_senders(&self, also: impl Fn(ClassId) -> Option<ClassId>) -> RuleProgram {
        let mut program = self.clone();
        for senders in program.rules.iter_mut().filter_map(|rule| rule.from.as_mut()) {
            let more: Vec<ClassId> = senders.of.iter().filter_map(|class| also(*class)).collect();
            senders.of.extend(more);
            senders.of.sort_unstable();
            senders.of.dedup();
        }
        program
    }
}

/// One line of the policy's `rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRule {
    /// Counted from 1.
    pub line: NonZeroU32,
    /// The class that it sends packets to.
    pub to: ClassId,
    /// Whose packets; `None`: anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Senders>,
    /// Which packets.
    #[serde(flatten)]
    pub packets: Packets,
}

/// Whose packets a rule is for: those that would be in one of these classes without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    /// All others'.
    pub not: bool,
    /// Ascending. Somebody who has no class sends nothing that is here.
    pub of: Vec<ClassId>,
}

/// Ascending ranges, first and last, none next to another.
pub type Ranges<T> = Vec<(T, T)>;

/// What a packet must have; `None`: it may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// The id in the outermost tag; 0: there is no tag, or one that is for its priority only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Ranges<u16>>,
    /// With ports: of those protocols that have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Ranges<u8>>,
    /// Source addresses, of both families; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<Ranges<IpAddr>>,
    /// Destination addresses, of both families; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<Ranges<IpAddr>>,
    /// Source ports; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<Ranges<u16>>,
    /// Destination ports; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<Ranges<u16>>,
}

impl Packets {
    /// How many ranges there are to compare with.
    pub fn ranges(&self) -> usize {
        let Packets { vlan, proto, src, dst, sport, dport } = self;
        let ports = [vlan, sport, dport].into_iter().flatten().map(Vec::len);
        let addresses = [src, dst].into_iter().flatten().map(Vec::len);
        ports.chain(addresses).chain(proto.iter().map(Vec::len)).sum()
    }
}
