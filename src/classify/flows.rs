//! What arrives has no socket yet when it is shaped, so a packet that leaves says whose its flow
//! is. Two eBPF programs, pure:
//!
//! - [`learn`], at the link's clsact egress, where addresses are those of the wire (behind NAT):
//!   notes the sender's class under the flow;
//! - [`find`], at the root qdisc of the link's ifb: the class noted under the flow, seen from the
//!   other end, or that of the socket which is bound to the port ([`super::servers`]).
//!
//! A flow is an address and a port at each end and the protocol; an ICMP echo has its identifier
//! for a local port; of later fragments, which have no ports, the first one notes whose they are.
//! Nothing is followed beyond six IPv6 extension headers: no loops, so that old verifiers take it.

use super::assembler::{
    Assembler, FRAME, Instruction, Label, R0, R1, R2, R3, R4, R8, R9, Register, TC_ACT_UNSPEC,
    Width,
};
use super::ip_header::{self, CONTEXT, OFFSET, Room, load};
use super::noted::{self, SKB_CONTROL};
use super::program::{TASK_CLASSID, class_of_sender, look_up, to_shard};
use super::servers::{OnStack, class_of_server};
use crate::tree::Tag;

/// Hash map that forgets what was not used for longest: [`KEY_BYTES`] → [`VALUE_BYTES`]. In
/// [`learn`] the numbers below are those of the maps by which the sender is known
/// ([`super::program`]); the deciding program's map of sources, which has this number there, is
/// asked by labels alone.
pub const FLOWS: u8 = 3;

/// `{remote[16]; local[16]; be16 remote port; be16 local port; u8 protocol; u8 kind; u16 0}`.
/// An IPv4 address is the first four bytes of its field. The kind is 4 or 6; with [`LATER`] the
/// ports are a fragment's identification.
pub const KEY_BYTES: u32 = 40;
/// `{u32 classid; u32 0}`.
pub const VALUE_BYTES: u32 = 8;
/// Of a kind: later fragments.
pub const LATER: i32 = 0x80;

/// `bpf_map_update_elem`.
pub const MAP_UPDATE: i32 = 2;
/// On the stack: the key; the head of what follows an IP header, before which the header is; a
/// value; and of a first fragment its identification, beside which [`IS_FRAGMENT`] is 1.
const KEY: i16 = -40;
const NEXT: i16 = -48;
const HEADER_V4: i16 = NEXT - IPV4_BYTES as i16;
const HEADER_V6: i16 = NEXT - IPV6_BYTES as i16;
const VALUE: i16 = -96;
const FRAGMENT: i16 = -104;
const IS_FRAGMENT: i16 = FRAGMENT + 4;
const ROOM: Room = Room { from: -108, tag: NEXT };
/// [`OFFSET`] of what is at [`NEXT`].
const NEXT_IS: i16 = -112;
/// Bytes at [`NEXT`].
const NEXT_BYTES: i32 = 8;

/// Fields of the key.
const REMOTE: i16 = KEY;
const LOCAL: i16 = KEY + 16;
const REMOTE_PORT: i16 = KEY + 32;
const LOCAL_PORT: i16 = KEY + 34;
const PROTOCOL: i16 = KEY + 36;
const KIND: i16 = KEY + 37;

/// Of the transport header.
const TRANSPORT: Register = R8;
const CLASS: Register = R9;

/// Protocols whose header begins with the two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [i32; 5] = [6, 17, 33, 132, 136];
const ICMP: i32 = 1;
pub(super) const ICMP_V6: i32 = 58;
/// Echo request and reply.
const ECHO: [i32; 2] = [8, 0];
const ECHO_V6: [i32; 2] = [128, 129];
/// IPv6 extension headers: hop-by-hop, routing, destination options, mobility.
const OPTIONS: [i32; 4] = [0, 43, 60, 135];
const FRAGMENTED: i32 = 44;
const AUTHENTICATION: i32 = 51;
const MOST_EXTENSIONS: usize = 6;
const IPV4_BYTES: i32 = 20;
pub(super) const IPV6_BYTES: i32 = 40;

/// Which end of the flow a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From this host: its source is the local end.
    Out,
    /// To it.
    In,
}

