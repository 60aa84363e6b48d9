//! Which minor each class has: identities are allocated once and kept. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::model::{Model, Node};
use crate::state::{Claim, Foreign, Observation, Owner};
use crate::units::Minor;

/// Who has which minor, and which minors are on their way out.
pub(super) struct Identities {
    pub minors: BTreeMap<Owner, Minor>,
    /// Minors whose class has lost its owner and is not quiet yet.
    pub retired: BTreeSet<Minor>,
}

/// More users or groups than one link can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfMinors {
    #[error("more than 57,296 users and classes: HTB's class numbers 1:10 to 1:dfff are all taken")]
    Users,
    #[error("more than 4,080 groups: HTB's class numbers 1:f000 to 1:ffef are all taken")]
    Groups,
}

/// Gives each node its minor. A node keeps the one that its claim holds as long as the classes that
/// stand with it can become what is wanted: HTB cannot move a class to another parent, so a node
/// that moves gets a new minor and its old class is retired. A pin waits at a spare minor while
/// another holds the pinned one or a class retired from it still stands.
pub(super) fn assign(model: &Model, observed: &Observation) -> Result<Identities, OutOfMinors> {
    let standing = Standing::new(model, observed);
    let mut minors: BTreeMap<Owner, Minor> = BTreeMap::new();
    let mut free = Free::new(&standing);
    for node in &model.nodes {
        let parent = match &node.group {
            Some(group) => minors[&Owner::Group(group.clone())],
            None => Minor::LINK,
        };
        let minor = match standing.keep(node, parent) {
            Some(minor) => minor,
            None => free.take(matches!(node.owner, Owner::Group(_)))?,
        };
        minors.insert(node.owner.clone(), minor);
    }
    let retired = standing.retired(&minors);
    Ok(Identities { minors, retired })
}

/// What the kernel says about minors.
struct Standing<'a> {
    model: &'a Model,
    observed: &'a Observation,
    held: BTreeMap<&'a Owner, Minor>,
    holder: BTreeMap<Minor, &'a Owner>,
    retired: BTreeSet<Minor>,
    foreign: BTreeSet<Minor>,
    pins: BTreeMap<Minor, &'a Owner>,
}

impl<'a> Standing<'a> {
    fn new(model: &'a Model, observed: &'a Observation) -> Self {
        let (mut held, mut holder, mut retired) =
            (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (claim, classid) in &observed.state.claims {
            match claim {
                Claim::Owner(owner) => {
                    let inner = matches!(owner, Owner::Group(_));
                    let minor = classid.our_minor().filter(|minor| {
                        if inner {
                            minor.is_inner() && *minor != Minor::LINK
                        } else {
                            minor.is_user()
                        }
                    });
                    // Two claims on one minor are a stranger's work: the first keeps it.
                    if let Some(minor) = minor
                        && !holder.contains_key(&minor)
                    {
                        held.insert(owner, minor);
                        holder.insert(minor, owner);
                    }
                }
                Claim::Retired(minor) => {
                    retired.insert(*minor);
                }
                Claim::Pinned(_) => {}
            }
        }
        let foreign = observed
            .foreign
            .iter()
            .filter_map(|foreign| match foreign {
                Foreign::Class { classid, .. } => classid.our_minor(),
                _ => None,
            })
            .collect();
        let pins = model.nodes.iter().filter_map(|node| Some((node.pin?, &node.owner))).collect();
        Standing { model, observed, held, holder, retired, foreign, pins }
    }

    /// The minor that the node has or is pinned to, if it can have it now.
    fn keep(&self, node: &Node, parent: Minor) -> Option<Minor> {
        let held = self.held.get(&node.owner).copied();
        if let Some(pin) = node.pin
            && held != Some(pin)
            && !self.retired.contains(&pin)
            && !self.foreign.contains(&pin)
            && !self.holder.contains_key(&pin)
        {
            return Some(pin);
        }
        held.filter(|minor| {
            self.pins.get(minor).is_none_or(|owner| **owner == node.owner)
                && !self.foreign.contains(minor)
                && self.fits(node, *minor, parent)
        })
    }

    /// Whether the classes that stand with this minor can become the node's by changes in place.
    fn fits(&self, node: &Node, minor: Minor, parent: Minor) -> bool {
        self.model.links.iter().zip(&node.limits).all(|(link, limits)| {
            let class =
                self.observed.state.links.get(&link.name).and_then(|tree| tree.classes.get(&minor));
            class.is_none_or(|class| limits.is_some() && class.parent == Some(parent))
        })
    }

    /// The minors that must stand although nobody has them: their class may still hold packets, or
    /// such a class hangs under it.
    fn retired(&self, minors: &BTreeMap<Owner, Minor>) -> BTreeSet<Minor> {
        let in_use: BTreeSet<Minor> = minors.values().copied().collect();
        let trees =
            || self.model.links.iter().filter_map(|link| self.observed.state.links.get(&link.name));
        let mut keep: BTreeSet<Minor> = self
            .holder
            .keys()
            .chain(&self.retired)
            .copied()
            .filter(|minor| !in_use.contains(minor) && !minor.is_inner())
            .filter(|minor| !self.observed.facts.quiet.contains(minor))
            .filter(|minor| trees().any(|tree| tree.classes.contains_key(minor)))
            .collect();
        let leaves: Vec<Minor> = keep.iter().copied().collect();
        for tree in trees() {
            for leaf in &leaves {
                let mut class = tree.classes.get(leaf);
                while let Some(parent) = class.and_then(|class| class.parent) {
                    if parent != Minor::LINK && !in_use.contains(&parent) {
                        keep.insert(parent);
                    }
                    class = tree.classes.get(&parent);
                }
            }
        }
        keep
    }
}

/// Minors that nobody has, had, or is pinned to. They are given out from the highest that is held
/// upwards and then from the beginning: a connection that was not accepted yet may carry the tag of a
/// class that is gone, and should not find a stranger's there.
struct Free {
    taken: BTreeSet<Minor>,
    users: Circle,
    groups: Circle,
}

type Circle = std::iter::Chain<RangeInclusive<u16>, RangeInclusive<u16>>;

impl Free {
    fn new(standing: &Standing<'_>) -> Free {
        let claimed = standing.observed.state.claims.values().filter_map(|id| id.our_minor());
        let taken: BTreeSet<Minor> = claimed
            .chain(standing.retired.iter().copied())
            .chain(standing.foreign.iter().copied())
            .chain(standing.pins.keys().copied())
            .collect();
        let held: BTreeSet<Minor> =
            standing.holder.keys().chain(&standing.retired).copied().collect();
        Free {
            users: circle(Minor::FIRST_USER, Minor::LAST_USER, &held),
            groups: circle(Minor::FIRST_GROUP, Minor::LAST_GROUP, &held),
            taken,
        }
    }

    fn take(&mut self, group: bool) -> Result<Minor, OutOfMinors> {
        let (circle, error) = match group {
            true => (&mut self.groups, OutOfMinors::Groups),
            false => (&mut self.users, OutOfMinors::Users),
        };
        circle.map(Minor).find(|minor| !self.taken.contains(minor)).ok_or(error)
    }
}

/// All from `first` to `last`, beginning after the highest that is held.
fn circle(first: Minor, last: Minor, held: &BTreeSet<Minor>) -> Circle {
    let highest = held.range(first..=last).next_back();
    let start = highest.map_or(first.0, |minor| minor.0.saturating_add(1));
    (start..=last.0).chain(first.0..=start.saturating_sub(1).min(last.0))
}
