//! Classes and the qdiscs below them: parents come first and go last.

use std::collections::BTreeMap;

use super::comparison::Comparison;
use super::turn::Turn;
use crate::plan::{Change, Step};
use crate::tree::{Class, Filter, FoundLeaf, LeafQdisc, Parent, Port, Pref, Tree};
use crate::units::{ClassId, Shard};

/// The classes that nobody claims: they come with the root.
pub(super) const FIXED: [ClassId; 3] = [ClassId::LINK, ClassId::DEFAULT, ClassId::UNSHAPED];

impl<'a> Comparison<'a> {
    pub(super) fn add_class(&mut self, turn: &Turn<'_>, id: ClassId) {
        let Turn { port, wanted, .. } = turn;
        if let Some(class) = wanted.classes.get(&id) {
            let (first, then) = in_two(*class);
            self.push(Step::Class((*port).clone(), id, Change::Add(first)));
            if let Some(leaf) = wanted.leaves.get(&id) {
                self.push(Step::Leaf((*port).clone(), id, Change::Add(*leaf)));
            }
            if let Some(then) = then {
                self.push(Step::Class((*port).clone(), id, then));
            }
        }
    }

    /// Classes and leaves that change or are new, parents first.
    pub(super) fn classes(&mut self) {
        for turn in self.turns() {
            let emptied = turn.made_again();
            for shard in &emptied {
                self.filters.remove(&(turn.port, Parent::Shard(*shard)));
            }
            for id in turn.displaced() {
                self.delete_class(turn.port, id);
            }
            for id in parents_first(turn.wanted) {
                let gone = id.shard().is_some_and(|shard| emptied.contains(&shard));
                match turn.old_class(id).filter(|_| !gone) {
                    None if turn.is_new() && FIXED.contains(&id) => continue,
                    None => self.add_class(&turn, id),
                    Some(from) => self.change_class(&turn, id, *from),
                }
                if let Some((shard, filters)) = shard_of(turn.wanted, id) {
                    let stays = turn.standing.is_some_and(|old| old.shards.contains_key(&shard));
                    if !stays || emptied.contains(&shard) {
                        self.open_shard(&turn, shard, filters);
                    }
                }
            }
        }
    }

    /// Gives a new shard its filter, and the root the program that knows shards, at once: the maps
    /// may send uids already to this shard, because another link has it. Where there are no maps
    /// yet, no uid is sent there.
    fn open_shard(&mut self, turn: &Turn<'a>, shard: Shard, filters: &BTreeMap<Pref, Filter>) {
        if self.from.owners.is_none() {
            return;
        }
        self.pair(turn.port, Parent::Shard(shard), Pref::TAG, filters);
        if !turn.is_new() && !turn.has_shards() {
            self.pair(turn.port, Parent::Root, Pref::TAG, &turn.wanted.filters);
        }
    }

    fn change_class(&mut self, turn: &Turn<'_>, id: ClassId, from: Class) {
        let to = turn.wanted.classes[&id];
        let leaf = turn.wanted.leaves.get(&id).copied();
        if from.parent != to.parent {
            let (first, then) = in_two(to);
            let change = Change::Replace { from, to: first, below: leaf };
            self.push(Step::Class(turn.port.clone(), id, change));
            if let Some(then) = then {
                self.push(Step::Class(turn.port.clone(), id, then));
            }
            return;
        }
        if from != to {
            self.push(Step::Class(turn.port.clone(), id, Change::Alter { from, to }));
        }
        let is_same_kind =
            |a: &LeafQdisc, b| std::mem::discriminant(a) == std::mem::discriminant(b);
        let change = match (turn.old_leaf(id), leaf) {
            (None, Some(leaf)) => Change::Add(leaf),
            (Some(FoundLeaf::Ours(from)), Some(to)) if from == to => return,
            (Some(FoundLeaf::Ours(from)), Some(to)) if is_same_kind(&from, &to) => {
                Change::Alter { from, to }
            }
            (Some(from), Some(to)) => Change::Replace { from, to, below: () },
            (_, None) => return,
        };
        self.push(Step::Leaf(turn.port.clone(), id, change));
    }

    fn delete_class(&mut self, port: &Port, id: ClassId) {
        let class = self.from.trees[port].classes[&id];
        self.push(Step::Class(port.clone(), id, Change::Remove(class)));
    }

    /// Deletes classes, children first, or HTB refuses (`HTB class in use.`). A leaf qdisc goes
    /// with its class.
    pub(super) fn delete_classes(&mut self) {
        for turn in self.turns() {
            let Some(standing) = turn.standing else { continue };
            let (emptied, displaced) = (turn.made_again(), turn.displaced());
            for id in parents_first(standing).into_iter().rev() {
                let emptied = id.shard().is_some_and(|shard| emptied.contains(&shard));
                let gone = emptied || displaced.contains(&id);
                if !gone && !turn.wanted.classes.contains_key(&id) {
                    self.delete_class(turn.port, id);
                }
            }
        }
    }
}

/// How a class is made: first without its boost, which it then gets by a change
/// ([`Class::without_boost`]).
fn in_two(class: Class) -> (Class, Option<Change<Class, Option<LeafQdisc>>>) {
    match class.without_boost() {
        None => (class, None),
        Some(first) => (first, Some(Change::Alter { from: first, to: class })),
    }
}

/// The shard of which `id` is the class in the root qdisc, with the shard's filters.
fn shard_of(tree: &Tree, id: ClassId) -> Option<(Shard, &BTreeMap<Pref, Filter>)> {
    let shard = Shard::of_class(id)?;
    Some((shard, tree.shards.get(&shard)?))
}

/// The tree's classes, each after its parent; siblings in order.
fn parents_first(tree: &Tree) -> Vec<ClassId> {
    let depth = |id: ClassId| {
        // The kernel has no loops of classes; the bound ends this also for a state that was read
        // wrongly.
        std::iter::successors(Some(id), |id| tree.above(*id)).take(16).count()
    };
    let mut classes: Vec<(usize, ClassId)> =
        tree.classes.keys().map(|id| (depth(*id), *id)).collect();
    classes.sort();
    classes.into_iter().map(|(_, id)| id).collect()
}
