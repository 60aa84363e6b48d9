//! The objects below our root qdisc on one link: classes, leaves and filters, ours and foreign
//! ones.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::error::ObserveError;
use crate::host::Kernel;
use crate::netlink::decode::{self, ClassRecord, FilterRecord, QdiscRecord};
use crate::netlink::flow_name::Finds;
use crate::netlink::{assemble, hooks, request};
use crate::tree::{
    Counters, Filter, Foreign, FoundFilter, LeafQdisc, MapIds, Parent, Port, Pref, Strange, Tree,
};
use crate::units::{ClassId, Shard};

/// Our tree on one link, and foreign objects in it.
#[derive(Default)]
pub(super) struct SeenTree {
    pub tree: Tree,
    pub strange: Strange,
    pub counters: BTreeMap<ClassId, Counters>,
    pub direct_packets: Option<u32>,
    pub rules: BTreeMap<NonZeroU32, RuleHits>,
    /// Foreign objects in the tree.
    pub foreign: Vec<Foreign>,
    /// Classes that cannot be removed because of foreign objects.
    pub bound: BTreeSet<ClassId>,
    /// The maps that each deciding program reads, by qdisc and pref.
    pub maps: BTreeMap<(ClassId, Pref), MapIds>,
    /// The maps of each program that finds flows, by qdisc and pref.
    pub finders: BTreeMap<(ClassId, Pref), Finds>,
    /// The map of each program at the root that notes that packets come.
    pub pulses: BTreeMap<Pref, u32>,
    /// The names of the programs of rules.
    pub programs: BTreeMap<Pref, String>,
}

impl SeenTree {
    /// Takes in what qdiscs have counted. `with_leaf`: the leaf of each class.
    fn count(&mut self, qdiscs: &[QdiscRecord], with_leaf: &[(ClassId, ClassId)]) {
        count_leaves_drops(qdiscs, with_leaf, &mut self.counters);
        let root = qdiscs.iter().find(|qdisc| qdisc.parent.is_none());
        self.direct_packets = root.and_then(|root| Some(root.htb?.direct_packets));
    }
}

/// The class that a line of `rules` sends to, and how many packets it has matched; `None` where the
/// kernel does not count them (without CONFIG_CLS_U32_PERF).
pub type RuleHits = (ClassId, Option<u64>);

/// Our root qdisc on a link.
pub(super) struct OurRoot<'a> {
    pub port: Port,
    /// The link's.
    pub ifindex: u32,
    /// All qdiscs of the link that were listed.
    pub qdiscs: &'a [QdiscRecord],
}

/// Who owns a class below one of our qdiscs.
pub(super) struct Ours<'a> {
    /// The classes that directories name.
    claimed: &'a BTreeSet<ClassId>,
    /// A shard is ours as long as a claim has a class in it.
    shards: BTreeSet<Shard>,
}

impl Ours<'_> {
    pub(super) fn new(claimed: &BTreeSet<ClassId>) -> Ours<'_> {
        Ours { claimed, shards: claimed.iter().filter_map(|classid| classid.shard()).collect() }
    }

    /// The HTB qdiscs that our classes are in, each of which is asked for its own: classes of
    /// another one on the link (that somebody hung below a class) are theirs, whatever their
    /// numbers.
    pub(super) fn qdiscs(&self) -> impl Iterator<Item = ClassId> {
        self.shards.iter().map(|shard| shard.qdisc()).chain([ClassId::ROOT])
    }

    pub(super) fn has(&self, classid: ClassId) -> bool {
        let needs_no_claim = match classid.shard().or(Shard::of_class(classid)) {
            None => matches!(classid, ClassId::LINK | ClassId::DEFAULT | ClassId::UNSHAPED),
            Some(shard) => {
                self.shards.contains(&shard)
                    && [shard.class(), shard.root(), shard.default()].contains(&classid)
            }
        };
        needs_no_claim || self.claimed.contains(&classid)
    }
}

