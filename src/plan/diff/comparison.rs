//! The two states, and what comparing them has found so far.

use std::collections::BTreeMap;

use super::disturbs::disturbs;
use crate::facts::{Facts, Observation};
use crate::plan::{Phase, Plan, Planned, Step};
use crate::tree::{
    Claim, Filter, Foreign, FoundFilter, KernelState, LinkName, Owner, Parent, Port, Pref, Strange,
};
use crate::units::ClassId;

/// What is, what should be, and the steps from the one to the other that are known.
pub(super) struct Comparison<'a> {
    pub(super) from: &'a KernelState,
    pub(super) to: &'a KernelState,
    pub(super) foreign: &'a [Foreign],
    pub(super) facts: &'a Facts,
    pub(super) observed: &'a Observation,
    names: BTreeMap<ClassId, Owner>,
    /// What stands where only objects of ours should be.
    pub(super) strange: &'a BTreeMap<Port, Strange>,
    /// The filters of our qdiscs, as the steps so far leave them.
    pub(super) filters: BTreeMap<(&'a Port, Parent), BTreeMap<Pref, FoundFilter>>,
    /// The phase of the steps that are added now.
    pub(super) phase: Phase,
    steps: Vec<(Phase, Step)>,
}

impl<'a> Comparison<'a> {
    /// Without a step; those of [`Phase::Build`] come first.
    pub(super) fn new(observed: &'a Observation, to: &'a KernelState) -> Comparison<'a> {
        let Observation { state: from, strange, foreign, facts, .. } = observed;
        let names = names(from, to);
        let (filters, phase, steps) = (standing(from, strange), Phase::Build, Vec::new());
        Comparison { from, to, foreign, facts, observed, names, strange, filters, phase, steps }
    }

    /// The filters at one side of a link's clsact that have this instance's mark.
    pub(super) fn at_clsact(&self, link: &LinkName, parent: Parent) -> BTreeMap<Pref, FoundFilter> {
        let clsact = self.from.clsact.get(link);
        let (side, port) = match parent {
            Parent::Ingress => (clsact.map(|clsact| &clsact.ingress), link.ingress()),
            _ => (clsact.map(|clsact| &clsact.egress), link.egress()),
        };
        let ours = side.into_iter().flat_map(|side| &side.filters);
        found(ours, self.strange.get(&port), parent)
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
fn standing<'a>(
    from: &'a KernelState,
    strange: &BTreeMap<Port, Strange>,
) -> BTreeMap<(&'a Port, Parent), BTreeMap<Pref, FoundFilter>> {
    let mut standing = BTreeMap::new();
    for (port, tree) in &from.trees {
        let strange = strange.get(port);
        standing.insert((port, Parent::Root), found(&tree.filters, strange, Parent::Root));
        for (shard, filters) in &tree.shards {
            let parent = Parent::Shard(*shard);
            standing.insert((port, parent), found(filters, strange, parent));
        }
    }
    standing
}

/// All filters of one parent that are at prefs of ours.
fn found<'f>(
    ours: impl IntoIterator<Item = (&'f Pref, &'f Filter)>,
    strange: Option<&Strange>,
    parent: Parent,
) -> BTreeMap<Pref, FoundFilter> {
    let ours = ours.into_iter().map(|(pref, it)| (*pref, FoundFilter::Ours(it.clone())));
    let strange = strange.into_iter().flat_map(|strange| strange.filters_of(parent));
    ours.chain(strange.map(|(pref, it)| (pref, FoundFilter::Strange(it.clone())))).collect()
}
