//! Which steps only follow logins, logouts and drained queues: cron need not hear of them, and they are
//! no change of the policy or of the kernel by somebody.

use std::collections::BTreeSet;

use super::{Plan, Step};
use crate::desired::guarantee_is_derived;
use crate::state::{Claim, Class, KernelState, Owner, Role};
use crate::units::Minor;

/// What the kernel alone does not say.
pub struct Logins<'a> {
    /// Uids that have a process in the links' network namespace.
    pub running: &'a BTreeSet<u32>,
    /// Whose guarantee is derived, and so shrinks and grows with the number of the others.
    pub derived: BTreeSet<&'a Owner>,
}

impl Plan {
    /// Marks the routine steps of a plan that begins at `from`.
    pub fn mark_routine(&mut self, from: &KernelState, logins: &Logins<'_>) {
        let made = self.steps.iter().filter_map(|planned| match &planned.step {
            Step::MakeClaim { claim: Claim::Owner(Owner::Uid(uid)), .. } => Some(*uid),
            _ => None,
        });
        let made: BTreeSet<u32> = made.collect();
        let gone = self.steps.iter().any(|planned| {
            matches!(&planned.step, Step::RemoveClaim { claim: Claim::Owner(Owner::Uid(_)), .. })
        });
        let come_or_gone = gone || !made.is_empty();
        let question = Question { plan: self, from, logins, made: &made, come_or_gone };
        let answers: Vec<bool> =
            self.steps.iter().map(|planned| question.is_routine(&planned.step)).collect();
        for (planned, routine) in self.steps.iter_mut().zip(answers) {
            planned.routine = routine;
        }
    }
}

struct Question<'a> {
    plan: &'a Plan,
    from: &'a KernelState,
    logins: &'a Logins<'a>,
    /// Accounts that get a directory in this plan.
    made: &'a BTreeSet<u32>,
    come_or_gone: bool,
}

impl Question<'_> {
    fn is_routine(&self, step: &Step) -> bool {
        match step {
            Step::MakeClaim { claim: Claim::Owner(Owner::Uid(_)), .. } => true,
            Step::RemoveClaim { claim: Claim::Owner(Owner::Uid(uid)), .. }
            | Step::RemoveClaim { claim: Claim::Pinned(Owner::Uid(uid)), .. } => self.left(*uid),
            Step::MakeClaim { claim: Claim::Retired(minor), .. } => {
                self.account(*minor).is_some_and(|uid| self.left(uid))
            }
            Step::RemoveClaim { claim: Claim::Retired(minor), .. }
            | Step::DeleteClass { minor, .. } => {
                self.was_retired(*minor) || self.account(*minor).is_some_and(|uid| self.left(uid))
            }
            Step::AddClass { minor, .. } | Step::AddLeaf { minor, .. } => {
                self.account(*minor).is_some_and(|uid| self.made.contains(&uid))
            }
            Step::ChangeClass { minor, from, to, .. } => {
                self.come_or_gone && self.only_the_share_differs(*minor, from, to)
            }
            _ => false,
        }
    }

    /// Whether an account has no process any more. One that has, and loses its class, does so by the
    /// policy.
    fn left(&self, uid: u32) -> bool {
        !self.logins.running.contains(&uid)
    }

    fn account(&self, minor: Minor) -> Option<u32> {
        match self.plan.names.get(&minor) {
            Some(Owner::Uid(uid)) => Some(*uid),
            _ => None,
        }
    }

    fn was_retired(&self, minor: Minor) -> bool {
        self.from.claims.contains_key(&Claim::Retired(minor))
    }

    fn only_the_share_differs(&self, minor: Minor, from: &Class, to: &Class) -> bool {
        let same = (from.parent, from.ceil, from.cburst) == (to.parent, to.ceil, to.cburst);
        let derived = match (from.role, to.role) {
            (Role::Leaf { prio, quantum }, Role::Leaf { prio: new_prio, quantum: new_quantum }) => {
                prio == new_prio
                    && guarantee_is_derived(quantum)
                    && guarantee_is_derived(new_quantum)
            }
            _ => {
                self.plan.names.get(&minor).is_some_and(|owner| self.logins.derived.contains(owner))
            }
        };
        same && derived
    }
}
