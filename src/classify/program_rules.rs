//! The rules that u32 cannot decide as one eBPF program, which is asked behind the u32 rules and
//! before the deciding one. Pure.
//!
//! It reads a packet as the u32 rules do: the IP header behind up to two VLAN tags in the packet's
//! bytes ([`super::frame`]); ports only where the transport header surely follows the fixed header
//! ([`super::u32`]). It finds whose a packet is by the deciding program's own instructions; where
//! packets arrive, [`super::flows::find`] has left the class in the packet's control block.
//!
//! The program keeps what it has found out about the packet on its stack, in slots and values that
//! the kernel's verifier does not track: the upper half of an 8-byte slot, and never 0
//! (`check_stack_write_fixed_off`, kernel/bpf/verifier.c). Otherwise the verifier would try each
//! combination of these values with each rule. For the same reason a comparison that does not match
//! goes straight on to the next rule: of each rule the verifier leaves one branch for later, and it
//! has room for 8,192.

use std::net::IpAddr;

use super::assembler::{
    Assembler, FRAME, Instruction, Label, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Width,
};
use super::frame::{MOST_TAGS, TAGS};
use super::noted::SKB_CONTROL;
use super::program::{MAP_LOOKUP, class_of_sender};
use super::ranges::{Number, Search, must_be_in, wide};
use crate::tree::{Asks, Family, Packets, ProgramRule, Ranges, RuleProgram, Senders};

/// The map, by its number, that counts each rule's packets: an array whose one value is a 64-bit
/// number for each rule. The numbers below are those of the maps by which the sender is known
/// ([`super::program`]); the map of sources, which has this number there, no rule asks.
pub const COUNTS: u8 = 3;
/// The map, by its number, that has the rules as JSON, so that whoever reads the filter can know
/// what it does: an array with one value.
pub const TEXT: u8 = 4;

/// `bpf_skb_load_bytes`.
pub const LOAD_BYTES: i32 = 26;
/// `bpf_skb_load_bytes_relative`, Linux 4.18.
pub const LOAD_BYTES_RELATIVE: i32 = 68;
/// `BPF_HDR_START_NET`.
pub(super) const FROM_NETWORK_HEADER: i32 = 1;

/// `struct __sk_buff` (linux/bpf.h). The protocol is in network byte order.
pub const SKB_PROTOCOL: i16 = 16;
/// Offset of `vlan_present`, 32 bits: the packet has an offloaded VLAN tag.
pub const SKB_VLAN_PRESENT: i16 = 20;
/// Offset of `vlan_tci`, 32 bits: priority and VLAN id of an offloaded VLAN tag.
pub const SKB_VLAN_TCI: i16 = 24;

const VLAN_ID: i32 = 0xfff;
/// Where an Ethernet header has its ethertype.
pub(super) const ETHERTYPE_AT: i32 = 12;

/// The length of the fixed header of IPv4, in bytes.
const V4_HEADER: i32 = 20;
const V6_HEADER: i32 = 40;
const PORTS_BYTES: i32 = 4;

/// Where on the stack the sender's class is, below the keys of the deciding program. It and the
/// VLAN id are stored plus 1, because the verifier tracks a 0.
const CLASS: i16 = -28;
const VLAN: i16 = -36;
/// [`NO_IP`], 4 or 6.
const FAMILY: i16 = -44;
/// Where on the stack it is whether the packet has ports.
const PORTS: i16 = -52;
/// Where on the stack the IP header and the four bytes behind it are.
const HEADER: i16 = -96;
/// Where on the stack a VLAN tag is read to, or an ethertype with two bytes behind it.
const TYPE: i16 = -16;
/// Where on the stack the key of the map of counts is.
const KEY: i16 = -4;

const NO_IP: i32 = 1;
const UNKNOWN: i32 = 1;
const KNOWN: i32 = 2;

