//! The program of rules, run as a value by an interpreter over random frames, beside what the rules
//! say in words. Needs nothing of the machine.

mod interpreter;

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use interpreter::{Machine, Packet};
use shaper::classify::noted::SKB_CONTROL;
use shaper::classify::program::*;
use shaper::classify::program_rules::*;
use shaper::tree::{
    Asks, Headers, Packets, Program, ProgramRule, Ranges, RuleProgram, Senders, Sockets, TagHelper,
};
use shaper::units::{ClassId, Minor, Shard};

/// What is sent, and how it lies in the socket buffer.
#[derive(Clone, Debug, Default)]
struct Frame {
    /// From the MAC header on.
    bytes: Vec<u8>,
    network_header: usize,
    /// `skb->vlan_tci`, where a tag was offloaded.
    offloaded: Option<u16>,
    /// The tag of whoever sent it, who has no socket any more: so it is whose packet it is.
    class: u32,
    /// `skb->protocol`.
    protocol: u16,
}

thread_local! {
    /// What the functions answer about: they are plain functions.
    static FRAME: RefCell<Frame> = RefCell::default();
    static COUNTERS: RefCell<Box<[u64; 16]>> = RefCell::new(Box::new([0; 16]));
}

fn class(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    FRAME.with(|frame| frame.borrow().class.into())
}

fn counters(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(map as u8, COUNTS);
    // SAFETY: the program's stack, which the interpreter has checked it to write to.
    let key = unsafe { std::ptr::with_exposed_provenance::<u32>(key as usize).read_unaligned() };
    assert_eq!(key, 0);
    counters_address()
}

fn counters_address() -> u64 {
    COUNTERS.with(|counters| (&raw const **counters.borrow()).expose_provenance() as u64)
}

/// What the program returns, and which rule has counted.
fn run(program: &RuleProgram, frame: &Frame) -> (u32, Vec<usize>) {
    FRAME.with(|it| it.borrow_mut().clone_from(frame));
    COUNTERS.with(|counters| counters.borrow_mut().fill(0));
    let functions: [(i32, rbpf::ebpf::Helper); 2] =
        [(MAP_LOOKUP, counters), (SOCKET_CLASSID, class)];
    let counters = counters_address();
    let packet = Packet { bytes: frame.bytes.clone(), network_header: frame.network_header };
    let mut context = [0_u8; 192];
    let mut put = |at: i16, value: u32| {
        context[at as usize..][..4].copy_from_slice(&value.to_ne_bytes());
    };
    put(SKB_PROTOCOL, frame.protocol.to_be().into());
    put(SKB_VLAN_PRESENT, frame.offloaded.is_some().into());
    put(SKB_VLAN_TCI, frame.offloaded.unwrap_or(0).into());
    put(SKB_CONTROL, frame.class);
    let machine = Machine { packet: &packet, functions: &functions, memory: &[(counters, 128)] };
    let answer = machine.run(&compile(program), &mut context) as u32;
    let counted = COUNTERS.with(|counters| {
        let counters = counters.borrow();
        assert!(counters.iter().all(|count| *count <= 1));
        (0..16).filter(|place| counters[*place] == 1).collect()
    });
    (answer, counted)
}

/// An IP packet, as far as rules can see it.
struct Ip {
    proto: u8,
    src: IpAddr,
    dst: IpAddr,
    ports: Option<(u16, u16)>,
}

/// What begins at `at`, by the ethertype before it.
fn ip(bytes: &[u8], at: usize, ethertype: u16) -> Option<Ip> {
    let rest = bytes.get(at..)?;
    let word = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let ports = |at: usize| Some((word(at)?, word(at + 2)?));
    match ethertype {
        0x0800 => {
            let header = rest.get(..20)?;
            let address = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).unwrap();
            let direct = header[0] & 15 == 5 && word(6)? & 0x1fff == 0;
            Some(Ip {
                proto: header[9],
                src: address(12).into(),
                dst: address(16).into(),
                ports: if direct { ports(20) } else { None },
            })
        }
        0x86dd => {
            let header = rest.get(..40)?;
            let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).unwrap();
            let (src, dst) = (address(8).into(), address(24).into());
            Some(Ip { proto: header[6], src, dst, ports: ports(40) })
        }
        _ => None,
    }
}

/// The VLAN id (0: none), and the IP packet behind at most two tags in band.
fn read(frame: &Frame, ethernet: bool) -> (u16, Option<Ip>) {
    if !ethernet {
        return (0, ip(&frame.bytes, frame.network_header, frame.protocol));
    }
    let word = |at: usize| u16::from_be_bytes([frame.bytes[at], frame.bytes[at + 1]]);
    let mut tags: Vec<u16> = frame.offloaded.into_iter().collect();
    let mut at = 12;
    while [0x8100, 0x88a8].contains(&word(at)) && at < 12 + 8 {
        tags.push(word(at + 2));
        at += 4;
    }
    let vlan = tags.first().map_or(0, |tci| tci & 0xfff);
    (vlan, ip(&frame.bytes, at + 2, word(at)))
}

