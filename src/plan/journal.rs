//! The objects that a run's own steps touched. Undoing the run touches no others: what others made,
//! changed or removed meanwhile, and what stood all along and was not seen, stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use super::Step;
use super::simulate::put;
use crate::tree::{
    Claim, Direction, Ifb, KernelState, LinkName, OwnerChange, OwnerKey, Parent, Port, PortIndex,
    Pref, Seat, Strange, Tree,
};
use crate::units::{ClassId, Shard};

/// The objects that steps made, changed or removed, by the kernel's keys: links by ifindex, since
/// names change.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    trees: BTreeSet<PortIndex>,
    shards: BTreeSet<(PortIndex, Shard)>,
    classes: BTreeSet<(PortIndex, ClassId)>,
    filters: BTreeSet<(PortIndex, Seat)>,
    /// Links of which a filter was made or removed that notes flows or finds them, by ifindex: all
    /// of these read one map, so none is made again without the others.
    flows: BTreeSet<u32>,
    /// Links whose clsact was made or removed.
    clsact: BTreeSet<u32>,
    /// Ifbs that were made, switched on or removed.
    ifbs: BTreeSet<LinkName>,
    claims: BTreeSet<Claim>,
    /// The deciding programs' maps were exchanged as a whole.
    owners: bool,
    /// Entries of those maps that were set or removed.
    entries: BTreeSet<OwnerKey>,
    /// Links that went while steps were performed on them, by ifindex.
    pub gone: BTreeSet<u32>,
}

impl Journal {
    /// Notes a step that was performed, at least in part. `ifindex`: of its link.
    pub fn note(&mut self, step: &Step, ifindex: u32) {
        match step {
            Step::Root(port, _) => drop(self.trees.insert(port.at(ifindex))),
            Step::Clsact(..) => drop(self.clsact.insert(ifindex)),
            Step::Ifb(name, _) => drop(self.ifbs.insert(name.clone())),
            Step::Class(port, id, _) | Step::Leaf(port, id, _) => {
                let index = port.at(ifindex);
                self.classes.insert((index, *id));
                // All that is in a shard's qdisc goes with it.
                self.shards.extend(Shard::of_class(*id).map(|shard| (index, shard)));
            }
            Step::Filter(port, seat, _) => {
                let index = port.at(ifindex);
                self.filters.insert((index, *seat));
                if is_learner(index, *seat) || finds_flows(index, *seat) {
                    self.flows.insert(ifindex);
                }
                // What redirects has a map in common with what notes that packets come: the one is
                // not made again without the other.
                if seat.parent == Parent::Ingress && Pref::REDIRECT.contains(&seat.pref) {
                    let pulses = Pref::PULSE.map(|pref| (index, Parent::Root.at(pref)));
                    self.filters.extend(pulses);
                }
            }
            Step::Claim(claim, _) => drop(self.claims.insert(claim.clone())),
            Step::Owners(_) => self.owners = true,
            Step::Entries(changes) => self.entries.extend(changes.iter().map(|change| change.key)),
            // Hash tables belong to a pref that is noted.
            Step::Mount(_) | Step::Tables(..) | Step::Learn(_) => {}
        }
    }

    /// Notes all that another journal has.
    pub fn extend(&mut self, more: Journal) {
        self.trees.extend(more.trees);
        self.shards.extend(more.shards);
        self.classes.extend(more.classes);
        self.filters.extend(more.filters);
        self.flows.extend(more.flows);
        self.clsact.extend(more.clsact);
        self.ifbs.extend(more.ifbs);
        self.claims.extend(more.claims);
        self.owners |= more.owners;
        self.entries.extend(more.entries);
        self.gone.extend(more.gone);
    }

    /// Whether a step about the same object was performed.
    pub fn covers(&self, step: &Step, ifindex: u32) -> bool {
        let mut one = Journal::default();
        one.note(step, ifindex);
        one.trees.is_subset(&self.trees)
            && one.classes.is_subset(&self.classes)
            && one.filters.is_subset(&self.filters)
            && one.flows.is_subset(&self.flows)
            && one.clsact.is_subset(&self.clsact)
            && one.ifbs.is_subset(&self.ifbs)
            && one.claims.is_subset(&self.claims)
            && one.owners <= self.owners
            && (self.owners || one.entries.is_subset(&self.entries))
    }

    /// The claims that were made, written or removed.
    pub fn claims(&self) -> &BTreeSet<Claim> {
        &self.claims
    }

