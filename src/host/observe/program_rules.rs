//! The rules of eBPF programs and their counts, read from the maps that the filters name.

use std::collections::btree_map::Entry;
use std::io;

use log::debug;

use super::snapshot::Snapshot;
use crate::host::Kernel;
use crate::netlink::bpf_name;
use crate::sys::bpf::{Maps, RuleMaps};
use crate::tree::{Filter, Parent, Port, Pref, RuleProgram};

/// Reads them into `snapshot`. What cannot be read, asks other maps than those in force, or is not
/// what its text says, stays strange, so that it is replaced.
pub(super) fn read(kernel: &mut Kernel, snapshot: &mut Snapshot) {
    let named = std::mem::take(&mut snapshot.observation.unread.rules);
    let in_force = snapshot.observation.state.owners.as_ref().and(kernel.owners.as_ref());
    let in_force = in_force.map(Maps::ids);
    let mut used = Vec::new();
    for ((port, pref), name) in named {
        let Some((empty, ids, asked)) = bpf_name::parse_rules(&name) else { continue };
        used.push(ids);
        let maps = match kernel.rules.entry(ids) {
            Entry::Occupied(known) => Ok(&*known.into_mut()),
            Entry::Vacant(new) => RuleMaps::open(ids).map(|maps| &*new.insert(maps)),
        };
        match maps.and_then(|maps| program(empty, maps)) {
            Ok((program, counts)) => {
                let is_whole = bpf_name::print_rules(&program, ids, asked) == name;
                if is_whole && (asked.is_none() || asked == in_force) {
                    note(snapshot, &port, pref, program, &counts);
                }
            }
            Err(error) => {
                debug!("rules in BPF maps {} and {}: {error}", ids.text, ids.counts);
                snapshot.observation.unread.rules.insert((port, pref), name);
            }
        }
    }
    kernel.rules.retain(|ids, _| used.contains(ids));
}

fn program(empty: RuleProgram, maps: &RuleMaps) -> io::Result<(RuleProgram, Vec<u64>)> {
    Ok((RuleProgram { rules: maps.rules()?, ..empty }, maps.counts()?))
}

fn note(snapshot: &mut Snapshot, port: &Port, pref: Pref, program: RuleProgram, counts: &[u64]) {
    let lines = snapshot.rules.entry(port.clone()).or_default();
    for (rule, count) in program.rules.iter().zip(counts) {
        let (_, sum) = lines.entry(rule.line).or_insert((rule.to, None));
        *sum = Some(sum.unwrap_or(0).saturating_add(*count));
    }
    if let Some(tree) = snapshot.observation.state.trees.get_mut(port) {
        tree.filters.insert(pref, Filter::Program(program));
    }
    if let Some(strange) = snapshot.observation.strange.get_mut(port) {
        strange.filters.remove(&Parent::Root.at(pref));
    }
}
