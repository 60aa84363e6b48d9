//! The program that labels what comes in by an inner link, run as a value by an interpreter, where
//! it asks whose a source is and where it does not. Needs nothing of the machine. What real packets
//! get is in `tests/kernel/guests.rs`.

#[path = "interpreter/ethernet.rs"]
mod ethernet;
mod interpreter;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use interpreter::{Machine, Packet};
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use shaper::classify::inner::*;
use shaper::classify::label::SKB_TC_INDEX;
use shaper::classify::program::{MAP_LOOKUP, SOURCES, hash};
use shaper::classify::program_rules::SKB_PROTOCOL;
use shaper::tree::{Label, Source};
use shaper::units::{ClassId, Minor};

const LINK: u32 = 7;

/// What the functions answer about: they are plain functions.
#[derive(Default)]
struct World {
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

/// The label of a packet.
fn labelled(it: Label, packet: &Packet) -> u32 {
    let value = WORLD.with_borrow(|world| (&raw const *world.value).expose_provenance() as u64);
    let mut context = [0; 192];
    context[SKB_PROTOCOL as usize..][..2].copy_from_slice(&ethernet::protocol(packet));
    context[SKB_IFINDEX as usize..][..4].copy_from_slice(&LINK.to_ne_bytes());
    let forged: u32 = 0x1234;
    context[SKB_TC_INDEX as usize..][..4].copy_from_slice(&forged.to_ne_bytes());
    let functions: [(i32, rbpf::ebpf::Helper); 1] = [(MAP_LOOKUP, look_up)];
    let machine = Machine { packet, functions: &functions, memory: &[(value, 4)] };
    let answer = machine.run(&label(it), &mut context);
    assert_eq!(answer as i32, -1, "the next filter is asked");
    let left = context[SKB_TC_INDEX as usize..][..4].try_into().expect("four bytes");
    u32::from_ne_bytes(left)
}

fn packet(from: IpAddr, tags: &[u16], at_tag: bool) -> Packet {
    let (protocol, header) = match from {
        IpAddr::V4(from) => (0x0800, [&[0x45; 12][..], &from.octets(), &[10, 0, 0, 99]].concat()),
        IpAddr::V6(from) => (0x86dd, [&[0x60; 8][..], &from.octets(), &[9; 16]].concat()),
    };
    ethernet::frame(tags, protocol, &header, at_tag)
}

fn address() -> impl Strategy<Value = IpAddr> {
    let host = prop::sample::select(vec![0_u8, 1, 2, 127, 128, 255]);
    (any::<bool>(), host.clone(), host).prop_map(|(v6, a, b)| match v6 {
        true => IpAddr::from([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]),
        false => IpAddr::from([10, 8, a, b]),
    })
}

fn nets() -> impl Strategy<Value = (Source, ClassId)> {
    let bits = prop::sample::select(vec![0_u8, 0, 1, 8, 16, 23, 24, 25, 31, 32, 64, 112, 120, 128]);
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

    /// Networks of the one family hold no address of the other, also not all of IPv6.
    #[test]
    fn the_longest_prefix_that_holds_the_source_says_whose_it_is(
        nets in btree_map(nets().prop_map(|(source, _)| source), 0x10..0x15_u16, 0..6),
        from in address(),
        tags in vec(prop::sample::select(vec![0x8100, 0x88a8]), 0..3),
        at_tag in any::<bool>(),
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
        prop_assert_eq!(labelled(label, &packet(from, &tags, at_tag)), meant);
    }
}

#[test]
fn what_has_no_source_is_the_links_owners() {
    let everything = Source { ifindex: LINK, net: "0.0.0.0/0".parse().expect("a network") };
    let sources = BTreeMap::from([(everything, ClassId::ours(Minor(0x11)))]);
    WORLD.with_borrow_mut(|world| world.sources = sources);
    let label = Label { owner: Some(Minor(0x20)), by_source: true, keeps: false };
    let whole = packet(IpAddr::from([10, 8, 0, 1]), &[], false);
    assert_eq!(labelled(label, &whole), 0x11);
    let body = &whole.bytes[14..];
    for (protocol, body) in [(0x0806, body), (0x0800, &body[..15]), (0x8100, &[0, 1])] {
        let packet = ethernet::frame(&[], protocol, body, false);
        assert_eq!(labelled(label, &packet), 0x20, "{protocol:x}");
    }
}

/// The label that a packet has behind a program, which had `before`.
fn relabelled(it: Label, before: u16) -> u32 {
    let machine = Machine { functions: &[], memory: &[], packet: &Packet::default() };
    let mut context = [0_u8; 192];
    context[SKB_TC_INDEX as usize..][..4].copy_from_slice(&u32::from(before).to_ne_bytes());
    let answer = machine.run(&label(it), &mut context);
    assert_eq!(answer as i32, -1, "the next filter is asked");
    let left = context[SKB_TC_INDEX as usize..][..4].try_into().expect("four bytes");
    u32::from_ne_bytes(left)
}

#[test]
fn a_label_overwrites_what_a_guest_wrote_and_a_bridge_keeps_its_ports() {
    let mut hashes = BTreeSet::new();
    for owner in [None, Some(Minor(0x10)), Some(Minor(0xdfff))] {
        let own = owner.map_or(0, |minor| u32::from(minor.0));
        for before in [0, 1, 0xf, 0x10, 0x11, 0xdfff, 0xe000, 0xfffd, 0xfffe, u16::MAX] {
            let label = Label { owner, by_source: false, keeps: false };
            assert_eq!(relabelled(label, before), own, "{before:x}");
            let is_label = (0x10..=0xdfff).contains(&before);
            let kept = if is_label { before.into() } else { own };
            assert_eq!(relabelled(Label { keeps: true, ..label }, before), kept, "{before:x}");
        }
        for by_source in [false, true] {
            let code = |keeps| label(Label { owner, by_source, keeps });
            hashes.extend([false, true].map(|keeps| hash(&code(keeps))));
        }
    }
    assert_eq!(hashes.len(), 12);
}