/// The program that notes flows: whose a packet is it decides as the filter at the root does, and
/// every packet goes on (`TC_ACT_UNSPEC`). Its maps are those of the deciding program and
/// [`FLOWS`]. A flow whose packets become nobody's is nobody's from then on.
pub fn learn(tag: Tag) -> Vec<Instruction> {
    let mut a = Assembler::default();
    match tag {
        Tag::Bpf(program) => class_of_sender(&mut a, program),
        Tag::Cgroup => {
            a.copy(CONTEXT, R1);
            a.call(TASK_CLASSID);
            a.copy(CLASS, R0);
        }
    }
    let (done, new) = (a.label(), a.label());
    read_flow(&mut a, Way::Out, done, done);
    look_up(&mut a, FLOWS, KEY);
    a.jump_if_is(R0, 0, new);
    // Most packets end here: a write would take the entry from other processors' caches.
    a.load(Width::Word, R1, R0, 0);
    a.jump_if_same(R1, CLASS, done);
    a.store(Width::Word, R0, 0, CLASS);
    a.jump(done);
    a.bind(new);
    a.jump_if_is(CLASS, 0, done);
    note(&mut a);
    a.bind(done);
    a.set(R0, TC_ACT_UNSPEC);
    a.exit();
    a.finish()
}

/// The program that finds flows: without direct action, so that what it returns is the class, and 0
/// no match. `shards`: at the root of a tree that has some, where a class of a shard's becomes the
/// shard's. `for_rules`: before the program of the rules that ask whose a packet is, which reads
/// the class, or 0, from the packet's control block ([`SKB_CONTROL`]); then nothing is a match. Its
/// maps are [`FLOWS`] and [`super::servers::SERVERS`].
pub fn find(shards: bool, for_rules: bool) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.copy(CONTEXT, R1);
    let (unknown, later, found, whole) = (a.label(), a.label(), a.label(), a.label());
    let (new, known) = (a.label(), a.label());
    if !shards && !for_rules {
        noted::take(&mut a, whole);
    }
    read_flow(&mut a, Way::In, unknown, later);
    look_up(&mut a, FLOWS, KEY);
    a.jump_if_is(R0, 0, new);
    // Of a connection that has ended the last packet has no socket, and so is nobody's.
    a.load(Width::Word, CLASS, R0, 0);
    a.jump_if_not(CLASS, 0, known);
    a.bind(new);
    let at = OnStack { local: LOCAL, port: LOCAL_PORT, protocol: PROTOCOL, key: HEADER_V6 };
    class_of_server(&mut a, &at, unknown);
    a.bind(known);
    a.load(Width::Word, R1, FRAME, IS_FRAGMENT);
    a.jump_if_is(R1, 0, whole);
    // The first fragment: those that follow it are asked for by its identification.
    a.load(Width::Word, R1, FRAME, FRAGMENT);
    a.store(Width::Word, FRAME, REMOTE_PORT, R1);
    let v4 = a.label();
    a.load(Width::Byte, R1, FRAME, KIND);
    a.jump_if_is(R1, 4, v4);
    a.store_value(Width::Byte, FRAME, PROTOCOL, 0);
    a.bind(v4);
    a.or(R1, LATER);
    a.store(Width::Byte, FRAME, KIND, R1);
    note(&mut a);
    a.jump(whole);
    a.bind(later);
    look_up(&mut a, FLOWS, KEY);
    a.jump_if_not(R0, 0, found);
    a.bind(unknown);
    a.set(R0, 0);
    if for_rules {
        a.store(Width::Word, CONTEXT, SKB_CONTROL, R0);
    }
    a.exit();
    a.bind(found);
    a.load(Width::Word, CLASS, R0, 0);
    a.bind(whole);
    if for_rules {
        a.store(Width::Word, CONTEXT, SKB_CONTROL, CLASS);
        a.set(R0, 0);
        a.exit();
        return a.finish();
    }
    if shards {
        to_shard(&mut a);
    }
    a.copy(R0, CLASS);
    a.exit();
    a.finish()
}

/// Notes CLASS under the key.
fn note(a: &mut Assembler) {
    a.store(Width::Word, FRAME, VALUE, CLASS);
    a.store_value(Width::Word, FRAME, VALUE + 4, 0);
    a.map(R1, FLOWS);
    a.copy(R2, FRAME);
    a.add(R2, KEY.into());
    a.copy(R3, FRAME);
    a.add(R3, VALUE.into());
    a.set(R4, 0);
    a.call(MAP_UPDATE);
}

