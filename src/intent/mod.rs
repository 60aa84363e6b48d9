//! What follows from a policy on a host as it was seen: what the policy means there, what should
//! stand, the steps to it, what is to be said about it, or why it is refused. All judgements are
//! made here and nowhere else: `host` reads, and performs what was decided. Pure.
//!
//! What a judgement needs and nobody has read yet is asked for as a value: which links matter
//! ([`Intent::named_links`], [`Intent::is_about`]), whose directories may be given up
//! ([`Intent::may_leave`]), for which classes to look at the sockets ([`Intent::silent`]), what the
//! kernel can do ([`Evidence::or_tried`], [`Refusal::Untried`]).

mod accounts;
mod evidence;
mod links;
mod quiet;
mod refusal;
mod unfit;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use evidence::Evidence;
pub use quiet::quiet;
pub use refusal::{InTheWay, Neighbour, Refusal};

use crate::desired::{self, Impossible, Sharding};
use crate::facts::{Facts, LinkFacts, Observation};
use crate::model::{Asked, Model};
use crate::netlink::bpf_name;
use crate::plan::{Logins, Plan, diff};
use crate::policy::{Diagnostic, Kind, LinkRef, Policy};
use crate::tree::{Classifier, Filter, KernelState, LinkName, Owner, Pref};
use crate::units::ClassId;

/// What somebody wants of a host: a policy, and how it is to be read in this run.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The policy, as written.
    pub policy: Arc<Policy>,
    /// What the command line says about how to read it.
    pub options: Options,
    /// Accounts, and ranges of subordinate uids, whose processes were found in this run and that
    /// had no class then: they run, also if their processes ended since.
    pub came: BTreeSet<Owner>,
    /// Whose class may go.
    pub leaving: Leaving,
    /// Links that stay as they stand, whatever the policy says.
    pub held: BTreeSet<LinkName>,
    /// Links that were shaped before, by ifindex: another root qdisc there was put in the place of
    /// ours.
    pub reclaimed: BTreeSet<u32>,
    /// The links of the last model, as they were then.
    pub good: BTreeMap<LinkName, LinkFacts>,
}

/// What the command line says about how to read the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Names that NSS does not know are warned of, and are no error.
    pub skip_unknown: bool,
    /// Root qdiscs of others are replaced.
    pub takeover: bool,
    /// Links come and go while this goes on: whatever is unfit to be shaped is passed over.
    pub absent_links: bool,
    /// No option of the command line: the numbers are right for every host.
    pub sharding: Sharding,
}

/// Whose class may go, of accounts and ranges of subordinate uids. Whoever leaves keeps it for as
/// long as it is not known to be quiet, or somebody is in the directory: who comes back then finds
/// the one class, and not a second one beside what still drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Whoever has no process.
    #[default]
    WithoutProcess,
    /// Those whose time of grace is over. Any other uid that has a class keeps it, with or without
    /// processes.
    These(BTreeSet<Owner>),
}

/// What a policy means on a host as it was seen.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// What was seen, as far as it is believed: who stands counts as running, links that are unfit
    /// are as they were when they were fit.
    pub observation: Observation,
    /// The policy as meant.
    pub model: Model,
    /// What is to be said.
    pub warnings: Vec<Diagnostic>,
    /// Classes of accounts that leave and may still hold packets.
    pub draining: BTreeSet<ClassId>,
    /// Links that are passed over, by ifindex, because somebody else's root qdisc stands there.
    pub in_the_way: BTreeSet<u32>,
}

/// A meaning with what follows from it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the policy means.
    pub meaning: Meaning,
    /// What should stand.
    pub desired: KernelState,
    /// The steps from what was seen to what is desired.
    pub plan: Plan,
}

/// The whole decision: what `intent` means on what was `seen`, what should stand, and the steps.
///
/// # Errors
/// Why the policy cannot hold there; [`Refusal::Untried`] where it depends on what nobody has tried
/// yet.
pub fn resolve(intent: &Intent, seen: Observation) -> Result<Resolved, Refusal> {
    let mut meaning = intent.mean(seen)?;
    let (plan, desired) = intent.plan(&mut meaning)?;
    Ok(Resolved { meaning, desired, plan })
}

impl Intent {
    /// A policy, with nothing known of any time before.
    pub fn new(policy: impl Into<Arc<Policy>>, options: Options) -> Intent {
        Intent {
            policy: policy.into(),
            options,
            came: BTreeSet::new(),
            leaving: Leaving::default(),
            held: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            good: BTreeMap::new(),
        }
    }

    /// The links that the policy names, also by alternative names: asked for one by one where no
    /// list of all is whole.
    pub fn named_links(&self) -> BTreeSet<String> {
        let names = self.policy.links.iter().filter_map(|line| match &line.name.value {
            LinkRef::Name(name) => Some(name.clone()),
            LinkRef::Auto | LinkRef::Pattern(_) => None,
        });
        names.collect()
    }

