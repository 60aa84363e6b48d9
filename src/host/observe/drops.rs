//! What leaf qdiscs have dropped, read again only where they have dropped more.

use std::collections::{BTreeMap, BTreeSet};

use super::links::steady_list;
use crate::netlink::decode::ClassRecord;
use crate::netlink::dropped::{Dropped, dropped};
use crate::netlink::request::dump;
use crate::sys::route::{List, SocketError};
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
    /// By the link's number, how many packets passed no class at its root.
    direct: BTreeMap<u32, u32>,
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
        if roots.is_empty() {
            return Ok(());
        }
        let (mut missing, mut is_same) = (BTreeSet::new(), false);
        let list = steady_list(roots, |netlink| {
            missing.clone_from(roots);
            is_same = is_told && self.roots.keys().eq(roots);
            let is_enough = |found: &Dropped| {
                if found.is_root && missing.remove(&found.ifindex) {
                    is_same &= self.roots.get(&found.ifindex) == Some(&found.packets);
                }
                is_same && missing.is_empty()
            };
            netlink.beginning(&dump::qdiscs(), dropped, is_enough)
        })?;
        let is_same = is_same && missing.is_empty();
        self.take(roots, list, is_same);
        Ok(())
    }

    /// Takes in a list of qdiscs. Leaves that one lacks which is not whole may have dropped as much
    /// as before, and the next list is read to its end. `is_same`: leaves have dropped no more than
    /// before.
    fn take(&mut self, roots: &BTreeSet<u32>, list: List<Dropped>, is_same: bool) {
        let ours = list.entries.iter().filter(|it| it.is_root && roots.contains(&it.ifindex));
        for Dropped { ifindex, direct_packets, .. } in ours.clone() {
            self.direct.extend(direct_packets.map(|packets| (*ifindex, packets)));
        }
        if is_same {
            return;
        }
        self.roots.clear();
        if list.is_whole {
            self.roots.extend(ours.map(|root| (root.ifindex, root.packets)));
            self.leaves.clear();
        }
        let leaves = list.entries.iter().filter(|it| !it.is_root);
        self.leaves.extend(leaves.map(|leaf| ((leaf.ifindex, leaf.handle), leaf.packets)));
    }

    /// How many packets passed no class at a link's root; `None`: that is not known.
    pub(super) fn direct_packets(&self, ifindex: u32) -> Option<u32> {
        self.direct.get(&ifindex).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u32 = 0x1_0000;

    fn list(entries: &[(u32, u64)], is_whole: bool) -> List<Dropped> {
        let entry = |(handle, packets): &(u32, u64)| Dropped {
            ifindex: 7,
            is_root: *handle == ROOT,
            handle: ClassId(*handle),
            packets: *packets,
            direct_packets: (*handle == ROOT).then_some(*packets as u32 + 1),
        };
        List { entries: entries.iter().map(entry).collect(), is_whole }
    }

    #[test]
    fn a_list_that_lacks_a_leaf_takes_nothing_back() {
        let (mut drops, roots) = (LeavesDrops::default(), BTreeSet::from([7]));
        let seen = |drops: &LeavesDrops| {
            [0x10_0000, 0x11_0000].map(|leaf| drops.leaves.get(&(7, ClassId(leaf))).copied())
        };
        drops.take(&roots, list(&[(ROOT, 103), (0x10_0000, 3), (0x11_0000, 100)], true), false);
        assert_eq!((seen(&drops), drops.roots.len()), ([Some(3), Some(100)], 1));
        drops.take(&roots, list(&[(ROOT, 105), (0x10_0000, 5)], false), false);
        assert_eq!(seen(&drops), [Some(5), Some(100)]);
        assert!(drops.roots.is_empty(), "so the next list is read to its end");
        drops.take(&roots, list(&[(ROOT, 106), (0x11_0000, 101)], true), false);
        assert_eq!((seen(&drops), drops.roots.len()), ([None, Some(101)], 1));
        // What passes no class makes no leaf drop more.
        assert_eq!(drops.direct_packets(7), Some(107));
        drops.take(&roots, list(&[(ROOT, 110)], true), true);
        assert_eq!((seen(&drops), drops.direct_packets(7)), ([None, Some(101)], Some(111)));
        assert_eq!(drops.direct_packets(8), None);
    }
}
