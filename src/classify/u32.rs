//! From a match as the policy means it to the u32 keys that decide it. Pure.
//!
//! Every key compares bytes of a header at an offset where that header surely is: the fixed 20
//! bytes of IPv4, the fixed 40 of IPv6, and the ports only where the keys before them have made
//! sure that the transport header follows directly (ihl 5 and fragment offset 0; IPv6 next header).
//! So no byte that a sender chooses as payload or option ever decides. A packet with IP options, a
//! later fragment, or one with IPv6 extension headers is not matched by a rule with ports, and IPv6
//! extension headers hide the protocol also from a rule without ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::tree::{Bits, Family, Match, U32Key, U32Rule};
use crate::units::ClassId;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The protocols whose header begins with source and destination port: TCP, UDP, DCCP, SCTP,
/// UDP-Lite.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// The u32 rules of one family that send the packets of any of `matches` to `to`, in their order. A
/// match with addresses of the other family makes none. Ports without a protocol make two rules,
/// for TCP and UDP; ports with a protocol that has none match nothing and make none.
///
/// The form is canonical, so that rules that are read back equal those that were written: one key
/// for each 32-bit word, by ascending offset, and no key that compares nothing.
pub fn compile(family: Family, matches: &[Match], to: ClassId) -> Vec<U32Rule> {
    let keys = matches.iter().flat_map(|m| protocols(m).into_iter().map(move |p| (m, p)));
    keys.filter_map(|(m, proto)| Some(U32Rule { keys: keys_of(family, m, proto)?, to, line: None }))
        .collect()
}

/// The protocols that a match is for; one `None`: any protocol.
fn protocols(m: &Match) -> Vec<Option<Bits<u8>>> {
    match (m.sport.or(m.dport), m.proto) {
        (None, proto) => vec![proto],
        (Some(_), None) => [TCP, UDP].map(|proto| Some(proto.into())).into(),
        (Some(_), Some(Bits { value, mask })) => {
            let agree = WITH_PORTS.into_iter().filter(|proto| proto & mask == value);
            agree.map(|proto| Some(proto.into())).collect()
        }
    }
}

