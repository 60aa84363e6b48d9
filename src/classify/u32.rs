//! From a match as the policy means it to the u32 keys that decide it. Pure; also the interpreter
//! that says what the kernel makes of the keys, so that tests can hold the two against each other.
//!
//! Every key looks into a header at a place where that header surely is: the fixed 20 bytes of
//! IPv4, the fixed 40 of IPv6, and the ports only where the keys before them have made sure that
//! the transport header follows directly (ihl 5 and fragment offset 0; IPv6 next header). So no
//! byte that a sender chooses as payload or option ever decides. A packet with IP options, a later
//! fragment, or one with IPv6 extension headers is not matched by a rule with ports, and IPv6
//! extension headers hide the protocol also from a rule without ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::state::{Family, Match, U32Key, U32Rule};
use crate::units::ClassId;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The protocols whose header begins with source and destination port: TCP, UDP, DCCP, SCTP,
/// UDP-Lite.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// The rules that send what any of `matches` says to `to`, in their order, for one family; a match
/// with addresses of the other family gives none. Ports without a protocol mean TCP and UDP, each a
/// rule; ports of a protocol that has none match nothing, so they give no rule either.
///
/// The form is canonical, so that what is read back equals what was meant: one key for a 32-bit
/// word, by ascending offset, no key that compares nothing.
pub fn compile(family: Family, matches: &[Match], to: ClassId) -> Vec<U32Rule> {
    let keys = matches.iter().flat_map(|m| protocols(m).into_iter().map(move |p| (m, p)));
    keys.filter_map(|(m, proto)| Some(U32Rule { keys: keys_of(family, m, proto)?, to })).collect()
}

/// The protocols that a match is for; `None`: any.
fn protocols(m: &Match) -> Vec<Option<u8>> {
    match (m.sport.or(m.dport), m.proto) {
        (None, proto) => vec![proto],
        (Some(_), None) => vec![Some(TCP), Some(UDP)],
        (Some(_), Some(proto)) if WITH_PORTS.contains(&proto) => vec![Some(proto)],
        (Some(_), Some(_)) => vec![],
    }
}

fn keys_of(family: Family, m: &Match, proto: Option<u8>) -> Option<Vec<U32Key>> {
    let mut words = Words::default();
    let (source, destination, transport) = match family {
        Family::V4 => (12, 16, 20),
        Family::V6 => (8, 24, 40),
    };
    if let Some(proto) = proto {
        let (word, shift) = match family {
            Family::V4 => (8, 16),
            Family::V6 => (4, 8),
        };
        words.add(word, u32::from(proto) << shift, 0xff << shift);
    }
    words.address(family, source, m.src)?;
    words.address(family, destination, m.dst)?;
    if m.sport.is_some() || m.dport.is_some() {
        if family == Family::V4 {
            // Internet header length 5: no options. Fragment offset 0: the first fragment or whole.
            words.add(0, 0x0500_0000, 0x0f00_0000);
            words.add(4, 0, 0x0000_1fff);
        }
        if let Some(port) = m.sport {
            words.add(transport, u32::from(port) << 16, 0xffff_0000);
        }
        if let Some(port) = m.dport {
            words.add(transport, port.into(), 0x0000_ffff);
        }
    }
    Some(words.keys())
}

/// Value and mask of each 32-bit word, by offset: parts of a word are merged.
#[derive(Default)]
struct Words(BTreeMap<i32, (u32, u32)>);

impl Words {
    fn add(&mut self, offset: i32, value: u32, mask: u32) {
        if mask != 0 {
            let word = self.0.entry(offset).or_default();
            word.0 |= value & mask;
            word.1 |= mask;
        }
    }

    /// `None` if the address is of the other family.
    fn address(&mut self, family: Family, offset: i32, net: Option<IpNet>) -> Option<()> {
        let Some(net) = net else { return Some(()) };
        match (family, net.network(), net.netmask()) {
            (Family::V4, IpAddr::V4(network), IpAddr::V4(mask)) => {
                self.add(offset, network.to_bits(), mask.to_bits());
            }
            (Family::V6, IpAddr::V6(network), IpAddr::V6(mask)) => {
                for (place, shift) in [96, 64, 32, 0].into_iter().enumerate() {
                    let word = |bits: u128| (bits >> shift & u128::from(u32::MAX)) as u32;
                    let at = offset + 4 * i32::try_from(place).ok()?;
                    self.add(at, word(network.to_bits()), word(mask.to_bits()));
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn keys(self) -> Vec<U32Key> {
        self.0.into_iter().map(|(offset, (value, mask))| U32Key { value, mask, offset }).collect()
    }
}

/// What a rule says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Matches,
    Differs,
    /// A key looked beyond the packet's end: `u32_classify` then gives up on the whole pref.
    TooShort,
}

fn verdict(rule: &U32Rule, packet: &[u8]) -> Verdict {
    for key in &rule.keys {
        let word = usize::try_from(key.offset)
            .ok()
            .and_then(|at| packet.get(at..at.checked_add(4)?)?.try_into().ok());
        match word.map(u32::from_be_bytes) {
            None => return Verdict::TooShort,
            Some(word) if (word ^ key.value) & key.mask != 0 => return Verdict::Differs,
            Some(_) => {}
        }
    }
    Verdict::Matches
}

/// Whether the kernel would say that this rule, alone, matches; `packet` begins at the network
/// header, as `u32_classify` (net/sched/cls_u32.c) sees it.
pub fn matches(rule: &U32Rule, packet: &[u8]) -> bool {
    verdict(rule, packet) == Verdict::Matches
}

/// Where the rules of one pref, in their order, send a packet; `None`: the next pref is asked.
pub fn classify(rules: &[U32Rule], packet: &[u8]) -> Option<ClassId> {
    for rule in rules {
        match verdict(rule, packet) {
            Verdict::Matches => return Some(rule.to),
            Verdict::Differs => {}
            Verdict::TooShort => return None,
        }
    }
    None
}