impl OurRoot<'_> {
    /// Reads all that stands below it. `claimed`: the classes that directories name.
    pub(super) fn tree(
        &self,
        kernel: &mut Kernel,
        claimed: &BTreeSet<ClassId>,
    ) -> Result<SeenTree, ObserveError> {
        let OurRoot { port, ifindex, qdiscs } = self;
        let (mut seen, ours) = (SeenTree::default(), Ours::new(claimed));
        let with_leaf = self.classes(kernel, &ours, &mut seen)?;
        seen.count(qdiscs, &with_leaf);
        seen.tree.leaves = leaves(kernel, *ifindex, qdiscs, with_leaf, &mut seen)?;
        let request = request::dump::filters(*ifindex, ClassId::ROOT);
        let records = kernel.netlink.dump(&request, decode::filter)?;
        seen.strange.tables = left_tables(kernel, *ifindex, &records)?;
        seen.rules = assemble::lines(&records);
        seen.programs = assemble::program_rules(&records);
        seen.tree.filters = filters(port, Parent::Root, records, &mut seen);
        let leaves = seen.tree.leaves.iter();
        let shards = leaves.filter(|(_, leaf)| **leaf == LeafQdisc::Shard);
        let shards: Vec<Shard> = shards.filter_map(|(id, _)| Shard::of_class(*id)).collect();
        for shard in shards {
            let request = request::dump::filters(*ifindex, shard.qdisc());
            let records = kernel.netlink.dump(&request, decode::filter)?;
            let filters = filters(port, Parent::Shard(shard), records, &mut seen);
            seen.tree.shards.insert(shard, filters);
        }
        Ok(seen)
    }

    /// Reads the classes alone, with their counters.
    pub(super) fn limited(
        &self,
        kernel: &mut Kernel,
        claimed: &BTreeSet<ClassId>,
    ) -> Result<SeenTree, ObserveError> {
        let mut seen = SeenTree::default();
        let with_leaf = self.classes(kernel, &Ours::new(claimed), &mut seen)?;
        seen.count(self.qdiscs, &with_leaf);
        Ok(seen)
    }

    /// Reads the classes of each of our qdiscs into `seen`, and what each of ours names as its
    /// leaf, in order.
    fn classes(
        &self,
        kernel: &mut Kernel,
        ours: &Ours<'_>,
        seen: &mut SeenTree,
    ) -> Result<Vec<(ClassId, ClassId)>, ObserveError> {
        let mut classes = Vec::new();
        for qdisc in ours.qdiscs() {
            let question = request::dump::classes_of(self.ifindex, qdisc);
            classes.extend(kernel.netlink.dump(&question, decode::class)?);
        }
        // The kernel lists classes by hash. Sorted ones go into the maps without a search for each.
        classes.sort_unstable_by_key(|record| record.classid);
        let mut counters = Vec::with_capacity(classes.len());
        let mut standing = Vec::with_capacity(classes.len());
        let mut with_leaf = Vec::with_capacity(classes.len());
        for ClassRecord { classid, class, counters: counted, leaf, .. } in classes {
            if ours.has(classid) {
                standing.push((classid, class));
                counters.push((classid, counted));
                // The fifo that a class has by itself has no handle.
                with_leaf.extend((leaf != ClassId::NONE).then_some((classid, leaf)));
            } else {
                seen.bound.extend(class.parent);
                seen.foreign.push(Foreign::Class { port: self.port.clone(), classid });
            }
        }
        seen.tree.classes = standing.into_iter().collect();
        seen.counters = counters.into_iter().collect();
        Ok(with_leaf)
    }
}

