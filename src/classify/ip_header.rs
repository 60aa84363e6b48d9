//! Where a packet's IP header begins, for programs: also behind VLAN tags in the packet's bytes,
//! which [`super::frame`] tells of. Pure.
//!
//! With such a tag the network header is at the tag or at the IP header, depending on who made the
//! packet, and no function tells which. The Ethernet header is where it always is, so bytes are
//! then counted from that one.

use super::assembler::{Assembler, FRAME, Label, R0, R1, R2, R3, R4, R5, R6, R7, Register, Width};
use super::frame::{MOST_TAGS, TAG_BYTES, TAGS};
use super::program_rules::{ETHERTYPE_AT, FROM_NETWORK_HEADER, LOAD_BYTES_RELATIVE, SKB_PROTOCOL};
use crate::tree::Family;

/// Where programs of this file have the context.
pub(super) const CONTEXT: Register = R6;
/// How many bytes what is read next is behind the header that [`Room::from`] names.
pub(super) const OFFSET: Register = R7;

/// `BPF_HDR_START_MAC`.
const FROM_MAC_HEADER: i32 = 0;

/// Room on the stack, 4 bytes each.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// From which header [`OFFSET`] counts.
    pub from: i16,
    /// For a VLAN tag.
    pub tag: i16,
}

/// Goes to `v4` or `v6`, where [`OFFSET`] is then that of the IP header, or to `none`.
pub(super) fn find(a: &mut Assembler, room: Room, [v4, v6, none]: [Label; 3]) {
    let tagged = a.label();
    a.store_value(Width::Word, FRAME, room.from, FROM_NETWORK_HEADER);
    a.set(OFFSET, 0);
    a.load(Width::Word, R1, CONTEXT, SKB_PROTOCOL);
    families(a, v4, v6);
    tags(a, tagged);
    a.jump(none);
    a.bind(tagged);
    a.store_value(Width::Word, FRAME, room.from, FROM_MAC_HEADER);
    a.set(OFFSET, ETHERTYPE_AT + 2);
    for tag in 1..=MOST_TAGS {
        load(a, room, (0, room.tag), TAG_BYTES.into(), none);
        a.add(OFFSET, TAG_BYTES.into());
        a.load(Width::Half, R1, FRAME, room.tag + 2);
        families(a, v4, v6);
        if tag < MOST_TAGS {
            let inner = a.label();
            tags(a, inner);
            a.jump(none);
            a.bind(inner);
        }
    }
    a.jump(none);
}

/// On to the family that the ethertype in R1 names. R1 is then in the machine's byte order.
fn families(a: &mut Assembler, v4: Label, v6: Label) {
    a.big_endian_16(R1);
    a.jump_if_is(R1, Family::V4.ethertype().into(), v4);
    a.jump_if_is(R1, Family::V6.ethertype().into(), v6);
}

fn tags(a: &mut Assembler, tagged: Label) {
    TAGS.into_iter().for_each(|tpid| a.jump_if_is(R1, tpid.into(), tagged));
}

/// Copies `bytes` of the packet, from so far behind [`OFFSET`] on, to the stack; on to `short`
/// where it has not so many, and then R0 is not 0.
pub(super) fn load(
    a: &mut Assembler,
    room: Room,
    (behind, to): (i32, i16),
    bytes: i32,
    short: Label,
) {
    a.copy(R1, CONTEXT);
    a.copy(R2, OFFSET);
    a.add(R2, behind);
    a.copy(R3, FRAME);
    a.add(R3, to.into());
    a.set(R4, bytes);
    a.load(Width::Word, R5, FRAME, room.from);
    a.call(LOAD_BYTES_RELATIVE);
    a.jump_if_not(R0, 0, short);
}