/// The program of rules. Its maps are those by which the sender is known, with the deciding
/// program's numbers, and [`COUNTS`] and [`TEXT`].
pub fn compile(program: &RuleProgram) -> Vec<Instruction> {
    let mut a = Assembler::default();
    match program.asks {
        Some(asks) => {
            match asks {
                Asks::Socket(program) => class_of_sender(&mut a, program),
                Asks::Flow => {
                    a.copy(R6, R1);
                    a.load(Width::Word, R9, R6, SKB_CONTROL);
                }
            }
            a.add(R9, 1);
            a.store(Width::Word, FRAME, CLASS, R9);
        }
        None => a.copy(R6, R1),
    }
    read_packet(&mut a, program.ethernet);
    for (place, rule) in (0..).zip(&program.rules) {
        one(&mut a, place, rule);
    }
    // The program names the map, which so lives as long as the program.
    a.map(R1, TEXT);
    a.set(R0, 0);
    a.exit();
    a.finish()
}

/// Reads the packet and fills the stack with what rules compare. R6 is the context.
fn read_packet(a: &mut Assembler, ethernet: bool) {
    let (vlan, offset, family) = (R7, R8, R9);
    let (v4, v6, none, load) = (a.label(), a.label(), a.label(), a.label());
    if ethernet {
        find_header(a, v4, v6, none);
    } else {
        a.set(vlan, 0);
        a.set(offset, 0);
        a.load(Width::Word, R1, R6, SKB_PROTOCOL);
        a.big_endian_16(R1);
        a.jump_if_is(R1, Family::V4.ethertype().into(), v4);
        a.jump_if_is(R1, Family::V6.ethertype().into(), v6);
        a.jump(none);
    }
    a.bind(v4);
    a.set(family, 4);
    a.jump(load);
    a.bind(v6);
    a.set(family, 6);
    a.jump(load);
    a.bind(none);
    a.set(family, NO_IP);
    a.bind(load);
    a.add(vlan, 1);
    a.store(Width::Word, FRAME, VLAN, vlan);
    // The kernel writes the bytes on the stack also where it fails: the verifier demands that all
    // bytes that are read later were written.
    let (whole, no_ports, short_v6, done) = (a.label(), a.label(), a.label(), a.label());
    load_header(a, ethernet, V6_HEADER + PORTS_BYTES);
    a.jump_if_is(R0, 0, whole);
    a.jump_if_is(family, 6, short_v6);
    a.jump_if_is(family, NO_IP, no_ports);
    load_header(a, ethernet, V4_HEADER + PORTS_BYTES);
    a.jump_if_is(R0, 0, whole);
    load_header(a, ethernet, V4_HEADER);
    a.jump_if_is(R0, 0, no_ports);
    a.set(family, NO_IP);
    a.jump(no_ports);
    a.bind(short_v6);
    load_header(a, ethernet, V6_HEADER);
    a.jump_if_is(R0, 0, no_ports);
    a.set(family, NO_IP);
    a.jump(no_ports);
    a.bind(whole);
    let known = a.label();
    a.jump_if_not(family, 4, known);
    // Ports are known only without IP options and outside later fragments.
    a.load(Width::Byte, R1, FRAME, HEADER);
    a.and(R1, 0x0f);
    a.jump_if_not(R1, 5, no_ports);
    a.load(Width::Half, R1, FRAME, HEADER + 6);
    a.big_endian_16(R1);
    a.and(R1, 0x1fff);
    a.jump_if_not(R1, 0, no_ports);
    a.bind(known);
    a.set(R1, KNOWN);
    a.jump(done);
    a.bind(no_ports);
    a.set(R1, UNKNOWN);
    a.bind(done);
    a.store(Width::Word, FRAME, PORTS, R1);
    a.store(Width::Word, FRAME, FAMILY, family);
}

