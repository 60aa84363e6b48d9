//! The state that the kernel should have: a model and an observation turned into a [`KernelState`].
//! Pure. A derived value depends on its own line, the link and the kernel only, so that adding a
//! user changes nobody else; the one exception is the derived guarantee.

mod arriving;
mod classes;
mod clsact;
mod filters;
mod identity;
mod impossible;
mod labels;
mod link_tree;
mod owners;
mod rates;
mod shards;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use arriving::down_in_the_way;
pub use clsact::Unguarded;
pub use identity::OutOfMinors;
pub use impossible::{Impossible, NoDown};
pub use labels::Unlabelled;
pub use shards::Sharding;

use crate::classify;
use crate::facts::{Features, Observation};
use crate::model::Model;
use crate::tree::{Claim, Classifier, Filter, KernelState, NetCls, Owner, OwnerTable, Tag};
use classes::Scale;
use filters::Filters;
use link_tree::{LinkTree, leaf_kind};

/// The state that the model means, given what stands. Claims keep their minors; a class that loses
/// its owner is retired, and deleted only once it is quiet.
///
/// # Errors
/// What this kernel lacks, a link that went since the model was made, or no free numbers.
pub fn desired(model: &Model, observed: &Observation) -> Result<KernelState, Impossible> {
    desired_with(model, observed, Sharding::default())
}

/// As [`desired`], with other sizes of shards.
///
/// # Errors
/// As [`desired`].
pub fn desired_with(
    model: &Model,
    observed: &Observation,
    sharding: Sharding,
) -> Result<KernelState, Impossible> {
    let features = &observed.facts.features;
    if !features.htb {
        return Err(Impossible::NoHtb);
    }
    let sharding = Sharding::is_possible(model, features).then_some(sharding);
    let ids = identity::assign(model, observed, sharding)?;
    let mut state = KernelState { net_cls: observed.state.net_cls, ..KernelState::default() };
    if state.net_cls == NetCls::Unmounted && reads_tags(model, features) {
        state.net_cls = NetCls::Ours;
    }
    let pinned: HashSet<&Owner> = observed.state.claims.keys().filter_map(Claim::pinned).collect();
    let owners = model.nodes.iter().map(|node| &node.owner).zip(&ids.nodes);
    let claims = owners.flat_map(|(owner, id)| {
        let pinned = pinned.get(owner).map(|_| (Claim::Pinned(owner.clone()), *id));
        [(Claim::Owner(owner.clone()), *id)].into_iter().chain(pinned)
    });
    state.claims = claims.collect();
    for claim in &observed.held {
        if let Some(classid) = observed.state.claims.get(claim) {
            state.claims.entry(claim.clone()).or_insert(*classid);
        }
    }
    for (id, owner) in &ids.retired {
        state.claims.insert(Claim::Retired(id.minor(), owner.cloned()), *id);
    }
    let all_targets = shards::targets(model);
    for (at, link) in model.links.pairs() {
        let facts = observed
            .facts
            .links
            .get(&link.port.link)
            .ok_or_else(|| Impossible::LinkGone(link.port.link.clone()))?;
        let nodes = model.nodes.iter().zip(&ids.nodes);
        let here = nodes.filter(|(node, _)| node.limits[at].is_some());
        let targets = here.map(|(node, id)| (&node.owner, *id));
        let targets = targets.filter(|(owner, _)| all_targets.contains(owner)).collect();
        let scale = Scale { link: link.rate, mtu: facts.mtu, psched: observed.facts.psched };
        let leaf = leaf_kind(link, features)?;
        let old = observed.state.trees.get(&link.port);
        let mut tree = LinkTree { model, at, link, ids: &ids, old, scale, leaf }.build();
        Filters { model, link, facts, ids: &ids, observed, targets }.add_to(&mut tree)?;
        state.trees.insert(link.port.clone(), tree);
    }
    state.clsact = clsact::wanted(model, observed);
    let sources = labels::add(&mut state, model, &ids, observed);
    arriving::add(&mut state, model, observed)?;
    let decides = |filter: &Filter| matches!(filter, Filter::Tag(Tag::Bpf(_)));
    let decides = state.trees.values().any(|tree| tree.filters.values().any(decides));
    if decides || !sources.is_empty() {
        let accounts = &observed.facts.accounts;
        let table = owners::table(&model.matcher.owners(accounts), &state.claims);
        let cgroups = match state.asks_cgroups() {
            true => owners::cgroups(&model.matcher.units, &observed.facts, &state.claims),
            false => Default::default(),
        };
        state.owners = Some(OwnerTable { sources, cgroups, ..table });
    }
    Ok(state)
}

/// Whether any link tells users apart by their `net_cls` tags: then processes are placed, and the
/// claims are the directories in which they are.
pub fn reads_tags(model: &Model, features: &Features) -> bool {
    let by_owner =
        |named: &Option<Classifier>| classify::classifier(*named, features) == Ok(Classifier::Uid);
    !model.classifiers.iter().all(by_owner)
}

/// The state without anything of ours, for `clear`: claims, trees and our own mount go.
pub fn nothing(observed: &Observation) -> KernelState {
    let net_cls = match observed.state.net_cls {
        NetCls::Ours if observed.neighbours.is_empty() => NetCls::Unmounted,
        other => other,
    };
    let held = |claim: &Claim| Some((claim.clone(), *observed.state.claims.get(claim)?));
    let claims = observed.held.iter().filter_map(held).collect();
    let clsact = clsact::of_others(observed).collect();
    KernelState { net_cls, claims, clsact, ..KernelState::default() }
}
