//! u32 rules as the kernel has them at one pref: nodes in the pref's own table, and hash tables to
//! which some of those nodes lead. A table's number is counted from the first number that the pref
//! may use, so that the same rules are the same value at either pref of a pair.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;

use super::pref::Pref;
use crate::units::ClassId;

/// All u32 nodes of one pref.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct U32Rules {
    /// The pref's own table, in the order in which its nodes are asked.
    pub root: Vec<U32Node>,
    /// The hash tables, by number. A link leads to a table with a lower number than that of its own
    /// table.
    pub tables: BTreeMap<u16, U32Table>,
}

/// A hash table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U32Table {
    /// The number of buckets: a power of two up to 256.
    pub divisor: u16,
    /// The buckets that have nodes; the nodes of each in the order in which they are asked.
    pub buckets: BTreeMap<u8, Vec<U32Node>>,
}

/// A node of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum U32Node {
    /// Where its keys match, the packet goes to the rule's class.
    Rule(U32Rule),
    /// Where its keys match, another table is asked.
    Link(U32Link),
}

/// One u32 key node: all selectors must match; the packet then goes to `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct U32Rule {
    /// All must match.
    pub keys: Vec<U32Key>,
    /// The class that it sends packets to.
    pub to: ClassId,
    /// The line of `rules` that this rule is a part of, counted from 1. The kernel keeps the number
    /// with the rule, so that `status` can add up what the parts of a line have matched.
    pub line: Option<NonZeroU32>,
}

/// Where all keys match, a bucket of another table is asked; if nothing in it matches, the node
/// after this one is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U32Link {
    /// All must match for the table to be asked.
    pub keys: Vec<U32Key>,
    /// The number of the hash table, below 0x800.
    pub table: u16,
    /// The bits that choose the bucket; `None`: the first bucket.
    pub hash: Option<U32Hash>,
    /// By how many bytes the offsets in the table, and in the tables below it, are counted from
    /// further on: the bytes between the network header and the IP header. A multiple of 4.
    pub advance: u16,
}

/// The bits of a packet that choose the bucket: those of `mask` in the word at `offset`, shifted
/// down to the lowest bit of the mask (`u32_hash_fold`, net/sched/cls_u32.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct U32Hash {
    /// Which bits choose the bucket, as they stand in the packet.
    pub mask: u32,
    /// Bytes from the start of the network header; a multiple of 4.
    pub offset: i16,
}

/// One 32-bit comparison (`struct tc_u32_key`, offmask 0): `(word at offset & mask) == value`.
/// Value and mask are in network byte order: 1.2.3.4 is 0x01020304.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct U32Key {
    /// The bits as they must be, in the order of the packet.
    pub value: u32,
    /// Which bits are compared.
    pub mask: u32,
    /// Bytes from the start of the network header; a multiple of 4. Negative offsets are in the
    /// link layer's header: the word at -4 ends with the ethertype on Ethernet.
    pub offset: i32,
}

impl From<Vec<U32Rule>> for U32Rules {
    /// A plain list, asked from the first to the last.
    fn from(rules: Vec<U32Rule>) -> U32Rules {
        let root = rules.into_iter().map(U32Node::Rule).collect();
        U32Rules { root, tables: BTreeMap::new() }
    }
}

impl U32Rules {
    /// Whether no rule is among them.
    pub fn is_empty(&self) -> bool {
        self.rules().next().is_none()
    }

    /// Every rule, once for each bucket that it is in.
    pub fn rules(&self) -> impl Iterator<Item = &U32Rule> {
        let tables = self.tables.values().flat_map(|table| table.buckets.values());
        let nodes = tables.chain([&self.root]).flatten();
        nodes.filter_map(|node| match node {
            U32Node::Rule(rule) => Some(rule),
            U32Node::Link(_) => None,
        })
    }

    /// How many different rules there are; a rule that a hash cannot tell from others is in many
    /// buckets and counts once.
    pub fn count(&self) -> usize {
        self.rules().collect::<BTreeSet<_>>().len()
    }

    /// The same set without the rules that are `gone`: packets that match none of these have the
    /// same answer as before.
    pub fn without(&self, gone: impl Fn(&U32Rule) -> bool) -> U32Rules {
        let mut rest = self.clone();
        let stays = |node: &U32Node| !matches!(node, U32Node::Rule(rule) if gone(rule));
        rest.root.retain(stays);
        for table in rest.tables.values_mut() {
            table.buckets.values_mut().for_each(|nodes| nodes.retain(stays));
            table.buckets.retain(|_, nodes| !nodes.is_empty());
        }
        rest
    }
}

impl Pref {
    /// The numbers that hash tables of this pref may have. All u32 prefs of a qdisc share one space
    /// of numbers (`struct tc_u_common`); from 0x800 on they are those of the prefs' own tables,
    /// and other programs seldom number theirs above 0xff. The first pair has more numbers, because
    /// it can have the rules of both families.
    pub fn tables(self) -> Range<u16> {
        let [a, b] = Pref::RULES_V4;
        let [c, d] = Pref::RULES_V6;
        match self {
            pref if pref == a => 0x100..0x3c0,
            pref if pref == b => 0x3c0..0x680,
            pref if pref == c => 0x680..0x740,
            pref if pref == d => 0x740..0x800,
            _ => 0..0,
        }
    }

    /// How many hash tables the pref may have.
    pub fn most_tables(self) -> u16 {
        let tables = self.tables();
        tables.end - tables.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tables_are_each_prefs_own_and_never_the_kernels() {
        let ranges = Pref::RULES.map(Pref::tables);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((ranges[0].start, ranges[3].end), (0x100, 0x800));
        assert!(Pref::TAG[0].tables().is_empty());
    }
}