/// A rule in words.
fn matches(rule: &ProgramRule, frame: &Frame, ethernet: bool) -> bool {
    let (vlan, ip) = read(frame, ethernet);
    let ip = ip.as_ref();
    let headers = Headers {
        vlan,
        proto: ip.map(|ip| ip.proto),
        addresses: ip.map(|ip| (ip.src, ip.dst)),
        ports: ip.and_then(|ip| ip.ports),
    };
    let sent = |from: &Senders| from.include(ClassId(frame.class));
    rule.from.as_ref().is_none_or(sent) && rule.packets.differs(&headers).is_none()
}

fn meant(program: &RuleProgram, frame: &Frame) -> (u32, Vec<usize>) {
    let fits = |rule: &ProgramRule| matches(rule, frame, program.ethernet);
    match program.rules.iter().position(fits) {
        Some(place) => (program.rules[place].to.0, vec![place]),
        None => (0, Vec::new()),
    }
}

fn classid() -> impl Strategy<Value = ClassId> {
    let users = (0x10..0x14_u16).prop_map(|minor| ClassId::ours(Minor(minor)));
    let shard = (0x10..0x12_u16).prop_map(|minor| Shard::new(0xe000).unwrap().user(Minor(minor)));
    prop_oneof![4 => users, 2 => shard, 1 => Just(ClassId::NONE), 1 => Just(ClassId(u32::MAX))]
}

/// Ascending and apart, near each other and near what packets have.
fn ranges<T: Copy + std::fmt::Debug + 'static>(
    base: Vec<u128>,
    last: u128,
    narrow: impl Fn(u128) -> T + Copy + 'static,
) -> impl Strategy<Value = Option<Ranges<T>>> {
    let one = (prop::sample::select(base), 0_u128..4, 0_u128..4);
    let some = vec(one, 1..5).prop_map(move |mut found| {
        found.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::new();
        for (base, skip, more) in found {
            let first = base.saturating_add(skip).min(last);
            let end = first.saturating_add(more).min(last);
            if ranges.last().is_none_or(|(_, before)| before.saturating_add(1) < first) {
                ranges.push((first, end));
            }
        }
        ranges.into_iter().map(|(first, last)| (narrow(first), narrow(last))).collect()
    });
    proptest::option::weighted(0.4, some)
}

const V4: [u32; 3] = [0, 0x0a00_0000, u32::MAX - 4];
const V6: [u128; 4] = [0, 0xfd00 << 112, (0xfd00 << 112) | (u64::MAX as u128 - 1), u128::MAX - 4];

fn addresses() -> impl Strategy<Value = Option<Ranges<IpAddr>>> {
    let v4 = ranges(V4.map(u128::from).to_vec(), u32::MAX.into(), |bits| {
        IpAddr::from((bits as u32).to_be_bytes())
    });
    let v6 = ranges(V6.to_vec(), u128::MAX, |bits| IpAddr::from(bits.to_be_bytes()));
    (v4, v6).prop_map(|(v4, v6)| match (v4, v6) {
        (None, None) => None,
        (v4, v6) => Some(v4.into_iter().chain(v6).flatten().collect()),
    })
}

prop_compose! {
    fn rule()(
        to in (0x20..0x24_u16).prop_map(|minor| ClassId::ours(Minor(minor))),
        from in proptest::option::weighted(0.3, (any::<bool>(), prop::collection::btree_set(classid(), 0..4))),
        vlan in ranges(vec![0, 22, 4090], 4095, |id| id as u16),
        proto in ranges(vec![1, 6, 17, 58, 250], 255, |proto| proto as u8),
        src in addresses(),
        dst in addresses(),
        sport in ranges(vec![0, 80, 65_530], 65_535, |port| port as u16),
        dport in ranges(vec![0, 80, 65_530], 65_535, |port| port as u16),
    ) -> ProgramRule {
        ProgramRule {
            line: NonZeroU32::MIN,
            to,
            from: from.map(|(not, of)| Senders { not, of: of.into_iter().collect() }),
            packets: Packets { vlan, proto, src, dst, sport, dport },
        }
    }
}

prop_compose! {
    fn programs()(
        rules in vec(rule(), 1..8),
        ethernet in any::<bool>(),
        arrives in any::<bool>(),
    ) -> RuleProgram {
        let of_socket = Asks::Socket(Program {
            shards: false,
            tag: Some(TagHelper::Socket),
            cgroups: false,
            sockets: Sockets::All,
            mptcp: None,
            labels: false,
        });
        let asks = if arrives { Asks::Flow } else { of_socket };
        let asks = rules.iter().any(|rule| rule.from.is_some()).then_some(asks);
        RuleProgram { asks, ethernet, rules }
    }
}

