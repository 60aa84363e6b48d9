//! The rounds of one run: a class that has lost its owner goes only once it is quiet, and a number
//! that its line is given (`classid`) is free only after that. So one plan is not all that an apply
//! does; what follows is known beforehand, but for how long it takes.

use std::collections::BTreeSet;

use super::{Intent, Meaning, resolve};
use crate::facts::{Observation, RootQdisc};
use crate::plan::{Change, Plan, Planned, Step, perform};
use crate::tree::{Claim, Direction, KernelState};
use crate::units::{ClassId, Minor};

/// The most rounds of a run. After so many somebody else keeps changing things.
pub const MOST_ROUNDS: usize = 8;

/// What comes after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, once classes have had the time to become quiet.
    Quiet,
    /// Another one, at once.
    Look,
    /// Nothing: this was the last one.
    Done,
}

/// What a run has waited for until now.
#[derive(Debug, Default)]
pub struct Rounds {
    waited_for: BTreeSet<Minor>,
}

impl Rounds {
    /// What comes after a round with these `steps`. `stands`: what it has led to; `draining`: the
    /// classes of accounts that leave; `newcomers`: somebody came who needs a class; `waits`:
    /// whether this run waits for classes at all.
    pub fn after(
        &mut self,
        steps: &[Planned],
        (stands, draining): (&KernelState, &BTreeSet<ClassId>),
        (newcomers, waits): (bool, bool),
    ) -> Next {
        let frees = |planned: &Planned| {
            matches!(planned.step, Step::Claim(Claim::Retired(..), Change::Remove(_)))
        };
        let retired = stands.claims.keys().filter_map(Claim::retired);
        let pending: BTreeSet<Minor> =
            retired.chain(draining.iter().map(|id| id.minor())).collect();
        // A minor whose class was deleted may be retired once more.
        self.waited_for.retain(|minor| pending.contains(minor));
        if newcomers {
            return Next::Look;
        }
        if waits && !pending.is_subset(&self.waited_for) {
            self.waited_for = pending;
            return Next::Quiet;
        }
        // A pinned minor may be free now.
        match steps.iter().any(frees) {
            true => Next::Look,
            false => Next::Done,
        }
    }
}

/// A round after the first one.
#[derive(Clone, Debug)]
pub struct Later {
    /// It comes once the classes that it removes are quiet; otherwise at once.
    pub waits: bool,
    /// What is done then.
    pub plan: Plan,
}

impl Intent {
    /// What a run goes on to do after this plan, if all classes that may go become quiet, nobody
    /// comes, and nothing is done that would disturb somebody.
    pub fn later(&self, meaning: &Meaning, (plan, desired): (&Plan, &KernelState)) -> Vec<Later> {
        let mut rounds = Rounds::default();
        let mut next = rounds.after(&plan.steps, (desired, &meaning.draining), (false, true));
        let mut later = Vec::new();
        if next == Next::Done {
            return later;
        }
        let mut seen = carried_out(plan, meaning);
        while next != Next::Done && later.len() + 1 < MOST_ROUNDS {
            let waits = next == Next::Quiet;
            seen.facts.quiet = if waits { self.pending(&seen) } else { BTreeSet::new() };
            let Ok(resolved) = resolve(self, seen) else { break };
            let (mut plan, meaning) = (resolved.plan, &resolved.meaning);
            plan.without_disruption(&meaning.observation.state);
            let stands = (&resolved.desired, &meaning.draining);
            next = rounds.after(&plan.steps, stands, (false, true));
            seen = carried_out(&plan, meaning);
            if !plan.is_empty() {
                later.push(Later { waits, plan });
            }
        }
        later
    }
}

/// What will be seen after a plan.
fn carried_out(plan: &Plan, meaning: &Meaning) -> Observation {
    let mut seen = meaning.observation.clone();
    let mut plan = plan.clone();
    plan.without_disruption(&seen.state);
    plan.steps.iter().for_each(|planned| perform(&planned.step, &mut seen));
    let Observation { state, facts, unread, .. } = &mut seen;
    // Whoever leaves has counted as running only because his class stands.
    let claims = meaning.observation.state.claims.iter();
    let leave = claims.filter(|(_, id)| meaning.draining.contains(*id));
    let leave = leave.filter_map(|(claim, _)| claim.comes_and_goes());
    leave.for_each(|owner| facts.accounts.dismiss(owner));
    for port in state.trees.keys() {
        match port.direction {
            Direction::Egress => {
                if let Some(link) = facts.links.get_mut(&port.link) {
                    link.root = RootQdisc::Ours;
                }
            }
            Direction::Ingress => {
                facts.ifb_roots.insert(port.device(), RootQdisc::Ours);
                unread.flows.remove(&port.link);
                facts.flows.entry(port.link.clone()).or_default();
            }
        }
    }
    seen
}
