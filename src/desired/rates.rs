//! The guarantees in force on one link: written rates as written, derived ones as a share of what
//! the parent has not promised, for those of the best prio. Pure.
//!
//! HTB serves every class up to its rate before it lends anything by prio, so a class that is to be
//! served after others must have next to no rate: with equal shares a backup at `prio: 7` took half
//! of the link from users at prio 0. The default class is not counted among the prios: it has a
//! rate always, and a policy whose users are all at prio 1 would else leave them without any.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::classes::Allowed;
use crate::model::{Asked, Limits, Link, LinkAt, Model, Node};
use crate::tree::{Group, Guarantee, Owner};
use crate::units::Rate;

/// The rate of the unshaped class where the device's speed is unknown: more than any device has.
pub(super) const UNKNOWN_DEVICE: Rate = Rate::literal(100_000_000_000 / 8);

pub(super) struct Rates {
    pub default: Rate,
    /// The guarantee of each node of the model; `None` where it is not on this link.
    pub nodes: Vec<Option<InForce>>,
}

#[derive(Clone, Copy)]
pub(super) struct InForce {
    pub allowed: Allowed,
    pub guarantee: Guarantee,
}

/// The guarantees that the children of one parent ask for.
#[derive(Clone, Copy, Default)]
struct Asking {
    promised: u64,
    sharers: u64,
    /// The best prio of the children, the default class aside.
    best: Option<u8>,
}

impl Asking {
    /// Whether a child of this prio has a share of what the parent has not promised.
    fn has_share(&self, prio: u8) -> bool {
        self.best.is_none_or(|best| prio <= best)
    }
}

/// What the children of every parent ask for; `default`: the rate of the default class, a child of
/// the link.
fn asked(model: &Model, at: LinkAt, default: Rate) -> BTreeMap<Option<&Group>, Asking> {
    let mut asking: BTreeMap<Option<&Group>, Asking> = BTreeMap::new();
    asking.entry(None).or_default().promised = default.bytes_per_second();
    let here = || model.nodes.iter().filter_map(|node| Some((node, node.limits[at].as_ref()?)));
    for (node, limits) in here() {
        let best = &mut asking.entry(node.group.as_ref()).or_default().best;
        *best = Some(best.map_or(limits.prio, |best| best.min(limits.prio)));
    }
    for (node, limits) in here() {
        let parent = asking.entry(node.group.as_ref()).or_default();
        match promise(node, limits) {
            Promise::Whole(rate) => add(&mut parent.promised, rate),
            Promise::IfThereIsEnough(_) => parent.sharers += 1,
            Promise::Token => {}
            Promise::Share { floor } => {
                parent.sharers += u64::from(parent.has_share(limits.prio));
                floor.into_iter().for_each(|rate| add(&mut parent.promised, rate));
            }
        }
    }
    asking
}

/// The guarantees on the link at `at`. A share shrinks by powers of two with the number of
/// sharers, so that a login seldom changes anybody else's class.
pub(super) fn in_force(model: &Model, at: LinkAt, link: &Link) -> Rates {
    let default = match link.default.rate {
        Asked::Promised(rate) => rate,
        Asked::Derived { .. } | Asked::Token => Rate::MIN_GUARANTEE,
    };
    let asking = asked(model, at, default);
    let mut groups: BTreeMap<&Group, Rate> = BTreeMap::new();
    let nodes = model
        .nodes
        .iter()
        .map(|node| {
            let limits = node.limits[at]?;
            let parent = match &node.group {
                Some(group) => groups.get(group).copied().unwrap_or(Rate::MIN_GUARANTEE),
                None => link.rate,
            };
            let asking = asking.get(&node.group.as_ref()).copied().unwrap_or_default();
            let part = share(parent, asking).map_or(0, Rate::bytes_per_second);
            let derived = |bytes: u64| {
                Rate::from_bytes_per_second(bytes)
                    .unwrap_or(Rate::MIN_GUARANTEE)
                    .max(Rate::MIN_GUARANTEE)
            };
            let (rate, guarantee) = match promise(node, &limits) {
                Promise::Whole(rate) => (rate, Guarantee::Written),
                Promise::Token => (Rate::MIN_GUARANTEE, Guarantee::Derived),
                Promise::IfThereIsEnough(rate) if rate <= derived(part) => {
                    (rate, Guarantee::Written)
                }
                Promise::IfThereIsEnough(_) => (derived(part), Guarantee::Derived),
                Promise::Share { floor } => {
                    let floor = floor.map_or(0, Rate::bytes_per_second);
                    let part = if asking.has_share(limits.prio) { part } else { 0 };
                    (derived(floor.saturating_add(part)), Guarantee::Derived)
                }
            };
            let rate = rate.min(limits.ceil);
            if let Owner::Group(group) = &node.owner {
                groups.insert(group, rate);
            }
            let Limits { ceil, boost, .. } = limits;
            Some(InForce { allowed: Allowed { rate, ceil, boost }, guarantee })
        })
        .collect();
    Rates { default, nodes }
}

/// What guarantee a node's line means.
enum Promise {
    Whole(Rate),
    /// Next to nothing, however much the parent has.
    Token,
    /// A rate written for accounts that come and go (`everyone`, `each`). It is in no sum that the
    /// model checks, so it is given only while the parent has enough: children's rates above the
    /// parent's would break the parent's ceil (20 + 20 under 20 Mbit gave 38).
    IfThereIsEnough(Rate),
    /// `floor` at least, and a share of what the parent has not promised, unless others have a
    /// better prio.
    Share {
        floor: Option<Rate>,
    },
}

fn promise(node: &Node, limits: &Limits) -> Promise {
    match limits.rate {
        Asked::Promised(rate)
            if matches!(
                &node.owner,
                Owner::Uid(_) | Owner::Subuids(_) | Owner::Group(Group::Everyone)
            ) =>
        {
            Promise::IfThereIsEnough(rate)
        }
        Asked::Promised(rate) => Promise::Whole(rate),
        Asked::Derived { floor } => Promise::Share { floor },
        Asked::Token => Promise::Token,
    }
}

fn add(sum: &mut u64, rate: Rate) {
    *sum = sum.saturating_add(rate.bytes_per_second());
}

/// One sharer's part of what a parent with this rate has not promised; `None` when nothing is left.
fn share(parent: Rate, asking: Asking) -> Option<Rate> {
    let left = parent.bytes_per_second().saturating_sub(asking.promised);
    let parts = NonZeroU64::new(asking.sharers.next_power_of_two())?;
    Rate::from_bytes_per_second(left / parts)
}