prop_compose! {
    fn frames()(
        class in classid(),
        offloaded in proptest::option::of((0..3_u16, prop::sample::select(vec![0_u16, 22, 24, 4094]))),
        tags in vec((prop::sample::select(vec![0x8100_u16, 0x88a8]), prop::sample::select(vec![0_u16, 22, 23, 4094]), 0..2_u16), 0..4),
        v6 in any::<bool>(),
        odd in prop_oneof![9 => Just(None), 1 => prop::sample::select(vec![0x0806_u16, 0x8847, 0x0026]).prop_map(Some)],
        proto in prop::sample::select(vec![1_u8, 6, 17, 58, 0, 44, 255]),
        hosts in (prop::sample::select(V4.to_vec()), prop::sample::select(V4.to_vec()), prop::sample::select(V6.to_vec()), prop::sample::select(V6.to_vec())),
        near in (0..6_u32, 0..6_u32),
        ports in (prop::sample::select(vec![0_u16, 79, 80, 82, 65_535]), prop::sample::select(vec![0_u16, 79, 80, 82, 65_535])),
        ihl in prop_oneof![4 => Just(5_u8), 1 => 4..8_u8],
        fragment in prop::sample::select(vec![0_u16, 0, 0x2000, 0x4000, 1, 0x1fff, 0x2001]),
        payload in 0..40_usize,
        cut in prop_oneof![5 => Just(usize::MAX), 1 => 0..60_usize],
    ) -> Frame {
        let mut bytes = vec![2_u8; 12];
        for (tpid, id, bit) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend((id | bit << 13).to_be_bytes());
        }
        let protocol = odd.unwrap_or(if v6 { 0x86dd } else { 0x0800 });
        bytes.extend(protocol.to_be_bytes());
        let network_header = bytes.len();
        let [sport, dport] = [ports.0, ports.1].map(u16::to_be_bytes);
        if v6 {
            bytes.extend([0x60, 0, 0, 0, 0, 20, proto, 64]);
            bytes.extend(hosts.2.saturating_add(near.0.into()).to_be_bytes());
            bytes.extend(hosts.3.saturating_add(near.1.into()).to_be_bytes());
        } else {
            let [high, low] = fragment.to_be_bytes();
            bytes.extend([0x40 | ihl, 0, 0, 40, 0, 9, high, low, 64, proto, 1, 2]);
            bytes.extend(hosts.0.saturating_add(near.0).to_be_bytes());
            bytes.extend(hosts.1.saturating_add(near.1).to_be_bytes());
        }
        bytes.extend(sport);
        bytes.extend(dport);
        bytes.extend(vec![0; payload]);
        // Never within what an Ethernet frame surely has.
        bytes.truncate(network_header.saturating_add(cut));
        bytes.resize(bytes.len().max(16), 0);
        let offloaded = offloaded.map(|(priority, id)| priority << 13 | id);
        Frame { bytes, network_header, offloaded, class: class.0, protocol }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_program_decides_as_its_rules_say(program in programs(), frames in vec(frames(), 8)) {
        for frame in frames {
            prop_assert_eq!(run(&program, &frame), meant(&program, &frame), "{:?}", frame);
        }
    }

    #[test]
    fn the_text_of_the_rules_says_all_of_them(program in programs()) {
        let text = serde_json::to_string(&program.rules).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<ProgramRule>>(&text).unwrap(), program.rules);
    }
}

/// The largest that the policy lets through: each jump reaches its label.
#[test]
fn a_rule_of_a_thousand_networks_is_decided() {
    let net = |n: u32| {
        let at =
            |low: u128| IpAddr::from(((0xfd00 << 112) | u128::from(n) << 70 | low).to_be_bytes());
        (at(5), at(9))
    };
    let packets = Packets { dst: Some((0..1_000).map(net).collect()), ..Packets::default() };
    let rule = |to: u16, packets: &Packets| ProgramRule {
        line: NonZeroU32::MIN,
        to: ClassId::ours(Minor(to)),
        from: None,
        packets: packets.clone(),
    };
    let anything = Packets { vlan: Some(vec![(0, 0)]), ..Packets::default() };
    let rules = vec![rule(0x10, &packets), rule(0x11, &anything)];
    let program = RuleProgram { asks: None, ethernet: true, rules };
    for n in [0, 1, 499, 500, 998, 999, 1_000] {
        for (low, inside) in [(4_u128, false), (5, true), (9, true), (10, false)] {
            let dst: u128 = (0xfd00 << 112) | u128::from(n as u32) << 70 | low;
            let mut bytes = vec![2; 12];
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            bytes.extend(dst.to_be_bytes());
            bytes.extend(dst.to_be_bytes());
            bytes.extend([0; 8]);
            let frame = Frame { bytes, network_header: 14, protocol: 0x86dd, ..Frame::default() };
            let wanted = if inside && n < 1_000 { 0x1_0010 } else { 0x1_0011 };
            assert_eq!(run(&program, &frame).0, wanted, "{n} {low}");
        }
    }
}
