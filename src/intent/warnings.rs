//! Warnings beside the steps: the policy holds, but not quite as its author may think.

use super::{Intent, Meaning};
use crate::desired::{Sharding, Unguarded, Unlabelled};
use crate::facts::Observation;
use crate::model::{self, Model};
use crate::policy::{Diagnostic, Kind};
use crate::tree::{Claim, Filter, Foreign, KernelState, LinkName, Tag};
use crate::units::{ClassId, Minor};

impl Intent {
    /// The warnings about a meaning and the desired state.
    pub(super) fn warnings_about(
        &self,
        meaning: &Meaning,
        desired: &KernelState,
    ) -> Vec<Diagnostic> {
        let pins = pins_in_use(&meaning.model, desired, &meaning.observation);
        let tags = believes_tags(desired, &meaning.model);
        let said = pins.chain(self.crowded(meaning)).chain(tags).chain(silent_engines(meaning));
        let said = said.chain(unguarded(meaning)).chain(unlabelled(meaning));
        said.chain(unread_use(meaning)).collect()
    }

    /// Warns that there are enough users for shards, and that there can be none.
    fn crowded(&self, meaning: &Meaning) -> Option<Diagnostic> {
        let features = &meaning.facts().features;
        let sharding = self.options.sharding;
        if !sharding.is_wanted(&meaning.model) || Sharding::is_possible(&meaning.model, features) {
            return None;
        }
        let why = match features.has_programs() {
            true => {
                "a link has `classifier: cgroup`, and finding one of several HTB qdiscs takes eBPF; write `auto`"
            }
            false => {
                "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF classifier"
            }
        };
        let message = format!(
            "more than {} users stay in one HTB qdisc, to which the kernel adds classes slowly: {why}",
            sharding.flat
        );
        Some(Diagnostic::warning(Kind::Claim, None, message))
    }
}

/// Warns that it is not known what was used of quotas.
fn unread_use(meaning: &Meaning) -> Option<Diagnostic> {
    let why = meaning.facts().used.unread.as_ref()?;
    let message = format!("quotas are taken as unused: {why}");
    Some(Diagnostic::warning(Kind::Rate, None, message))
}

/// Warns that `auto` chose a classifier that a hostile local user can get around.
fn believes_tags(desired: &KernelState, model: &Model) -> Option<Diagnostic> {
    let by_tag = |link: &&model::Link| {
        let tree = desired.trees.get(&link.port);
        let mut filters = tree.into_iter().flat_map(|tree| tree.filters.values());
        link.classifier.is_none() && filters.any(|it| *it == Filter::Tag(Tag::Cgroup))
    };
    let link = model.links.iter().find(by_tag)?;
    let message = format!(
        "{} tells users apart by their tag alone, since this kernel, or this process's capabilities (CAP_BPF), allow no eBPF: a local user who wants to can get into the default class; give that a `ceil`",
        link.port.link
    );
    Some(Diagnostic::warning(Kind::Link, None, message))
}

/// Container engines that did not say what their containers are called.
fn silent_engines(meaning: &Meaning) -> impl Iterator<Item = Diagnostic> {
    let warning = |why: &String| {
        let message = format!(
            "{why}; a container that nobody has described counts by the slice that it is in and its uid alone"
        );
        Diagnostic::warning(Kind::Claim, None, message)
    };
    meaning.facts().guests.silent.iter().map(warning)
}

/// Warns of links by which another network namespace's packets can leave past every limit.
fn unguarded(meaning: &Meaning) -> impl Iterator<Item = Diagnostic> {
    let warning = |(link, why): (&LinkName, Unguarded)| {
        let message = format!(
            "{link}: a macvlan or ipvlan on it, in another network namespace, can send past every limit (SO_PRIORITY, which whoever is root there may set): {why}"
        );
        Diagnostic::warning(Kind::Link, None, message)
    };
    Unguarded::links(&meaning.model, &meaning.observation).map(warning)
}

/// Warns of links whose guests' packets are in nobody's class, or in one that they choose.
fn unlabelled(meaning: &Meaning) -> impl Iterator<Item = Diagnostic> {
    let warning = |(link, why): (&LinkName, Unlabelled)| {
        let message = format!(
            "{link}: what comes in there from guests is in no user's class, or in one that a guest chooses who is root in a network namespace: {why}"
        );
        Diagnostic::warning(Kind::Link, None, message)
    };
    Unlabelled::links(&meaning.model, &meaning.observation).map(warning)
}

/// Warns of pinned owners that must wait while another owner's class has the number.
fn pins_in_use<'a>(
    model: &'a Model,
    desired: &'a KernelState,
    seen: &'a Observation,
) -> impl Iterator<Item = Diagnostic> + use<'a> {
    let foreign = |pin: Minor| {
        seen.foreign.iter().find(
            |object| matches!(object, Foreign::Class { classid, .. } if *classid == ClassId::ours(pin)),
        )
    };
    model.nodes.iter().filter_map(move |node| {
        let pin = node.pin?;
        let has = desired.claims.get(&Claim::Owner(node.owner.clone()))?;
        // Whose class a directory claims has it, and then it is not foreign.
        let object = foreign(pin)?;
        let message = format!(
            "{} is pinned to {}, but shaper did not make the {object}; it has {has} until that is gone",
            node.owner,
            ClassId::ours(pin)
        );
        Some(Diagnostic::warning(Kind::Claim, node.at, message))
    })
}
