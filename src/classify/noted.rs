//! What the program at a root qdisc with shards has decided about a packet, for the program of the
//! shard, which would ask the same. Pure.
//!
//! The root's leaves the class in the packet's control block, which filters of clsact and of qdiscs
//! see alike, and beside it the sum of the class and a word, by which the shard's knows it and
//! takes it. What else has been in the control block, a queue of a guest's for one, could look like
//! it, so the first of our programs that a packet meets clears it: at clsact's egress, and before
//! an ifb.
//!
//! The program that notes flows, which decides the same at clsact, leaves nothing: while programs
//! are exchanged two of them stand, of which one may still read other maps than the root's.

use super::assembler::{Assembler, Label, R1, R2, R3, R6, R9, Register, Width};

/// Offset of `cb` in `struct __sk_buff`, 20 bytes that filters leave to each other (`qdisc_skb_cb`,
/// include/net/sch_generic.h). Rules have the first word: the sender's class, as found by the flow.
pub const SKB_CONTROL: i16 = 48;

const CONTEXT: Register = R6;
const CLASS: Register = R9;
/// The fourth and the fifth word.
const DECIDED: i16 = SKB_CONTROL + 12;
const SUM: i16 = SKB_CONTROL + 16;
const WORD: i32 = 0x0053_4852;

/// Leaves CLASS. CONTEXT is the context.
pub(super) fn leave(a: &mut Assembler) {
    a.copy(R1, CLASS);
    a.add(R1, WORD);
    a.store(Width::Word, CONTEXT, DECIDED, CLASS);
    a.store(Width::Word, CONTEXT, SUM, R1);
}

/// CLASS = what was left, and on to `known`; or on, with R1 as it was. It is taken once: the packet
/// may leave by another link as well.
pub(super) fn take(a: &mut Assembler, known: Label) {
    let nothing = a.label();
    a.load(Width::Word, CLASS, CONTEXT, DECIDED);
    a.load(Width::Word, R2, CONTEXT, SUM);
    a.copy(R3, CLASS);
    a.add(R3, WORD);
    a.jump_if_differ(R2, R3, nothing);
    clear(a);
    a.jump(known);
    a.bind(nothing);
}

/// Nothing was left: 0 is the sum of no class.
pub(super) fn clear(a: &mut Assembler) {
    a.set(R2, 0);
    a.store(Width::Word, CONTEXT, SUM, R2);
}
