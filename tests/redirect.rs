//! The programs that choose what goes through an ifb and note that it comes there, run as values by
//! an interpreter. Needs nothing of the machine.

#[path = "interpreter/ethernet.rs"]
mod ethernet;
mod interpreter;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use interpreter::{Context, Machine, Packet};
use shaper::classify::assembler::Instruction;
use shaper::classify::noted::SKB_CONTROL;
use shaper::classify::program::MAP_LOOKUP;
use shaper::classify::program_rules::SKB_PROTOCOL;
use shaper::classify::redirect::*;

const IFB: u32 = 7;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;

/// What the functions answer about: they are plain functions.
#[derive(Default)]
struct World {
    ifb_is_there: bool,
    /// What is sent to the ifb comes to its root.
    ifb_is_up: bool,
    /// The value that the two programs share.
    pulse: Box<[u8; VALUE_BYTES as usize]>,
    /// Ticks of the monotonic clock.
    now: u64,
    /// Copies that were sent to the ifb.
    copies: u32,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(map, u64::from(PULSE));
    let key = std::ptr::with_exposed_provenance::<u32>(key as usize);
    // SAFETY: the program's stack, below its end by what the program says.
    assert_eq!(unsafe { key.read_unaligned() }, 0);
    WORLD.with_borrow_mut(|world| world.pulse.as_mut_ptr().expose_provenance() as u64)
}

fn check_mtu(_: u64, ifindex: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(ifindex, u64::from(IFB));
    let is_there = WORLD.with_borrow(|world| world.ifb_is_there);
    if is_there { 0 } else { -19_i64 as u64 }
}

fn now(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    WORLD.with_borrow(|world| world.now << TICK_BITS)
}

/// A copy that comes to the root is answered by what runs there.
fn clone_redirect(_: u64, ifindex: u64, flags: u64, _: u64, _: u64) -> u64 {
    assert_eq!((ifindex, flags), (u64::from(IFB), 0));
    WORLD.with_borrow_mut(|world| {
        world.copies += 1;
        if world.ifb_is_up {
            let (asked, answered) = world.pulse.split_at_mut(4);
            answered.copy_from_slice(asked);
        }
    });
    0
}

/// What the program returns.
fn run(code: &[Instruction], packet: &Packet) -> u32 {
    run_in(code, packet, &mut [0; 192])
}

/// What it returns, and what it leaves in the packet's control block.
fn run_in(code: &[Instruction], packet: &Packet, context: &mut Context) -> u32 {
    let functions: [(i32, rbpf::ebpf::Helper); 4] = [
        (MAP_LOOKUP, look_up),
        (CHECK_MTU, check_mtu),
        (NOW, now),
        (CLONE_REDIRECT, clone_redirect),
    ];
    let start = WORLD.with_borrow_mut(|world| world.pulse.as_mut_ptr().expose_provenance() as u64);
    let memory = [(start, VALUE_BYTES.into())];
    context[SKB_PROTOCOL as usize..][..2].copy_from_slice(&ethernet::protocol(packet));
    let machine = Machine { packet, functions: &functions, memory: &memory };
    machine.run(code, context) as u32
}

/// An IPv6 packet with this next header, and the first byte of that.
fn v6(next: u8, first: u8) -> Vec<u8> {
    let mut packet = vec![0; 48];
    (packet[0], packet[6], packet[40]) = (0x60, next, first);
    packet
}

fn begin(ifb_is_up: bool) {
    WORLD.with_borrow_mut(|world| {
        *world = World { ifb_is_there: true, ifb_is_up, ..World::default() };
    });
}

/// Whether a packet goes through the ifb, at this tick.
fn goes_through(tick: u64) -> bool {
    WORLD.with_borrow_mut(|world| world.now = tick);
    let packet = ethernet::frame(&[], V4, &[0x45; 20], false);
    let goes = run(&redirect(IFB), &packet) == u32::MAX;
    if goes && WORLD.with_borrow(|world| world.ifb_is_up) {
        assert_eq!(run(&pulse(), &packet), 0, "the filters behind it are asked");
    }
    goes
}

