//! A step performed on a value, as the kernel would on its objects. Property tests run plans on
//! values: performing `diff(a, b)` on `a` gives `b`.

use std::collections::BTreeMap;

use super::{Change, Step, Whole};
use crate::facts::Observation;
use crate::tree::{
    Clsact, Filter, FoundFilter, KernelState, LeafQdisc, NetCls, Parent, Port, Pref, Seat, Strange,
    StrangeFilter, Tree,
};
use crate::units::{ClassId, Shard};

/// Performs one step on what was seen.
pub fn perform(step: &Step, seen: &mut Observation) {
    let Observation { state, strange, .. } = seen;
    match step {
        Step::Mount(Whole::Add(())) => state.net_cls = NetCls::Ours,
        Step::Mount(Whole::Remove(())) => state.net_cls = NetCls::Unmounted,
        Step::Root(port, change) => {
            put(&mut state.trees, port, change.after().map(|_| Tree::default()));
            let strange = strange.entry(port.clone()).or_default();
            strange.filters.retain(|seat, _| seat.parent.is_clsact());
            (strange.leaves, strange.tables) = Default::default();
        }
        Step::Clsact(link, change) => {
            put(&mut state.clsact, link, change.after().map(|()| Clsact::default()));
        }
        Step::Ifb(name, change) => {
            put(&mut state.ifbs, name, change.after().copied());
            if change.after().is_none() {
                state.trees.retain(|port, _| port.device() != *name);
            }
        }
        Step::Claim(claim, change) => put(&mut state.claims, claim, change.after().copied()),
        Step::Owners(change) => state.owners = change.after().cloned(),
        Step::Entries(changes) => {
            if let Some(table) = &mut state.owners {
                changes.iter().for_each(|change| table.perform(change));
            }
        }
        Step::Filter(port, seat, change) => {
            if let Some(filters) = filters(state, port, seat.parent) {
                put(filters, &seat.pref, change.after().cloned());
            }
            if let Whole::Remove(filter) = change {
                let strange = strange.entry(port.clone()).or_default();
                strange.filters.remove(seat);
                if let Some(tree) = state.trees.get(port) {
                    leave_tables(tree, strange, *seat, filter);
                }
            }
        }
        Step::Class(port, id, change) => {
            let Some(tree) = state.trees.get_mut(port) else { return };
            put(&mut tree.classes, id, change.after().copied());
            let strange = strange.entry(port.clone()).or_default();
            match change {
                Change::Replace { below, .. } => put_leaf(tree, strange, *id, *below),
                Change::Remove(_) => put_leaf(tree, strange, *id, None),
                Change::Add(_) | Change::Alter { .. } => {}
            }
        }
        Step::Leaf(port, id, change) => {
            let Some(tree) = state.trees.get_mut(port) else { return };
            let strange = strange.entry(port.clone()).or_default();
            put_leaf(tree, strange, *id, change.after().copied());
        }
        Step::Learn(_) => {}
        Step::Tables(port, left) => {
            let Some(strange) = strange.get_mut(port) else { return };
            strange.tables.retain(|table| !left.tables.contains(table));
        }
    }
}

/// Sets the value under a key, or removes it.
pub(super) fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}

fn filters<'a>(
    state: &'a mut KernelState,
    port: &Port,
    parent: Parent,
) -> Option<&'a mut BTreeMap<Pref, Filter>> {
    match parent {
        Parent::Egress => Some(&mut state.clsact.get_mut(&port.link)?.egress.filters),
        Parent::Ingress => Some(&mut state.clsact.get_mut(&port.link)?.ingress.filters),
        Parent::Root => Some(&mut state.trees.get_mut(port)?.filters),
        Parent::Shard(shard) => state.trees.get_mut(port)?.shards.get_mut(&shard),
    }
}

/// Leaves the hash tables of a deleted filter behind, where they stay as long as there is any u32
/// pref.
fn leave_tables(tree: &Tree, strange: &mut Strange, seat: Seat, gone: &FoundFilter) {
    if seat.parent == Parent::Root {
        strange.tables.extend(gone.tables(seat.pref));
    }
    let is_u32 = |(_, filter): (Pref, &StrangeFilter)| filter.kind == "u32";
    let other =
        tree.filters.values().any(Filter::is_u32) || strange.filters_of(Parent::Root).any(is_u32);
    if !other {
        strange.tables.clear();
    }
}

/// Sets the qdisc below a class; the classes, leaves and filters of a shard go with the shard's
/// qdisc.
fn put_leaf(tree: &mut Tree, strange: &mut Strange, id: ClassId, leaf: Option<LeafQdisc>) {
    let shard =
        |leaf: Option<LeafQdisc>| Shard::of_class(id).filter(|_| leaf == Some(LeafQdisc::Shard));
    if let Some(shard) = shard(tree.leaves.get(&id).copied()) {
        tree.shards.remove(&shard);
        tree.classes.retain(|id, _| id.shard() != Some(shard));
        tree.leaves.retain(|id, _| id.shard() != Some(shard));
        strange.leaves.retain(|id, _| id.shard() != Some(shard));
        strange.filters.retain(|seat, _| seat.parent.shard() != Some(shard));
    }
    put(&mut tree.leaves, &id, leaf);
    strange.leaves.remove(&id);
    tree.shards.extend(shard(leaf).map(|shard| (shard, BTreeMap::new())));
}
