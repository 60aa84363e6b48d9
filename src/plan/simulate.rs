//! A step performed on a value, as the kernel would on its objects. Property tests run plans on
//! values: performing `diff(a, b)` on `a` gives `b`.

use std::collections::BTreeMap;

use super::{Change, Step, Whole};
use crate::tree::{Clsact, Filter, KernelState, LeafQdisc, NetCls, Parent, Port, Pref, Seat, Tree};
use crate::units::{ClassId, Shard};

/// Performs one step on a value.
pub fn perform(step: &Step, state: &mut KernelState) {
    match step {
        Step::Mount(Whole::Add(())) => state.net_cls = NetCls::Ours,
        Step::Mount(Whole::Remove(())) => state.net_cls = NetCls::Unmounted,
        Step::Root(port, change) => {
            put(&mut state.trees, port, change.after().map(|_| Tree::default()));
        }
        Step::Clsact(link, change) => {
            put(&mut state.clsact, link, change.after().map(|()| Clsact::default()));
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
            if let (Some(tree), Whole::Remove(filter)) = (state.trees.get_mut(port), change) {
                leave_tables(tree, *seat, filter);
            }
        }
        Step::Class(port, id, change) => {
            let Some(tree) = state.trees.get_mut(port) else { return };
            put(&mut tree.classes, id, change.after().copied());
            match change {
                Change::Replace { below, .. } => put_leaf(tree, *id, *below),
                Change::Remove(_) => put_leaf(tree, *id, None),
                Change::Add(_) | Change::Alter { .. } => {}
            }
        }
        Step::Leaf(port, id, change) => {
            let Some(tree) = state.trees.get_mut(port) else { return };
            put_leaf(tree, *id, change.after().copied());
        }
        Step::Tables(port, left) => {
            let Some(tree) = state.trees.get_mut(port) else { return };
            tree.left_tables.retain(|table| !left.tables.contains(table));
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
        Parent::Egress => Some(&mut state.clsact.get_mut(&port.link)?.filters),
        Parent::Root => Some(&mut state.trees.get_mut(port)?.filters),
        Parent::Shard(shard) => state.trees.get_mut(port)?.shards.get_mut(&shard),
    }
}

/// Leaves the hash tables of a deleted filter in the tree, where they stay as long as there is any
/// u32 pref.
fn leave_tables(tree: &mut Tree, seat: Seat, gone: &Filter) {
    if seat.parent == Parent::Root {
        tree.left_tables.extend(gone.tables(seat.pref));
    }
    if !tree.filters.values().any(Filter::is_u32) {
        tree.left_tables.clear();
    }
}

/// Sets the qdisc below a class; the classes, leaves and filters of a shard go with the shard's
/// qdisc.
fn put_leaf(tree: &mut Tree, id: ClassId, leaf: Option<LeafQdisc>) {
    let shard =
        |leaf: Option<LeafQdisc>| Shard::of_class(id).filter(|_| leaf == Some(LeafQdisc::Shard));
    if let Some(shard) = shard(tree.leaves.get(&id).copied()) {
        tree.shards.remove(&shard);
        tree.classes.retain(|id, _| id.shard() != Some(shard));
        tree.leaves.retain(|id, _| id.shard() != Some(shard));
    }
    put(&mut tree.leaves, &id, leaf);
    tree.shards.extend(shard(leaf).map(|shard| (shard, BTreeMap::new())));
}