    /// Whether the policy may be about a link: then its device is asked for its speed.
    pub fn is_about(&self, name: &LinkName, link: &LinkFacts) -> bool {
        self.policy.links.iter().any(|line| match &line.name.value {
            LinkRef::Auto => link.has_default_route(),
            written => written.means(name, &link.altnames),
        })
    }

    /// What the policy means on what was seen.
    ///
    /// # Errors
    /// A policy that cannot hold there, and a root qdisc that is somebody else's.
    pub fn mean(&self, mut seen: Observation) -> Result<Meaning, Refusal> {
        self.came.iter().for_each(|owner| seen.facts.accounts.admit(owner));
        let draining = self.keep_who_stands(&mut seen);
        accounts::remember_groups(&self.policy, &mut seen);
        let fitted = self.fit(&mut seen)?;
        links::only_instance(&fitted.model, &seen)?;
        if seen.unread.owners.is_some() && seen.facts.lacks.is_none() {
            // Whatever they hold, programs with maps of our own take their place.
            seen.distrust_all_but(None);
            seen.unread.owners = None;
        }
        let unfit::Fitted { model, warnings, in_the_way } = fitted;
        Ok(Meaning { observation: seen, model, warnings, draining, in_the_way })
    }

    /// The steps from what was seen to what is desired, and what is desired.
    ///
    /// # Errors
    /// The kernel cannot do what the policy asks for; [`Refusal::Untried`] where nobody has tried:
    /// with the features in `meaning` it can be asked again.
    pub fn plan(&self, meaning: &mut Meaning) -> Result<(Plan, KernelState), Refusal> {
        let mut desired = self.desired(meaning)?;
        self.leave_alone(meaning, &mut desired);
        if let Some(why) = meaning.observation.unread.owners.take() {
            meaning.observation.state.owners.clone_from(&desired.owners);
            let message = format!(
                "which uids are in which class in the kernel cannot be read ({why}), and is taken to be as the policy says; as root it can"
            );
            meaning.warnings.push(Diagnostic::warning(Kind::Claim, None, message));
        }
        // Whoever may change nothing cannot read them, and else they are replaced.
        if meaning.facts().lacks.is_some() {
            take_as_read(&mut meaning.observation, &mut desired);
        }
        let observation = &meaning.observation;
        let mut plan = diff(observation, &desired);
        let derived = meaning.model.nodes.iter().filter(|node| {
            let asked = node.limits.iter().flatten().map(|limits| limits.rate);
            asked.into_iter().all(|rate| matches!(rate, Asked::Derived { .. } | Asked::Token))
        });
        let derived = derived.map(|node| &node.owner).collect();
        let accounts = &observation.facts.accounts;
        plan.mark_routine(&observation.state, &Logins { accounts, derived });
        let said = self.warnings_about(meaning, &desired);
        meaning.warnings.extend(said);
        Ok((plan, desired))
    }

    /// What the model means, before links are left alone.
    fn desired(&self, meaning: &Meaning) -> Result<KernelState, Refusal> {
        let sharding = self.options.sharding;
        let features = &meaning.facts().features;
        // What stands shows only the best; something lesser, or more, was asked for.
        let lacks_bpf = || {
            sharding.is_wanted(&meaning.model) && !features.classifiers.contains(&Classifier::Bpf)
        };
        if !features.tried && lacks_bpf() {
            return Err(Refusal::Untried);
        }
        let desired = desired::desired_with(&meaning.model, &meaning.observation, sharding);
        desired.map_err(|error| {
            let lacks_kind =
                matches!(error, Impossible::Classifier { .. } | Impossible::Leaf { .. });
            if lacks_kind && !features.tried {
                return Refusal::Untried;
            }
            // What a kernel lacks is found out by trying, in a network namespace of our own:
            // without root it only seems to lack it.
            match (lacks_kind || error == Impossible::NoHtb) && meaning.facts().lacks.is_some() {
                true => Refusal::NeedsRoot,
                false => Refusal::Impossible(error),
            }
        })
    }
}

impl Meaning {
    /// What was true when it was looked.
    pub fn facts(&self) -> &Facts {
        &self.observation.facts
    }

    /// The facts of the links that the model is about.
    pub fn good_links(&self) -> BTreeMap<LinkName, LinkFacts> {
        let facts = |name: &LinkName| Some((name.clone(), self.facts().links.get(name)?.clone()));
        self.model.links.iter().filter_map(|link| facts(&link.port.link)).collect()
    }
}

/// Programs of rules that this process may not read, but whose names are those of programs that are
/// desired, count as these, where they stand.
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
        }
    }
}
