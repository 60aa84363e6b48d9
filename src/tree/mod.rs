//! What the kernel holds, as one value: the same type says what is (observed) and what should be
//! (desired), in the units that the kernel echoes back, so that equality is `==` and dry run,
//! verify, undo and clear are all the same diff. Also the marks by which we know our own. Touches
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

mod cgroup;
mod claim;
mod class;
mod filter;
mod foreign;
mod ifb;
mod label;
mod mark;
mod name;
mod owners;
mod port;
mod pref;
mod program;
mod program_rules;
mod quantum;
mod seat;
mod sources;
mod strange;
mod u32;
mod uid_range;

pub use self::cgroup::{Cgroup, Turn, pinned_name, pinned_owner};
pub use self::claim::{Claim, NotAClaim, Owner};
pub use self::class::{BURST_MS, Class, LeafQdisc, Role};
pub use self::filter::{Bits, Family, Filter, Match, Protocol};
pub use self::foreign::{Counted, Counters, Foreign};
pub use self::ifb::Ifb;
pub use self::label::Label;
pub use self::mark::Mark;
pub use self::name::{Group, Key, Reserved, is_safe_directory};
pub use self::owners::{MapIds, OwnerChange, OwnerKey, OwnerTable, UidPrefix};
pub use self::port::{Direction, LinkName, Port, PortIndex};
pub use self::pref::Pref;
pub use self::program::{
    Classifier, MptcpLayout, NamespaceLayout, Program, Sockets, Tag, TagHelper,
};
pub use self::program_rules::{
    Asks, Headers, Packets, ProgramRule, Ranges, RuleMapIds, RuleProgram, Senders,
};
pub use self::quantum::{Guarantee, Quantum};
pub use self::seat::{Parent, Seat};
pub use self::sources::Source;
pub use self::strange::{FoundFilter, FoundLeaf, Strange, StrangeFilter};
pub use self::u32::{U32Hash, U32Key, U32Link, U32Node, U32Rule, U32Rules, U32Table};
pub use self::uid_range::{NotARange, UidRange};
use crate::units::{ClassId, Shard};

/// Everything of one instance: its trees on links and its claims in the `net_cls` hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// Whether the hierarchy is mounted, and by whom.
    pub net_cls: NetCls,
    /// The ports at which our root qdisc stands, and the tree below it.
    pub trees: BTreeMap<Port, Tree>,
    /// The qdiscs `clsact` that stand, whatever root qdisc their links have.
    pub clsact: BTreeMap<LinkName, Clsact>,
    /// The ifbs through which packets go that arrive, by name: each is the link's whose
    /// [`LinkName::ifb`] is that name.
    pub ifbs: BTreeMap<LinkName, Ifb>,
    /// The directories below the instance's, each with its `net_cls.classid`.
    pub claims: BTreeMap<Claim, ClassId>,
    /// What the maps of the deciding programs hold; `None` where no program of ours stands.
    pub owners: Option<OwnerTable>,
}

impl KernelState {
    /// Whether what a socket of this uid's sends is in a class of ours on every link, also where
    /// the socket has no tag: a deciding program goes by the owner, `cls_cgroup` by the tag alone.
    pub fn has_class_untagged(&self, uid: u32) -> bool {
        let class = self.owners.as_ref().and_then(|owners| owners.class(uid));
        let asks_owner = |tree: &Tree| {
            let asks = |it: &Filter| matches!(it, Filter::Tag(Tag::Bpf(_)) | Filter::Find { .. });
            tree.filters.values().any(asks)
        };
        class.is_some_and(|class| class != ClassId::NONE) && self.trees.values().all(asks_owner)
    }

    /// Whether any link tells users apart by the tags of sockets.
    pub fn reads_tags(&self) -> bool {
        let by_tags = |tag: &Tag| tag.classifier() != Classifier::Uid;
        let reads = |it: &Filter| matches!(it, Filter::Tag(tag) if by_tags(tag));
        self.trees.values().any(|tree| tree.filters.values().any(reads))
    }

    /// Whether a deciding program asks for the cgroups (v2) of sockets, on any link.
    pub fn asks_cgroups(&self) -> bool {
        let asks = |filter: &Filter| matches!(filter, Filter::Tag(tag) if tag.asks_cgroups());
        self.trees.values().any(|tree| tree.filters.values().any(asks))
    }
}

/// A link's qdisc `clsact`. At its egress side a packet passes filters before it comes to the root
/// qdisc, at its ingress side before the network stack has it. A clsact carries no mark, so nobody
/// owns it: shaper deletes it with its own last filter, unless others have filters there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clsact {
    /// What packets meet that leave.
    pub egress: Side,
    /// What packets meet that arrive.
    pub ingress: Side,
}

/// One side of a `clsact`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Our filters.
    pub filters: BTreeMap<Pref, Filter>,
    /// Prefs that others use; ours go elsewhere.
    pub foreign: BTreeSet<Pref>,
}

