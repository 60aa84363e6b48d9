//! The policy as it is meant on this host: names resolved, defaults filled, percentages computed,
//! the tree checked. `build` makes it from what was written and from facts; it touches nothing.

mod build;
mod claims;
mod groups;
mod limits;
mod links;
mod matcher;
mod nodes;
mod owners;
mod rules;
mod senders;
mod sets;
mod stacked;
mod units;

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use crate::tree::{Classifier, Group, LinkName, Match, Owner, Packets, Port};
use crate::units::{Minor, Rate};

pub use crate::policy::{LeafChoice, Pattern, Place};
pub use build::{BuildOptions, build};
pub use matcher::{Claimed, Matcher, Units};
pub use owners::{Owners, Whose};

/// A whole policy, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// In file order.
    pub links: Vec<Link>,
    /// Groups, users, classes and the accounts of `everyone` and `each` that run; parents before
    /// children, otherwise in file order, accounts last by uid.
    pub nodes: Vec<Node>,
    /// Whose a uid and a unit are.
    pub matcher: Matcher,
    /// In file order, which is their order of precedence.
    pub rules: Vec<Rule>,
}

/// A link in one direction, and who has a class there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which link, and which direction.
    pub port: Port,
    /// Class 1:1: rate = ceil.
    pub rate: Rate,
    /// What the device says it can do, if it says so.
    pub speed: Option<Rate>,
    /// Class 1:fffe, its rate already resolved.
    pub default: Limits,
    /// `None`: the best one that the kernel has.
    pub classifier: Option<Classifier>,
    /// The queue that leaves have, as the policy says.
    pub leaf: LeafChoice,
    /// Where the policy names the link.
    pub place: Place,
}

/// One class of the tree, on every link that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who has the class.
    pub owner: Owner,
    /// The group it is in; `None`: directly below the link.
    pub group: Option<Group>,
    /// `classid` in the policy.
    pub pin: Option<Minor>,
    /// One for each of `Model::links`, in the same order; `None`: not on that link.
    pub limits: Vec<Option<Limits>>,
    /// Where the policy says so.
    pub place: Place,
}

/// What a class is to have, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What it is guaranteed.
    pub rate: Asked,
    /// What it may reach by borrowing.
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
    Derived {
        /// What it has at least, where a line says so.
        floor: Option<Rate>,
    },
    /// As good as none (`background`).
    Token,
}

/// A line of `rules`: its lists multiplied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which of the policy's rules it is, counted from 1.
    pub line: NonZeroU32,
    /// Every combination that a packet can have, for u32; none where the rule is in an eBPF program
    /// on each of its links.
    pub matches: Vec<Match>,
    /// The same field by field, for that program.
    pub packets: Packets,
    /// Whose packets; `None`: anybody's.
    pub from: Option<From>,
    /// Where the packets go.
    pub to: Target,
    /// `None`: on every link.
    pub links: Option<Vec<LinkName>>,
    /// Where the policy has the rule.
    pub place: Place,
}

/// Whose packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Of everybody else.
    pub not: bool,
    /// Who has a class of those that the line means.
    pub owners: Vec<Owner>,
}

impl Rule {
    /// u32 cannot decide it: it sees neither whose a packet is nor a VLAN tag that was offloaded.
    pub fn needs_program(&self) -> bool {
        self.from.is_some() || self.packets.vlan.is_some()
    }
}

/// Where a rule sends packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user or a class. On a link where it has no class its packets go to the default.
    Owner(Owner),
    /// To the default class, `1:fffe`.
    Default,
    /// Past the link's limits, to `1:fffd`.
    Unshaped,
}
