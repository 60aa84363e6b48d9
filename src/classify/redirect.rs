//! Which packets that arrive go through the link's ifb, and that none does which would not come out
//! of it again. Two eBPF programs, pure:
//!
//! - [`redirect`], at the link's clsact ingress: chooses packets;
//! - [`pulse`], at the root qdisc of the ifb, before all other filters: notes that packets come
//!   there.
//!
//! The kernel drops what is redirected to a device that is switched off (`tcf_mirred_act`,
//! net/sched/act_mirred.c), or whose root qdisc somebody has replaced by one that drops, and no
//! function says so to a program. So the two share a value: the one asks, and the other answers,
//! for as long as packets come through. While a question is open for longer than [`PATIENCE`],
//! every packet passes as if there were no ifb, and only copies are sent there to ask again.

use super::assembler::{
    Assembler, FRAME, Instruction, R0, R1, R2, R3, R4, R5, R7, R8, Register, Width,
};
use super::flows::{ICMP_V6, IPV6_BYTES};
use super::ip_header::{self, CONTEXT, Room, load};
use super::noted;
use super::program::look_up;

/// Array of one value: [`VALUE_BYTES`].
pub const PULSE: u8 = 0;
/// `{u32 when the last question was asked; u32 the last question that was answered}`, in
/// [`TICK_BITS`] of the monotonic clock. A question is open where the two differ.
pub const VALUE_BYTES: u32 = 8;
const ASKED: i16 = 0;
const ANSWERED: i16 = 4;
/// 2^20 ns: about a millisecond.
pub const TICK_BITS: i32 = 20;

/// For how many ticks a question may be open: packets are lost for as long where the ifb was
/// switched off. An answer comes within the very call that redirects, but a processor may be taken
/// away from the kernel meanwhile, and what passes then is not shaped.
pub const PATIENCE: i32 = 16;
/// After how many further ticks a question is asked again.
pub const AGAIN: i32 = 100;

/// `bpf_ktime_get_ns`.
pub const NOW: i32 = 5;
/// `bpf_clone_redirect`.
pub const CLONE_REDIRECT: i32 = 13;
/// `bpf_check_mtu`, Linux 5.12.
pub const CHECK_MTU: i32 = 163;

const ENODEV: i32 = 19;
/// IPv6 neighbour discovery: router solicitation to redirect (RFC 4861).
const NEIGHBOUR_DISCOVERY: [i32; 2] = [133, 137];

/// On the stack: the MTU that [`CHECK_MTU`] tells, the key, and a byte of the packet.
const MTU: i16 = -4;
const KEY: i16 = -8;
const NEXT: i16 = -16;

const ROOM: Room = Room { from: -24, tag: NEXT };

const TIME: Register = R7;
const VALUE: Register = R8;

/// The program that chooses what arrives through the ifb with this ifindex: -1 is a match, on which
/// the filter's action redirects, and 0 lets a packet pass as if there were no ifb. All of IP but
/// neighbour discovery, which like ARP must not wait behind anybody's traffic; and nothing once the
/// ifb is gone (`bpf_check_mtu` says ENODEV) or packets do not come to its root: the action would
/// drop every packet. What looks like a decision of ours ([`super::noted`]) it clears. Its one map
/// is [`PULSE`].
pub fn redirect(ifb: u32) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let (ip, pass, through) = (a.label(), a.label(), a.label());
    let answered = a.label();
    a.copy(CONTEXT, R1);
    noted::clear(&mut a);
    let v6 = a.label();
    ip_header::find(&mut a, ROOM, [ip, v6, pass]);
    a.bind(v6);
    // A header that cannot be read is not neighbour discovery.
    load(&mut a, ROOM, (6, NEXT), 1, ip);
    a.load(Width::Byte, R1, FRAME, NEXT);
    a.jump_if_not(R1, ICMP_V6, ip);
    load(&mut a, ROOM, (IPV6_BYTES, NEXT), 1, ip);
    a.load(Width::Byte, R1, FRAME, NEXT);
    let [first, last] = NEIGHBOUR_DISCOVERY;
    a.jump_if_less(R1, first, ip);
    a.jump_if_at_most(R1, last, pass);
    a.bind(ip);
    a.store_value(Width::Word, FRAME, MTU, 0);
    a.copy(R1, CONTEXT);
    a.set_64(R2, ifb.into());
    a.copy(R3, FRAME);
    a.add(R3, MTU.into());
    a.set(R4, 0);
    a.set(R5, 0);
    a.call(CHECK_MTU);
    a.add(R0, ENODEV);
    a.jump_if_is(R0, 0, pass);
    a.call(NOW);
    a.copy(TIME, R0);
    a.shift_right(TIME, TICK_BITS);
    low_word(&mut a, TIME);
    find_value(&mut a);
    a.jump_if_is(R0, 0, through);
    a.copy(VALUE, R0);
    a.load(Width::Word, R1, VALUE, ASKED);
    a.load(Width::Word, R2, VALUE, ANSWERED);
    a.jump_if_same(R1, R2, answered);
    a.copy(R3, TIME);
    a.subtract_register(R3, R1);
    low_word(&mut a, R3);
    a.jump_if_at_most(R3, PATIENCE, through);
    a.jump_if_at_most(R3, PATIENCE + AGAIN, pass);
    // Other packets pass meanwhile, so this one's question is as old as theirs.
    a.add(TIME, -1 - PATIENCE);
    a.store(Width::Word, VALUE, ASKED, TIME);
    a.copy(R1, CONTEXT);
    a.set_64(R2, ifb.into());
    a.set(R3, 0);
    a.call(CLONE_REDIRECT);
    a.jump(pass);
    a.bind(answered);
    // One question a tick: most packets write nothing.
    a.jump_if_same(R1, TIME, through);
    a.store(Width::Word, VALUE, ASKED, TIME);
    a.bind(through);
    a.set(R0, -1);
    a.exit();
    a.bind(pass);
    a.set(R0, 0);
    a.exit();
    a.finish()
}

/// The program that answers, and leaves every packet to the filters behind it: without direct
/// action, so that 0 is no match. Its one map is [`PULSE`].
pub fn pulse() -> Vec<Instruction> {
    let mut a = Assembler::default();
    let done = a.label();
    find_value(&mut a);
    a.jump_if_is(R0, 0, done);
    a.load(Width::Word, R1, R0, ASKED);
    a.load(Width::Word, R2, R0, ANSWERED);
    a.jump_if_same(R1, R2, done);
    a.store(Width::Word, R0, ANSWERED, R1);
    a.bind(done);
    a.set(R0, 0);
    a.exit();
    a.finish()
}

fn find_value(a: &mut Assembler) {
    a.store_value(Width::Word, FRAME, KEY, 0);
    look_up(a, PULSE, KEY);
}

/// The upper half becomes 0.
fn low_word(a: &mut Assembler, register: Register) {
    a.shift_left(register, 32);
    a.shift_right(register, 32);
}
