//! The labels of what comes in by links behind which guests are. Pure.

use std::collections::BTreeMap;

use super::clsact::{self, Same, free_pref};
use super::identity::Identities;
use crate::classify;
use crate::facts::{Features, LinkFacts, Observation};
use crate::model::{InnerLink, Link, Model};
use crate::tree::{
    Classifier, Filter, KernelState, Label, LinkName, Owner, Parent, Pref, Program, Sockets,
    Source, Tag,
};
use crate::units::{ClassId, Minor};

/// Why what comes in by a link is not labelled, and so belongs to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlabelled {
    /// Neither the qdisc nor the program can be made.
    #[error(
        "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF program at `clsact` (`sch_ingress`)"
    )]
    Kernel,
    /// No program reads labels.
    #[error("`classifier: cgroup` tells local users apart and no guests; write `auto`")]
    Classifier,
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

/// Whether there are guests, and labels can be made and read somewhere.
fn are_possible(model: &Model, observed: &Observation) -> bool {
    let features = &observed.facts.features;
    let programs = [Ok(Classifier::Bpf), Ok(Classifier::Uid)];
    let reads = |link: &Link| programs.contains(&classify::classifier(link.classifier, features));
    model.inner.is_some() && features.clsact && model.links.iter().any(reads)
}

/// The filter of this classifier that says whose a packet is, for a qdisc without shards below it.
pub(super) fn tag(classifier: Classifier, model: &Model, observed: &Observation) -> Tag {
    let program = || Program { labels: are_possible(model, observed), ..observed.facts.program() };
    match classifier {
        Classifier::Bpf => Tag::Bpf(program()),
        Classifier::Uid => Tag::Bpf(without_tag(program(), &observed.facts.features)),
        Classifier::Cgroup => Tag::Cgroup,
    }
}

/// The program that asks for no tag. Where some sockets may be another namespace's, no tag goes
/// first: that is the program for [`Sockets::All`].
fn without_tag(program: Program, features: &Features) -> Program {
    let sockets = match program.sockets {
        Sockets::Mixed => Sockets::All,
        own => own,
    };
    Program { tag: None, cgroups: features.helpers.ancestor_cgroup, sockets, ..program }
}

/// Adds the labels of all links that are to have one. Returns what those look up that ask for the
/// source.
pub(super) fn add(
    state: &mut KernelState,
    model: &Model,
    ids: &Identities<'_>,
    observed: &Observation,
) -> BTreeMap<Source, ClassId> {
    let mut sources = BTreeMap::new();
    if !are_possible(model, observed) {
        return sources;
    }
    let owners = model.nodes.iter().map(|node| &node.owner).zip(&ids.nodes);
    let minors: BTreeMap<&Owner, Minor> = owners.map(|(owner, id)| (owner, id.minor())).collect();
    for (link, facts, inner) in links(model, observed) {
        let keeps = facts.kind.as_deref().is_some_and(|kind| MASTERS.contains(&kind));
        let owner = inner.and_then(|inner| minors.get(inner.owner.as_ref()?).copied());
        let addresses = inner.into_iter().flat_map(|inner| &inner.addresses);
        let own = addresses.map(|(net, owner)| {
            let class = minors.get(owner).map_or(ClassId::NONE, |minor| ClassId::ours(*minor));
            (Source { ifindex: facts.ifindex, net: net.trunc() }, class)
        });
        let own: BTreeMap<Source, ClassId> = own.collect();
        let filter = Filter::Label(Label { owner, by_source: !own.is_empty(), keeps });
        if let Ok(pref) = place(link, &filter, observed) {
            sources.extend(own);
            let clsact = clsact::entry(&mut state.clsact, link, observed);
            clsact.ingress.filters.insert(pref, filter);
        }
    }
    sources
}

/// The links that are to be labelled, each with whose it is: those of the model, and all others
/// whose peer is in another network namespace, where somebody could write a label by himself.
fn links<'a>(
    model: &'a Model,
    observed: &'a Observation,
) -> impl Iterator<Item = (&'a LinkName, &'a LinkFacts, Option<&'a InnerLink>)> {
    let inner = model.inner.as_ref();
    let each = inner.into_iter().flat_map(move |inner| {
        observed.facts.links.iter().filter_map(move |(link, facts)| {
            let inner = inner.get(link);
            let may_lie = facts.peer_namespace.is_some();
            (inner.is_some() || may_lie).then_some((link, facts, inner))
        })
    });
    let is_shaped = |link: &LinkName| model.links.iter().any(|shaped| shaped.port.link == *link);
    each.filter(move |(link, facts, _)| facts.peer_namespace.is_some() || !is_shaped(link))
}

fn place(link: &LinkName, filter: &Filter, observed: &Observation) -> Result<Pref, Unlabelled> {
    if observed.ingress.contains(link) {
        return Err(Unlabelled::Ingress);
    }
    let prefs = free_pref(link, (Parent::Ingress, Pref::LABEL), (filter, Same::Stays), observed);
    prefs.ok_or(Unlabelled::Prefs)
}

impl Unlabelled {
    /// Links of the model that are not labelled, each with the reason.
    pub fn links<'a>(
        model: &'a Model,
        observed: &'a Observation,
    ) -> impl Iterator<Item = (&'a LinkName, Unlabelled)> {
        let lacks = match observed.facts.features.clsact {
            false => Some(Unlabelled::Kernel),
            true if !are_possible(model, observed) => Some(Unlabelled::Classifier),
            true => None,
        };
        let any = Filter::Label(Label { owner: None, by_source: false, keeps: false });
        links(model, observed).filter_map(move |(link, ..)| {
            Some((link, lacks.or_else(|| place(link, &any, observed).err())?))
        })
    }
}
