//! u32 filters' options, both directions (`TCA_U32_*`, `struct tc_u32_sel` in `linux/pkt_cls.h`;
//! net/sched/cls_u32.c).
//!
//! # Handles, hash tables and prefs
//! A u32 handle is table (12 bits), bucket (8), node (12): `800::1` is 0x80000001. Every pref has a
//! root table of its own, but all u32 prefs of a qdisc share one space of table numbers
//! (`struct tc_u_common`), given out in a circle: the first pref gets 800:, the next 801:, and
//! after one is deleted and made again, or after a refused add, the number is another. So a table's
//! number cannot be foretold, and handle 800::1 at the second pref is refused ("Filter already
//! exists"). A handle with table 0, `::1`, means "node 1 of this pref's own root table": that is
//! what we send. Keys in a table are asked in the order of their node numbers, 1 to 0xfff; the
//! kernel itself starts giving out at 0x800. A node number that is taken is refused (ENOSPC).
//! Deleting the pref takes its root table and the keys in it along, at once.
//!
//! # Hash tables
//! A hash table that we number (`handle 100: u32 divisor 256`) can be filled while no node leads to
//! it (`handle ::N u32 ht 100:3f: match … flowid …`), and is asked once a node does: `handle ::N
//! u32 link 100: hashkey mask 0xff at 16`, without a flowid, so that a packet that the table does
//! not match goes on after the link. The table's number must be below 0x800: higher numbers are
//! never given back (`idr_alloc_u32` takes the handle, `idr_remove` the number).
//!
//! So a set is written tables first, the deepest before those that lead to them, and the nodes of
//! the pref's root table last and in order: no packet sees a half-written set as anything but the
//! old answer or the new one. Deleting the pref takes its root table away at once, and with it the
//! set. But:
//! - Hash tables stay in the qdisc's `tc_u_common` until the last u32 pref of the qdisc goes. A
//!   dump shows only the tables of prefs that exist, and the rules of the others still keep their
//!   classes busy (`HTB class in use`). Any table can be asked for and deleted by number through
//!   any u32 pref of the qdisc, of whatever protocol; when a table's own pref is made again, the
//!   dump shows the table again.
//! - A table is `Can not delete in-use filter` (EBUSY) for some 20 ms after its last link went, for
//!   keys are freed by a work queue after a grace period (`tcf_queue_work`): try again.

use std::num::NonZeroU32;

use netlink_packet_route::tc::{
    TcFilterU32Option, TcHandle, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::attr;
use crate::tree::{U32Hash, U32Key, U32Link, U32Rule};
use crate::units::ClassId;

pub(super) const KIND: &str = "u32";

/// How many nodes one bucket can hold: their numbers are 1 to 0xfff.
pub const MAX_NODES: usize = 0xfff;

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_HASH: u16 = 2;
const TCA_U32_LINK: u16 = 3;
const TCA_U32_DIVISOR: u16 = 4;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_PCNT: u16 = 9;
const TCA_U32_FLAGS: u16 = 11;
const TCA_U32_PAD: u16 = 12;

/// `TC_U32_TERMINAL`: the packet goes to the classid and no further rule is asked.
const TERMINAL: u8 = 1;
/// `TC_U32_OFFSET | TC_U32_EAT`: the table to which the link leads counts its offsets from `off`
/// bytes further on.
const ADVANCE: u8 = 2 | 8;

/// The handle of a node: its table, bucket and number. With node 0 it is the bucket's, with bucket
/// 0 too the table's.
pub(super) fn handle(table: u16, bucket: u8, node: u16) -> u32 {
    u32::from(table) << 20 | u32::from(bucket) << 12 | u32::from(node)
}

/// `tc filter … u32 ht TABLE:BUCKET: match … flowid TO`; `bucket` `None`: in the pref's root table.
/// At most 128 keys (`TC_U32_MAXKEYS` is not checked by the kernel, nkeys is a byte); ours have at
/// most 10.
///
/// The number of a rule's line is where a link has the mask of its hash (`hmask`): without a link
/// the kernel keeps that mask and never reads it (`u32_classify`), and tc can write it.
pub(super) fn rule_options(bucket: Option<u32>, rule: &U32Rule) -> Vec<TcOption> {
    let mut selector = selector(&rule.keys);
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.hmask = rule.line.map_or(0, NonZeroU32::get);
    let mut options = vec![TcFilterU32Option::ClassId(TcHandle::from(rule.to.0))];
    options.extend(bucket.map(TcFilterU32Option::Hash));
    options.push(TcFilterU32Option::Selector(selector));
    options.into_iter().map(TcOption::U32).collect()
}

/// `tc filter … u32 ht TABLE:BUCKET: match … link LINK: hashkey mask … at …`; the link's table by
/// its number in the qdisc.
pub(super) fn link_options(bucket: Option<u32>, link: &U32Link) -> Vec<TcOption> {
    let mut selector = selector(&link.keys);
    if link.advance > 0 {
        selector.flags = TcU32SelectorFlags::from_bits_retain(ADVANCE);
        selector.off = link.advance;
    }
    if let Some(hash) = link.hash {
        selector.hmask = hash.mask;
        selector.hoff = hash.offset;
    }
    let mut options = vec![TcFilterU32Option::Link(handle(link.table, 0, 0))];
    options.extend(bucket.map(TcFilterU32Option::Hash));
    options.push(TcFilterU32Option::Selector(selector));
    options.into_iter().map(TcOption::U32).collect()
}

/// `tc filter … u32 divisor N`.
pub(super) fn table_options(divisor: u16) -> Vec<TcOption> {
    vec![TcOption::U32(TcFilterU32Option::Divisor(divisor.into()))]
}

/// The key that `tc` writes for a rule that compares nothing, since it always writes one.
const ANYTHING: U32Key = U32Key { value: 0, mask: 0, offset: 0 };

fn selector(keys: &[U32Key]) -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.keys = keys.iter().take(usize::from(u8::MAX)).map(key).collect();
    if keys.is_empty() {
        selector.keys.push(key(&ANYTHING));
    }
    // The crate panics where nkeys is not the number of keys.
    selector.nkeys = u8::try_from(selector.keys.len()).unwrap_or(u8::MAX);
    selector
}

