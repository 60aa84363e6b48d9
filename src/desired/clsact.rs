//! The clsact of a link, with the program that clears the priority of packets of other network
//! namespaces' sockets, since HTB obeys a priority before it asks any filter. For links that a
//! macvlan or an ipvlan can be on, where the kernel has such a driver.

use std::collections::BTreeMap;

use crate::facts::Observation;
use crate::model::Model;
use crate::tree::{Clsact, Direction, Filter, LinkName, Parent, Pref};

/// Why packets with such a priority go past all limits on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unguarded {
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
    #[error("filters that shaper did not make have the prefs 1 and 2 at its clsact egress")]
    Prefs,
}

/// Each link's clsact with its filters, for the links of the model and those that have a clsact
/// already.
pub(super) fn wanted(model: &Model, observed: &Observation) -> BTreeMap<LinkName, Clsact> {
    let mut wanted: BTreeMap<LinkName, Clsact> = of_others(observed).collect();
    let sockets = observed.facts.program().sockets;
    for link in model.links.iter().filter(|link| observed.facts.carries_others(&link.port.link)) {
        let Ok(pref) = place(&link.port.link, observed) else { continue };
        let clsact = entry(&mut wanted, &link.port.link, observed);
        clsact.egress.filters.insert(pref, Filter::ClearPriority(sockets));
    }
    wanted
}

/// The link's, with what others have there.
pub(super) fn entry<'a>(
    wanted: &'a mut BTreeMap<LinkName, Clsact>,
    link: &LinkName,
    observed: &Observation,
) -> &'a mut Clsact {
    let of_others = || observed.state.clsact.get(link).map(Clsact::of_others);
    wanted.entry(link.clone()).or_insert_with(|| of_others().unwrap_or_default())
}

/// The clsacts that stay when nothing of ours is desired.
pub(super) fn of_others(observed: &Observation) -> impl Iterator<Item = (LinkName, Clsact)> {
    // A clsact without filters was made by somebody else, who will want it.
    let is_others = |link, clsact: &Clsact| clsact.is_shared() || !observed.has_hooks(link);
    let others = observed.state.clsact.iter().filter(move |(link, it)| is_others(link, it));
    others.map(|(link, clsact)| (link.clone(), clsact.of_others()))
}

impl Unguarded {
    /// Links of the model on which priorities are not cleared although a guest could set them, each
    /// with the reason.
    pub fn links<'a>(
        model: &'a Model,
        observed: &'a Observation,
    ) -> impl Iterator<Item = (&'a LinkName, Unguarded)> {
        let leave = model.links.iter().filter(|link| link.port.direction == Direction::Egress);
        let links = leave.map(|link| &link.port.link);
        let links = links.filter(|link| observed.facts.carries_others(link));
        links.filter_map(|link| Some((link, place(link, observed).err()?)))
    }
}

/// The pref for the program: the one where the same program stands, else the first free one (so
/// that a new program comes before the old one goes), else that of another program of ours.
fn place(link: &LinkName, observed: &Observation) -> Result<Pref, Unguarded> {
    if !observed.facts.features.clsact {
        return Err(Unguarded::Kernel);
    }
    if observed.ingress.contains(link) {
        return Err(Unguarded::Ingress);
    }
    let wanted = Filter::ClearPriority(observed.facts.program().sockets);
    let seats = (Parent::Egress, Pref::PRIORITY);
    free_pref(link, seats, (&wanted, Same::Stays), observed).ok_or(Unguarded::Prefs)
}

/// What becomes of a filter that stands as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// It stays where it is.
    Stays,
    /// It reads a map that goes: another comes beside it first.
    Goes,
}

/// At one side of a link's clsact, of these prefs, the one where the same filter stays, else the
/// first free one, else that of another filter of ours; `None`: others have both.
pub(super) fn free_pref(
    link: &LinkName,
    (side, prefs): (Parent, [Pref; 2]),
    (wanted, same): (&Filter, Same),
    observed: &Observation,
) -> Option<Pref> {
    let none = Clsact::default();
    let standing = observed.state.clsact.get(link).unwrap_or(&none);
    let (standing, port) = match side {
        Parent::Ingress => (&standing.ingress, link.ingress()),
        _ => (&standing.egress, link.egress()),
    };
    let prefs = prefs.into_iter().filter(|pref| !standing.foreign.contains(pref));
    let rank = |pref: &Pref| match standing.filters.get(pref) {
        Some(filter) if filter == wanted && same == Same::Stays => 0,
        None if !observed.is_strange(&port, side.at(*pref)) => 1,
        Some(filter) if filter == wanted => 3,
        _ => 2,
    };
    prefs.min_by_key(rank)
}
