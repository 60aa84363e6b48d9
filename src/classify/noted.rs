//! What one program has decided about a packet, for the next one that would ask the same. Pure.
//!
//! A packet that leaves meets the program that notes flows, then the one at the root and, where
//! there are shards, the one of its shard: each would ask whose it is. So the one before leaves the
//! class in the packet's control block, which filters of clsact and of qdiscs see alike, and beside
//! it the sum of the class and a word, by which the next one knows it. It is taken once: the packet
//! may leave by another link as well.

use super::assembler::{Assembler, Label, R1, R2, R3, R6, R9, Register, Width};

/// Offset of `cb` in `struct __sk_buff`, 20 bytes that filters leave to each other (`qdisc_skb_cb`,
/// include/net/sch_generic.h). Rules have the first word: the sender's class, as found by the flow.
pub const SKB_CONTROL: i16 = 48;

/// Who has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The program at clsact that notes flows.
    Learner,
    /// The one at the root of a tree that has shards.
    Root,
}

impl By {
    /// What nobody else leaves there.
    fn word(self) -> i32 {
        match self {
            By::Learner => 0x0053_484c,
            By::Root => 0x0053_4852,
        }
    }
}

const CONTEXT: Register = R6;
const CLASS: Register = R9;
/// The fourth and the fifth word.
const DECIDED: i16 = SKB_CONTROL + 12;
const SUM: i16 = SKB_CONTROL + 16;

/// Leaves CLASS. CONTEXT is the context.
pub(super) fn leave(a: &mut Assembler, by: By) {
    a.copy(R1, CLASS);
    a.add(R1, by.word());
    a.store(Width::Word, CONTEXT, DECIDED, CLASS);
    a.store(Width::Word, CONTEXT, SUM, R1);
}

/// CLASS = what was left, and on to `known`; or on, with R1 as it was.
pub(super) fn take(a: &mut Assembler, by: By, known: Label) {
    let nothing = a.label();
    a.load(Width::Word, CLASS, CONTEXT, DECIDED);
    a.load(Width::Word, R2, CONTEXT, SUM);
    a.copy(R3, CLASS);
    a.add(R3, by.word());
    a.jump_if_differ(R2, R3, nothing);
    a.set(R2, 0);
    a.store(Width::Word, CONTEXT, SUM, R2);
    a.jump(known);
    a.bind(nothing);
}
