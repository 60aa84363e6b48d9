//! What an apply did, and what is in force since.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Accounts, Facts, LinkFacts};
use crate::intent::Meaning;
use crate::model::Model;
use crate::plan::{Planned, Step, Whole};
use crate::policy::Diagnostic;
use crate::process::Placement;
use crate::tree::{KernelState, LinkName};
use crate::units::Psched;

/// What an apply did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The hierarchy had to be mounted.
    pub mounted: bool,
    /// What was done, in order.
    pub steps: Vec<Planned>,
    /// Steps that would disturb somebody and were not allowed to.
    pub left: Vec<Planned>,
    /// The last pass; `added`, `moved` and `gone` summed over all.
    pub placement: Placement,
    /// What the policy asks for and does not get.
    pub warnings: Vec<Diagnostic>,
    /// The clock in which the steps' bursts are.
    pub psched: Psched,
    /// Changing messages sent over netlink.
    pub messages: u64,
    /// What was made so.
    pub in_force: Option<InForce>,
}

/// What a policy came to mean, and stands.
#[derive(Debug)]
pub struct InForce {
    /// What the policy means since.
    pub model: Model,
    /// Who everybody was as it was made so.
    pub accounts: Accounts,
    /// What is in the kernel since.
    pub state: KernelState,
    /// Classes that go once they are quiet stand.
    pub draining: bool,
    /// The links that are shaped, with their indices.
    pub links: BTreeMap<LinkName, u32>,
    /// The links of the model, as they were ([`Intent::good`](crate::intent::Intent::good)).
    pub good: BTreeMap<LinkName, LinkFacts>,
    /// Links that are passed over, by ifindex, because somebody else's root qdisc stands there.
    pub in_the_way: BTreeSet<u32>,
}

impl InForce {
    pub(super) fn new(meaning: Meaning, state: KernelState) -> InForce {
        let good = meaning.good_links();
        let Facts { accounts, links, .. } = meaning.observation.facts;
        let is_shaped = |name: &LinkName| state.trees.keys().any(|port| port.link == *name);
        let shaped = links.into_iter().filter(|(name, _)| is_shaped(name));
        let links = shaped.map(|(name, facts)| (name, facts.ifindex)).collect();
        let retired = state.claims.keys().any(|claim| claim.retired().is_some());
        let draining = retired || !meaning.draining.is_empty();
        let Meaning { model, in_the_way, .. } = meaning;
        InForce { model, accounts, state, draining, links, good, in_the_way }
    }
}

impl Applied {
    /// Whether the policy or the kernel differed; logins and drained classes are no difference.
    pub fn changed(&self) -> bool {
        self.mounted || self.steps.iter().any(|planned| !planned.routine)
    }

    /// Whether a link was shaped that was not before.
    pub fn first_build(&self) -> bool {
        self.steps.iter().any(|planned| matches!(planned.step, Step::Root(_, Whole::Add(_))))
    }

    /// Adds a placement's numbers; how things stand is as the latest says.
    pub(super) fn members(&mut self, placement: Placement) {
        let before = std::mem::replace(&mut self.placement, placement);
        self.placement.added += before.added;
        self.placement.moved += before.moved;
        self.placement.gone += before.gone;
    }
}