    /// Whether this run made, replaced or removed the port's root.
    pub fn has_root(&self, index: PortIndex) -> bool {
        self.trees.contains(&index)
    }

    /// What is strange in the places of objects that the journal names: undoing the run removes it.
    /// What is strange in other places is left out, since undoing touches no other objects.
    pub fn strange(
        &self,
        seen: &BTreeMap<Port, Strange>,
        ifindex: impl Fn(&LinkName) -> Option<u32>,
    ) -> BTreeMap<Port, Strange> {
        let named = |(port, strange): (&Port, &Strange)| {
            let index = port.at(ifindex(&port.link)?);
            let mut strange = strange.clone();
            strange.leaves.retain(|id, _| self.has_leaf(index, *id));
            strange.filters.retain(|seat, _| self.has_filter(index, *seat));
            // The tables of a pref that was deleted.
            let in_tree = |(at, seat): &(PortIndex, Seat)| *at == index && !seat.parent.is_clsact();
            if !self.has_root(index) && !self.filters.iter().any(in_tree) {
                strange.tables.clear();
            }
            (!strange.is_empty()).then(|| (port.clone(), strange))
        };
        seen.iter().filter_map(named).collect()
    }

    fn has_leaf(&self, index: PortIndex, below: ClassId) -> bool {
        let is_in_one = || below.shard().is_some_and(|it| self.shards.contains(&(index, it)));
        self.has_root(index) || self.classes.contains(&(index, below)) || is_in_one()
    }

    /// Whether the seat is one of those that go and come together because they read one map of
    /// flows, and one of them was touched, or the root at which flows are found.
    fn reads_flows(&self, index: PortIndex, seat: Seat) -> bool {
        let arrives = PortIndex { direction: Direction::Ingress, ..index };
        let touched = self.flows.contains(&index.ifindex) || self.has_root(arrives);
        touched && (is_learner(index, seat) || finds_flows(index, seat))
    }

    fn has_filter(&self, index: PortIndex, seat: Seat) -> bool {
        let went_with_its_parent = match seat.parent {
            Parent::Root => self.has_root(index),
            Parent::Shard(shard) => self.has_root(index) || self.shards.contains(&(index, shard)),
            Parent::Egress | Parent::Ingress => self.clsact.contains(&index.ifindex),
        };
        went_with_its_parent
            || self.filters.contains(&(index, seat))
            || self.reads_flows(index, seat)
    }

    /// The state to go back to: objects that the journal names as in `before`, all others as in
    /// `now`. Links have today's names in both, of which `ifindex` knows the numbers.
    pub fn undone(
        &self,
        before: &KernelState,
        now: &KernelState,
        ifindex: impl Fn(&LinkName) -> Option<u32>,
    ) -> KernelState {
        let mut state = now.clone();
        for claim in &self.claims {
            put(&mut state.claims, claim, before.claims.get(claim).copied());
        }
        for name in &self.ifbs {
            // None is switched off again: it would only lose packets.
            put(&mut state.ifbs, name, before.ifbs.get(name).map(|_| Ifb { up: true }));
        }
        match &mut state.owners {
            Some(table) if !self.owners => {
                for key in &self.entries {
                    let to = before.owners.as_ref().and_then(|before| before.entry(*key));
                    table.perform(&OwnerChange { key: *key, from: table.entry(*key), to });
                }
            }
            owners if self.owners => owners.clone_from(&before.owners),
            _ => {}
        }
        let links: BTreeSet<&LinkName> = before.clsact.keys().chain(now.clsact.keys()).collect();
        for link in links {
            if let Some(index) = ifindex(link) {
                self.undo_clsact(index, link, before, &mut state);
            }
        }
        let ports: BTreeSet<&Port> = before.trees.keys().chain(now.trees.keys()).collect();
        for port in ports {
            let Some(index) = ifindex(&port.link).map(|index| port.at(index)) else { continue };
            let old = before.trees.get(port);
            if self.has_root(index) {
                put(&mut state.trees, port, old.cloned());
            } else if let Some(tree) = state.trees.get_mut(port) {
                self.undo_in_tree(index, old.unwrap_or(&Tree::default()), tree);
            }
        }
        state
    }

