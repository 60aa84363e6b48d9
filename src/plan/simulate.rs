//! What a step does to a state, were the kernel to do just that. The property tests run plans
//! through it: performing `diff(a, b)` on `a` gives `b`.

use std::collections::BTreeMap;

use super::Step;
use crate::tree::{Clsact, Filter, KernelState, LeafQdisc, NetCls, Pref, Tree};
use crate::units::{ClassId, Shard};

/// Performs one step on a value.
pub fn perform(step: &Step, state: &mut KernelState) {
    let tree = |state: &mut KernelState, f: &mut dyn FnMut(&mut crate::tree::Tree)| {
        if let Some(tree) = step.port().and_then(|port| state.trees.get_mut(port)) {
            f(tree);
        }
    };
    match step {
        Step::Mount => state.net_cls = NetCls::Ours,
        Step::Unmount => state.net_cls = NetCls::Unmounted,
        Step::AddRoot { port, .. } => {
            state.trees.insert(port.clone(), Default::default());
        }
        Step::DeleteRoot { port } => {
            state.trees.remove(port);
        }
        Step::AddClsact { link } => {
            state.clsact.insert(link.clone(), Clsact::default());
        }
        Step::DeleteClsact { link } => {
            state.clsact.remove(link);
        }
        Step::AddFilter { port, parent: ClassId::EGRESS, pref, filter } => {
            if let Some(clsact) = state.clsact.get_mut(&port.link) {
                clsact.filters.insert(*pref, filter.clone());
            }
        }
        Step::DeleteFilter { port, parent: ClassId::EGRESS, pref, .. } => {
            if let Some(clsact) = state.clsact.get_mut(&port.link) {
                clsact.filters.remove(pref);
            }
        }
        Step::MakeClaim { claim, classid } => {
            state.claims.insert(claim.clone(), *classid);
        }
        Step::WriteClassid { claim, to, .. } => {
            state.claims.insert(claim.clone(), *to);
        }
        Step::RemoveClaim { claim, .. } => {
            state.claims.remove(claim);
        }
        Step::AddClass { id, class, .. } | Step::ChangeClass { id, to: class, .. } => {
            tree(state, &mut |tree| {
                tree.classes.insert(*id, *class);
            });
        }
        Step::ReplaceClass { id, to, leaf, .. } => tree(state, &mut |tree| {
            tree.classes.insert(*id, *to);
            remove_leaf(tree, *id);
            leaf.iter().for_each(|leaf| add_leaf(tree, *id, *leaf));
        }),
        Step::DeleteClass { id, .. } => tree(state, &mut |tree| {
            tree.classes.remove(id);
            remove_leaf(tree, *id);
        }),
        Step::AddLeaf { id, leaf, .. }
        | Step::ChangeLeaf { id, to: leaf, .. }
        | Step::ReplaceLeaf { id, to: leaf, .. } => tree(state, &mut |tree| {
            remove_leaf(tree, *id);
            add_leaf(tree, *id, *leaf);
        }),
        Step::AddFilter { parent, pref, filter, .. } => tree(state, &mut |tree| {
            if let Some(filters) = filters(tree, *parent) {
                filters.insert(*pref, filter.clone());
            }
        }),
        Step::DeleteFilter { parent, pref, filter, .. } => tree(state, &mut |tree| {
            if let Some(filters) = filters(tree, *parent) {
                filters.remove(pref);
            }
            if *parent == ClassId::ROOT {
                tree.left_tables.extend(filter.tables(*pref));
            }
            if !tree.filters.values().any(Filter::is_u32) {
                tree.left_tables.clear();
            }
        }),
        Step::MakeOwners { table } => state.owners = Some(table.clone()),
        Step::ChangeOwners { changes } => {
            if let Some(table) = &mut state.owners {
                changes.iter().for_each(|change| table.perform(change));
            }
        }
        Step::DropOwners => state.owners = None,
        Step::DeleteTables { tables, .. } => tree(state, &mut |tree| {
            tree.left_tables.retain(|table| !tables.contains(table));
        }),
    }
}

/// The filters of the root qdisc or of a shard's.
fn filters(tree: &mut Tree, parent: ClassId) -> Option<&mut BTreeMap<Pref, Filter>> {
    match parent.shard() {
        None => Some(&mut tree.filters),
        Some(shard) => tree.shards.get_mut(&shard),
    }
}

fn add_leaf(tree: &mut Tree, id: ClassId, leaf: LeafQdisc) {
    tree.leaves.insert(id, leaf);
    if let (LeafQdisc::Shard, Some(shard)) = (leaf, Shard::of_class(id)) {
        tree.shards.insert(shard, BTreeMap::new());
    }
}

/// A shard's classes, leaves and filters go with its qdisc.
fn remove_leaf(tree: &mut Tree, id: ClassId) {
    if let (Some(LeafQdisc::Shard), Some(shard)) = (tree.leaves.remove(&id), Shard::of_class(id)) {
        tree.shards.remove(&shard);
        tree.classes.retain(|id, _| id.shard() != Some(shard));
        tree.leaves.retain(|id, _| id.shard() != Some(shard));
    }
}
