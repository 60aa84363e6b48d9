//! The compiled tables, as the kernel would read them, against the rules as they are meant, asked
//! one after the other: whatever the rules and the packet, the same class.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::classify::interpret;
use crate::classify::u32::compile;
use crate::tree::{Bits, Match};
use crate::units::{ClassId, Minor};

const TCP: u8 = 6;
const UDP: u8 = 17;
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// A rule of the file, and where it sends.
type Line = (Match, u16);

fn compiled(family: Family, lines: &[Line]) -> (Vec<U32Rule>, U32Rules) {
    let rules = |(m, to): &Line| compile(family, &[*m], ClassId::ours(Minor(*to)));
    let rules: Vec<U32Rule> = lines.iter().flat_map(rules).collect();
    (rules.clone(), arrange(family, rules))
}

/// A packet, before it is bytes.
#[derive(Clone, Debug)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    sport: u16,
    dport: u16,
    /// IPv4: words of options, and the fragment's offset.
    options: u8,
    fragment: u16,
    /// What follows the network header is cut to so many bytes.
    cut: usize,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut packet = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let [high, low] = (self.fragment | 0x2000).to_be_bytes();
                let ihl = 0x45 + self.options;
                let mut v4 = vec![ihl, 0, 0, 60, 0, 9, high, low, 64, self.proto, 1, 2];
                v4.extend(src.octets());
                v4.extend(dst.octets());
                // What a sender writes there could be any port.
                v4.extend([0, 80].repeat(2 * usize::from(self.options)));
                v4
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut v6 = vec![0x60, 0, 0, 0, 0, 20, self.proto, 64];
                v6.extend(src.octets());
                v6.extend(dst.octets());
                v6
            }
            _ => unreachable!("two families"),
        };
        let header = packet.len();
        packet.extend(self.sport.to_be_bytes());
        packet.extend(self.dport.to_be_bytes());
        packet.extend([0; 16]);
        packet.truncate(header + self.cut);
        packet
    }

    fn has_ports(&self) -> bool {
        WITH_PORTS.contains(&self.proto) && self.options == 0 && self.fragment == 0
    }

    fn is_whole(&self) -> bool {
        self.cut >= 4 || !self.has_ports()
    }

    /// What a line means, said without words, masks and tables.
    fn matches(&self, m: &Match) -> bool {
        let asks = m.sport.is_some() || m.dport.is_some();
        let proto = match m.proto {
            None if asks => self.proto == TCP || self.proto == UDP,
            wanted => wanted.is_none_or(|bits| self.proto & bits.mask == bits.value),
        };
        let agrees = |bits: Option<Bits<u16>>, port: u16| {
            bits.is_none_or(|bits| port & bits.mask == bits.value)
        };
        let ports = agrees(m.sport, self.sport) && agrees(m.dport, self.dport);
        let in_net = |net: Option<IpNet>, ip| net.is_none_or(|net| net.contains(&ip));
        proto
            && in_net(m.src, self.src)
            && in_net(m.dst, self.dst)
            && (!asks || (self.has_ports() && ports))
    }
}

fn address(family: Family, bits: u32) -> IpAddr {
    match family {
        Family::V4 => (0x0a00_0000 | bits).to_be_bytes().into(),
        Family::V6 => {
            // Low bits in the last word and in the second, so that prefixes of /48 differ too.
            let (high, low) = (u128::from(bits >> 8) << 80, u128::from(bits & 0xff));
            (0xfd00_u128 << 112 | high | low).to_be_bytes().into()
        }
    }
}

/// Few or many different addresses, near each other or all over.
fn an_address(family: Family, spread: u32) -> impl Strategy<Value = IpAddr> {
    (0..spread, select(vec![1, 1, 7, 256, 4_096]))
        .prop_map(move |(n, step)| address(family, (n * step) & 0x00ff_ffff))
}

fn a_net(family: Family, spread: u32) -> impl Strategy<Value = IpNet> {
    let longest = match family {
        Family::V4 => 32_u8,
        Family::V6 => 128,
    };
    let length = prop_oneof![
        6 => Just(longest),
        2 => select(vec![longest - 1, longest - 4, longest - 8, longest - 12, longest / 2]),
        1 => 0..=longest,
    ];
    (an_address(family, spread), length).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap())
}

/// One port, or what a piece of a range is.
fn ports(spread: u32) -> impl Strategy<Value = Bits<u16>> {
    let masks = select(vec![u16::MAX, u16::MAX, 0xfffc, 0xffc0, 0xfe00]);
    (0..spread as u16, masks).prop_map(|(port, mask)| Bits { value: port & mask, mask })
}

