//! The classid of each node, which it keeps from one apply to the next. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use crate::facts::Observation;
use crate::model::{Model, Node};
use crate::tree::{Claim, Foreign, Group, Owner};
use crate::units::{ClassId, Minor, Shard};

use super::shards::{self, ShardProfile, Sharding, Shards};

/// Who has which class, and which classes are retired.
pub(super) struct Identities<'a> {
    /// The classid of each of the model's nodes, in the same order.
    pub nodes: Vec<ClassId>,
    /// The classids of the groups once more, by group.
    pub groups: HashMap<&'a Group, ClassId>,
    /// Classes that have lost their owner and are not quiet yet, with that owner where it is known.
    pub retired: BTreeMap<ClassId, Option<&'a Owner>>,
    /// The shards that have users, and what the users of each have in common.
    pub shards: BTreeMap<Shard, ShardProfile>,
}

/// More users or groups than one link can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfMinors {
    /// All of [`Minor::USERS`] are taken.
    #[error(
        "more than 57,328 users and classes: HTB's class numbers :10 to :dfff, which are also the leaf qdiscs' handles, are all taken (accounts of `everyone` that run and classes on their way out have some); put several accounts into one line with `uids`, or wait until the classes on their way out have drained"
    )]
    Users,
    /// All of [`Minor::GROUPS`] are taken.
    #[error(
        "more than 4,080 groups: HTB's class numbers 1:f000 to 1:ffef are all taken; join groups that have the same limits"
    )]
    Groups,
}

/// Gives each node its classid. A node keeps the one of its claim as long as the classes that stand
/// with that number can become the desired ones in place. HTB cannot move a class to another
/// parent, so a node that moves gets a new minor and its old class is retired. A pinned node has a
/// spare minor while another owner has the pinned one, or while a retired class still has it. An
/// owner that comes back while a class of his drains has that class again, where it can become the
/// desired one: with a second class beside it he would have two limits. With `sharding`, where
/// there are many users, new ones go into shards.
pub(super) fn assign<'a>(
    model: &'a Model,
    observed: &'a Observation,
    sharding: Option<Sharding>,
) -> Result<Identities<'a>, OutOfMinors> {
    let standing = Standing::new(model, observed);
    let targets = shards::targets(model);
    let mut free = Free::new(&standing);
    let mut nodes: Vec<ClassId> = Vec::with_capacity(model.nodes.len());
    let mut groups: HashMap<&Group, ClassId> = HashMap::new();
    // The nodes that may be in a shard, each with the class that it has now.
    let mut crowd: Vec<(usize, ShardProfile, Option<ClassId>)> = Vec::new();
    for (index, node) in model.nodes.iter().enumerate() {
        let parent = node.group.as_ref().map_or(ClassId::LINK, |group| groups[group]);
        let may_shard = sharding.is_some() && shards::is_numbered_by_us(node, &targets);
        let kept = standing.keep(node, parent).filter(|id| id.shard().is_none() || may_shard);
        if may_shard {
            crowd.push((index, ShardProfile::of(node, parent), kept));
            // `spread` sets the classid.
            nodes.push(ClassId::NONE);
            continue;
        }
        let id = match kept {
            Some(id) => id,
            None => ClassId::ours(free.take(matches!(node.owner, Owner::Group(_)))?),
        };
        nodes.push(id);
        if let Owner::Group(group) = &node.owner {
            groups.insert(group, id);
        }
    }
    let shards = match sharding {
        Some(sharding) => spread(&crowd, sharding, observed, &mut free, &mut nodes)?,
        None => BTreeMap::new(),
    };
    let retired = standing.retired(&nodes);
    Ok(Identities { nodes, groups, retired, shards })
}

