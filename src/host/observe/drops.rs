//! What leaf qdiscs have dropped, read again only where they have dropped more.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::decode::ClassRecord;
use crate::netlink::dropped::{Dropped, dropped};
use crate::netlink::request::dump;
use crate::sys::route::{Netlink, SocketError};
use crate::tree::Counters;
use crate::units::ClassId;

/// What leaf qdiscs have dropped, as the kernel last listed it.
#[derive(Clone, Debug, Default)]
pub(super) struct LeavesDrops {
    /// What each root of ours, by its link's number, had dropped by then, with all that is below
    /// it.
    roots: BTreeMap<u32, u64>,
    /// By the link's number and the leaf's handle, each that has dropped something.
    leaves: BTreeMap<(u32, ClassId), u64>,
}

impl LeavesDrops {
    /// Reads what leaves have dropped, unless the roots say that it is no more than before: where a
    /// leaf drops a packet, each qdisc above it counts one, too (`qdisc_tree_reduce_backlog`,
    /// net/sched/sch_api.c; `htb_enqueue`). A list of 10,000 leaves takes the kernel longer than
    /// one of as many classes, and of each link the root comes first. (Before Linux 6.15 fq_codel
    /// told of what it dropped while its queue became empty with the next packet only.)
    ///
    /// `roots`: the links' numbers. `is_told`: all leaves are of kinds that do tell.
    pub(super) fn read(&mut self, roots: &BTreeSet<u32>, is_told: bool) -> Result<(), SocketError> {
        let mut missing = roots.clone();
        let mut is_same = is_told && self.roots.keys().eq(roots);
        let before = &self.roots;
        let is_enough = |found: &Dropped| {
            if found.is_root && missing.remove(&found.ifindex) {
                is_same &= before.get(&found.ifindex) == Some(&found.packets);
            }
            is_same && missing.is_empty()
        };
        if roots.is_empty() {
            return Ok(());
        }
        let list = Netlink::open()?.beginning(&dump::qdiscs(), dropped, is_enough)?;
        if is_same && missing.is_empty() {
            return Ok(());
        }
        *self = LeavesDrops::default();
        for Dropped { ifindex, is_root, handle, packets } in list.entries {
            match is_root {
                true if roots.contains(&ifindex) => drop(self.roots.insert(ifindex, packets)),
                true => {}
                false => drop(self.leaves.insert((ifindex, handle), packets)),
            }
        }
        if !list.is_whole {
            self.roots.clear();
        }
        Ok(())
    }

    /// Adds what its leaf has dropped to a class's counters. The class counts those packets alone
    /// that its leaf refused (`htb_enqueue`, net/sched/sch_htb.c); the leaf counts these too, and
    /// those that fq_codel drops later to keep its queue short.
    pub(super) fn count(&self, class: &ClassRecord) -> Counters {
        let of_leaf = match self.leaves.is_empty() {
            true => None,
            false => self.leaves.get(&(class.ifindex, class.leaf)),
        };
        let drops = class.counters.drops.max(of_leaf.copied().unwrap_or(0));
        Counters { drops, ..class.counters }
    }
}