prop_compose! {
    /// What one block of a file is like: which fields its lines have, and how far their values
    /// spread.
    fn a_block(family: Family, spread: u32)(
        fields in any::<u8>(),
        mixed in any::<bool>(),
        lines in vec((
            a_net(family, spread), a_net(family, spread), ports(spread), ports(spread),
            select(vec![None, None, Some(TCP), Some(UDP), Some(1), Some(58), Some(132)]),
            any::<u8>(), 0x10..0x20_u16,
        ), 1..120),
    ) -> Vec<Line> {
        let line = |(src, dst, sport, dport, proto, which, to): (_, _, Bits<u16>, Bits<u16>, Option<u8>, u8, _)| {
            let has = |bit: u8| if mixed { which & bit != 0 } else { fields & bit != 0 };
            (Match {
                src: has(1).then_some(src),
                dst: has(2).then_some(dst),
                sport: has(4).then_some(sport),
                dport: has(8).then_some(dport),
                proto: proto.map(Into::into),
            }, to)
        };
        lines.into_iter().map(line).collect()
    }
}

fn a_file(family: Family, spread: u32) -> impl Strategy<Value = Vec<Line>> {
    vec(a_block(family, spread), 1..4).prop_map(|blocks| blocks.concat())
}

/// A packet, which line it is to be about, and in which fields.
type Sent = (usize, Packet, u8);

fn a_packet(family: Family, spread: u32) -> impl Strategy<Value = Sent> {
    let packet = (
        an_address(family, spread),
        an_address(family, spread),
        select(vec![1_u8, TCP, UDP, UDP, 58, 132, 0, 44]),
        (0..spread as u16, 0..spread as u16),
        prop_oneof![8 => Just((0_u8, 0_u16)), 1 => Just((1, 0)), 1 => Just((0, 1))],
        prop_oneof![9 => Just(20_usize), 1 => 0..5_usize],
    );
    let packet =
        packet.prop_map(move |(src, dst, proto, (sport, dport), (options, fragment), cut)| {
            let v4 = family == Family::V4;
            let (options, fragment) = if v4 { (options, fragment) } else { (0, 0) };
            Packet { src, dst, proto, sport, dport, options, fragment, cut }
        });
    (any::<usize>(), packet, any::<u8>())
}

/// Makes a packet one that the line is about, in the fields that `which` says.
fn about((m, _): &Line, packet: &mut Packet, which: u8) {
    let field = |bit: u8| which & bit != 0;
    packet.src = m.src.filter(|_| field(1)).map_or(packet.src, |net| net.addr());
    packet.dst = m.dst.filter(|_| field(2)).map_or(packet.dst, |net| net.addr());
    packet.sport = m.sport.filter(|_| field(4)).map_or(packet.sport, |bits| bits.value);
    packet.dport = m.dport.filter(|_| field(8)).map_or(packet.dport, |bits| bits.value);
    packet.proto = m.proto.filter(|_| field(16)).map_or(packet.proto, |bits| bits.value);
}

fn hold(family: Family, lines: &[Line], packets: Vec<Sent>) {
    let (rules, tables) = compiled(family, lines);
    fits(&tables);
    for (nth, mut packet, which) in packets {
        about(&lines[nth % lines.len()], &mut packet, which);
        let bytes = packet.bytes();
        let class = |line: Option<&Line>| line.map(|(_, to)| ClassId::ours(Minor(*to)));
        let meant = class(lines.iter().find(|(m, _)| packet.matches(m)));
        let (says, _) = interpret::classify(&tables, &bytes);
        if packet.is_whole() {
            assert_eq!(says, meant, "{packet:?}");
            assert_eq!(says, interpret::first_match(&rules, &bytes), "{packet:?}");
        } else {
            // No rule asks for ports that are not there; the kernel may give up on the pref.
            let blind = |m: &Match| m.sport.is_none() && m.dport.is_none();
            let without = class(lines.iter().find(|(m, _)| blind(m) && packet.matches(m)));
            assert!(says.is_none() || says == without, "{packet:?}: {says:?}");
        }
    }
}

