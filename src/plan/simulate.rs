//! What a step does to a state, were the kernel to do just that. The property tests run plans
//! through it: performing `diff(a, b)` on `a` gives `b`.

use super::Step;
use crate::state::{Filter, KernelState, NetCls};

/// Performs one step on a value.
pub fn perform(step: &Step, state: &mut KernelState) {
    let tree = |state: &mut KernelState, f: &mut dyn FnMut(&mut crate::state::Tree)| {
        if let Some(tree) = step.link().and_then(|link| state.links.get_mut(link)) {
            f(tree);
        }
    };
    match step {
        Step::Mount => state.net_cls = NetCls::Ours,
        Step::Unmount => state.net_cls = NetCls::Unmounted,
        Step::AddRoot { link } => {
            state.links.insert(link.clone(), Default::default());
        }
        Step::DeleteRoot { link } => {
            state.links.remove(link);
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
        Step::AddClass { minor, class, .. } | Step::ChangeClass { minor, to: class, .. } => {
            tree(state, &mut |tree| {
                tree.classes.insert(*minor, *class);
            });
        }
        Step::ReplaceClass { minor, to, leaf, .. } => tree(state, &mut |tree| {
            tree.classes.insert(*minor, *to);
            tree.leaves.remove(minor);
            tree.leaves.extend(leaf.map(|leaf| (*minor, leaf)));
        }),
        Step::DeleteClass { minor, .. } => tree(state, &mut |tree| {
            tree.classes.remove(minor);
            tree.leaves.remove(minor);
        }),
        Step::AddLeaf { minor, leaf, .. }
        | Step::ChangeLeaf { minor, to: leaf, .. }
        | Step::ReplaceLeaf { minor, to: leaf, .. } => tree(state, &mut |tree| {
            tree.leaves.insert(*minor, *leaf);
        }),
        Step::AddFilter { pref, filter, .. } => tree(state, &mut |tree| {
            tree.filters.insert(*pref, filter.clone());
        }),
        Step::DeleteFilter { pref, filter, .. } => tree(state, &mut |tree| {
            tree.filters.remove(pref);
            tree.left_tables.extend(filter.tables(*pref));
            if !tree.filters.values().any(Filter::is_u32) {
                tree.left_tables.clear();
            }
        }),
        Step::DeleteTables { tables, .. } => tree(state, &mut |tree| {
            tree.left_tables.retain(|table| !tables.contains(table));
        }),
    }
}