/// Goes to `v4` or `v6` once the packet's family is known, or to `none`. R7 is then the VLAN id,
/// and R8 the offset of the IP header.
fn find_header(a: &mut Assembler, v4: Label, v6: Label, none: Label) {
    let (vlan, offset, is_tagged) = (R7, R8, R9);
    let in_band = a.label();
    a.set(vlan, 0);
    a.set(is_tagged, 0);
    a.set(offset, ETHERTYPE_AT);
    a.load(Width::Word, R1, R6, SKB_VLAN_PRESENT);
    a.jump_if_is(R1, 0, in_band);
    a.load(Width::Word, vlan, R6, SKB_VLAN_TCI);
    a.and(vlan, VLAN_ID);
    a.set(is_tagged, 1);
    a.bind(in_band);
    for tags in 0..=MOST_TAGS {
        load_bytes(a, TYPE, 4);
        a.jump_if_not(R0, 0, none);
        a.add(offset, 2);
        a.load(Width::Half, R1, FRAME, TYPE);
        a.big_endian_16(R1);
        a.jump_if_is(R1, Family::V4.ethertype().into(), v4);
        a.jump_if_is(R1, Family::V6.ethertype().into(), v6);
        if tags == MOST_TAGS {
            a.jump(none);
            break;
        }
        let (tag, inner) = (a.label(), a.label());
        TAGS.into_iter().for_each(|tpid| a.jump_if_is(R1, tpid.into(), tag));
        a.jump(none);
        a.bind(tag);
        a.add(offset, 2);
        a.jump_if_not(is_tagged, 0, inner);
        a.set(is_tagged, 1);
        a.load(Width::Half, vlan, FRAME, TYPE + 2);
        a.big_endian_16(vlan);
        a.and(vlan, VLAN_ID);
        a.bind(inner);
    }
}

/// Copies `count` bytes of the packet, from the offset in R8 on, to `to` on the stack; R0 = 0 where
/// the packet has them.
fn load_bytes(a: &mut Assembler, to: i16, count: i32) {
    arguments(a, to, count);
    a.call(LOAD_BYTES);
}

/// Copies the first `count` bytes of the IP header to the stack; R0 = 0 where the packet has them.
fn load_header(a: &mut Assembler, ethernet: bool, count: i32) {
    if ethernet {
        return load_bytes(a, HEADER, count);
    }
    arguments(a, HEADER, count);
    a.set(R5, FROM_NETWORK_HEADER);
    a.call(LOAD_BYTES_RELATIVE);
}

fn arguments(a: &mut Assembler, to: i16, count: i32) {
    a.copy(R1, R6);
    a.copy(R2, R8);
    a.copy(R3, FRAME);
    a.add(R3, to.into());
    a.set(R4, count);
}

/// Instructions for one rule: where it matches, the program ends; else the next instruction
/// follows.
fn one(a: &mut Assembler, place: i32, rule: &ProgramRule) {
    let ProgramRule { to, from, packets, .. } = rule;
    let families: Vec<Headers> = [Headers::V4, Headers::V6]
        .into_iter()
        .filter(|headers| headers.can_have(packets))
        .collect();
    let nobody = from.as_ref().is_some_and(|from| !from.not && from.of.is_empty());
    if nobody || families.is_empty() || packets.vlan.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let no = a.label();
    if let Some(from) = from {
        senders(a, from, no);
    }
    if let Some(vlan) = &packets.vlan {
        a.load(Width::Word, R1, FRAME, VLAN);
        let ids: Vec<_> = wide(vlan).into_iter().map(|(from, to)| (from + 1, to + 1)).collect();
        must_be_in(a, Number::Short, &ids, no);
    }
    if is_of_ip(packets) {
        let hit = a.label();
        a.load(Width::Word, R1, FRAME, FAMILY);
        let labels: Vec<Label> = families.iter().map(|_| a.label()).collect();
        for (headers, label) in families.iter().zip(&labels) {
            a.jump_if_is(R1, headers.number(), *label);
        }
        a.jump(no);
        for (headers, label) in families.iter().zip(&labels) {
            a.bind(*label);
            headers.must_fit(a, packets, no);
            a.jump(hit);
        }
        a.bind(hit);
    }
    count(a, place);
    a.set(R0, to.0 as i32);
    a.exit();
    a.bind(no);
}

/// Whether only IP packets can match these fields.
fn is_of_ip(packets: &Packets) -> bool {
    let Packets { vlan: _, proto, src, dst, sport, dport } = packets;
    proto.is_some() || src.is_some() || dst.is_some() || sport.is_some() || dport.is_some()
}

