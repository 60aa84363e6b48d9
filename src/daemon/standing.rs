//! The state in force since an apply came to rest, and the request for the next apply. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::{InForce, Request};
use crate::intent::{Intent, NoneFits};
use crate::policy::{LinkLine, Policy};
use crate::tree::{Claim, Direction, LinkName, Owner};

/// The intent, and the state that is in force by it.
#[derive(Debug)]
pub(super) struct Standing {
    /// The policy in force, with what is known of its links.
    pub intent: Intent,
    pub in_force: InForce,
}

impl Standing {
    /// After the first apply.
    pub(super) fn new(intent: Intent, in_force: InForce) -> Standing {
        let mut standing = Standing { intent, in_force };
        standing.note_links();
        standing
    }

    /// Takes over the state that another apply has come to; whether other links are passed over.
    pub(super) fn take_over(&mut self, in_force: InForce) -> bool {
        let before = std::mem::replace(&mut self.in_force, in_force);
        self.note_links();
        before.passed_over != self.in_force.passed_over
    }

    /// What is shaped and for how many: `1 link, 12 users`.
    pub(super) fn extent(&self) -> String {
        let state = &self.in_force.state;
        let links = state.trees.keys().map(|port| &port.link).collect::<BTreeSet<_>>().len();
        let is_user = |claim: &&Claim| {
            matches!(claim, Claim::Owner(Owner::User(_) | Owner::Uid(_) | Owner::Subuids(_)))
        };
        let users = state.claims.keys().filter(is_user).count();
        let s = |count: usize| if count == 1 { "" } else { "s" };
        format!("{links} link{}, {users} user{}", s(links), s(users))
    }

    /// This state of the daemon's, with the first line of its reason; `partial` instead of a
    /// content one while links are passed over.
    pub(super) fn or_partial(
        &self,
        (word, why): (&'static str, Option<String>),
    ) -> (&'static str, Option<String>) {
        let passed_over = &self.in_force.passed_over;
        match word {
            "idle" | "draining" if !passed_over.is_empty() => {
                let each = passed_over.iter();
                let each = each.map(|(name, it)| format!("{name} is not shaped: {}", it.why));
                ("partial", Some(each.collect::<Vec<_>>().join("; ")))
            }
            _ => (word, why.and_then(|why| Some(why.lines().next()?.to_string()))),
        }
    }

    /// Whether it is in force on all links that it means.
    pub(super) fn is_whole(&self) -> bool {
        self.shapes() && self.in_force.passed_over.is_empty()
    }

    /// Whether it is in force on some link.
    pub(super) fn shapes(&self) -> bool {
        !self.in_force.model.links.is_empty()
    }

    /// Whether something is shaped that arrives.
    pub(super) fn arrives(&self) -> bool {
        let mut ports = self.in_force.state.trees.keys();
        ports.any(|port| port.direction == Direction::Ingress)
    }

    /// Whether what arrives by the link is redirected, and may not go past a firewall there.
    pub(super) fn heeds_firewall(&self, link: &LinkName) -> bool {
        let mut links = self.in_force.model.links.iter();
        links.any(|it| it.port == link.ingress() && !it.bypass_firewall)
            || self.in_force.passed_over.contains_key(link)
    }

    /// Whether somebody has a quota.
    pub(super) fn is_metered(&self) -> bool {
        !self.in_force.model.metered.owners.is_empty()
    }

    /// Also while one is left alone, when what stands there is somebody else's.
    fn note_links(&mut self) {
        self.intent.reclaimed.extend(self.in_force.links.values());
        self.intent.good.clone_from(&self.in_force.good);
    }

    /// A request for the policy in force, without the held links.
    pub(super) fn repair(&self, held: BTreeSet<LinkName>) -> Request {
        Request::from(Intent { held, ..self.intent.clone() })
    }

    /// A request for another policy.
    pub(super) fn adoption(&self, policy: &Arc<Policy>) -> Request {
        let old = &self.intent.policy.links;
        let is_new = |line: &LinkLine| old.iter().all(|old| old.name.value != line.name.value);
        let mut intent = Intent { policy: Arc::clone(policy), ..self.intent.clone() };
        // As in a run by hand, a new line for a link that does not exist is a mistake.
        intent.options.absent_links = !policy.links.iter().any(is_new);
        // One that shapes nothing takes away nothing that is shaped.
        if self.shapes() {
            intent.options.none_fits = NoneFits::Refused;
        }
        Request::from(intent)
    }

    /// Notes that another policy is in force.
    pub(super) fn adopted(&mut self, policy: Arc<Policy>) {
        self.intent.policy = policy;
        self.intent.reclaimed.clear();
    }
}