/// Fills the key from the packet; on to `none` where there is no flow, and to `later`, with the key
/// of its identification, where it is a later fragment. CLASS is left alone.
fn read_flow(a: &mut Assembler, way: Way, none: Label, later: Label) {
    for field in 0..5 {
        a.store_value(Width::Double, FRAME, KEY + field * 8, 0);
    }
    a.store_value(Width::Double, FRAME, FRAGMENT, 0);
    let (v4, v6, transport) = (a.label(), a.label(), a.label());
    ip_header::find(a, ROOM, [v4, v6, none]);
    a.bind(v4);
    read_v4(a, way, Ends { none, later, transport });
    a.bind(v6);
    read_v6(a, way, Ends { none, later, transport });
    a.bind(transport);
    read_transport(a, way, none);
}

/// Where reading an IP header goes on.
#[derive(Clone, Copy)]
struct Ends {
    none: Label,
    later: Label,
    /// At [`OFFSET`] is the transport header.
    transport: Label,
}

/// The fields of the key that a packet's source and destination are.
fn addresses(way: Way) -> (i16, i16) {
    match way {
        Way::Out => (LOCAL, REMOTE),
        Way::In => (REMOTE, LOCAL),
    }
}

/// Copies an IP header to the stack, with what follows it if there is so much: most packets have
/// nothing between the two, and so one call of a function has all that is asked of them.
fn read_header(a: &mut Assembler, (to, bytes): (i16, i32), none: Label) {
    let (alone, done) = (a.label(), a.label());
    load(a, ROOM, (0, to), bytes + NEXT_BYTES, alone);
    a.copy(R1, OFFSET);
    a.add(R1, bytes);
    a.store(Width::Word, FRAME, NEXT_IS, R1);
    a.jump(done);
    a.bind(alone);
    load(a, ROOM, (0, to), bytes, none);
    a.store_value(Width::Word, FRAME, NEXT_IS, 0);
    a.bind(done);
}

/// The first `bytes` of the transport header are at NEXT.
fn read_next(a: &mut Assembler, bytes: i32, none: Label) {
    let there = a.label();
    a.load(Width::Word, R1, FRAME, NEXT_IS);
    a.jump_if_same(R1, OFFSET, there);
    load(a, ROOM, (0, NEXT), bytes, none);
    a.bind(there);
}

fn read_v4(a: &mut Assembler, way: Way, Ends { none, later, transport }: Ends) {
    let (source, destination) = addresses(way);
    read_header(a, (HEADER_V4, IPV4_BYTES), none);
    a.load(Width::Byte, R1, FRAME, HEADER_V4);
    a.copy(R2, R1);
    a.shift_right(R2, 4);
    a.jump_if_not(R2, 4, none);
    a.and(R1, 15);
    a.jump_if_less(R1, 5, none);
    a.shift_left(R1, 2);
    a.add_register(OFFSET, R1);
    a.load(Width::Byte, TRANSPORT, FRAME, HEADER_V4 + 9);
    a.load(Width::Word, R1, FRAME, HEADER_V4 + 12);
    a.store(Width::Word, FRAME, source, R1);
    a.load(Width::Word, R1, FRAME, HEADER_V4 + 16);
    a.store(Width::Word, FRAME, destination, R1);
    a.store_value(Width::Byte, FRAME, KIND, 4);
    // The identification, then flags and offset (RFC 791).
    a.load(Width::Half, R2, FRAME, HEADER_V4 + 4);
    a.load(Width::Half, R1, FRAME, HEADER_V4 + 6);
    read_fragment(a, 4, later, transport);
    a.jump(transport);
}

fn read_v6(a: &mut Assembler, way: Way, ends: Ends) {
    let (source, destination) = addresses(way);
    read_header(a, (HEADER_V6, IPV6_BYTES), ends.none);
    a.load(Width::Byte, R1, FRAME, HEADER_V6);
    a.shift_right(R1, 4);
    a.jump_if_not(R1, 6, ends.none);
    a.load(Width::Byte, TRANSPORT, FRAME, HEADER_V6 + 6);
    for half in [0, 8] {
        a.load(Width::Double, R1, FRAME, HEADER_V6 + 8 + half);
        a.store(Width::Double, FRAME, source + half, R1);
        a.load(Width::Double, R1, FRAME, HEADER_V6 + 24 + half);
        a.store(Width::Double, FRAME, destination + half, R1);
    }
    a.store_value(Width::Byte, FRAME, KIND, 6);
    a.add(OFFSET, IPV6_BYTES);
    for _ in 0..MOST_EXTENSIONS {
        read_extension(a, ends);
    }
}

