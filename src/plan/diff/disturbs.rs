//! Who loses packets by a step.

use std::collections::BTreeMap;

use crate::plan::{Change, Disturbance, Step, Whole};
use crate::tree::{Foreign, Owner, Port, Reserved};
use crate::units::{ClassId, Shard};

/// Whom a step disturbs, by the foreign objects among ours and by the owner of each class.
pub(super) fn disturbs(
    step: &Step,
    foreign: &[Foreign],
    names: &BTreeMap<ClassId, Owner>,
) -> Vec<Disturbance> {
    match step {
        Step::Leaf(port, id, Change::Replace { from, to, .. }) => vec![Disturbance {
            who: who(*id, names),
            why: format!(
                "packets waiting in its {} queue on {port} are dropped when {} takes its place",
                from.kind(),
                to.kind()
            ),
        }],
        Step::Class(port, id, Change::Replace { .. }) => vec![Disturbance {
            who: who(*id, names),
            why: format!(
                "packets waiting in it on {port} are dropped when it is made again under its parent"
            ),
        }],
        Step::Root(port, Whole::Remove(())) => below(port, foreign),
        _ => Vec::new(),
    }
}

fn who(id: ClassId, names: &BTreeMap<ClassId, Owner>) -> String {
    match (id, names.get(&id)) {
        (_, Some(owner)) => owner.to_string(),
        (ClassId::DEFAULT, _) => Reserved::Default.to_string(),
        (ClassId::UNSHAPED, _) => Reserved::Unshaped.to_string(),
        (id, _) => match Shard::of_class(id) {
            Some(shard) => format!("everybody in {shard}"),
            None => format!("class {id}"),
        },
    }
}

/// The foreign objects below our root, which go with it.
fn below(port: &Port, foreign: &[Foreign]) -> Vec<Disturbance> {
    let names = foreign.iter().filter_map(|object| match object {
        Foreign::Class { port: at, classid } if at == port => {
            Some(format!("class {classid} on {port}"))
        }
        Foreign::Filter { port: at, pref, kind, .. } if at == port => {
            Some(format!("{kind} filter pref {pref} on {port}"))
        }
        _ => None,
    });
    let why = "somebody put it under shaper's root qdisc; it goes with it";
    names.map(|who| Disturbance { who, why: why.to_string() }).collect()
}
