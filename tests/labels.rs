//! The program that labels what comes in by an inner link, run as a value by an interpreter, where
//! it asks whose a source is. Needs nothing of the machine. Without that it is in
//! `tests/program.rs`, and what real packets get is in `tests/kernel/guests.rs`.

mod interpreter;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::btree_map;
use proptest::prelude::*;

use shaper::classify::inner::*;
use shaper::classify::label::SKB_TC_INDEX;
use shaper::classify::program::{MAP_LOOKUP, SOURCES};
use shaper::classify::program_rules::{LOAD_BYTES_RELATIVE, SKB_PROTOCOL};
use shaper::tree::{Label, Source};
use shaper::units::{ClassId, Minor};

const LINK: u32 = 7;

/// What the functions answer about: they are plain functions.
#[derive(Default)]
struct World {
    /// From the network header on.
    packet: Vec<u8>,
    sources: BTreeMap<Source, ClassId>,
    /// Where a looked-up value lies.
    value: Box<u32>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// The longest prefix that holds the key's address, of those of its link.
fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(map, u64::from(SOURCES));
    let from = std::ptr::with_exposed_provenance::<[u8; SOURCE_KEY_BYTES]>(key as usize);
    // SAFETY: the program's stack, which the interpreter has checked it to write to.
    let key = unsafe { from.read_unaligned() };
    let all = source(key).expect("a key");
    assert_eq!(all.net.prefix_len(), all.net.max_prefix_len(), "all bits count");
    WORLD.with_borrow_mut(|world| {
        let holds = |source: &&Source| {
            source.ifindex == all.ifindex && source.net.contains(&all.net.addr())
        };
        let found = world.sources.keys().filter(holds).max_by_key(|it| it.net.prefix_len());
        let Some(class) = found.map(|source| world.sources[source]) else { return 0 };
        *world.value = class.0;
        (&raw const *world.value).expose_provenance() as u64
    })
}

/// As `bpf_skb_load_bytes_relative`: what is not there becomes zeros.
fn load(_: u64, offset: u64, to: u64, count: u64, from: u64) -> u64 {
    assert_eq!(from, 1, "from the network header");
    let (offset, count) = (offset as usize, count as usize);
    let found = WORLD.with_borrow(|world| Some(world.packet.get(offset..offset + count)?.to_vec()));
    let (bytes, answer) = match found {
        Some(bytes) => (bytes, 0),
        None => (vec![0; count], -14_i64 as u64),
    };
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) };
    answer
}

/// The label of a packet whose outermost ethertype is `protocol`.
fn labelled(it: Label, protocol: u16, packet: &[u8]) -> u32 {
    let bytes = interpreter::bytes(&label(it));
    let mut machine = rbpf::EbpfVmRaw::new(Some(&bytes)).expect("a program that the checker takes");
    machine.register_helper(MAP_LOOKUP as u32, look_up).expect("a function");
    machine.register_helper(LOAD_BYTES_RELATIVE as u32, load).expect("a function");
    let value = WORLD.with_borrow_mut(|world| {
        world.packet = packet.to_vec();
        (&raw const *world.value).expose_provenance() as u64
    });
    machine.register_allowed_memory(value..value + 4);
    let mut context = [0_u8; 192];
    context[SKB_PROTOCOL as usize..][..2].copy_from_slice(&protocol.to_be_bytes());
    context[SKB_IFINDEX as usize..][..4].copy_from_slice(&LINK.to_ne_bytes());
    let forged: u32 = 0x1234;
    context[SKB_TC_INDEX as usize..][..4].copy_from_slice(&forged.to_ne_bytes());
    let answer = machine.execute_program(&mut context).expect("runs to its end");
    assert_eq!(answer as i32, -1, "the next filter is asked");
    let left = context[SKB_TC_INDEX as usize..][..4].try_into().expect("four bytes");
    u32::from_ne_bytes(left)
}

/// Its ethertype, and what begins at the network header, a VLAN tag in the bytes before it.
fn packet(from: IpAddr, tagged: bool) -> (u16, Vec<u8>) {
    let (protocol, header) = match from {
        IpAddr::V4(from) => {
            (0x0800_u16, [&[0x45; 12][..], &from.octets(), &[10, 0, 0, 99]].concat())
        }
        IpAddr::V6(from) => (0x86dd, [&[0x60; 8][..], &from.octets(), &[9; 16]].concat()),
    };
    match tagged {
        false => (protocol, header),
        true => (0x8100, [&[0, 7], &protocol.to_be_bytes()[..], &header].concat()),
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    let host = prop::sample::select(vec![0_u8, 1, 2, 127, 128, 255]);
    (any::<bool>(), host.clone(), host).prop_map(|(v6, a, b)| match v6 {
        true => IpAddr::from([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]),
        false => IpAddr::from([10, 8, a, b]),
    })
}

fn nets() -> impl Strategy<Value = (Source, ClassId)> {
    let bits = prop::sample::select(vec![0_u8, 1, 8, 16, 23, 24, 25, 31, 32, 64, 112, 120, 128]);
    let ifindex = prop_oneof![4 => Just(LINK), 1 => Just(LINK + 1)];
    (address(), bits, ifindex, 0x10..0x15_u16).prop_map(|(address, bits, ifindex, minor)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(address, bits.min(most)).expect("a prefix").trunc();
        (Source { ifindex, net }, ClassId::ours(Minor(minor)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1_000)
    })]

    #[test]
    fn the_longest_prefix_that_holds_the_source_says_whose_it_is(
        nets in btree_map(nets().prop_map(|(source, _)| source), 0x10..0x15_u16, 0..6),
        from in address(),
        tagged in any::<bool>(),
        owner in proptest::option::of(Just(Minor(0x20))),
    ) {
        let class = |minor: u16| ClassId::ours(Minor(minor));
        let sources = nets.into_iter().map(|(source, minor)| (source, class(minor)));
        let sources: BTreeMap<Source, ClassId> = sources.collect();
        let holds = |it: &&Source| it.ifindex == LINK && it.net.contains(&from);
        let found = sources.keys().filter(holds).max_by_key(|it| it.net.prefix_len());
        let meant = found.map(|it| sources[it].minor()).or(owner).map_or(0, |it| it.0.into());
        WORLD.with_borrow_mut(|world| world.sources = sources);
        let label = Label { owner, by_source: true, keeps: false };
        let (protocol, bytes) = packet(from, tagged);
        prop_assert_eq!(labelled(label, protocol, &bytes), meant);
    }
}

#[test]
fn what_has_no_source_is_the_links_owners() {
    let everything = Source { ifindex: LINK, net: "0.0.0.0/0".parse().expect("a network") };
    let sources = BTreeMap::from([(everything, ClassId::ours(Minor(0x11)))]);
    WORLD.with_borrow_mut(|world| world.sources = sources);
    let label = Label { owner: Some(Minor(0x20)), by_source: true, keeps: false };
    let (_, whole) = packet(IpAddr::from([10, 8, 0, 1]), false);
    assert_eq!(labelled(label, 0x0800, &whole), 0x11);
    for (protocol, bytes) in [(0x0806, &whole[..]), (0x0800, &whole[..15]), (0x8100, &[0, 1])] {
        assert_eq!(labelled(label, protocol, bytes), 0x20, "{protocol:x}");
    }
}