impl Clsact {
    /// Whether others have filters there.
    pub fn is_shared(&self) -> bool {
        !self.egress.foreign.is_empty() || !self.ingress.foreign.is_empty()
    }

    /// Whether we have filters there.
    pub fn is_used(&self) -> bool {
        !self.egress.filters.is_empty() || !self.ingress.filters.is_empty()
    }

    /// The same without our filters.
    pub fn of_others(&self) -> Clsact {
        let side = |side: &Side| Side { filters: BTreeMap::new(), foreign: side.foreign.clone() };
        Clsact { egress: side(&self.egress), ingress: side(&self.ingress) }
    }
}

/// Where the `net_cls` hierarchy is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetCls {
    /// Not mounted where this process can see it.
    #[default]
    Unmounted,
    /// At shaper's own path, where an earlier run mounted it.
    Ours,
    /// At another path, where the host mounted it.
    Host,
}

/// What stands below our root qdisc on one link. The root qdisc itself (`htb`, handle `1:`, default
/// `0xfffe`, r2q = [`Mark`]) is no part of the value, since nothing in it can differ: HTB refuses
/// to change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The classes of the root qdisc and of the shards below it.
    pub classes: BTreeMap<ClassId, Class>,
    /// Leaf qdiscs, by the class they hang under; a leaf's handle is `minor:` of that class.
    pub leaves: BTreeMap<ClassId, LeafQdisc>,
    /// The filters of the root qdisc.
    pub filters: BTreeMap<Pref, Filter>,
    /// The filters of each shard's qdisc.
    pub shards: BTreeMap<Shard, BTreeMap<Pref, Filter>>,
}

impl Tree {
    /// The class below which this one hangs, also across the border of a shard's qdisc: `e000:1`
    /// hangs below `1:e000`.
    pub fn above(&self, classid: ClassId) -> Option<ClassId> {
        match classid.shard() {
            Some(shard) if classid == shard.root() => Some(shard.class()),
            _ => self.classes.get(&classid)?.parent,
        }
    }

    /// The class of what the policy calls the parent, the link or a group: shards are looked
    /// through.
    pub fn parent(&self, classid: ClassId) -> Option<ClassId> {
        let mut parent = self.above(classid)?;
        while parent.shard().is_some() || Shard::of_class(parent).is_some() {
            parent = self.above(parent)?;
        }
        Some(parent)
    }

    /// The filters of the root qdisc and of each shard's.
    pub fn filters_mut(&mut self) -> impl Iterator<Item = (Parent, &mut BTreeMap<Pref, Filter>)> {
        let shards = self.shards.iter_mut();
        let shards = shards.map(|(shard, filters)| (Parent::Shard(*shard), filters));
        [(Parent::Root, &mut self.filters)].into_iter().chain(shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_tag_is_in_a_class_where_every_link_asks_for_its_owner() {
        let asks = |tag: Tag| Tree {
            filters: [(Pref::TAG[0], Filter::Tag(tag))].into(),
            ..Tree::default()
        };
        let port = |name: &str| LinkName::new(name).unwrap().egress();
        let accounts = [(1000, ClassId(0x1_0010)), (1001, ClassId::NONE)].into();
        let owners = OwnerTable { accounts, ..OwnerTable::default() };
        let by_owner = asks(Tag::Bpf(Program {
            shards: false,
            tag: Some(TagHelper::Socket),
            cgroups: false,
            sockets: Sockets::All,
            mptcp: None,
            labels: false,
        }));
        let mut state = KernelState {
            trees: [(port("up0"), by_owner)].into(),
            owners: Some(owners),
            ..KernelState::default()
        };
        let has_class =
            |state: &KernelState| [1000, 1001, 0].map(|uid| state.has_class_untagged(uid));
        assert_eq!(has_class(&state), [true, false, false]);
        state.trees.insert(port("up1"), asks(Tag::Cgroup));
        assert_eq!(has_class(&state), [false, false, false]);
    }

    #[test]
    fn tags_are_read_where_any_link_goes_by_them() {
        let by = |tag: Tag| Tree {
            filters: [(Pref::TAG[0], Filter::Tag(tag))].into(),
            ..Tree::default()
        };
        let program = |tag: Option<TagHelper>| {
            let sockets = Sockets::All;
            let (shards, cgroups, mptcp, labels) = (false, false, None, false);
            Tag::Bpf(Program { shards, tag, cgroups, sockets, mptcp, labels })
        };
        let port = |name: &str| LinkName::new(name).unwrap().egress();
        let mut state = KernelState::default();
        assert!(!state.reads_tags());
        state.trees.insert(port("up0"), by(program(None)));
        assert!(!state.reads_tags());
        for tag in [Tag::Cgroup, program(Some(TagHelper::Task))] {
            state.trees.insert(port("up1"), by(tag));
            assert!(state.reads_tags());
        }
    }
}