    fn undo_clsact(
        &self,
        index: u32,
        name: &LinkName,
        before: &KernelState,
        state: &mut KernelState,
    ) {
        let old = before.clsact.get(name);
        // Others may have put filters into the clsact that this run made.
        let is_alone = state.clsact.get(name).is_none_or(|now| !now.is_shared());
        if self.clsact.contains(&index) && is_alone {
            put(&mut state.clsact, name, old.cloned());
        } else if let Some(now) = state.clsact.get_mut(name) {
            for (port, parent) in
                [(name.egress(), Parent::Egress), (name.ingress(), Parent::Ingress)]
            {
                let here = |(at, seat): &&(PortIndex, Seat)| {
                    *at == port.at(index) && seat.parent == parent
                };
                let (now, old) = match parent {
                    Parent::Ingress => (&mut now.ingress, old.map(|old| &old.ingress)),
                    _ => (&mut now.egress, old.map(|old| &old.egress)),
                };
                let learners = Pref::LEARN.map(|pref| parent.at(pref));
                let learners =
                    learners.into_iter().filter(|seat| self.reads_flows(port.at(index), *seat));
                let touched = self.filters.iter().filter(here).map(|(_, seat)| *seat);
                for Seat { pref, .. } in &touched.chain(learners).collect::<Vec<_>>() {
                    let before = old.and_then(|old| old.filters.get(pref)).cloned();
                    put(&mut now.filters, pref, before);
                }
            }
        }
    }

    fn undo_in_tree(&self, index: PortIndex, old: &Tree, tree: &mut Tree) {
        let here = |(at, id): &(PortIndex, ClassId)| (*at == index).then_some(*id);
        for id in self.classes.iter().filter_map(here) {
            put(&mut tree.classes, &id, old.classes.get(&id).copied());
            put(&mut tree.leaves, &id, old.leaves.get(&id).copied());
        }
        let here = |(at, shard): &(PortIndex, Shard)| (*at == index).then_some(*shard);
        for shard in self.shards.iter().filter_map(here) {
            let is_in = |id: &ClassId| id.shard() == Some(shard);
            tree.classes.retain(|id, _| !is_in(id));
            tree.leaves.retain(|id, _| !is_in(id));
            let classes = old.classes.iter().filter(|(id, _)| is_in(id));
            tree.classes.extend(classes.map(|(id, class)| (*id, *class)));
            let leaves = old.leaves.iter().filter(|(id, _)| is_in(id));
            tree.leaves.extend(leaves.map(|(id, leaf)| (*id, *leaf)));
            put(&mut tree.shards, &shard, old.shards.get(&shard).cloned());
        }
        let here = |(at, seat): &&(PortIndex, Seat)| *at == index && !seat.parent.is_clsact();
        let mut touched: BTreeSet<Seat> =
            self.filters.iter().filter(here).map(|(_, seat)| *seat).collect();
        let shards = tree.shards.keys().map(|shard| Parent::Shard(*shard));
        let seats = [Parent::Root].into_iter().chain(shards).flat_map(|parent| {
            [Pref::FIND, Pref::TAG].into_iter().flatten().map(move |pref| parent.at(pref))
        });
        touched.extend(seats.filter(|seat| self.reads_flows(index, *seat)));
        for Seat { parent, pref } in &touched {
            match parent.shard() {
                None => put(&mut tree.filters, pref, old.filters.get(pref).cloned()),
                Some(shard) => {
                    let old = old.shards.get(&shard).and_then(|it| it.get(pref)).cloned();
                    if let Some(filters) = tree.shards.get_mut(&shard) {
                        put(filters, pref, old);
                    }
                }
            }
        }
    }
}

/// Where what notes a link's flows stands.
fn is_learner(index: PortIndex, seat: Seat) -> bool {
    index.direction == Direction::Egress
        && seat.parent == Parent::Egress
        && Pref::LEARN.contains(&seat.pref)
}

/// Where what finds them stands.
fn finds_flows(index: PortIndex, seat: Seat) -> bool {
    let prefs = [Pref::FIND, Pref::TAG];
    index.direction == Direction::Ingress
        && !seat.parent.is_clsact()
        && prefs.iter().any(|pair| pair.contains(&seat.pref))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Change;

    #[test]
    fn an_ifb_that_was_switched_on_stays_so() {
        let link = LinkName::new("eth0").unwrap();
        let state =
            |up| KernelState { ifbs: [(link.ifb(), Ifb { up })].into(), ..Default::default() };
        let (before, now) = (state(false), state(true));
        let mut journal = Journal::default();
        let change = Change::Alter { from: Ifb { up: false }, to: Ifb { up: true } };
        journal.note(&Step::Ifb(link.ifb(), change), 2);
        assert_eq!(journal.undone(&before, &now, |_| Some(2)), now);
        // One that was made goes.
        let none = KernelState::default();
        assert_eq!(journal.undone(&none, &now, |_| Some(2)), none);
    }
}
