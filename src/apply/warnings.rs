//! What an apply, or a plan, has to say beside its steps: the policy holds, but not quite as
//! whoever wrote it may think.

use super::{Meaning, Session};
use crate::desired::{Sharding, Unguarded};
use crate::facts::Observation;
use crate::model::{self, Model};
use crate::policy::{Diagnostic, Kind};
use crate::tree::{Claim, Classifier, Filter, Foreign, KernelState, LinkName, Tag};
use crate::units::{ClassId, Minor};

impl Session {
    /// `auto` came to a classifier that a hostile local user can get around.
    pub(super) fn believes_tags(&self, desired: &KernelState, model: &Model) -> Option<Diagnostic> {
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

    /// So many users that shards would be worth it, and there can be none.
    pub(super) fn crowded(&self, meaning: &Meaning) -> Option<Diagnostic> {
        let Meaning { snapshot, model, .. } = meaning;
        let features = &snapshot.facts().features;
        let crowded =
            self.options.sharding.is_wanted(model) && !Sharding::is_possible(model, features);
        let why = match features.classifiers.contains(&Classifier::Bpf) {
            true => {
                "a link has `classifier: cgroup`, and finding one of several HTB qdiscs takes eBPF; write `auto`"
            }
            false => {
                "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF classifier"
            }
        };
        crowded.then(|| {
            Diagnostic::warning(
                Kind::Claim,
                None,
                format!(
                    "more than {} users stay in one HTB qdisc, to which the kernel adds classes slowly: {why}",
                    self.options.sharding.flat
                ),
            )
        })
    }
}

/// Links by which another network namespace's packets can leave past every limit.
pub(super) fn unguarded(meaning: &Meaning) -> Vec<Diagnostic> {
    let links = Unguarded::links(&meaning.model, &meaning.snapshot.observation);
    let warning = |(link, why): (&LinkName, Unguarded)| {
        Diagnostic::warning(
            Kind::Link,
            None,
            format!(
                "{link}: a macvlan or ipvlan on it, in another network namespace, can send past every limit (SO_PRIORITY, which whoever is root there may set): {why}"
            ),
        )
    };
    links.map(warning).collect()
}

/// Pins that must wait for as long as a class of somebody else has the number.
pub(super) fn pins_in_use<'a>(
    model: &'a Model,
    desired: &'a KernelState,
    observation: &'a Observation,
) -> impl Iterator<Item = Diagnostic> + use<'a> {
    let foreign = |pin: Minor| {
        observation.foreign.iter().find(
            |object| matches!(object, Foreign::Class { classid, .. } if *classid == ClassId::ours(pin)),
        )
    };
    model.nodes.iter().filter_map(move |node| {
        let pin = node.pin?;
        let has = desired.claims.get(&Claim::Owner(node.owner.clone()))?;
        let object = foreign(pin).filter(|_| *has != ClassId::ours(pin))?;
        let place = node.place;
        Some(Diagnostic::warning(
            Kind::Claim,
            None,
            format!(
                "line {}: {} is pinned to {}, but shaper did not make the {object}; it has {has} until that is gone",
                place.line,
                node.owner,
                ClassId::ours(pin)
            ),
        ))
    })
}
