//! Which users go into which shard. The kernel walks all classes of a qdisc for each one that is
//! added (`tc_bind_tclass`, net/sched/sch_api.c), so where there are more than a thousand users,
//! new ones are spread over small HTB qdiscs below the root's. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Features, Observation};
use crate::model::{LinkAt, Model, Node, Per, Target};
use crate::tree::{Classifier, Foreign, Owner};
use crate::units::{ClassId, Shard};

/// The sizes from which shards are worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// The most users and classes without a pinned number that are all put into the root qdisc;
    /// where there are more, new ones go into shards. Building so many takes 60 ms.
    pub flat: usize,
    /// The most users that are put into one shard; shards are filled evenly. Smaller shards would
    /// be built a little faster (10,000 users in shards of 500: by a tenth), but a packet costs
    /// more the more shards there are whose users all wait for their rate, because the root asks
    /// each of those shards in vain (`htb_dequeue_tree`, net/sched/sch_htb.c): four times as much
    /// among 20 such shards, two and a half among ten.
    pub full: usize,
    /// The most users with the same parent and prio that get no shard, for the same reason.
    pub few: usize,
}

impl Default for Sharding {
    fn default() -> Sharding {
        Sharding { flat: 1_000, full: 1_000, few: 250 }
    }
}

impl Sharding {
    /// Whether a policy has so many users that new ones belong into shards.
    pub fn is_wanted(&self, model: &Model) -> bool {
        let targets = targets(model);
        model.nodes.iter().filter(|node| is_numbered_by_us(node, &targets)).count() > self.flat
    }

    /// Whether there can be shards. They need the eBPF program at the root of every link, because a
    /// user has one classid on all links: the kernel must be able to load it, and no line may say
    /// `classifier: cgroup`.
    pub fn is_possible(model: &Model, features: &Features) -> bool {
        features.has_programs()
            && model.links.iter().all(|link| link.classifier != Some(Classifier::Cgroup))
    }
}

/// The targets of rules and the owners of guests, who must be in the root qdisc: a u32 rule there
/// can send packets only to classes of the root, and a label has no room for the shard's number.
pub(super) fn targets(model: &Model) -> BTreeSet<&Owner> {
    let owners = model.rules.iter().filter_map(|rule| match &rule.to {
        Target::Owner(owner) => Some(owner),
        Target::Default | Target::Unshaped => None,
    });
    let inner = model.inner.iter().flat_map(BTreeMap::values);
    let inner = inner.flat_map(|inner| {
        let by_source = inner.addresses.iter().map(|(_, owner)| owner);
        inner.owner.as_ref().into_iter().chain(by_source)
    });
    owners.chain(inner).collect()
}

/// Whether a node may be in a shard at all.
pub(super) fn is_numbered_by_us(node: &Node, targets: &BTreeSet<&Owner>) -> bool {
    let group = matches!(node.owner, Owner::Group(_));
    !group && node.pin.is_none() && !targets.contains(&node.owner)
}

/// What all users of a shard have in common, because the shard has one class for all of them in the
/// root qdisc.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardProfile {
    pub parent: ClassId,
    /// The prio on each link of the model; `None`: no class on that link.
    pub prios: Per<LinkAt, Option<u8>>,
}

impl ShardProfile {
    pub(super) fn of(node: &Node, parent: ClassId) -> ShardProfile {
        let prios = node.limits.along(|_, limits| Some(limits.as_ref()?.prio));
        ShardProfile { parent, prios }
    }
}

/// The shards that have users, each with their profile and their number.
#[derive(Default)]
pub(super) struct Shards(BTreeMap<Shard, (ShardProfile, usize)>);

