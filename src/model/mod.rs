//! The policy as it is meant on this host: names resolved, defaults filled, percentages computed,
//! the tree checked. `build` makes it from what was written and from facts; it touches nothing.

mod build;
mod claims;
mod groups;
mod limits;
mod links;
mod nodes;
mod rules;
mod stacked;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::state::{Accounts, Key, LinkName, Match, Owner, Tag};
use crate::units::{Minor, Rate};

pub use crate::policy::{LeafChoice, Pattern, Place};
pub use build::{BuildOptions, build};

/// A whole policy, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// In file order.
    pub links: Vec<Link>,
    /// Groups, users, classes and the accounts of `everyone` and `each` that run; parents before
    /// children, otherwise in file order, accounts last by uid.
    pub nodes: Vec<Node>,
    pub matcher: Matcher,
    /// In file order, which is their order of precedence.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: LinkName,
    /// Class 1:1: rate = ceil.
    pub rate: Rate,
    /// What the device says it can do, if it says so.
    pub speed: Option<Rate>,
    /// Class 1:fffe, its rate already resolved.
    pub default: Limits,
    /// `None`: the best one that the kernel has.
    pub classifier: Option<Tag>,
    pub leaf: LeafChoice,
    pub place: Place,
}

/// One class of the tree, on every link that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub owner: Owner,
    /// The group it is in; `None`: directly below the link.
    pub group: Option<Key>,
    /// `classid` in the policy.
    pub pin: Option<Minor>,
    /// One for each of `Model::links`, in the same order; `None`: not on that link.
    pub limits: Vec<Option<Limits>>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub rate: Asked,
    pub ceil: Rate,
    /// For a group, the best one of its members: HTB has none for the group itself.
    pub prio: u8,
}

/// The rate of a class, as the policy asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Written: a promise.
    Promised(Rate),
    /// A cap without a guarantee: a share of what the parent has not promised. For a group, `floor`
    /// is what its members' written rates add up to (they were promised, so the group must have
    /// them); `None` where nothing below it is written.
    Derived { floor: Option<Rate> },
    /// As good as none (`background`).
    Token,
}

/// Whose a process is. Pure: the answer follows from the policy, the process and the accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    pub units: Units,
    /// Explicit accounts and uids, by uid; the ranges do not overlap.
    pub uids: Vec<(RangeInclusive<u32>, Key)>,
    /// `gid` groups in file order, by gid.
    pub groups: Vec<(u32, Key)>,
    /// The uids of `everyone`, if there is such a line, and the group that they are in when it has
    /// a rate or a ceil for all together.
    pub everyone: Option<(Vec<RangeInclusive<u32>>, Option<Key>)>,
}

/// Whose a systemd unit's processes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// By name: these go first.
    pub named: BTreeMap<String, Key>,
    /// In file order: the first that fits.
    pub patterns: Vec<(Pattern, Key)>,
}

impl Units {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty()
    }

    fn find(&self, unit: &str) -> Option<&Key> {
        let fits = || self.patterns.iter().find(|(pattern, _)| pattern.fits(unit));
        self.named.get(unit).or_else(|| fits().map(|(_, key)| key))
    }
}

/// What the matcher answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    User(Key),
    /// An account without a line of its own, of `everyone` or of a `gid` group.
    Account {
        uid: u32,
        group: Option<Key>,
    },
}

impl Claimed {
    /// Whose class and directory it is.
    pub fn owner(&self) -> Owner {
        match self {
            Claimed::User(key) => Owner::User(key.clone()),
            Claimed::Account { uid, .. } => Owner::Uid(*uid),
        }
    }
}

impl Matcher {
    /// Who claims a process of `uid` (its real uid) in `unit`: the unit, then an explicit account
    /// or uid, then the first `gid` group in file order, then `everyone`; else nobody. A
    /// subordinate uid that no line names counts for its owner.
    pub fn claim(&self, uid: u32, unit: Option<&str>, accounts: &Accounts) -> Option<Claimed> {
        if let Some(key) = unit.and_then(|unit| self.units.find(unit)) {
            return Some(Claimed::User(key.clone()));
        }
        self.claim_uid(uid, accounts).or_else(|| {
            let owner = accounts.counts_for(uid);
            (owner != uid).then(|| self.claim_uid(owner, accounts)).flatten()
        })
    }

    fn claim_uid(&self, uid: u32, accounts: &Accounts) -> Option<Claimed> {
        // 10,000 lines are asked for each of 10,000 processes: not one by one.
        let after = self.uids.partition_point(|(range, _)| *range.start() <= uid);
        if let Some((range, key)) = after.checked_sub(1).and_then(|at| self.uids.get(at))
            && range.contains(&uid)
        {
            return Some(Claimed::User(key.clone()));
        }
        // Root only if a line names it: its daemons serve everybody.
        if uid == 0 {
            return None;
        }
        let gids = accounts.by_uid.get(&uid).map(|account| &account.gids);
        if let Some((_, key)) =
            self.groups.iter().find(|(gid, _)| gids.is_some_and(|gids| gids.contains(gid)))
        {
            return Some(Claimed::Account { uid, group: Some(key.clone()) });
        }
        let (ranges, group) = self.everyone.as_ref()?;
        let within = ranges.iter().any(|range| range.contains(&uid));
        within.then(|| Claimed::Account { uid, group: group.clone() })
    }
}

/// A line of `rules`: its lists multiplied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub to: Target,
    /// `None`: on every link.
    pub links: Option<Vec<LinkName>>,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user or a class. On a link where it has no class its packets go to the default.
    Owner(Owner),
    Default,
    Unshaped,
}