/// Classids for the nodes that may be in a shard, and the shards that have users then.
fn spread(
    crowd: &[(usize, ShardProfile, Option<ClassId>)],
    sharding: Sharding,
    observed: &Observation,
    free: &mut Free,
    nodes: &mut [ClassId],
) -> Result<BTreeMap<Shard, ShardProfile>, OutOfMinors> {
    let members = crowd.iter().filter_map(|(_, profile, kept)| Some(((*kept)?.shard()?, profile)));
    let mut shards = Shards::new(members);
    let mut many: BTreeMap<&ShardProfile, usize> = BTreeMap::new();
    let mut newcomers: BTreeMap<&ShardProfile, usize> = BTreeMap::new();
    // A node whose profile is not that of most users of its shard cannot stay there.
    let stays = |shards: &Shards, profile: &ShardProfile, id: ClassId| {
        id.shard().is_none_or(|shard| shards.is_home_of(shard, profile))
    };
    for (_, profile, kept) in crowd {
        *many.entry(profile).or_default() += 1;
        if kept.is_none_or(|id| !stays(&shards, profile, id)) {
            *newcomers.entry(profile).or_default() += 1;
        }
    }
    let mut numbers = shards::free(observed);
    let mut places: BTreeMap<&ShardProfile, std::vec::IntoIter<Shard>> = BTreeMap::new();
    for (profile, count) in newcomers {
        let enough = many[profile] > sharding.few || shards.has_room(profile, sharding.full);
        if crowd.len() > sharding.flat && enough {
            let shards = shards.places(profile, count, sharding.full, &mut numbers);
            places.insert(profile, shards.into_iter());
        }
    }
    for (index, profile, kept) in crowd {
        let id = match kept.filter(|id| stays(&shards, profile, *id)) {
            Some(id) => id,
            None => {
                let minor = free.take(false)?;
                let place = places.get_mut(profile).and_then(Iterator::next);
                place.map_or(ClassId::ours(minor), |shard| shard.user(minor))
            }
        };
        nodes[*index] = id;
    }
    Ok(shards.into_profiles())
}

/// Which minors are taken, and by whom, as the look found them.
struct Standing<'a> {
    model: &'a Model,
    observed: &'a Observation,
    held: HashMap<&'a Owner, ClassId>,
    holder: BTreeMap<Minor, ClassId>,
    retired: BTreeMap<Minor, ClassId>,
    /// The last owner of each retired class, who has it again where he comes back.
    left: BTreeSet<(&'a Owner, ClassId)>,
    foreign: BTreeSet<Minor>,
    pins: BTreeMap<Minor, &'a Owner>,
}

impl<'a> Standing<'a> {
    fn new(model: &'a Model, observed: &'a Observation) -> Self {
        let (mut held, mut holder) = (HashMap::new(), BTreeMap::new());
        let (mut retired, mut left) = (BTreeMap::new(), BTreeSet::new());
        for (claim, classid) in &observed.state.claims {
            match claim {
                Claim::Owner(owner) => {
                    let inner = matches!(owner, Owner::Group(_));
                    let class = classid.our_class().filter(|id| {
                        if inner {
                            id.shard().is_none() && id.minor().is_group()
                        } else {
                            id.minor().is_user()
                        }
                    });
                    // Two claims with one minor are somebody else's doing: the first keeps it.
                    if let Some(id) = class
                        && !holder.contains_key(&id.minor())
                    {
                        held.insert(owner, id);
                        holder.insert(id.minor(), id);
                    }
                }
                Claim::Retired(minor, owner) => {
                    let named = classid.our_class().filter(|id| id.minor() == *minor);
                    let id = named.unwrap_or(ClassId::ours(*minor));
                    retired.insert(*minor, id);
                    left.extend(owner.as_ref().map(|owner| (owner, id)));
                }
                Claim::Pinned(_) => {}
            }
        }
        let foreign = observed
            .foreign
            .iter()
            .filter_map(|foreign| match foreign {
                Foreign::Class { classid, .. } => classid.our_class().map(ClassId::minor),
                _ => None,
            })
            .collect();
        let pins = model.nodes.iter().filter_map(|node| Some((node.pin?, &node.owner))).collect();
        Standing { model, observed, held, holder, retired, left, foreign, pins }
    }

    /// The class that the node has or is pinned to, if the node can have it now.
    fn keep(&self, node: &'a Node, parent: ClassId) -> Option<ClassId> {
        let held = self.held.get(&node.owner).copied();
        if let Some(pin) = node.pin
            && held != Some(ClassId::ours(pin))
            && !self.retired.contains_key(&pin)
            && !self.foreign.contains(&pin)
            && !self.holder.contains_key(&pin)
        {
            return Some(ClassId::ours(pin));
        }
        let is_his = |id: &ClassId| self.left.contains(&(&node.owner, *id));
        let pin = node.pin.map(ClassId::ours).filter(is_his);
        pin.into_iter().chain(held).chain(self.left_by(&node.owner)).find(|id| {
            self.pins.get(&id.minor()).is_none_or(|owner| **owner == node.owner)
                && !self.foreign.contains(&id.minor())
                && self.fits(node, *id, parent)
        })
    }

    /// The retired classes of this owner that no other owner has.
    fn left_by(&self, owner: &'a Owner) -> impl Iterator<Item = ClassId> {
        let his = self.left.range((owner, ClassId(0))..=(owner, ClassId(u32::MAX)));
        his.map(|(_, id)| *id).filter(|id| !self.holder.contains_key(&id.minor()))
    }