/// One extension header, if there is one: TRANSPORT and OFFSET are then those of what follows it.
fn read_extension(a: &mut Assembler, Ends { none, later, transport }: Ends) {
    let (options, fragment, next) = (a.label(), a.label(), a.label());
    OPTIONS.into_iter().for_each(|header| a.jump_if_is(TRANSPORT, header, options));
    a.jump_if_is(TRANSPORT, FRAGMENTED, fragment);
    a.jump_if_not(TRANSPORT, AUTHENTICATION, transport);
    // Its length is in units of 4 bytes, without the first two (RFC 4302).
    skip_header(a, 2, 2, none);
    a.jump(next);
    a.bind(options);
    // Theirs in units of 8, without the first (RFC 8200).
    skip_header(a, 1, 3, none);
    a.jump(next);
    a.bind(fragment);
    load(a, ROOM, (0, NEXT), 8, none);
    a.load(Width::Byte, TRANSPORT, FRAME, NEXT);
    a.add(OFFSET, 8);
    a.load(Width::Word, R2, FRAME, NEXT + 4);
    a.load(Width::Half, R1, FRAME, NEXT + 2);
    read_fragment(a, 6, later, next);
    a.bind(next);
}

/// R2 is the identification, and R1 has the offset and whether more follows: on to `later` with the
/// key of a later fragment, to `whole` where there is but one, and falls through for the first.
fn read_fragment(a: &mut Assembler, kind: i32, later: Label, whole: Label) {
    let (offset, more) = if kind == 4 { (0x1fff, 0x2000) } else { (0xfff8, 1) };
    a.big_endian_16(R1);
    a.copy(R3, R1);
    a.and(R3, offset);
    let first = a.label();
    a.jump_if_is(R3, 0, first);
    later_fragment(a, kind, later);
    a.bind(first);
    a.and(R1, more);
    a.jump_if_is(R1, 0, whole);
    a.store(Width::Word, FRAME, FRAGMENT, R2);
    a.store_value(Width::Word, FRAME, IS_FRAGMENT, 1);
}

/// A header that says itself how many `units` it has beyond the first `least`.
fn skip_header(a: &mut Assembler, least: i32, units: i32, none: Label) {
    load(a, ROOM, (0, NEXT), 2, none);
    a.load(Width::Byte, TRANSPORT, FRAME, NEXT);
    a.load(Width::Byte, R1, FRAME, NEXT + 1);
    a.add(R1, least);
    a.shift_left(R1, units);
    a.add_register(OFFSET, R1);
}

/// R2 is its identification. Of IPv6 the protocol is in the first fragment alone, behind headers
/// that are fragmented too, and is no part of what fragments are put together by (RFC 8200).
fn later_fragment(a: &mut Assembler, kind: i32, later: Label) {
    a.store(Width::Word, FRAME, REMOTE_PORT, R2);
    if kind == 4 {
        a.store(Width::Byte, FRAME, PROTOCOL, TRANSPORT);
    }
    a.store_value(Width::Byte, FRAME, KIND, kind | LATER);
    a.jump(later);
}

/// Ports, or an echo's identifier; of all other protocols there is one flow between two addresses.
fn read_transport(a: &mut Assembler, way: Way, none: Label) {
    let (source, destination) = match way {
        Way::Out => (LOCAL_PORT, REMOTE_PORT),
        Way::In => (REMOTE_PORT, LOCAL_PORT),
    };
    let (ports, icmp, icmp_v6, echo, done) =
        (a.label(), a.label(), a.label(), a.label(), a.label());
    a.store(Width::Byte, FRAME, PROTOCOL, TRANSPORT);
    WITH_PORTS.into_iter().for_each(|protocol| a.jump_if_is(TRANSPORT, protocol, ports));
    a.jump_if_is(TRANSPORT, ICMP, icmp);
    a.jump_if_is(TRANSPORT, ICMP_V6, icmp_v6);
    a.jump(done);
    a.bind(ports);
    read_next(a, 4, none);
    a.load(Width::Half, R1, FRAME, NEXT);
    a.store(Width::Half, FRAME, source, R1);
    a.load(Width::Half, R1, FRAME, NEXT + 2);
    a.store(Width::Half, FRAME, destination, R1);
    a.jump(done);
    for (header, types) in [(icmp, ECHO), (icmp_v6, ECHO_V6)] {
        a.bind(header);
        read_next(a, NEXT_BYTES, none);
        a.load(Width::Byte, R1, FRAME, NEXT);
        types.into_iter().for_each(|of| a.jump_if_is(R1, of, echo));
        a.jump(done);
    }
    a.bind(echo);
    a.load(Width::Half, R1, FRAME, NEXT + 4);
    a.store(Width::Half, FRAME, LOCAL_PORT, R1);
    a.bind(done);
}