impl Shards {
    /// From the users of each shard. The shard's profile is that of most of them, so that all of
    /// them may change together.
    pub(super) fn new<'a>(members: impl Iterator<Item = (Shard, &'a ShardProfile)>) -> Shards {
        let mut votes: BTreeMap<Shard, BTreeMap<&ShardProfile, usize>> = BTreeMap::new();
        for (shard, profile) in members {
            *votes.entry(shard).or_default().entry(profile).or_default() += 1;
        }
        let most = |(shard, profiles): (Shard, BTreeMap<&ShardProfile, usize>)| {
            let (profile, count) = profiles.into_iter().max_by_key(|(_, count)| *count)?;
            Some((shard, (profile.clone(), count)))
        };
        Shards(votes.into_iter().filter_map(most).collect())
    }

    pub(super) fn is_home_of(&self, shard: Shard, profile: &ShardProfile) -> bool {
        self.0.get(&shard).is_some_and(|(found, _)| found == profile)
    }

    /// Whether a shard of this profile has fewer than `full` users.
    pub(super) fn has_room(&self, profile: &ShardProfile, full: usize) -> bool {
        self.0.values().any(|(found, members)| found == profile && *members < full)
    }

    pub(super) fn into_profiles(self) -> BTreeMap<Shard, ShardProfile> {
        self.0.into_iter().map(|(shard, (profile, _))| (shard, profile)).collect()
    }

    /// A shard for each of `count` new users of one profile, always the emptiest one; fewer where
    /// the numbers of shards run out.
    pub(super) fn places(
        &mut self,
        profile: &ShardProfile,
        count: usize,
        full: usize,
        numbers: &mut impl Iterator<Item = Shard>,
    ) -> Vec<Shard> {
        let open =
            self.0.iter().filter(|(_, (found, members))| found == profile && *members < full);
        let mut open: BTreeSet<(usize, Shard)> =
            open.map(|(shard, (_, members))| (*members, *shard)).collect();
        let room: usize = open.iter().map(|(members, _)| full - members).sum();
        let more = count.saturating_sub(room).div_ceil(full);
        open.extend(numbers.by_ref().take(more).map(|shard| (0, shard)));
        let mut places = Vec::with_capacity(count);
        while places.len() < count
            && let Some((members, shard)) = open.pop_first()
        {
            places.push(shard);
            self.0.insert(shard, (profile.clone(), members + 1));
            if members + 1 < full {
                open.insert((members + 1, shard));
            }
        }
        places
    }
}

/// Numbers that no shard has, had, or seems to have on any link.
pub(super) fn free(observed: &Observation) -> impl Iterator<Item = Shard> {
    let claims = observed.state.claims.values().copied();
    let classes = observed.state.trees.values().flat_map(|tree| tree.classes.keys().copied());
    let foreign = observed.foreign.iter().filter_map(|object| match object {
        Foreign::Class { classid, .. } | Foreign::Directory { classid, .. } => Some(*classid),
        Foreign::Filter { .. } => None,
    });
    let taken: BTreeSet<Shard> = claims
        .chain(classes)
        .chain(foreign)
        .filter_map(|classid| classid.shard().or(Shard::of_class(classid)))
        .collect();
    Shard::all().filter(move |shard| !taken.contains(shard))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(parent: u32) -> ShardProfile {
        ShardProfile { parent: ClassId(parent), prios: Per::new(vec![Some(0)]) }
    }

    fn fill(shards: &Shards) -> Vec<usize> {
        shards.0.values().map(|(_, members)| *members).collect()
    }

    #[test]
    fn shards_are_filled_evenly_before_new_ones_are_made() {
        let mut shards = Shards::default();
        let mut numbers = Shard::all();
        let profile = profile(1);
        assert_eq!(shards.places(&profile, 10, 4, &mut numbers).len(), 10);
        assert_eq!(fill(&shards), [4, 3, 3]);
        shards.places(&profile, 2, 4, &mut numbers);
        assert_eq!(fill(&shards), [4, 4, 4]);
        shards.places(&profile, 1, 4, &mut numbers);
        assert_eq!(fill(&shards), [4, 4, 4, 1]);
    }

    #[test]
    fn kins_do_not_share_a_shard_and_numbers_run_out() {
        let mut shards = Shards::default();
        let mut numbers = Shard::all().take(2);
        shards.places(&profile(1), 1, 4, &mut numbers);
        assert_eq!(shards.places(&profile(2), 9, 4, &mut numbers).len(), 4, "one shard was left");
        assert_eq!(fill(&shards), [1, 4]);
    }

    #[test]
    fn most_users_of_a_shard_say_what_it_is_for() {
        let (old, new) = (profile(1), profile(2));
        let shard = Shard::all().next().unwrap();
        let members = [&old, &new, &new].map(|profile| (shard, profile));
        let shards = Shards::new(members.into_iter());
        assert!(shards.is_home_of(shard, &new) && !shards.is_home_of(shard, &old));
        assert_eq!(fill(&shards), [2]);
    }
}
