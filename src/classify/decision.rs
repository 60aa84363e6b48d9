//! Which class the filters that stand give a packet, as a function: the u32 rules by
//! [`super::interpret`], the eBPF program's rules by their meaning, then whose the packet is. Pure.

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::interpret;
use crate::tree::{Family, Filter, Headers, Protocol, RuleProgram, Tree, U32Rules};
use crate::units::ClassId;

/// What decides about a packet, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The line of `rules` that decides, counted from 1; `None`: no rule does.
    pub rule: Option<NonZeroU32>,
    /// The packet's class.
    pub class: ClassId,
}

/// The Ethernet header.
const NETWORK: usize = 14;

/// The class of a packet in a tree; `sender`: its owner's class; `None`: it is nobody's.
pub fn decide(tree: &Tree, headers: &Headers, sender: Option<ClassId>) -> Decision {
    let stands = |class: &ClassId| tree.classes.contains_key(class);
    let of_sender = sender.filter(stands).unwrap_or(ClassId::DEFAULT);
    let rule = tree.filters.values().find_map(|filter| match filter {
        Filter::U32 { protocol, rules } => by_u32(*protocol, rules, headers),
        Filter::Program(program) => by_program(program, headers, sender),
        _ => None,
    });
    match rule {
        Some((rule, class)) => {
            let class = Some(class).filter(stands).unwrap_or(ClassId::DEFAULT);
            Decision { rule, class }
        }
        None => Decision { rule: None, class: of_sender },
    }
}

fn by_u32(
    protocol: Protocol,
    rules: &U32Rules,
    headers: &Headers,
) -> Option<(Option<NonZeroU32>, ClassId)> {
    let (family, frame) = frame(headers)?;
    if protocol != Protocol::All && protocol != Protocol::Ip(family) {
        return None;
    }
    let rule = interpret::deciding(rules, &frame, NETWORK)?;
    Some((rule.line, rule.to))
}

fn by_program(
    program: &RuleProgram,
    headers: &Headers,
    sender: Option<ClassId>,
) -> Option<(Option<NonZeroU32>, ClassId)> {
    let class = sender.unwrap_or(ClassId::NONE);
    let mut rules = program.rules.iter();
    let rule = rules.find(|rule| {
        rule.packets.differs(headers).is_none()
            && rule.from.as_ref().is_none_or(|from| from.include(class))
    })?;
    Some((Some(rule.line), rule.to))
}

/// Such a packet, with an Ethernet header and without a VLAN tag in it: one that a link sends has
/// it beside its bytes. `None`: it is no IP packet.
fn frame(headers: &Headers) -> Option<(Family, Vec<u8>)> {
    let (src, dst) = headers.addresses?;
    let proto = headers.proto?;
    let (sport, dport) = headers.ports.unwrap_or_default();
    let family = if src.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut frame = vec![0; NETWORK - 2];
    frame.extend(family.ethertype().to_be_bytes());
    let mut header = match family {
        Family::V4 => vec![0; 20],
        Family::V6 => vec![0; 40],
    };
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            header[0] = 0x45;
            header[9] = proto;
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            header[0] = 0x60;
            header[6] = proto;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
        }
        _ => return None,
    }
    frame.extend(header);
    frame.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
    frame.extend([0; 20]);
    Some((family, frame))
}