    /// Whether the classes that stand with this classid, and their shard, can become the node's by
    /// changes in place.
    fn fits(&self, node: &Node, id: ClassId, parent: ClassId) -> bool {
        self.model.links.pairs().all(|(at, link)| {
            let Some(tree) = self.observed.state.trees.get(&link.port) else { return true };
            let hangs_in = |id: ClassId, parent: ClassId| {
                tree.classes.get(&id).is_none_or(|class| class.parent == Some(parent))
            };
            let wanted = node.limits[at].is_some() || !tree.classes.contains_key(&id);
            wanted
                && match id.shard() {
                    None => hangs_in(id, parent),
                    Some(shard) => hangs_in(id, shard.root()) && hangs_in(shard.class(), parent),
                }
        })
    }

    /// The classes that must stay although no node has them: packets may still come to them, or
    /// such a class hangs below them.
    fn retired(&self, nodes: &[ClassId]) -> BTreeMap<ClassId, Option<&'a Owner>> {
        let in_use: BTreeSet<ClassId> = nodes.iter().copied().collect();
        let trees =
            || self.model.links.iter().filter_map(|link| self.observed.state.trees.get(&link.port));
        let bound = |id: ClassId| {
            let own = |shard: Shard| [shard.class(), shard.root(), shard.default()];
            let with_it = id.shard().into_iter().flat_map(own);
            with_it.chain([id]).any(|id| self.observed.bound.contains(&id))
        };
        let mut keep: BTreeSet<ClassId> = self
            .holder
            .values()
            .chain(self.retired.values())
            .copied()
            .filter(|id| !in_use.contains(id))
            .filter(|id| {
                let quiet = id.minor().is_inner() || self.observed.facts.quiet.contains(id);
                !quiet || bound(*id)
            })
            .filter(|id| trees().any(|tree| tree.classes.contains_key(id)))
            .collect();
        let leaves: Vec<ClassId> = keep.iter().copied().collect();
        for tree in trees() {
            for leaf in &leaves {
                let above = std::iter::successors(tree.parent(*leaf), |id| tree.parent(*id));
                let groups = above.filter(|id| *id != ClassId::LINK && !in_use.contains(id));
                keep.extend(groups);
            }
        }
        let left = self.left.iter().copied();
        let whose: BTreeMap<ClassId, &Owner> = left
            .chain(self.held.iter().map(|(owner, id)| (*owner, *id)))
            .map(|(owner, id)| (id, owner))
            .collect();
        keep.into_iter().map(|id| (id, whose.get(&id).copied())).collect()
    }
}

/// Minors that nobody has, had, or is pinned to. They are given out upwards from the highest that
/// is taken, and then from the lowest on: a connection that nobody has accepted yet may carry the
/// tag of a class that is gone, and should not come to another user's class.
struct Free {
    taken: BTreeSet<Minor>,
    users: Circle,
    groups: Circle,
}

type Circle = std::iter::Chain<RangeInclusive<u16>, RangeInclusive<u16>>;

impl Free {
    fn new(standing: &Standing<'_>) -> Free {
        let claimed = standing.observed.state.claims.values().filter_map(|id| id.our_class());
        let taken: BTreeSet<Minor> = claimed
            .chain(standing.observed.bound.iter().copied())
            .map(ClassId::minor)
            .chain(standing.retired.keys().copied())
            .chain(standing.foreign.iter().copied())
            .chain(standing.pins.keys().copied())
            .collect();
        let held: BTreeSet<Minor> =
            standing.holder.keys().chain(standing.retired.keys()).copied().collect();
        Free { users: circle(&Minor::USERS, &held), groups: circle(&Minor::GROUPS, &held), taken }
    }

    fn take(&mut self, group: bool) -> Result<Minor, OutOfMinors> {
        let (circle, error) = match group {
            true => (&mut self.groups, OutOfMinors::Groups),
            false => (&mut self.users, OutOfMinors::Users),
        };
        circle.map(Minor).find(|minor| !self.taken.contains(minor)).ok_or(error)
    }
}

/// All minors of a range, beginning after the highest that is taken.
fn circle(range: &RangeInclusive<Minor>, held: &BTreeSet<Minor>) -> Circle {
    let (first, last) = (*range.start(), *range.end());
    let highest = held.range(first..=last).next_back();
    let start = highest.map_or(first.0, |minor| minor.0.saturating_add(1));
    (start..=last.0).chain(first.0..=start.saturating_sub(1).min(last.0))
}