/// What the kernel can hold.
fn fits(rules: &U32Rules) {
    assert!(rules.tables.len() <= usize::from(frame::tables_of_a_family()));
    let buckets = rules.tables.values().flat_map(|table| table.buckets.values());
    assert!(buckets.chain([&rules.root]).all(|nodes| nodes.len() <= MOST_NODES));
    for (number, table) in &rules.tables {
        let below = table.buckets.values().flatten().all(|node| match node {
            U32Node::Link(link) => link.table < *number,
            U32Node::Rule(_) => true,
        });
        assert!(below, "table {number} leads to a later one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn v4_tables_answer_as_the_file_does(
        (lines, packets) in select(vec![4_u32, 40, 400]).prop_flat_map(|spread| {
            (a_file(Family::V4, spread), vec(a_packet(Family::V4, spread), 200))
        }),
    ) {
        hold(Family::V4, &lines, packets);
    }

    #[test]
    fn v6_tables_answer_as_the_file_does(
        (lines, packets) in select(vec![4_u32, 40, 400]).prop_flat_map(|spread| {
            (a_file(Family::V6, spread), vec(a_packet(Family::V6, spread), 200))
        }),
    ) {
        hold(Family::V6, &lines, packets);
    }
}

/// How many nodes a packet that some line is about meets: on average, and at most.
fn met(family: Family, lines: &[Line]) -> (usize, usize) {
    let (_, tables) = compiled(family, lines);
    fits(&tables);
    let packet = Packet {
        src: address(family, 0x00ff_fffe),
        dst: address(family, 0x00ff_fffd),
        proto: UDP,
        sport: 1,
        dport: 2,
        options: 0,
        fragment: 0,
        cut: 20,
    };
    let met = |line: &Line| {
        let mut packet = packet.clone();
        about(line, &mut packet, u8::MAX);
        let meant = lines.iter().find(|(m, _)| packet.matches(m));
        let meant = meant.map(|(_, to)| ClassId::ours(Minor(*to)));
        let (says, met) = interpret::classify(&tables, &packet.bytes());
        assert_eq!(says, meant);
        met
    };
    let met: Vec<usize> = lines.iter().step_by(1 + lines.len() / 200).map(met).collect();
    let (sum, most) = (met.iter().sum::<usize>(), *met.iter().max().unwrap());
    let (count, tables, nodes) = (lines.len(), tables.tables.len(), tables.rules().count());
    println!(
        "{count} lines: {tables} tables, {nodes} rules; {} met, at most {most}",
        sum / met.len()
    );
    (sum / met.len(), most)
}

fn host(family: Family, n: u32) -> Option<IpNet> {
    Some(address(family, n).into())
}

fn line(n: u32, m: Match) -> Line {
    (m, 0x10 + (n % 1000) as u16)
}

#[test]
fn a_packet_meets_few_of_many_rules() {
    let all = Match::default();
    for family in [Family::V4, Family::V6] {
        for count in [1_000_u32, 10_000] {
            let lines = |f: &dyn Fn(u32) -> Match| -> Vec<Line> {
                (0..count).map(|n| line(n, f(n))).collect()
            };
            let by_dst = lines(&|n| Match { dst: host(family, n), ..all });
            let by_src = lines(&|n| Match { src: host(family, 256 * n), ..all });
            let by_port = lines(&|n| Match { dport: Some((n as u16).into()), ..all });
            let by_server = lines(&|n| Match {
                dst: host(family, n / 30),
                dport: Some(((n % 30) as u16).into()),
                proto: Some(TCP.into()),
                ..all
            });
            for lines in [by_dst, by_src, by_port, by_server] {
                let (average, most) = met(family, &lines);
                assert!(average <= 10 && most <= 40, "{family:?} {count}: {average}, {most}");
            }
        }
        // Each customer's packets from and to them, in turns: two hashes, and the order between.
        for (count, few) in [(500, 20), (5_000, 40)] {
            let both = |n: u32| {
                let own = host(family, n);
                [line(n, Match { src: own, ..all }), line(n, Match { dst: own, ..all })]
            };
            let lines: Vec<Line> = (0..count).flat_map(both).collect();
            let (average, most) = met(family, &lines);
            assert!(average <= few, "{family:?} {count}: {average}, {most}");
        }
    }
}

#[test]
fn a_small_set_is_a_list() {
    let line = |n: u32| line(n, Match { dst: host(Family::V4, n), ..Match::default() });
    let lines = |count: usize| (0..).map(line).take(count).collect::<Vec<Line>>();
    let (rules, tables) = compiled(Family::V4, &lines(SHORT));
    assert_eq!(tables, rules.into());
    assert!(!compiled(Family::V4, &lines(SHORT + 1)).1.tables.is_empty());
}

#[test]
fn what_no_byte_tells_apart_is_a_list_however_long() {
    let family = Family::V4;
    // Three bits of each address: 64 rules.
    let net = |n: u32| Some(IpNet::new(IpAddr::from((n << 29).to_be_bytes()), 3).unwrap());
    let lines: Vec<Line> = (0..64)
        .map(|n| line(n, Match { src: net(n % 8), dst: net(n / 8), ..Match::default() }))
        .collect();
    let (rules, tables) = compiled(family, &lines);
    assert_eq!(tables, rules.into());
    // One rule ten thousand times: no packet gets to the second.
    let same = vec![line(1, Match::default()); 10_000];
    assert_eq!(compiled(family, &same).1.count(), 1);
}

#[test]
fn no_bucket_has_more_nodes_than_there_are_numbers() {
    let rule = |n: u32| {
        let bits =
            |at: i32| U32Key { value: (n >> (3 * at) & 7) << 29, mask: 7 << 29, offset: 4 * at };
        U32Rule { keys: (0..4).map(bits).collect(), to: ClassId::ours(Minor(0x10)), line: None }
    };
    let rules: Vec<U32Rule> = (0..4_096).map(rule).collect();
    let tables = arrange(Family::V4, rules.clone());
    fits(&tables);
    assert_eq!(tables.count(), 4_096);
    let packet = [0xff; 64];
    assert_eq!(interpret::classify(&tables, &packet).0, interpret::first_match(&rules, &packet));
}