/// Adds what leaf qdiscs dropped to their classes' counters. The class counts those packets alone
/// that its leaf refused (`htb_enqueue`, net/sched/sch_htb.c); the leaf counts these too, and those
/// that fq_codel drops later to keep its queue short. `with_leaf`: the leaf of each class.
pub(super) fn count_leaves_drops<'q>(
    qdiscs: impl IntoIterator<Item = &'q QdiscRecord>,
    with_leaf: &[(ClassId, ClassId)],
    counters: &mut BTreeMap<ClassId, Counters>,
) {
    let drops = |qdisc: &QdiscRecord| (qdisc.handle, qdisc.counters.drops);
    let dropped: BTreeMap<ClassId, u64> =
        qdiscs.into_iter().map(drops).filter(|(_, drops)| *drops > 0).collect();
    for (classid, leaf) in with_leaf {
        let Some(drops) = dropped.get(leaf) else { continue };
        if let Some(counters) = counters.get_mut(classid) {
            counters.drops = counters.drops.max(*drops);
        }
    }
}

/// The qdiscs below classes of ours; those that shaper does not make go to `seen.strange`.
/// `with_leaf`: what each class names as its leaf, in order.
fn leaves(
    kernel: &mut Kernel,
    ifindex: u32,
    qdiscs: &[QdiscRecord],
    with_leaf: Vec<(ClassId, ClassId)>,
    seen: &mut SeenTree,
) -> Result<BTreeMap<ClassId, LeafQdisc>, ObserveError> {
    let by_handle: BTreeMap<ClassId, Option<LeafQdisc>> =
        qdiscs.iter().map(|qdisc| (qdisc.handle, qdisc.leaf)).collect();
    let mut leaves = Vec::with_capacity(with_leaf.len());
    for (classid, handle) in with_leaf {
        let leaf = match by_handle.get(&handle) {
            Some(leaf) => *leaf,
            // The list of qdiscs skipped it.
            None => {
                let question = request::leaf::get(ifindex, handle);
                let found = kernel.netlink.get(&question, decode::qdisc)?.ok().flatten();
                count_leaves_drops(&found, &[(classid, handle)], &mut seen.counters);
                found.and_then(|it| it.leaf)
            }
        };
        match leaf.filter(|_| handle == LeafQdisc::handle(classid)) {
            Some(leaf) => leaves.push((classid, leaf)),
            None => drop(seen.strange.leaves.insert(classid, handle)),
        }
    }
    Ok(leaves.into_iter().collect())
}

/// Our filters at one qdisc; strange ones go to `seen.strange`, and others to `seen.foreign`.
fn filters(
    port: &Port,
    at: Parent,
    filters: Vec<FilterRecord>,
    seen: &mut SeenTree,
) -> BTreeMap<Pref, Filter> {
    let mut ours = BTreeMap::new();
    let parent = at.classid();
    let mut kinds: BTreeMap<Pref, (u16, String)> = BTreeMap::new();
    for record in &filters {
        kinds.entry(record.pref).or_insert_with(|| (record.protocol, record.kind.clone()));
    }
    let is_ours = |pref: Pref| pref.is_ours(port.direction);
    let bound = filters.iter().filter(|record| !is_ours(record.pref));
    let bound: Vec<ClassId> = bound.filter_map(|record| record.binds?.our_class()).collect();
    seen.bound.extend(bound);
    let maps = assemble::programs(&filters).into_iter().map(|(pref, (_, maps))| (pref, maps));
    seen.maps.extend(maps.map(|(pref, ids)| ((parent, pref), ids)));
    let finders = hooks::finders(&filters).into_iter();
    seen.finders.extend(finders.map(|(pref, finds)| ((parent, pref), finds)));
    if at == Parent::Root {
        seen.pulses = hooks::pulses(&filters);
    }
    for (pref, filter) in assemble::filters(filters) {
        match filter {
            FoundFilter::Ours(filter) if is_ours(pref) => drop(ours.insert(pref, filter)),
            FoundFilter::Strange(filter) if is_ours(pref) => {
                seen.strange.filters.insert(at.at(pref), filter);
            }
            _ => {
                let (protocol, kind) = kinds.remove(&pref).unwrap_or_default();
                // A foreign filter there would go with the shard, so the shard stays.
                seen.bound.extend(parent.shard().map(Shard::root));
                let port = port.clone();
                seen.foreign.push(Foreign::Filter { port, parent, pref, protocol, kind });
            }
        }
    }
    ours
}

