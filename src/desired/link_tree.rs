//! The classes and leaf qdiscs of one link. Pure.

use std::collections::BTreeMap;

use super::classes::{Allowed, LeafKind, Scale};
use super::identity::Identities;
use super::impossible::Impossible;
use super::rates::{self, InForce};
use crate::facts::Features;
use crate::model::{LeafChoice, Limits, Link, LinkAt, Model};
use crate::tree::{Class, Guarantee, LeafQdisc, Role, Tree};
use crate::units::{ClassId, Rate, Shard};

/// One link's tree in the making.
pub(super) struct LinkTree<'a> {
    pub model: &'a Model,
    pub at: LinkAt,
    pub link: &'a Link,
    pub ids: &'a Identities<'a>,
    /// The tree that stands there now.
    pub old: Option<&'a Tree>,
    pub scale: Scale,
    pub leaf: LeafKind,
}

impl LinkTree<'_> {
    /// The tree with all classes and leaves; its shards have no filters yet.
    pub(super) fn build(&self) -> Tree {
        let mut tree = Tree::default();
        let rates = rates::in_force(self.model, self.at, self.link);
        let link_rate = self.link.rate;
        tree.classes.insert(ClassId::LINK, self.inner(None, Allowed::flat(link_rate)));

        // With a rate below the link's, which the kernel would accept, `unshaped` would be shaped.
        let device = self.link.speed.unwrap_or(rates::UNKNOWN_DEVICE).max(link_rate);
        let role = self.scale.leaf(0, device, Guarantee::Written);
        let unshaped = self.scale.class(None, Allowed::flat(device), role);
        self.add_leaf(&mut tree, ClassId::UNSHAPED, unshaped);

        let Limits { ceil, prio, .. } = self.link.default;
        let rate = rates.default;
        let role = self.scale.leaf(prio, rate, Guarantee::Written);
        let default = self.scale.class(Some(ClassId::LINK), Allowed::plain(rate, ceil), role);
        self.add_leaf(&mut tree, ClassId::DEFAULT, default);

        let nodes = self.model.nodes.iter().zip(&self.ids.nodes);
        for ((node, id), in_force) in nodes.zip(&rates.nodes) {
            let (Some(limits), Some(in_force)) = (&node.limits[self.at], in_force) else {
                continue;
            };
            let parent = match (id.shard(), &node.group) {
                (Some(shard), _) => shard.root(),
                (None, Some(group)) => self.ids.groups[group],
                (None, None) => ClassId::LINK,
            };
            let InForce { allowed, guarantee } = *in_force;
            if id.minor().is_inner() {
                let class = self.inner(Some(parent), allowed).with_inner_guarantee(guarantee);
                tree.classes.insert(*id, class);
            } else {
                let role = self.scale.leaf(limits.prio, allowed.rate, guarantee);
                self.add_leaf(&mut tree, *id, self.scale.class(Some(parent), allowed, role));
            }
        }
        self.keep_retired(&mut tree);
        self.add_shards(&mut tree);
        tree
    }

    fn inner(&self, parent: Option<ClassId>, allowed: Allowed) -> Class {
        self.scale.class(parent, allowed, Role::Inner)
    }

    fn add_leaf(&self, tree: &mut Tree, id: ClassId, class: Class) {
        tree.classes.insert(id, class);
        tree.leaves.insert(id, self.leaf.leaf(class.ceil, self.scale.mtu));
    }

    /// Retired classes stay as they are, with their leaf and the classes below which they hang.
    fn keep_retired(&self, tree: &mut Tree) {
        let Some(old) = self.old else { return };
        for id in self.ids.retired.keys() {
            if let Some(class) = old.classes.get(id) {
                tree.classes.insert(*id, *class);
                if let Some(leaf) = old.leaves.get(id) {
                    tree.leaves.insert(*id, *leaf);
                }
            }
        }
    }

    /// Adds the shards of this link's users. In the root qdisc a shard is one class, whose rate is
    /// the sum of its users' guarantees and whose ceil is their parent's.
    fn add_shards(&self, tree: &mut Tree) {
        let mut promised: BTreeMap<Shard, u64> = BTreeMap::new();
        for (id, class) in &mut tree.classes {
            if let Some(shard) = id.shard() {
                let sum = promised.entry(shard).or_default();
                *sum = sum.saturating_add(class.rate.bytes_per_second());
                if !self.ids.retired.contains_key(id) {
                    *class = self.scale.in_turn(*class);
                }
            }
        }
        for (shard, sum) in promised {
            let class = self.shard(tree, shard, sum);
            tree.classes.insert(shard.class(), class);
            tree.leaves.insert(shard.class(), LeafQdisc::Shard);
            self.add_within(tree, shard);
        }
    }

    /// The shard's class in the root qdisc; `sum`: its users' guarantees, in bytes per second.
    fn shard(&self, tree: &Tree, shard: Shard, sum: u64) -> Class {
        let standing = self.old.and_then(|old| old.classes.get(&shard.class()));
        let profile = self.ids.shards.get(&shard);
        let parent =
            profile.map(|profile| profile.parent).or(standing.and_then(|class| class.parent));
        let parent = parent.unwrap_or(ClassId::LINK);
        let prio = match standing.map(|class| class.role) {
            Some(Role::Leaf { prio, .. }) => prio,
            _ => 0,
        };
        let prio = profile.and_then(|profile| profile.prios[self.at]).unwrap_or(prio);
        let ceil = tree.classes.get(&parent).map_or(self.link.rate, |class| class.ceil);
        let spare = Rate::MIN_GUARANTEE;
        let sum = Rate::from_bytes_per_second(sum.saturating_add(spare.bytes_per_second()));
        let rate = sum.unwrap_or(spare).min(ceil);
        let role = self.scale.leaf(prio, rate, Guarantee::Derived);
        self.scale.in_turn(self.scale.class(Some(parent), Allowed::plain(rate, ceil), role))
    }

    /// Adds what every shard has in its own qdisc: a root class that limits nothing, and a default
    /// class with next to no guarantee, for packets whose tag names a class that is gone.
    fn add_within(&self, tree: &mut Tree, shard: Shard) {
        tree.classes.insert(shard.root(), self.inner(None, Allowed::flat(self.link.rate)));
        let Limits { ceil, prio, .. } = self.link.default;
        let rate = Rate::MIN_GUARANTEE;
        let role = self.scale.leaf(prio, rate, Guarantee::Derived);
        let default = self.scale.class(Some(shard.root()), Allowed::plain(rate, ceil), role);
        tree.classes.insert(shard.default(), default);
        tree.shards.entry(shard).or_default();
    }
}

/// The leaf qdisc that a link's classes have, as its line says and the kernel can make.
pub(super) fn leaf_kind(link: &Link, features: &Features) -> Result<LeafKind, Impossible> {
    let has = |kind: &'static str| features.leaves.contains(kind);
    let need = |kind: &'static str, leaf: LeafKind| {
        has(kind).then_some(leaf).ok_or(Impossible::Leaf { link: link.port.link.clone(), kind })
    };
    match link.leaf {
        LeafChoice::Auto if has("fq_codel") => Ok(LeafKind::FqCodel),
        LeafChoice::Auto if has("sfq") => Ok(LeafKind::Sfq),
        // bfifo is part of every kernel that schedules packets (net/sched/sch_fifo.c).
        LeafChoice::Auto | LeafChoice::Bfifo => Ok(LeafKind::Bfifo),
        LeafChoice::Pfifo => Ok(LeafKind::Pfifo),
        LeafChoice::FqCodel => need("fq_codel", LeafKind::FqCodel),
        LeafChoice::Sfq => need("sfq", LeafKind::Sfq),
        LeafChoice::Cake => need("cake", LeafKind::Cake),
    }
}