fn set_up(is_up: bool) {
    WORLD.with_borrow_mut(|world| world.ifb_is_up = is_up);
}

fn copies() -> u32 {
    WORLD.with_borrow_mut(|world| std::mem::take(&mut world.copies))
}

/// Of what the driver or a queue has left there nothing looks like a decision behind the ifb.
#[test]
fn the_control_block_is_cleared_before_the_ifb() {
    begin(true);
    let mut context = [0xaa; 192];
    run_in(&redirect(IFB), &ethernet::frame(&[], V4, &[0x45; 20], false), &mut context);
    assert_eq!(context[SKB_CONTROL as usize + 16..][..4], [0; 4]);
}

#[test]
fn what_finds_the_way_to_the_host_is_never_queued_nor_is_anything_without_an_ifb() {
    begin(true);
    // However many tags it has, and wherever the network header is.
    let redirects = |protocol, body: &[u8]| {
        let tags: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8, 0x8100], &[0x8100, 0x8100]];
        let looks = tags.into_iter().flat_map(|tags| [(tags, false), (tags, true)]);
        let answers = looks.map(|(tags, at_tag)| {
            run(&redirect(IFB), &ethernet::frame(tags, protocol, body, at_tag)) == u32::MAX
        });
        let answers: BTreeSet<bool> = answers.collect();
        assert_eq!(answers.len(), 1, "{protocol:x}");
        answers.contains(&true)
    };
    let tcp = v6(6, 0);
    assert!(redirects(V6, &tcp) && redirects(V4, &[0x45; 20]));
    for kind in [133, 134, 135, 136, 137] {
        assert!(!redirects(V6, &v6(58, kind)), "{kind}: neighbour discovery");
    }
    for kind in [1, 128, 129, 132, 138] {
        assert!(redirects(V6, &v6(58, kind)), "{kind}");
    }
    assert!(!redirects(0x0806, &[0x45; 20]), "ARP");
    WORLD.with_borrow_mut(|world| world.ifb_is_there = false);
    assert!(!redirects(V6, &tcp) && !redirects(V4, &[0x45; 20]));
}

#[test]
fn where_nothing_comes_out_of_the_ifb_packets_soon_pass_as_if_there_were_none() {
    // Also while the low half of the clock begins anew.
    for start in [0, 7, (1 << 32) - 30, (1 << 32) - 1, 5 << 32] {
        begin(true);
        let (patience, again) = (PATIENCE as u64, AGAIN as u64);
        assert!((start..start + 900).step_by(3).all(goes_through), "{start}");
        // However long nothing came.
        let off = start + 1_000_000;
        assert!(goes_through(off));
        set_up(false);
        let lost = (off..off + 1_000).filter(|tick| goes_through(*tick)).count() as u64;
        assert!((patience..=patience + 2).contains(&lost), "{lost} packets are lost");
        assert_eq!(u64::from(copies()), 999 / (again + 1), "copies ask whether it is back");
        // Packets that come one by one are not lost for asking.
        assert!((off + 1_000..off + 90_000).step_by(1_000).all(|tick| !goes_through(tick)));
        let on = off + 90_000;
        set_up(true);
        copies();
        let back = (on..).find(|tick| goes_through(*tick)).unwrap();
        assert!(back - on <= again + 2, "back after {} ticks", back - on);
        assert_eq!(copies(), 1, "one packet comes twice");
        assert!((back..back + 900).all(goes_through));
    }
}

proptest! {
    #[test]
    fn no_bytes_are_an_error(protocol in any::<u16>(), packet in vec(any::<u8>(), 0..80)) {
        begin(true);
        for protocol in [protocol, V4, V6] {
            for code in [redirect(IFB), pulse()] {
                run(&code, &ethernet::frame(&[], protocol, &packet, false));
            }
        }
    }
}