/// u32 hash tables of prefs of ours that were deleted. No list has them, and they exist only while
/// another u32 pref stands. The first table of a set is deleted last, so if that one is gone, all
/// are.
fn left_tables(
    kernel: &mut Kernel,
    ifindex: u32,
    filters: &[FilterRecord],
) -> Result<BTreeSet<u16>, ObserveError> {
    let u32s = || filters.iter().filter(|record| record.kind == "u32");
    let Some(through) = u32s().next() else { return Ok(BTreeSet::new()) };
    let listed: BTreeSet<u16> = u32s().map(|record| (record.handle >> 20) as u16).collect();
    let mut is_there = |table: &u16| -> Result<bool, ObserveError> {
        let question = request::filter::has_table(ifindex, through.pref, through.protocol, *table);
        Ok(!listed.contains(table) && kernel.netlink.change(&question)?.is_ok())
    };
    let mut left = BTreeSet::new();
    for pref in Pref::RULES.into_iter().filter(|pref| u32s().all(|record| record.pref != *pref)) {
        if !is_there(&pref.tables().start)? {
            continue;
        }
        for table in pref.tables() {
            if is_there(&table)? {
                left.insert(table);
            }
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Minor;

    #[test]
    fn what_a_leaf_drops_its_class_has_dropped() {
        let [ann, bob, eve] = ["1:10", "1:11", "1:12"].map(|id| id.parse::<ClassId>().unwrap());
        let leaf = |major, drops| QdiscRecord {
            ifindex: 2,
            parent: None,
            handle: ClassId::qdisc(major),
            kind: "fq_codel".to_string(),
            htb: None,
            leaf: None,
            options: Vec::new(),
            counters: Counters { drops, sent_bytes: 7, ..Counters::default() },
        };
        let of = |drops| Counters { drops, sent_bytes: 9, ..Counters::default() };
        let mut counters = BTreeMap::from([(ann, of(1)), (bob, of(5)), (eve, of(2))]);
        let with_leaf =
            [(ann, ClassId::qdisc(0x10)), (bob, ClassId::qdisc(0x11)), (eve, ClassId::NONE)];
        // Bob's leaf was made again after his class had counted.
        count_leaves_drops(&[leaf(0x10, 4), leaf(0x11, 3)], &with_leaf, &mut counters);
        assert_eq!(counters, BTreeMap::from([(ann, of(4)), (bob, of(5)), (eve, of(2))]));
    }

    /// A class of ours is in the root, or in a shard as long as somebody in it is; each qdisc is
    /// asked for its own classes, since another program's may have the same numbers.
    #[test]
    fn our_classes_are_those_of_our_qdiscs_that_are_claimed_or_that_every_tree_has() {
        let [ann, bob] = ["1:10", "e000:11"].map(|id| id.parse::<ClassId>().unwrap());
        let claimed = BTreeSet::from([ann, bob]);
        let ours = Ours::new(&claimed);
        let shard = bob.shard().unwrap();
        let empty = Shard::of_class(ClassId::ours(Minor(0xe001))).unwrap();
        assert_eq!(ours.qdiscs().collect::<Vec<_>>(), [shard.qdisc(), ClassId::ROOT]);
        for classid in [ann, bob, ClassId::LINK, ClassId::DEFAULT, ClassId::UNSHAPED] {
            assert!(ours.has(classid), "{classid}");
        }
        for (shard, is_ours) in [(shard, true), (empty, false)] {
            for classid in [shard.class(), shard.root(), shard.default()] {
                assert_eq!(ours.has(classid), is_ours, "{classid}");
            }
        }
        for classid in ["1:11", "e000:10", "e001:11"] {
            assert!(!ours.has(classid.parse().unwrap()), "{classid}");
        }
        let nobody = BTreeSet::new();
        assert_eq!(Ours::new(&nobody).qdiscs().collect::<Vec<_>>(), [ClassId::ROOT]);
    }
}