fn key(key: &U32Key) -> TcU32Key {
    let mut wire = TcU32Key::default();
    wire.mask = key.mask;
    wire.val = key.value & key.mask;
    wire.off = key.offset;
    wire
}

/// One record of a u32 filter's dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum U32Record {
    /// A hash table; a root table has divisor 1.
    Table {
        /// `TCA_U32_DIVISOR`: how many buckets it has, a power of two up to 256.
        divisor: u32,
    },
    /// A key node that [`U32Rule`] says completely.
    Rule(U32Rule),
    /// A key node that [`U32Link`] says completely, the table by its number in the qdisc.
    Link(U32Link),
    /// A key node that shaper never writes: with an offset read from the packet, an action, a mark
    /// or a device, with both a classid and a link, or with neither.
    Other,
}

/// The record, from the value of `TCA_OPTIONS` of a u32 filter with a handle.
pub(super) fn read(options: &[u8]) -> U32Record {
    if let Some(divisor) = attr::find(options, TCA_U32_DIVISOR) {
        return attr::u32_at(divisor, 0)
            .map_or(U32Record::Other, |divisor| U32Record::Table { divisor });
    }
    node(options).unwrap_or(U32Record::Other)
}

/// How many packets a rule has matched (`struct tc_u32_pcnt`), from the value of `TCA_OPTIONS`.
/// `None` for a record that is no rule, and on a kernel without CONFIG_CLS_U32_PERF, which does not
/// count.
pub(super) fn hits(options: &[u8]) -> Option<u64> {
    const HITS: std::ops::Range<usize> = 8..16;
    let counts = attr::find(options, TCA_U32_PCNT)?;
    Some(u64::from_ne_bytes(counts.get(HITS)?.try_into().ok()?))
}

fn node(options: &[u8]) -> Option<U32Record> {
    let plain = [
        TCA_U32_CLASSID,
        TCA_U32_HASH,
        TCA_U32_LINK,
        TCA_U32_SEL,
        // The counters of a kernel with CONFIG_CLS_U32_PERF are no part of the rule.
        TCA_U32_PCNT,
        // Whether the hardware has the rule is no part of it either.
        TCA_U32_FLAGS,
        TCA_U32_PAD,
    ];
    if attr::attrs(options).any(|(kind, _)| !plain.contains(&kind)) {
        return None;
    }
    let number = |kind| attr::find(options, kind).and_then(|value| attr::u32_at(value, 0));
    let selector = TcU32Selector::parse(attr::find(options, TCA_U32_SEL)?).ok()?;
    let keys = selector.keys.iter().map(|key| {
        let plain = key.offmask == 0;
        plain.then_some(U32Key { value: key.val, mask: key.mask, offset: key.off })
    });
    let mut keys: Vec<U32Key> = keys.collect::<Option<_>>()?;
    if keys == [ANYTHING] {
        keys.clear();
    }
    let hash = match (selector.hmask, selector.hoff) {
        (0, 0) => None,
        (0, _) => return None,
        (mask, offset) => Some(U32Hash { mask, offset }),
    };
    match (number(TCA_U32_CLASSID), number(TCA_U32_LINK), selector.flags.bits(), hash) {
        (Some(to), None, TERMINAL, None | Some(U32Hash { offset: 0, .. })) => {
            let line = hash.and_then(|hash| NonZeroU32::new(hash.mask));
            Some(U32Record::Rule(U32Rule { keys, to: ClassId(to), line }))
        }
        (None, Some(table), flags, hash) if flags == 0 || flags == ADVANCE => {
            let plain = (selector.offmask, selector.offshift, selector.offoff) == (0, 0, 0);
            let advance = if flags == 0 { 0 } else { selector.off };
            // A link without `advance` has no flags.
            let table = (table >> 20) as u16;
            (plain && (flags == 0) == (advance == 0)).then_some(U32Record::Link(U32Link {
                keys,
                table,
                hash,
                advance,
            }))
        }
        _ => None,
    }
}