fn senders(a: &mut Assembler, senders: &Senders, no: Label) {
    let classes: Vec<_> =
        senders.of.iter().map(|class| u128::from(class.0.wrapping_add(1))).collect();
    let mut classes: Vec<_> = classes.into_iter().map(|class| (class, class)).collect();
    classes.sort_unstable();
    a.load(Width::Word, R1, FRAME, CLASS);
    if !senders.not {
        return must_be_in(a, Number::Short, &classes, no);
    }
    if !classes.is_empty() {
        let others = a.label();
        Search { number: Number::Short, yes: no, no: others }.among(a, &classes);
        a.bind(others);
    }
}

/// Counts a packet for the rule. A plain addition loses none: the kernel has the root qdisc's lock
/// while it asks the filters, and no other qdisc's filter has this map.
fn count(a: &mut Assembler, place: i32) {
    let skip = a.label();
    a.store_value(Width::Word, FRAME, KEY, 0);
    a.map(R1, COUNTS);
    a.copy(R2, FRAME);
    a.add(R2, KEY.into());
    a.call(MAP_LOOKUP);
    a.jump_if_is(R0, 0, skip);
    a.add(R0, place * 8);
    a.load(Width::Double, R1, R0, 0);
    a.add(R1, 1);
    a.store(Width::Double, R0, 0, R1);
    a.bind(skip);
}

/// The two kinds of IP header.
#[derive(Clone, Copy, PartialEq)]
enum Headers {
    V4,
    V6,
}

impl Headers {
    fn number(self) -> i32 {
        match self {
            Headers::V4 => 4,
            Headers::V6 => 6,
        }
    }

    fn is_of(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Headers::V4)
    }

    /// The addresses of a field that a packet with such a header can have.
    fn addresses(self, ranges: &Ranges<IpAddr>) -> Vec<(u128, u128)> {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let here = ranges.iter().filter(|(first, _)| self.is_of(first));
        here.map(|(first, last)| (bits(*first), bits(*last))).collect()
    }

    fn can_have(self, packets: &Packets) -> bool {
        let Packets { vlan: _, proto, src, dst, sport, dport } = packets;
        let address = |field: &Option<Ranges<IpAddr>>| {
            field.as_ref().is_none_or(|ranges| !self.addresses(ranges).is_empty())
        };
        let port =
            |field: &Option<Ranges<u16>>| field.as_ref().is_none_or(|ranges| !ranges.is_empty());
        address(src)
            && address(dst)
            && port(sport)
            && port(dport)
            && proto.as_ref().is_none_or(|ranges| !ranges.is_empty())
    }

    /// Goes to `no` unless header and ports match the rule's fields.
    fn must_fit(self, a: &mut Assembler, packets: &Packets, no: Label) {
        let (proto_at, src_at, dst_at, ports_at) = match self {
            Headers::V4 => (9, 12, 16, 20),
            Headers::V6 => (6, 8, 24, 40),
        };
        if let Some(proto) = &packets.proto {
            a.load(Width::Byte, R1, FRAME, HEADER + proto_at);
            must_be_in(a, Number::Short, &wide(proto), no);
        }
        for (field, at) in [(&packets.src, src_at), (&packets.dst, dst_at)] {
            let Some(ranges) = field else { continue };
            let number = match self {
                Headers::V4 => {
                    a.load(Width::Word, R1, FRAME, HEADER + at);
                    a.big_endian_32(R1);
                    Number::Short
                }
                Headers::V6 => {
                    a.load(Width::Double, R1, FRAME, HEADER + at);
                    a.big_endian_64(R1);
                    a.load(Width::Double, R2, FRAME, HEADER + at + 8);
                    a.big_endian_64(R2);
                    Number::Long
                }
            };
            must_be_in(a, number, &self.addresses(ranges), no);
        }
        if packets.sport.is_some() || packets.dport.is_some() {
            let known = a.label();
            a.load(Width::Word, R1, FRAME, PORTS);
            a.jump_if_is(R1, KNOWN, known);
            a.jump(no);
            a.bind(known);
        }
        for (field, at) in [(&packets.sport, ports_at), (&packets.dport, ports_at + 2)] {
            if let Some(ports) = field {
                a.load(Width::Half, R1, FRAME, HEADER + at);
                a.big_endian_16(R1);
                must_be_in(a, Number::Short, &wide(ports), no);
            }
        }
    }
}
