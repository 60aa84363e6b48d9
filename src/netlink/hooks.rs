//! The records of a clsact's two sides → which filters there are ours, and what they read. Pure.

use std::collections::BTreeMap;

use super::ETH_P_ALL;
use super::bpf_name;
use super::decode::{FilterDetail, FilterRecord};
use super::flow_name::{self, Finds, Reads, Redirects};
use super::label_name;
use super::request::hook::HANDLE;
use crate::facts::Beside;
use crate::tree::{
    Clsact, Direction, Filter, MapIds, Mark, Parent, Pref, Seat, Side, StrangeFilter,
};

/// The filters of a clsact, and beside them those that have this instance's mark in their names and
/// that shaper does not write. `ifb`: the ifindex of the link's ifb, where it has one: what
/// redirects elsewhere is strange.
pub fn clsact(
    mark: Mark,
    ifb: Option<u32>,
    ingress: &[FilterRecord],
    egress: &[FilterRecord],
) -> (Clsact, BTreeMap<Seat, StrangeFilter>) {
    let mut strange = BTreeMap::new();
    let mut side = |parent: Parent, records: &[FilterRecord]| {
        let mut side = Side::default();
        for record in records.iter().filter(|record| record.detail != FilterDetail::Pref) {
            let own = match parent {
                Parent::Ingress => arriving(mark, ifb, record),
                _ => leaving(mark, record),
            };
            match own.filter(|_| record.handle == HANDLE && record.chain == 0) {
                Some(Some(filter)) => drop(side.filters.insert(record.pref, filter)),
                Some(None) => drop(strange.insert(parent.at(record.pref), unknown(record))),
                None => drop(side.foreign.insert(record.pref)),
            }
        }
        side
    };
    let (egress, ingress) = (side(Parent::Egress, egress), side(Parent::Ingress, ingress));
    (Clsact { egress, ingress }, strange)
}

/// The filters of one side of a clsact that are not of this instance.
pub fn others(side: Direction, ours: &Side, records: &[FilterRecord]) -> Vec<Beside> {
    let others = records.iter().filter(|record| {
        record.detail != FilterDetail::Pref
            && record.chain == 0
            && ours.foreign.contains(&record.pref)
            && !(record.handle == HANDLE && ours.filters.contains_key(&record.pref))
    });
    let mut beside = Vec::new();
    for record in others {
        let what = match &record.detail {
            FilterDetail::Bpf { name: Some(name), .. } => format!("{} {name}", record.kind),
            _ => record.kind.clone(),
        };
        let filter = Beside::Filter { side, pref: record.pref, what };
        // A u32 filter has several records.
        if !beside.contains(&filter) {
            beside.push(filter);
        }
    }
    beside
}

fn unknown(record: &FilterRecord) -> StrangeFilter {
    let (protocol, kind) = (record.protocol, record.kind.clone());
    StrangeFilter { protocol, kind, tables: Vec::new() }
}

/// One of this instance at the egress side, if shaper writes it; `None`: somebody else's.
fn leaving(mark: Mark, record: &FilterRecord) -> Option<Option<Filter>> {
    let FilterDetail::Bpf { name: Some(name), direct, .. } = &record.detail else { return None };
    let priority = bpf_name::parse_priority(name);
    let priority = priority.map(|(whose, sockets)| (whose, sockets.map(Filter::ClearPriority)));
    let learn = || {
        let (whose, found) = flow_name::parse_learn(name)?;
        Some((whose, found.map(|(tag, _)| Filter::Learn(tag))))
    };
    let (_, filter) = priority.or_else(learn).filter(|(whose, _)| *whose == mark)?;
    let whole = *direct && record.protocol == ETH_P_ALL;
    Some(filter.filter(|_| whole))
}

/// The same at the ingress side.
fn arriving(mark: Mark, ifb: Option<u32>, record: &FilterRecord) -> Option<Option<Filter>> {
    let FilterDetail::Bpf { name: Some(name), redirects_to, direct, .. } = &record.detail else {
        return None;
    };
    let redirect = || {
        let (whose, found) = flow_name::parse_redirect(name)?;
        let asks_for = found.map(|Redirects { ifb, .. }| ifb);
        let whole = ifb.is_some() && asks_for == ifb && *redirects_to == ifb;
        Some((whose, whole.then_some(Filter::Redirect)))
    };
    let label = label_name::parse(name);
    let label = label.map(|(whose, it)| {
        let label = it.filter(|_| *direct).map(|(label, _)| Filter::Label(label));
        (whose, label)
    });
    let (_, filter) = label.or_else(redirect).filter(|(whose, _)| *whose == mark)?;
    Some(filter.filter(|_| record.protocol == ETH_P_ALL))
}

/// What each of our filters reads that notes flows.
pub fn learners(egress: &[FilterRecord]) -> BTreeMap<Pref, Reads> {
    let reads = egress.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), .. } => {
            let (_, found) = flow_name::parse_learn(name)?;
            Some((record.pref, found?.1))
        }
        _ => None,
    });
    reads.collect()
}

/// What each of our filters reads that finds flows.
pub fn finders(records: &[FilterRecord]) -> BTreeMap<Pref, Finds> {
    let flows = records.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), .. } => {
            Some((record.pref, flow_name::parse_find(name)?.1))
        }
        _ => None,
    });
    flows.collect()
}

/// The maps of each of our labels that asks for sources.
pub fn labels(ingress: &[FilterRecord]) -> BTreeMap<Pref, MapIds> {
    let maps = ingress.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), .. } => {
            let (_, found) = label_name::parse(name)?;
            Some((record.pref, found?.1?))
        }
        _ => None,
    });
    maps.collect()
}

/// The map that each of our filters reads or writes that redirects, or that notes what comes.
pub fn pulses(records: &[FilterRecord]) -> BTreeMap<Pref, u32> {
    let pulses = records.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), .. } => {
            let redirects = || Some(flow_name::parse_redirect(name)?.1?.pulse);
            Some((record.pref, flow_name::parse_pulse(name).or_else(redirects)?))
        }
        _ => None,
    });
    pulses.collect()
}
