//! The two states, and what comparing them has found so far.

use std::collections::BTreeMap;

use super::disturbs::disturbs;
use crate::facts::{Facts, Observation};
use crate::plan::{Phase, Plan, Planned, Step};
use crate::tree::{Claim, Filter, Foreign, KernelState, Owner, Parent, Port, Pref};
use crate::units::ClassId;

/// What is, what should be, and the steps from the one to the other that are known.
pub(super) struct Comparison<'a> {
    pub(super) from: &'a KernelState,
    pub(super) to: &'a KernelState,
    pub(super) foreign: &'a [Foreign],
    pub(super) facts: &'a Facts,
    names: BTreeMap<ClassId, Owner>,
    /// The filters of `from`, as the steps so far leave them.
    pub(super) filters: BTreeMap<(&'a Port, Parent), BTreeMap<Pref, Filter>>,
    /// The phase of the steps that are added now.
    pub(super) phase: Phase,
    steps: Vec<(Phase, Step)>,
}

impl<'a> Comparison<'a> {
    /// Without a step; those of [`Phase::Build`] come first.
    pub(super) fn new(observed: &'a Observation, to: &'a KernelState) -> Comparison<'a> {
        let Observation { state: from, foreign, facts, .. } = observed;
        let names = names(from, to);
        let (filters, phase, steps) = (standing(from), Phase::Build, Vec::new());
        Comparison { from, to, foreign, facts, names, filters, phase, steps }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.steps.push((self.phase, step));
    }

    pub(super) fn into_plan(self) -> Plan {
        let Comparison { foreign, names, steps, .. } = self;
        let planned = |(phase, step): (Phase, Step)| Planned {
            phase,
            routine: false,
            disturbs: disturbs(&step, foreign, &names),
            step,
        };
        let steps = steps.into_iter().map(planned).collect();
        Plan { steps, names }
    }
}

/// The owner of each class, in either state; the new owner where they differ.
fn names(from: &KernelState, to: &KernelState) -> BTreeMap<ClassId, Owner> {
    let owners = |state: &KernelState| -> Vec<(ClassId, Owner)> {
        let owner = |(claim, classid): (&Claim, &ClassId)| match claim {
            Claim::Owner(owner) => Some((classid.our_class()?, owner.clone())),
            _ => None,
        };
        state.claims.iter().filter_map(owner).collect()
    };
    owners(from).into_iter().chain(owners(to)).collect()
}

/// The filters that stand, by link and qdisc.
fn standing(from: &KernelState) -> BTreeMap<(&Port, Parent), BTreeMap<Pref, Filter>> {
    let mut standing = BTreeMap::new();
    for (port, tree) in &from.trees {
        standing.insert((port, Parent::Root), tree.filters.clone());
        for (shard, filters) in &tree.shards {
            standing.insert((port, Parent::Shard(*shard)), filters.clone());
        }
    }
    standing
}
