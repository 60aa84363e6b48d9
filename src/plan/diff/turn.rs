//! One port's tree, as it stands and as it is to be.

use std::collections::BTreeSet;

use super::comparison::Comparison;
use crate::tree::{Class, FoundLeaf, LeafQdisc, Port, Strange, Tree};
use crate::units::{ClassId, Minor, Shard};

/// One port's tree as it stands and as it is to be.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) port: &'a Port,
    /// The tree as it stands; `None`: its root is new.
    pub(super) standing: Option<&'a Tree>,
    pub(super) strange: Option<&'a Strange>,
    pub(super) wanted: &'a Tree,
}

impl<'a> Turn<'a> {
    pub(super) fn is_new(&self) -> bool {
        self.standing.is_none()
    }

    /// The class as it stands.
    pub(super) fn old_class(&self, id: ClassId) -> Option<&'a Class> {
        self.standing?.classes.get(&id)
    }

    pub(super) fn old_leaf(&self, id: ClassId) -> Option<FoundLeaf> {
        let ours = self.standing?.leaves.get(&id).map(|leaf| FoundLeaf::Ours(*leaf));
        let strange = || Some(FoundLeaf::Strange { handle: *self.strange?.leaves.get(&id)? });
        ours.or_else(strange)
    }

    /// Whether the class has another parent than before, which it cannot get in place.
    pub(super) fn moves(&self, id: ClassId) -> bool {
        let classes = self.old_class(id).zip(self.wanted.classes.get(&id));
        classes.is_some_and(|(old, new)| old.parent != new.parent)
    }

    /// Shards whose qdisc is made again, because its class is, or because another qdisc has its
    /// place; all that is in it goes too.
    pub(super) fn made_again(&self) -> BTreeSet<Shard> {
        let lost = |shard: &Shard| {
            let id = shard.class();
            let wanted = self.wanted.leaves.get(&id).map(|leaf| FoundLeaf::Ours(*leaf));
            self.moves(id) || self.old_leaf(id) != wanted
        };
        self.wanted.shards.keys().copied().filter(lost).collect()
    }

    /// Classes that go, while a class in another qdisc comes with the same minor. The handle of a
    /// leaf qdisc is the minor and unique on the link, so the old class must go first. This happens
    /// only in undoing: otherwise a minor is given out again only when no claim has it.
    pub(super) fn displaced(&self) -> BTreeSet<ClassId> {
        let Some(standing) = self.standing else { return BTreeSet::new() };
        let leaves = |tree: &Tree, other: &Tree| -> BTreeSet<ClassId> {
            let own = tree.leaves.iter().filter(|(_, leaf)| **leaf != LeafQdisc::Shard);
            own.map(|(id, _)| *id).filter(|id| !other.leaves.contains_key(id)).collect()
        };
        let come: BTreeSet<Minor> =
            leaves(self.wanted, standing).into_iter().map(ClassId::minor).collect();
        let mut gone = leaves(standing, self.wanted);
        gone.retain(|id| come.contains(&id.minor()) && standing.classes.contains_key(id));
        gone
    }

    pub(super) fn has_shards(&self) -> bool {
        self.standing.is_some_and(|tree| !tree.shards.is_empty())
    }
}

impl<'a> Comparison<'a> {
    /// The ports that are to have a tree.
    pub(super) fn turns(&self) -> impl Iterator<Item = Turn<'a>> + use<'a> {
        let (from, strange, to) = (self.from, self.strange, self.to);
        to.trees.iter().map(move |(port, wanted)| Turn {
            port,
            standing: from.trees.get(port),
            strange: strange.get(port),
            wanted,
        })
    }
}
