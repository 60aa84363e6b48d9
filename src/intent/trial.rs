//! Which links a policy cannot hold on, as found by trial, and remembered for as long as that is
//! so: a trial builds the model again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wanted::{Intent, Options};
use crate::facts::{Facts, LinkFacts};
use crate::policy::Policy;
use crate::times::Timestamp;
use crate::tree::LinkName;

/// Links that are there and not shaped, although the policy means them.
pub type PassedOver = BTreeMap<LinkName, Misfit>;

/// Why a link is not shaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The link's number.
    pub ifindex: u32,
    /// The reason, as a sentence.
    pub why: String,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The facts of those links with which the policy can hold.
    pub links: BTreeMap<LinkName, LinkFacts>,
    pub unfit: PassedOver,
    /// What is said where links are taken to be as they were when they were fit.
    pub as_they_were: Option<String>,
}

/// The last trial, for whoever asks again and again what a policy means.
#[derive(Debug, Default)]
pub struct Tried {
    last: Option<Last>,
    /// How many trials were made.
    pub made: u64,
}

#[derive(Debug)]
struct Last {
    policy: Arc<Policy>,
    options: Options,
    good: BTreeMap<LinkName, LinkFacts>,
    /// All facts; what it depends on is compared.
    facts: Facts,
    outcome: Outcome,
    /// The first moment at which the policy means something else.
    until: Option<Timestamp>,
}

impl Tried {
    /// What came of a trial with the same policy and facts that are alike.
    pub(super) fn known(&self, intent: &Intent, facts: &Facts) -> Option<Outcome> {
        let last = self.last.as_ref()?;
        let is_known = Arc::ptr_eq(&last.policy, &intent.policy)
            && last.options == intent.options
            && last.good == intent.good
            && last.facts.now <= facts.now
            && last.until.is_none_or(|until| facts.now < until)
            && are_alike(&last.facts, facts);
        is_known.then(|| last.outcome.clone())
    }

    /// Remembers what came of a trial with these facts. `until`: the first moment at which the
    /// policy means something else.
    pub(super) fn learn(
        &mut self,
        (intent, facts): (&Intent, Facts),
        outcome: Outcome,
        until: Option<Timestamp>,
    ) {
        self.made += 1;
        let (policy, good) = (Arc::clone(&intent.policy), intent.good.clone());
        self.last = Some(Last { policy, options: intent.options, good, facts, outcome, until });
    }
}

/// Whether a policy can hold on the same links by these facts, but for the moment. What was used of
/// quotas only lowers caps, and no policy is refused for a cap that a quota sets.
fn are_alike(one: &Facts, other: &Facts) -> bool {
    one.links == other.links
        && one.accounts == other.accounts
        && one.guests == other.guests
        && one.units == other.units
        && one.zones == other.zones
        && one.features == other.features
        && one.own_sockets_only == other.own_sockets_only
}
