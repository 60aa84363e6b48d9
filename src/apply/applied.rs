//! What an apply did, and what is in force since.

use std::collections::BTreeMap;

use crate::desired;
use crate::facts::{Accounts, Facts, LinkFacts, Observation};
use crate::intent::{Meaning, PassedOver};
use crate::model::Model;
use crate::plan::{Phase, Planned, Step, Whole, people, perform};
use crate::policy::Diagnostic;
use crate::process::Placement;
use crate::status;
use crate::times::{TimeZone, Timestamp};
use crate::tree::{Filter, KernelState, LinkName};
use crate::units::Psched;

/// What an apply did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The steps that were performed, in order.
    pub steps: Vec<Planned>,
    /// Steps that would disturb somebody and were not allowed to.
    pub left: Vec<Planned>,
    /// Steps are left that wait until flows are known, which takes [`LEARNT`] from now on
    /// ([`ApplyOptions::learns`]). The state in force has what these steps make.
    ///
    /// [`LEARNT`]: crate::plan::LEARNT
    /// [`ApplyOptions::learns`]: super::ApplyOptions::learns
    pub postponed: bool,
    /// The last pass of placement, with `added`, `moved` and `gone` summed over all passes.
    pub placement: Placement,
    /// What the policy asks for and does not get.
    pub warnings: Vec<Diagnostic>,
    /// The clock in whose ticks the steps' bursts are.
    pub psched: Psched,
    /// Changing messages sent over netlink.
    pub messages: u64,
    /// What was there before; `None`: there was nothing to do.
    pub found: Option<Box<Observation>>,
    /// The state that is in force since.
    pub in_force: Option<InForce>,
}

/// A policy in force: its model and the state that stands.
#[derive(Debug)]
pub struct InForce {
    /// The model of the policy.
    pub model: Model,
    /// The accounts at that time.
    pub accounts: Accounts,
    /// The state in the kernel.
    pub state: KernelState,
    /// Whether classes stand that go once they are quiet.
    pub draining: bool,
    /// The links that are shaped, and their ifbs, with their indices.
    pub links: BTreeMap<LinkName, u32>,
    /// The links by which guests come in and that are labelled, with their indices.
    pub labelled: BTreeMap<LinkName, u32>,
    /// The facts of the model's links at that time ([`Intent::good`](crate::intent::Intent::good)).
    pub good: BTreeMap<LinkName, LinkFacts>,
    /// Links that are there and not shaped, although the policy means them: somebody else has there
    /// what that takes, or the policy cannot hold there.
    pub passed_over: PassedOver,
    /// The moment of the look that found it so.
    pub looked_at: Timestamp,
    /// The host's zone.
    pub zone: TimeZone,
    /// Whether processes are in the directories of those who claim them.
    pub places: bool,
}

impl InForce {
    /// `ifbs`: those of the state, with their indices.
    pub(super) fn new(
        meaning: Meaning,
        state: KernelState,
        ifbs: BTreeMap<LinkName, u32>,
    ) -> InForce {
        let good = meaning.good_links();
        let places = desired::reads_tags(&meaning.model, &meaning.facts().features);
        let Facts { accounts, links, now: looked_at, zones, .. } = meaning.observation.facts;
        let is_labelled = |name: &LinkName| {
            let clsact = state.clsact.get(name).into_iter();
            let mut filters = clsact.flat_map(|clsact| clsact.ingress.filters.values());
            filters.any(|filter| matches!(filter, Filter::Label(_)))
        };
        let indices = links.iter().map(|(name, facts)| (name.clone(), facts.ifindex));
        let labelled = indices.filter(|(name, _)| is_labelled(name)).collect();
        let is_shaped = |name: &LinkName| state.trees.keys().any(|port| port.link == *name);
        let shaped = links.into_iter().filter(|(name, _)| is_shaped(name));
        let links = shaped.map(|(name, facts)| (name, facts.ifindex)).chain(ifbs).collect();
        let retired = state.claims.keys().any(|claim| claim.retired().is_some());
        let draining = retired || !meaning.draining.is_empty();
        let Meaning { model, passed_over, .. } = meaning;
        let zone = zones.here;
        InForce {
            model,
            accounts,
            state,
            draining,
            links,
            labelled,
            good,
            passed_over,
            looked_at,
            zone,
            places,
        }
    }

    /// Whether accounts are told something: what they used and which limits hold, or whose class
    /// they are in, where no directory says that.
    pub fn tells(&self) -> bool {
        !self.places || status::tells(&self.model)
    }

    /// Whether this is a link that is passed over.
    pub fn passes_over(&self, ifindex: u32) -> bool {
        self.passed_over.values().any(|it| it.ifindex == ifindex)
    }

    /// The links to guests that are labelled as nobody's, by name and ifindex.
    pub fn unowned(&self) -> impl Iterator<Item = (LinkName, u32)> {
        let is_owned =
            |name: &LinkName| self.model.inner.as_ref().is_some_and(|it| it.contains_key(name));
        let unowned = self.labelled.iter().filter(move |(name, _)| !is_owned(name));
        unowned.map(|(name, index)| (name.clone(), *index))
    }
}

impl Applied {
    /// Whether something is shaped now.
    pub fn shapes(&self) -> bool {
        self.in_force.as_ref().is_some_and(|it| !it.model.links.is_empty())
    }

    /// Of a run that has its lock. `mounted`: for that the hierarchy had to be mounted, which is
    /// the plan's first step.
    pub(super) fn beginning(mounted: bool) -> Applied {
        let mount = || Planned {
            step: Step::Mount(Whole::Add(())),
            phase: Phase::Build,
            disturbs: Vec::new(),
            routine: false,
        };
        Applied { steps: mounted.then(mount).into_iter().collect(), ..Applied::default() }
    }

    /// Whether the policy or the kernel differed; steps that only follow logins and drained classes
    /// do not count.
    pub fn changed(&self) -> bool {
        self.steps.iter().any(|planned| !planned.routine)
    }

    /// Whether the hierarchy had to be mounted.
    pub fn mounted(&self) -> bool {
        self.steps.iter().any(|planned| matches!(planned.step, Step::Mount(Whole::Add(()))))
    }

    /// What the steps mean for people.
    pub fn people(&self) -> Vec<people::Change> {
        let Some(found) = &self.found else { return Vec::new() };
        let mut done = (**found).clone();
        self.steps.iter().for_each(|planned| perform(&planned.step, &mut done));
        let (matcher, accounts) = match &self.in_force {
            Some(it) => (Some(&it.model.matcher), &it.accounts),
            None => (None, &found.facts.accounts),
        };
        people::changes(found, &done.state, matcher, accounts)
    }

    /// Adds the numbers of a placement; for everything else the latest counts.
    pub(super) fn members(&mut self, placement: Placement) {
        let before = std::mem::replace(&mut self.placement, placement);
        self.placement.added += before.added;
        self.placement.moved += before.moved;
        self.placement.gone += before.gone;
    }
}
