//! The labels of what comes in by links behind which guests are. Pure.

use std::collections::BTreeMap;

use super::clsact;
use super::identity::Identities;
use crate::facts::{LinkFacts, Observation};
use crate::model::Model;
use crate::tree::{Filter, KernelState, Label, LinkName, Owner, Parent, Pref, Program};
use crate::units::Minor;

/// Why what comes in by a link is not labelled, and so belongs to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlabelled {
    /// Neither the qdisc nor the program can be made.
    #[error(
        "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF program at `clsact` (`sch_ingress`)"
    )]
    Kernel,
    /// `ingress` and `clsact` cannot both be at a link (`TC_H_INGRESS`).
    #[error(
        "an `ingress` qdisc stands in the place of `clsact`; make it one (tc qdisc del dev … ingress, tc qdisc add dev … clsact)"
    )]
    Ingress,
    /// Others use both prefs at which the program could be asked first.
    #[error("filters that shaper did not make have the prefs 1 and 2 at its clsact ingress")]
    Prefs,
}

/// The kinds of links whose ports are links, too, and may have labels of their own.
const MASTERS: [&str; 4] = ["bridge", "openvswitch", "bond", "team"];

/// Whether there are guests, and labels can be made.
fn are_possible(model: &Model, observed: &Observation) -> bool {
    model.inner.is_some() && observed.facts.features.clsact
}

/// The deciding program for a qdisc without shards below it.
pub(super) fn program(model: &Model, observed: &Observation) -> Program {
    Program { labels: are_possible(model, observed), ..observed.facts.program() }
}

/// Adds the labels of all links that are to have one.
pub(super) fn add(
    state: &mut KernelState,
    model: &Model,
    ids: &Identities<'_>,
    observed: &Observation,
) {
    if !are_possible(model, observed) {
        return;
    }
    let owners = model.nodes.iter().map(|node| &node.owner).zip(&ids.nodes);
    let minors: BTreeMap<&Owner, Minor> = owners.map(|(owner, id)| (owner, id.minor())).collect();
    for (link, facts, owner) in links(model, observed) {
        let keeps = facts.kind.as_deref().is_some_and(|kind| MASTERS.contains(&kind));
        let owner = owner.and_then(|owner| minors.get(owner).copied());
        let filter = Filter::Label(Label { owner, keeps });
        if let Ok(pref) = place(link, &filter, observed) {
            let clsact = clsact::entry(&mut state.clsact, link, observed);
            clsact.ingress.filters.insert(pref, filter);
        }
    }
}

/// The links that are to be labelled, each with its owner: those of the model, and all others whose
/// peer is in another network namespace, where somebody could write a label by himself.
fn links<'a>(
    model: &'a Model,
    observed: &'a Observation,
) -> impl Iterator<Item = (&'a LinkName, &'a LinkFacts, Option<&'a Owner>)> {
    let inner = model.inner.as_ref();
    let each = inner.into_iter().flat_map(move |inner| {
        observed.facts.links.iter().filter_map(move |(link, facts)| {
            let owner = match inner.get(link) {
                Some(inner) => inner.owner.as_ref(),
                None if facts.peer_namespace.is_some() => None,
                None => return None,
            };
            Some((link, facts, owner))
        })
    });
    let is_shaped = |link: &LinkName| model.links.iter().any(|shaped| shaped.port.link == *link);
    each.filter(move |(link, ..)| !is_shaped(link))
}

fn place(link: &LinkName, filter: &Filter, observed: &Observation) -> Result<Pref, Unlabelled> {
    if observed.ingress.contains(link) {
        return Err(Unlabelled::Ingress);
    }
    let prefs = clsact::free_pref(link, (Parent::Ingress, Pref::LABEL), filter, observed);
    prefs.ok_or(Unlabelled::Prefs)
}

impl Unlabelled {
    /// Links of the model that are not labelled, each with the reason.
    pub fn links<'a>(
        model: &'a Model,
        observed: &'a Observation,
    ) -> impl Iterator<Item = (&'a LinkName, Unlabelled)> {
        let lacks = !observed.facts.features.clsact;
        let any = Filter::Label(Label { owner: None, keeps: false });
        links(model, observed).filter_map(move |(link, ..)| match lacks {
            true => Some((link, Unlabelled::Kernel)),
            false => Some((link, place(link, &any, observed).err()?)),
        })
    }
}
