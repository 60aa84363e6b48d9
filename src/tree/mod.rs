//! What the kernel holds, as one value: the same type says what is (observed) and what should be
//! (desired), in the units that the kernel echoes back, so that equality is `==` and dry run,
//! verify, undo and clear are all the same diff. Also the marks by which we know our own. Touches
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

mod claim;
mod class;
mod filter;
mod foreign;
mod mark;
mod name;
mod owners;
mod port;
mod program_rules;
mod quantum;
mod seat;
mod u32;
mod uid_range;

pub use self::claim::{Claim, NotAClaim, Owner};
pub use self::class::{Class, LeafQdisc, Role};
pub use self::filter::{
    Bits, Classifier, Family, Filter, Match, MptcpLayout, Pref, Program, Protocol, Sockets, Tag,
    TagHelper,
};
pub use self::foreign::{Counters, Foreign};
pub use self::mark::Mark;
pub use self::name::{Group, Key, Reserved, is_safe_directory};
pub use self::owners::{MapIds, OwnerChange, OwnerTable, UidPrefix, Uids};
pub use self::port::{Direction, LinkName, Port, PortIndex};
pub use self::program_rules::{Packets, ProgramRule, Ranges, RuleMapIds, RuleProgram, Senders};
pub use self::quantum::{Guarantee, Quantum};
pub use self::seat::{Parent, Seat};
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
    /// The directories below the instance's, each with the classid it holds.
    pub claims: BTreeMap<Claim, ClassId>,
    /// What the maps of the deciding programs hold; `None` where no program of ours stands.
    pub owners: Option<OwnerTable>,
}

/// A link's qdisc `clsact`. At its egress side a packet passes filters before it comes to the root
/// qdisc. It belongs to nobody and carries no mark: it goes with the last filter of ours, unless
/// there are others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clsact {
    /// Ours, at its egress side.
    pub filters: BTreeMap<Pref, Filter>,
    /// Prefs of others at its egress side, where we put nothing.
    pub foreign: BTreeSet<Pref>,
    /// Others have filters in it, at either side.
    pub shared: bool,
}

/// Where the `net_cls` hierarchy is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetCls {
    /// Nowhere that we can see.
    #[default]
    Unmounted,
    /// At our own place: mounted by an earlier run.
    Ours,
    /// Somewhere else, by the host.
    Host,
}

/// What stands below our root qdisc on one link. The qdisc itself (`htb`, handle `1:`, default
/// `0xfffe`, r2q = [`Mark`]) has nothing that could differ: HTB refuses to change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Of the root qdisc and of the shards below it.
    pub classes: BTreeMap<ClassId, Class>,
    /// Leaf qdiscs by the class they hang under; the qdisc's own handle is `minor:`.
    pub leaves: BTreeMap<ClassId, LeafQdisc>,
    /// The filters of the root qdisc.
    pub filters: BTreeMap<Pref, Filter>,
    /// u32 hash tables, by number, whose pref is gone. They keep the classes that their rules send
    /// to from being deleted, and nothing lists them. Never desired.
    pub left_tables: BTreeSet<u16>,
    /// The filters of each shard's qdisc.
    pub shards: BTreeMap<Shard, BTreeMap<Pref, Filter>>,
}

impl Tree {
    /// The class that this one hangs in, also across the border of a shard's qdisc: `e000:1` hangs
    /// in `1:e000`.
    pub fn above(&self, classid: ClassId) -> Option<ClassId> {
        match classid.shard() {
            Some(shard) if classid == shard.root() => Some(shard.class()),
            _ => self.classes.get(&classid)?.parent,
        }
    }

    /// What the policy calls its parent, the link's class or a group's: shards are looked through.
    pub fn parent(&self, classid: ClassId) -> Option<ClassId> {
        let mut parent = self.above(classid)?;
        while parent.shard().is_some() || Shard::of_class(parent).is_some() {
            parent = self.above(parent)?;
        }
        Some(parent)
    }
}
