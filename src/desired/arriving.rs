//! What leads packets that arrive through the tree on a link's ifb. Pure.

use std::collections::BTreeMap;

use super::clsact::{Same, free_pref};
use super::impossible::{Impossible, NoDown};
use super::{clsact, labels};
use crate::classify;
use crate::facts::{Facts, Observation};
use crate::model::{Link, Model};
use crate::tree::{Direction, Filter, Ifb, KernelState, LinkName, Parent, Pref, Tree};

/// Adds the ifb of each ingress port of the model, and the filters at the clsact of its link.
///
/// # Errors
/// What the kernel lacks, and others that are in the way.
pub(super) fn add(
    state: &mut KernelState,
    model: &Model,
    observed: &Observation,
) -> Result<(), Impossible> {
    for link in model.links.iter().filter(|link| link.port.direction == Direction::Ingress) {
        let name = &link.port.link;
        hooks(state, (model, link), observed)
            .map_err(|why| Impossible::Down { link: name.clone(), why })?;
        state.ifbs.insert(name.ifb(), Ifb { up: true });
    }
    Ok(())
}

fn hooks(
    state: &mut KernelState,
    (model, link): (&Model, &Link),
    observed: &Observation,
) -> Result<(), NoDown> {
    let facts = &observed.facts;
    match facts.down {
        None => return Err(NoDown::Untried),
        Some(false) => return Err(NoDown::Kernel),
        Some(true) => {}
    }
    is_free(link, observed)?;
    let tag = match classify::classifier(link.classifier, &facts.features) {
        Ok(classifier) => labels::tag(classifier, model, observed),
        Err(source) => return Err(NoDown::Classifier(source)),
    };
    let name = &link.port.link;
    let at = |parent, prefs, filter: &Filter, same| {
        free_pref(name, (parent, prefs), (filter, same), observed)
    };
    let learn = Filter::Learn(tag);
    let tree = state.trees.get_mut(&link.port);
    let old = observed.state.trees.get(&link.port);
    let stands = observed.state.clsact.get(name).is_some_and(|clsact| {
        Pref::LEARN.into_iter().any(|pref| clsact.egress.filters.get(&pref) == Some(&learn))
    });
    // Programs that come go on with the map that stands, if this process has it.
    let stays = observed.keeps_flows(name)
        || (stands && tree.as_ref().is_none_or(|tree| finds_the_same(tree, old)));
    let same = if stays { Same::Stays } else { Same::Goes };
    let learn_at = at(Parent::Egress, Pref::LEARN, &learn, same).ok_or(NoDown::Learn)?;
    if let Some(tree) = tree.filter(|_| !stays) {
        make_anew(tree, old);
    }
    let redirect_at = at(Parent::Ingress, Pref::REDIRECT, &Filter::Redirect, Same::Stays)
        .ok_or(NoDown::Redirect)?;
    let clsact = clsact::entry(&mut state.clsact, name, observed);
    clsact.egress.filters.insert(learn_at, learn);
    clsact.ingress.filters.insert(redirect_at, Filter::Redirect);
    Ok(())
}

/// The first link of the model whose `down` would take from others what they have there.
pub fn down_in_the_way(model: &Model, observed: &Observation) -> Option<(LinkName, NoDown)> {
    let mut links = model.links.iter().filter(|it| it.port.direction == Direction::Ingress);
    links.find_map(|link| Some((link.port.link.clone(), is_free(link, observed).err()?)))
}

/// Whether nobody else has the places that what arrives goes through.
fn is_free(link: &Link, observed: &Observation) -> Result<(), NoDown> {
    if observed.ingress.contains(&link.port.link) {
        return Err(NoDown::Ingress);
    }
    others_allow(link, &observed.facts)?;
    match observed.facts.links.contains_key(&link.port.device()) {
        true => Err(NoDown::Name(link.port.device())),
        false => Ok(()),
    }
}

/// Whether a redirect there leaves everybody what he has.
fn others_allow(link: &Link, facts: &Facts) -> Result<(), NoDown> {
    let mut beside = facts.beside.get(&link.port.link).into_iter().flatten();
    if let Some(it) = beside.find(|it| it.is_ciliums()) {
        return Err(NoDown::Cilium(it.name()));
    }
    match facts.firewalls.get(&link.port.link) {
        Some(what) if !link.bypass_firewall => Err(NoDown::Firewall(what.clone())),
        _ => Ok(()),
    }
}

type Filters = BTreeMap<Pref, Filter>;

fn standing_at(old: Option<&Tree>, parent: Parent) -> Option<&Filters> {
    match parent.shard() {
        None => old.map(|old| &old.filters),
        Some(shard) => old?.shards.get(&shard),
    }
}

/// Where filters are that find flows.
const FIND: [[Pref; 2]; 2] = [Pref::FIND, Pref::TAG];

/// Whether all that finds flows stands as it is wanted.
fn finds_the_same(tree: &Tree, old: Option<&Tree>) -> bool {
    let mut tree = tree.clone();
    tree.filters_mut().all(|(parent, wanted)| {
        let standing = standing_at(old, parent);
        let mut prefs = FIND.into_iter().flatten();
        prefs.all(|pref| match wanted.get(&pref) {
            Some(filter) => standing.and_then(|filters| filters.get(&pref)) == Some(filter),
            None => true,
        })
    })
}

/// A new map of flows comes with new filters that read it: those that stand, the same otherwise,
/// stay at their pref until the new ones are there.
fn make_anew(tree: &mut Tree, old: Option<&Tree>) {
    for (parent, wanted) in tree.filters_mut() {
        let standing = standing_at(old, parent);
        for [a, b] in FIND {
            let is_same = |(pref, _): &(Pref, Pref)| {
                let same = standing.and_then(|filters| filters.get(pref));
                matches!(same, Some(Filter::Find { .. })) && wanted.get(pref) == same
            };
            if let Some((pref, other)) = [(a, b), (b, a)].into_iter().find(is_same)
                && let Some(filter) = wanted.remove(&pref)
            {
                wanted.insert(other, filter);
            }
        }
    }
}
