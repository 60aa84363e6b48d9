//! What follows from a policy on a host as it was seen: what the policy means there, what should
//! stand, the steps to it, what is to be said about it, or why it is refused. All decisions are
//! made here and nowhere else: `host` reads, and performs what was decided. Pure.
//!
//! What a decision needs and the caller has not read yet is asked for as a value: which links
//! matter ([`Intent::named_links`], [`Intent::is_about`]), whose directories may be given up
//! ([`Intent::may_leave`]), for which classes to look at the sockets ([`Intent::silent`]), what the
//! kernel can do ([`Evidence::or_tried`], [`Refusal::Untried`]).

mod accounts;
mod beside;
mod evidence;
mod links;
mod meaning;
mod quiet;
mod refusal;
mod rounds;
mod trial;
mod unfit;
mod untagged;
mod wanted;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use evidence::Evidence;
pub use links::{ONE_LOCK, packets_a_second};
pub use meaning::Meaning;
pub use quiet::quiet;
pub use refusal::{InTheWay, Neighbour, Refusal};
pub use rounds::{Later, MOST_ROUNDS, Next, Rounds};
pub use trial::{Misfit, PassedOver, Tried};
pub use untagged::needs_tags;
pub use wanted::{Intent, Leaving, NoneFits, Options};

use crate::desired::{self, Impossible, NoDown};
use crate::facts::Observation;
use crate::model::{Asked, Limits, Model};
use crate::netlink::bpf_name;
use crate::plan::{Logins, Plan, diff};
use crate::policy::{Diagnostic, Kind};
use crate::times::Timestamp;
use crate::tree::{Filter, KernelState, Owner, Parent, Port, Pref};

/// A meaning, the state that follows from it, and the steps.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the policy means.
    pub meaning: Meaning,
    /// What should stand.
    pub desired: KernelState,
    /// The steps from what was seen to what is desired.
    pub plan: Plan,
    /// The first moment at which the same policy means something else; `None`: it never does.
    pub valid_until: Option<Timestamp>,
}

/// The whole decision: what `intent` means on what was `seen`, what should stand, and the steps.
///
/// # Errors
/// Why the policy cannot hold there; [`Refusal::Untried`] where it depends on what nobody has tried
/// yet.
pub fn resolve(intent: &Intent, seen: Observation) -> Result<Resolved, Refusal> {
    let mut meaning = intent.mean(seen, &mut Tried::default())?;
    let (plan, desired) = intent.plan(&mut meaning)?;
    let valid_until = meaning.model.valid_until;
    Ok(Resolved { meaning, desired, plan, valid_until })
}

impl Intent {
    /// What the policy means on this observation. `tried`: which links it could not hold on before.
    ///
    /// # Errors
    /// A policy that cannot hold there, and a root qdisc that is somebody else's.
    pub fn mean(&self, mut seen: Observation, tried: &mut Tried) -> Result<Meaning, Refusal> {
        self.came.iter().for_each(|owner| seen.facts.accounts.admit(owner));
        let draining = self.keep_who_stands(&mut seen);
        accounts::remember_groups(&self.policy, &mut seen);
        let fitted = self.fit(&mut seen, tried)?;
        links::only_instance(&fitted.model, &seen)?;
        untagged::allow(&self.policy, &fitted.model, &seen.facts)?;
        if seen.unread.owners.is_some() && seen.facts.lacks.is_none() {
            // Programs with maps that this process makes replace them, whatever those maps have.
            seen.distrust_all_but(None);
            seen.unread.owners = None;
        }
        let unfit::Fitted { model, mut warnings, passed_over } = fitted;
        warnings.extend(beside::warnings(&model, &seen.facts));
        warnings.extend(untagged::warnings(&self.policy, &model, &seen.facts));
        let left_alone = BTreeSet::new();
        Ok(Meaning { observation: seen, model, warnings, draining, left_alone, passed_over })
    }

