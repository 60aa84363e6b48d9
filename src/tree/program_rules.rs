//! As a value, the eBPF program of the rules that u32 cannot decide, because they ask whose a
//! packet is or which VLAN it is in, and of all rules behind the first of these in the file.

use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::program::Program;
use crate::units::ClassId;

/// The kernel's numbers of the two maps that a program of rules has beside those by which the
/// sender is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleMapIds {
    /// The number of the map that has the rules as JSON.
    pub text: u32,
    /// The number of the map that counts how many packets each rule has matched.
    pub counts: u32,
}

/// Whom a program of rules asks whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The packet's socket, as the deciding program does.
    Socket(Program),
    /// [`super::Filter::Find`] before it, which has found the flow: of what arrives.
    Flow,
}

/// All that a program of rules decides ([`crate::classify::program_rules`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProgram {
    /// How the program finds whose a packet is; `None`: no rule asks.
    pub asks: Option<Asks>,
    /// Whether frames begin with an Ethernet header.
    pub ethernet: bool,
    /// The rules; the first one that matches decides.
    pub rules: Vec<ProgramRule>,
}

impl RuleProgram {
    /// The same program for a time in which senders change their classes: wherever a rule names a
    /// class, it also names the other one that `also` has for it.
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
    /// Which line of `rules` this is, counted from 1.
    pub line: NonZeroU32,
    /// The class that the rule sends packets to.
    pub to: ClassId,
    /// Whose packets; `None`: anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Senders>,
    /// Which packets.
    #[serde(flatten)]
    pub packets: Packets,
}

/// What rules can see of a packet; `None`: it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The id in the outermost VLAN tag; 0: no tag, or one that carries a priority only.
    pub vlan: u16,
    /// The protocol number of IP.
    pub proto: Option<u8>,
    /// The address that it comes from, and the one that it goes to.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The port that it comes from, and the one that it goes to.
    pub ports: Option<(u16, u16)>,
}

impl Headers {
    /// Those of the packets that answer.
    pub fn mirrored(self) -> Headers {
        let addresses = self.addresses.map(|(src, dst)| (dst, src));
        let ports = self.ports.map(|(src, dst)| (dst, src));
        Headers { addresses, ports, ..self }
    }
}

/// Whose packets a rule is for: those that would be in one of these classes without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    /// Packets of everybody but the owners of these classes.
    pub not: bool,
    /// The senders' classes, ascending. A packet of a sender without a class is in none of them.
    pub of: Vec<ClassId>,
}

impl Senders {
    /// Whether a packet is theirs that would be in this class without rules.
    pub fn include(&self, class: ClassId) -> bool {
        self.of.contains(&class) != self.not
    }
}

/// Ascending ranges, first and last, none next to another.
pub type Ranges<T> = Vec<(T, T)>;

/// What a packet must have; `None`: it may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// The id in the outermost VLAN tag; 0: no tag, or one that carries a priority only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Ranges<u16>>,
    /// Protocol numbers; where the rule has ports, only of protocols that have ports.
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
    /// The first field that a packet with these headers differs in, as policies spell it; `None`:
    /// it has all that it must have.
    pub fn differs(&self, headers: &Headers) -> Option<&'static str> {
        let (src, dst) = headers.addresses.unzip();
        let (sport, dport) = headers.ports.unzip();
        let fields = [
            ("vlan", has(&self.vlan, Some(headers.vlan))),
            ("proto", has(&self.proto, headers.proto)),
            ("src", has(&self.src, src)),
            ("dst", has(&self.dst, dst)),
            ("sport", has(&self.sport, sport)),
            ("dport", has(&self.dport, dport)),
        ];
        fields.into_iter().find(|(_, fits)| !fits).map(|(field, _)| field)
    }

    /// The packets that answer these: what was their source is the destination.
    pub fn mirrored(&self) -> Packets {
        let Packets { vlan, proto, src, dst, sport, dport } = self.clone();
        Packets { vlan, proto, src: dst, dst: src, sport: dport, dport: sport }
    }

    /// How many ranges a packet is compared with, which is what the kernel's verifier pays for.
    pub fn ranges(&self) -> usize {
        let Packets { vlan, proto, src, dst, sport, dport } = self;
        let ports = [vlan, sport, dport].into_iter().flatten().map(Vec::len);
        let addresses = [src, dst].into_iter().flatten().map(Vec::len);
        ports.chain(addresses).chain(proto.iter().map(Vec::len)).sum()
    }
}

fn has<T: PartialOrd>(ranges: &Option<Ranges<T>>, value: Option<T>) -> bool {
    let Some(ranges) = ranges else { return true };
    value.is_some_and(|value| ranges.iter().any(|(first, last)| *first <= value && value <= *last))
}