fn keys_of(family: Family, m: &Match, proto: Option<Bits<u8>>) -> Option<Vec<U32Key>> {
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
        words.add(word, u32::from(proto.value) << shift, u32::from(proto.mask) << shift);
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
            words.add(transport, u32::from(port.value) << 16, u32::from(port.mask) << 16);
        }
        if let Some(port) = m.dport {
            words.add(transport, port.value.into(), port.mask.into());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::classify::interpret::{first_match, matches};
    use crate::units::Minor;

    const TO: ClassId = ClassId::ours(Minor(0x10));

    fn net(text: &str) -> Option<IpNet> {
        Some(text.parse().unwrap())
    }

    fn key(value: u32, mask: u32, offset: i32) -> U32Key {
        U32Key { value, mask, offset }
    }

    fn keys(family: Family, m: Match) -> Vec<Vec<U32Key>> {
        compile(family, &[m], TO).into_iter().map(|rule| rule.keys).collect()
    }

    #[test]
    fn words_are_merged_and_in_order() {
        let m = Match {
            src: net("1.2.3.4/32"),
            dst: net("10.1.2.3/8"),
            sport: Some(1_u16.into()),
            dport: Some(80_u16.into()),
            proto: Some(6_u8.into()),
        };
        let wanted = [
            key(0x0500_0000, 0x0f00_0000, 0),
            key(0, 0x1fff, 4),
            key(6 << 16, 0xff << 16, 8),
            key(0x0102_0304, u32::MAX, 12),
            key(10 << 24, 0xff << 24, 16),
            key(1 << 16 | 80, u32::MAX, 20),
        ];
        assert_eq!(keys(Family::V4, m), [wanted]);
    }

    #[test]
    fn ports_alone_are_tcp_and_udp() {
        let m = Match { dport: Some(53_u16.into()), ..Match::default() };
        let wanted = |proto: u32| vec![key(proto << 8, 0xff << 8, 4), key(53, 0xffff, 40)];
        assert_eq!(keys(Family::V6, m), [wanted(6), wanted(17)]);
        assert_eq!(keys(Family::V4, m).len(), 2);
    }

    #[test]
    fn ports_of_a_protocol_without_ports_match_nothing() {
        let m = Match { dport: Some(53_u16.into()), proto: Some(1_u8.into()), ..Match::default() };
        assert_eq!(keys(Family::V4, m), [[]; 0]);
    }

    #[test]
    fn addresses_give_rules_for_their_family_only() {
        let six = Match { dst: net("fd00:1::/33"), ..Match::default() };
        assert_eq!(keys(Family::V4, six), [[]; 0]);
        assert_eq!(keys(Family::V6, six), [[key(0xfd00_0001, u32::MAX, 24), key(0, 1 << 31, 28)]]);
        let mixed = Match { src: net("10.0.0.0/8"), ..six };
        assert_eq!((keys(Family::V4, mixed).len(), keys(Family::V6, mixed).len()), (0, 0));
    }

    #[test]
    fn a_protocol_alone_needs_no_ihl() {
        let m = Match { proto: Some(1_u8.into()), src: net("0.0.0.0/0"), ..Match::default() };
        assert_eq!(keys(Family::V4, m), [[key(1 << 16, 0xff << 16, 8)]]);
        assert_eq!(keys(Family::V4, Match::default()), [[]]);
    }

    /// An IPv4 TCP packet from 10.0.0.1:1024 to 10.0.0.2:80 with these first eight bytes.
    fn v4(first: [u8; 8], rest: &[u8]) -> Vec<u8> {
        let mut packet = first.to_vec();
        packet.extend([64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(rest);
        packet
    }

    #[test]
    fn options_and_payload_never_pass_for_ports() {
        let ports = [4, 0, 0, 80];
        let rule = &compile(
            Family::V4,
            &[Match { dport: Some(80_u16.into()), proto: Some(6_u8.into()), ..Match::default() }],
            TO,
        )[0];
        assert!(matches(rule, &v4([0x45, 0, 0, 24, 0, 0, 0x40, 0], &ports)));
        assert!(matches(rule, &v4([0x45, 0, 0, 24, 0, 0, 0x20, 0], &ports)), "first fragment");
        assert!(!matches(rule, &v4([0x45, 0, 0, 24, 0, 0, 0x00, 1], &ports)), "later fragment");
        assert!(!matches(rule, &v4([0x46, 0, 0, 24, 0, 0, 0x40, 0], &ports)), "an IP option");
    }

    #[test]
    fn a_key_beyond_the_packet_ends_the_whole_pref() {
        let ports =
            Match { dport: Some(80_u16.into()), proto: Some(6_u8.into()), ..Match::default() };
        let mut rules = compile(Family::V4, &[ports], TO);
        rules.extend(compile(Family::V4, &[Match::default()], TO));
        let short = v4([0x45, 0, 0, 20, 0, 0, 0x40, 0], &[]);
        assert_eq!(first_match(&rules, &short), None, "an empty TCP packet: malformed");
        let udp = {
            let mut udp = short;
            udp[9] = 17;
            udp
        };
        assert_eq!(first_match(&rules, &udp), Some(TO), "the port is only asked of TCP");
    }

    /// Whether a rule means a packet, computed without words and masks.
    fn meant(m: &Match, packet: &[u8], family: Family) -> bool {
        let (proto, src, dst, transport): (u8, IpAddr, IpAddr, Option<&[u8]>) = match family {
            Family::V4 => {
                let four = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into();
                let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
                let direct = packet[0] & 15 == 5 && fragment == 0;
                (packet[9], four(12), four(16), direct.then(|| &packet[20..]))
            }
            Family::V6 => {
                let sixteen =
                    |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
                (packet[6], sixteen(8), sixteen(24), Some(&packet[40..]))
            }
        };
        let port = |wanted: Option<Bits<u16>>, at: usize| {
            wanted.is_none_or(|wanted| {
                let with_ports = match m.proto {
                    None => proto == TCP || proto == UDP,
                    Some(_) => WITH_PORTS.contains(&proto),
                };
                with_ports
                    && transport.is_some_and(|t| {
                        let port = u16::from_be_bytes([t[at], t[at + 1]]);
                        port & wanted.mask == wanted.value
                    })
            })
        };
        m.proto.is_none_or(|wanted| proto & wanted.mask == wanted.value)
            && m.src.is_none_or(|net| net.contains(&src))
            && m.dst.is_none_or(|net| net.contains(&dst))
            && port(m.sport, 0)
            && port(m.dport, 2)
    }

    /// Few values, so that rules and packets meet.
    fn a_net(family: Family) -> impl Strategy<Value = Option<IpNet>> {
        let (start, longest) = match family {
            Family::V4 => ("10.0.0.0".parse::<IpAddr>().unwrap(), 32_u8),
            Family::V6 => ("fd00::".parse().unwrap(), 128),
        };
        let length = prop_oneof![Just(0), Just(8), Just(longest - 1), Just(longest), 0..=longest];
        proptest::option::of((0_u8..4, length).prop_map(move |(host, length)| {
            let address: IpAddr = match start {
                IpAddr::V4(ip) => (ip.to_bits() + u32::from(host)).to_be_bytes().into(),
                IpAddr::V6(ip) => (ip.to_bits() + u128::from(host)).to_be_bytes().into(),
            };
            IpNet::new(address, length).unwrap()
        }))
    }

    fn a_match(family: Family) -> impl Strategy<Value = Match> {
        let port = || {
            let masks = proptest::sample::select(vec![u16::MAX, u16::MAX, 0xfffe, 0xff00, 0]);
            let bits = (80_u16..82, masks);
            proptest::option::of(bits.prop_map(|(port, mask)| Bits { value: port & mask, mask }))
        };
        let masks = proptest::sample::select(vec![u8::MAX, u8::MAX, 0xfe, 0x80]);
        let proto = (proptest::sample::select(vec![1_u8, 6, 17, 58, 132]), masks);
        let proto = proto.prop_map(|(proto, mask)| Bits { value: proto & mask, mask });
        let proto = proptest::option::of(proto);
        (a_net(family), a_net(family), port(), port(), proto)
            .prop_map(|(src, dst, sport, dport, proto)| Match { src, dst, sport, dport, proto })
    }

    fn a_packet(family: Family) -> impl Strategy<Value = Vec<u8>> {
        let proto = proptest::sample::select(vec![1_u8, 6, 17, 58, 132, 0, 44]);
        let header = (0_u8..4, 0_u8..4, proto, 80_u16..82, 80_u16..82, 5_u8..7, 0_u16..2);
        header.prop_map(move |(src, dst, proto, sport, dport, ihl, fragment)| {
            let mut packet = match family {
                Family::V4 => {
                    let [high, low] = (fragment | 0x2000).to_be_bytes();
                    let mut v4 = vec![0x40 | ihl, 0, 0, 40, 0, 9, high, low, 64, proto, 1, 2];
                    v4.extend([10, 0, 0, src, 10, 0, 0, dst]);
                    v4
                }
                Family::V6 => {
                    let mut v6 = vec![0x60, 0, 0, 0, 0, 20, proto, 64];
                    for host in [src, dst] {
                        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
                    }
                    v6
                }
            };
            packet.extend(sport.to_be_bytes());
            packet.extend(dport.to_be_bytes());
            packet.extend([0; 16]);
            packet
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn v4_keys_say_what_the_match_means(
            m in a_match(Family::V4), packet in a_packet(Family::V4),
        ) {
            let rules = compile(Family::V4, &[m], TO);
            let says = first_match(&rules, &packet).is_some();
            prop_assert_eq!(says, meant(&m, &packet, Family::V4));
        }

        #[test]
        fn v6_keys_say_what_the_match_means(
            m in a_match(Family::V6), packet in a_packet(Family::V6),
        ) {
            let rules = compile(Family::V6, &[m], TO);
            let says = first_match(&rules, &packet).is_some();
            prop_assert_eq!(says, meant(&m, &packet, Family::V6));
        }

        #[test]
        fn keys_are_canonical(m in a_match(Family::V4)) {
            for rule in compile(Family::V4, &[m], TO) {
                prop_assert!(rule.keys.windows(2).all(|pair| pair[0].offset < pair[1].offset));
                prop_assert!(rule.keys.iter().all(|k| k.mask != 0 && k.value & !k.mask == 0));
            }
        }
    }
}
