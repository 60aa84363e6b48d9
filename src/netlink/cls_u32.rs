//! u32 filters' options, both directions (`TCA_U32_*`, `struct tc_u32_sel` in `linux/pkt_cls.h`;
//! net/sched/cls_u32.c).
//!
//! # Handles, hash tables and prefs
//! A u32 handle is table (12 bits), bucket (8), node (12): `800::1` is 0x80000001. Every pref has a
//! root table of its own, but all u32 prefs of a qdisc share one space of table numbers
//! (`struct tc_u_common`), given out in a circle: the first pref gets 800:, the next 801:, and after
//! one is deleted and made again, or after a refused add, the number is another. So a table's number
//! cannot be foretold, and handle 800::1 at the second pref is refused ("Filter already exists").
//! A handle with table 0, `::1`, means "node 1 of this pref's own root table": that is what we send.
//! Keys in a table are asked in the order of their node numbers, 1 to 0xfff; the kernel itself
//! starts giving out at 0x800. A node number that is taken is refused (ENOSPC). Deleting the pref
//! takes its root table and the keys in it along, at once.
//!
//! # A whole set in one step (not used yet; tried on 6.18)
//! A table of one's own (`handle 5: u32 divisor 1`; numbers below 0x800, for those above are never
//! given back: `idr_alloc_u32` takes the handle, `idr_remove` the number) can be filled while nothing
//! points at it (`handle ::N u32 ht 5:0: match … flowid …`), and becomes active with a single key
//! in the pref's root table: `handle ::1 u32 link 5: match u32 0 0 at 0`, without a flowid, so that
//! what the table does not match goes on to the next pref. Changing that key in place (`filter
//! change … handle 801::1 u32 link 6: …`, by its real number as read back) swaps two sets at one
//! pref atomically. But:
//! - Deleting the pref deletes only its root table. Linked tables stay in the qdisc's `tc_u_common`,
//!   unseen, until the last u32 pref of the qdisc goes; they show again when the same pref is made
//!   again, and their rules keep their classes busy (`HTB class in use`). So: delete the link key,
//!   then each table by its handle, then the pref.
//! - A table is `Can not delete in-use filter` (EBUSY) for a moment after its last link went, for
//!   keys are freed by a work queue (`tcf_queue_work`): try again.
//!
//! With one root table at each of two prefs, sent in order, no packet sees a half-written set as
//! anything but the old answer or the new one, and a delete leaves nothing: so that is what we do.

use netlink_packet_route::tc::{
    TcFilterU32Option, TcHandle, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::attr;
use crate::state::{U32Key, U32Rule};
use crate::units::ClassId;

pub(super) const KIND: &str = "u32";

/// Rules that one pref can hold: node numbers 1 to 0xfff of its root table.
pub const MAX_RULES: usize = 0xfff;

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_HASH: u16 = 2;
const TCA_U32_DIVISOR: u16 = 4;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_PCNT: u16 = 9;
const TCA_U32_FLAGS: u16 = 11;
const TCA_U32_PAD: u16 = 12;

/// `TC_U32_TERMINAL`: the packet goes to the classid and no further rule is asked.
const TERMINAL: u8 = 1;

/// `tc filter … u32 match … flowid TO`. At most 128 keys (`TC_U32_MAXKEYS` is not checked by the
/// kernel, nkeys is a byte); ours have at most 11.
pub(super) fn options(rule: &U32Rule) -> Vec<TcOption> {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = rule.keys.iter().take(usize::from(u8::MAX)).map(key).collect();
    // The crate writes nkeys as it is and panics where it is not the number of keys.
    selector.nkeys = u8::try_from(selector.keys.len()).unwrap_or(u8::MAX);
    vec![
        TcOption::U32(TcFilterU32Option::ClassId(TcHandle::from(rule.to.0))),
        TcOption::U32(TcFilterU32Option::Selector(selector)),
    ]
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
    Table { divisor: u32 },
    /// A key node that [`U32Rule`] says completely.
    Rule(U32Rule),
    /// A key node with something that we never write: a link to another table, an offset, an
    /// action, a mark, a device, or no classid.
    Other,
}

/// From the value of `TCA_OPTIONS` of a u32 record with a handle.
pub(super) fn read(options: &[u8]) -> U32Record {
    if let Some(divisor) = attr::find(options, TCA_U32_DIVISOR) {
        return attr::u32_at(divisor, 0)
            .map_or(U32Record::Other, |divisor| U32Record::Table { divisor });
    }
    rule(options).map_or(U32Record::Other, U32Record::Rule)
}

fn rule(options: &[u8]) -> Option<U32Rule> {
    let plain = [
        TCA_U32_CLASSID,
        TCA_U32_HASH,
        TCA_U32_SEL,
        // Counters, with CONFIG_CLS_U32_PERF.
        TCA_U32_PCNT,
        // Whether hardware has it.
        TCA_U32_FLAGS,
        TCA_U32_PAD,
    ];
    if attr::attrs(options).any(|(kind, _)| !plain.contains(&kind)) {
        return None;
    }
    let to = ClassId(attr::u32_at(attr::find(options, TCA_U32_CLASSID)?, 0)?);
    let selector = TcU32Selector::parse(attr::find(options, TCA_U32_SEL)?).ok()?;
    if selector.flags.bits() != TERMINAL || selector.hmask != 0 {
        return None;
    }
    let keys = selector.keys.iter().map(|key| {
        let plain = key.offmask == 0;
        plain.then_some(U32Key { value: key.val, mask: key.mask, offset: key.off })
    });
    Some(U32Rule { keys: keys.collect::<Option<_>>()?, to })
}