    /// The steps from what was seen to what is desired, and what is desired.
    ///
    /// # Errors
    /// The kernel cannot do what the policy asks for; [`Refusal::Untried`] where nobody has tried:
    /// with the features in `meaning` it can be asked again.
    pub fn plan(&self, meaning: &mut Meaning) -> Result<(Plan, KernelState), Refusal> {
        let mut desired = self.desired(meaning)?;
        meaning.left_alone = self.leave_alone(meaning, &mut desired);
        accounts::keep_unanswered(meaning, &mut desired);
        let left_alone = &meaning.left_alone;
        meaning.observation.strange.retain(|port, _| !left_alone.contains(&port.link));
        if let Some(why) = meaning.observation.unread.owners.take() {
            meaning.observation.state.owners.clone_from(&desired.owners);
            let message = format!(
                "which uids are in which class in the kernel cannot be read ({why}), and is taken to be as the policy says; as root it can"
            );
            meaning.warnings.push(Diagnostic::warning(Kind::Claim, None, message));
        }
        // A process without the privilege to change anything cannot read the maps; with it, the
        // programs are replaced.
        if meaning.facts().lacks.is_some() {
            take_as_read(&mut meaning.observation, &mut desired);
        }
        let observation = &meaning.observation;
        let mut plan = diff(observation, &desired);
        let derived = derived_groups(&meaning.model);
        let accounts = &observation.facts.accounts;
        let unit_cgroups = observation.facts.unit_cgroups.as_ref().and_then(|it| it.as_ref().ok());
        let pinned_cgroups = &observation.facts.pinned_cgroups;
        let logins = Logins { accounts, derived, unit_cgroups, pinned_cgroups };
        plan.mark_routine(&observation.state, &logins);
        let said = self.warnings_about(meaning, &desired);
        meaning.warnings.extend(said);
        Ok((plan, desired))
    }

    /// The state that the model means, before links are left alone.
    fn desired(&self, meaning: &Meaning) -> Result<KernelState, Refusal> {
        let sharding = self.options.sharding;
        let features = &meaning.facts().features;
        // Evidence shows only features that stand, and the policy asks for another one.
        let lacks_bpf = || sharding.is_wanted(&meaning.model) && !features.has_programs();
        let lacks_labels = meaning.model.inner.is_some() && !features.clsact;
        if !features.tried && (lacks_bpf() || lacks_labels) {
            return Err(Refusal::Untried);
        }
        let desired = desired::desired_with(&meaning.model, &meaning.observation, sharding);
        desired.map_err(|error| {
            let lacks_kind =
                matches!(error, Impossible::Classifier { .. } | Impossible::Leaf { .. });
            let untried = matches!(&error, Impossible::Down { why: NoDown::Untried, .. });
            if untried || (lacks_kind && !features.tried) {
                return Refusal::Untried;
            }
            let lacks_kind =
                lacks_kind || matches!(&error, Impossible::Down { why: NoDown::Kernel, .. });
            // Whether a kernel lacks a feature is found out by trying it in a new network
            // namespace, which takes root: without root it may only seem to lack it.
            match (lacks_kind || error == Impossible::NoHtb) && meaning.facts().lacks.is_some() {
                true => Refusal::NeedsRoot,
                false => Refusal::Impossible(error),
            }
        })
    }
}

/// Each group, on the links where no line promises it a rate.
fn derived_groups(model: &Model) -> BTreeSet<(&Port, &Owner)> {
    let groups = model.nodes.iter().filter(|node| matches!(node.owner, Owner::Group(_)));
    let is_derived = |limits: &Option<Limits>| {
        limits.is_some_and(|it| matches!(it.rate, Asked::Derived { .. } | Asked::Token))
    };
    let on_its_links = groups.flat_map(|node| {
        let links = model.links.iter().zip(&node.limits);
        let derived = links.filter(|(_, limits)| is_derived(limits));
        derived.map(|(link, _)| (&link.port, &node.owner))
    });
    on_its_links.collect()
}

/// A standing program of rules whose maps this process may not read counts as the desired one, if
/// it has that one's name.
fn take_as_read(observation: &mut Observation, desired: &mut KernelState) {
    for ((port, pref), name) in std::mem::take(&mut observation.unread.rules) {
        let Some((_, ids, asked)) = bpf_name::parse_rules(&name) else { continue };
        let (Some(seen), Some(wanted)) =
            (observation.state.trees.get_mut(&port), desired.trees.get_mut(&port))
        else {
            continue;
        };
        let is_named = |at: &Pref| match wanted.filters.get(at) {
            Some(Filter::Program(program)) => bpf_name::print_rules(program, ids, asked) == name,
            _ => false,
        };
        let at = Pref::PROGRAM.into_iter().find(is_named);
        if let Some(filter) = at.and_then(|at| wanted.filters.remove(&at)) {
            wanted.filters.insert(pref, filter.clone());
            seen.filters.insert(pref, filter);
            if let Some(strange) = observation.strange.get_mut(&port) {
                strange.filters.remove(&Parent::Root.at(pref));
            }
        }
    }
}
