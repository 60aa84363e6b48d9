//! Which links may be shaped, and which stay as they stand.

use std::collections::BTreeSet;

use super::{InTheWay, Intent, Meaning, Neighbour, Refusal};
use crate::facts::{Observation, RootQdisc};
use crate::model::Model;
use crate::policy::LinkRef;
use crate::tree::{Direction, Filter, KernelState, LinkName, Mark, Tag};
use crate::units::{ClassId, Rate};

/// Packets a second beyond which one HTB may be what limits a link: it has one lock for all
/// processors, and takes 0.8 to 1.1 µs for a packet of any size (benches/RESULTS.md).
pub const ONE_LOCK: u64 = 1_000_000;

/// Bytes of an Ethernet header.
const HEADER: u64 = 14;

/// How many packets as large as the link's MTU are its rate, in a second. Where senders make larger
/// ones (TSO), there are fewer; no rate says how many smaller ones there may be.
pub fn packets_a_second(rate: Rate, mtu: u32) -> u64 {
    rate.bytes_per_second() / (u64::from(mtu) + HEADER)
}

/// Refuses where another instance shapes a link of this namespace that the model is not about.
pub(super) fn only_instance(model: &Model, seen: &Observation) -> Result<(), Refusal> {
    let mine = |name: &LinkName| model.links.iter().any(|link| link.port.link == *name);
    for (name, facts) in &seen.facts.links {
        if let RootQdisc::Foreign { r2q: Some(r2q), .. } = facts.root
            && Mark::is_shaper(r2q)
            && !mine(name)
        {
            let who = neighbour(r2q, seen);
            return Err(Refusal::OtherInstance { link: name.clone(), who });
        }
    }
    Ok(())
}

/// The instance whose root qdisc has this mark.
fn neighbour(r2q: u32, seen: &Observation) -> Neighbour {
    let made_it = |name: &&String| Mark::for_instance(name).0 == r2q;
    Neighbour(seen.neighbours.iter().find(made_it).cloned())
}

impl Intent {
    /// The first link whose root qdisc may not be replaced, and why.
    pub(super) fn root_in_the_way(&self, model: &Model, seen: &Observation) -> Option<InTheWay> {
        if self.options.takeover {
            return None;
        }
        let leave = model.links.iter().filter(|line| line.port.direction == Direction::Egress);
        leave.into_iter().find_map(|line| {
            let link = line.port.link.clone();
            let facts = seen.facts.links.get(&link)?;
            if self.reclaimed.contains(&facts.ifindex) {
                return None;
            }
            match &facts.root {
                RootQdisc::Kernel { kind } if kind == "mq" => {
                    let packets = packets_a_second(line.rate, facts.mtu);
                    let (kind, rate) = (kind.clone(), line.rate);
                    (packets > ONE_LOCK).then_some(InTheWay::Queues { link, kind, rate, packets })
                }
                RootQdisc::Foreign { r2q: Some(r2q), .. } if Mark::is_shaper(*r2q) => {
                    Some(InTheWay::Instance { link, who: neighbour(*r2q, seen) })
                }
                RootQdisc::Foreign { kind, handle, .. } => {
                    Some(InTheWay::Foreign { link, kind: kind.clone(), handle: *handle })
                }
                RootQdisc::Kernel { .. } | RootQdisc::Ours => None,
            }
        })
    }

    /// Makes the seen state the desired one, on held links and on those that the model passed over.
    /// Returns which these are.
    pub(super) fn leave_alone(
        &self,
        meaning: &Meaning,
        desired: &mut KernelState,
    ) -> BTreeSet<LinkName> {
        let seen = &meaning.observation.state;
        let links: BTreeSet<LinkName> =
            self.held.iter().chain(self.passed_over(meaning)).cloned().collect();
        for link in &links {
            match seen.clsact.get(link) {
                Some(clsact) => desired.clsact.insert(link.clone(), clsact.clone()),
                None => desired.clsact.remove(link),
            };
            match seen.ifbs.get(&link.ifb()) {
                Some(ifb) => desired.ifbs.insert(link.ifb(), *ifb),
                None => desired.ifbs.remove(&link.ifb()),
            };
            desired.trees.retain(|port, _| port.link != *link);
            for (port, tree) in seen.trees.iter().filter(|(port, _)| port.link == *link) {
                // A class that stands keeps its owner.
                let has_class = |classid: &ClassId| tree.classes.contains_key(classid);
                for (claim, classid) in seen.claims.iter().filter(|(_, id)| has_class(id)) {
                    if !desired.claims.values().any(|id| id == classid) {
                        desired.claims.entry(claim.clone()).or_insert(*classid);
                    }
                }
                desired.trees.insert(port.clone(), tree.clone());
            }
        }
        // The maps that a program there looks up stay as well, also where no other link has a
        // program.
        let decides = |filter: &Filter| matches!(filter, Filter::Tag(Tag::Bpf(_)));
        let mut filters = desired.trees.values().flat_map(|tree| tree.filters.values());
        if desired.owners.is_none() && filters.any(decides) {
            desired.owners.clone_from(&seen.owners);
        }
        links
    }

    /// Links with a tree of ours that the policy means although the model does not have them: it
    /// passed them over, or `auto` finds no link at the moment and may be any of them.
    fn passed_over<'a>(
        &self,
        meaning: &'a Meaning,
    ) -> impl Iterator<Item = &'a LinkName> + use<'a> {
        let Meaning { observation, model, .. } = meaning;
        let facts = &observation.facts.links;
        let open: Vec<&LinkRef> = self
            .policy
            .links
            .iter()
            .filter(|line| model.links.iter().all(|link| link.at != line.name.at))
            .map(|line| &line.name.value)
            .collect();
        let shaped = |name: &LinkName| model.links.iter().any(|link| link.port.link == *name);
        let is_shaped = |index: u32| {
            model
                .links
                .iter()
                .any(|link| facts.get(&link.port.link).is_some_and(|f| f.ifindex == index))
        };
        let is_open = |name: &LinkName| {
            let device = facts.get(name);
            // A slave is left to its master once that is shaped.
            let is_port = device.and_then(|device| device.master).is_some_and(is_shaped);
            let altnames = device.map_or(&[][..], |device| &device.altnames);
            // It may be meant by another name, which is not known of a link that is taken out.
            if meaning.passed_over.contains_key(name) {
                return true;
            }
            open.iter().any(|line| match line {
                LinkRef::Auto => true,
                LinkRef::Pattern(_) if is_port => false,
                line => line.means(name, altnames),
            })
        };
        let standing = observation.state.trees.keys().map(|port| &port.link);
        let names: BTreeSet<&LinkName> =
            standing.filter(|name| is_open(name) && !shaped(name)).collect();
        names.into_iter()
    }
}
