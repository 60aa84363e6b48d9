//! What a policy means on this host, as values.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::inner::InnerLink;
use super::matcher::Matcher;
use super::positions::{LinkAt, Per};
use crate::policy::{LeafChoice, Span};
use crate::tree::{Classifier, Group, LinkName, Match, Owner, Packets, Port};
use crate::units::{Minor, Rate};

/// A whole policy, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// In file order.
    pub links: Per<LinkAt, Link>,
    /// Groups, users, classes and the accounts of `everyone` and `each` that run; parents before
    /// children, otherwise in file order, accounts last by uid.
    pub nodes: Vec<Node>,
    /// Says who claims a uid and a unit.
    pub matcher: Matcher,
    /// Links behind which guests are, of which it is said whose they are; `None`: the policy names
    /// no guests.
    pub inner: Option<BTreeMap<LinkName, InnerLink>>,
    /// The rules in file order: the first that matches decides.
    pub rules: Vec<Rule>,
}

/// A shaped link in one direction: its rate, default class, classifier and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which link, and which direction.
    pub port: Port,
    /// Class 1:1: rate = ceil.
    pub rate: Rate,
    /// The device's own speed, if its driver knows it.
    pub speed: Option<Rate>,
    /// Class 1:fffe, its rate already resolved.
    pub default: Limits,
    /// The classifier that the policy names; `None`: the best one that the kernel has.
    pub classifier: Option<Classifier>,
    /// The leaf qdisc that the policy names.
    pub leaf: LeafChoice,
    /// Where the policy names the link.
    pub at: Span,
}

/// One class of the model, on every link where it has limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who has the class.
    pub owner: Owner,
    /// The group of which the class is a member; `None`: it hangs directly below the link.
    pub group: Option<Group>,
    /// The minor that `classid` in the policy fixes.
    pub pin: Option<Minor>,
    /// The limits on each of `Model::links`; `None`: no class on that link.
    pub limits: Per<LinkAt, Option<Limits>>,
    /// Where the policy has the line.
    pub at: Span,
}

/// What a class is to have, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the class is guaranteed.
    pub rate: Asked,
    /// What the class may reach by borrowing.
    pub ceil: Rate,
    /// 0 (served first) to 7. For a group, the best prio of its members, since HTB has none for an
    /// inner class.
    pub prio: u8,
}

/// The rate of a class, as the policy asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A written rate, which is a promise.
    Promised(Rate),
    /// No written rate: the guarantee is a share of what the parent has not promised. For a group,
    /// `floor` is the sum of its members' written rates, which the group must have to keep their
    /// promises; `None` where no member has a written rate.
    Derived {
        /// What it has at least, where a line says so.
        floor: Option<Rate>,
    },
    /// Next to none (`background`).
    Token,
}

/// A line of `rules`, with its lists multiplied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which of the policy's rules it is, counted from 1.
    pub line: NonZeroU32,
    /// Every combination of the line's fields that a packet can have, for u32; empty where the rule
    /// is in an eBPF program on each of its links.
    pub matches: Vec<Match>,
    /// The line's fields one by one, for the eBPF program.
    pub packets: Packets,
    /// Whose packets; `None`: anybody's.
    pub from: Option<From>,
    /// Where the rule sends packets.
    pub to: Target,
    /// The links that the rule is for; `None`: every link.
    pub links: Option<Vec<LinkName>>,
    /// Where the policy has the rule.
    pub at: Span,
}

/// Whose packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Packets of everybody but these owners.
    pub not: bool,
    /// The owners that the line means and that have a class.
    pub owners: Vec<Owner>,
}

impl Rule {
    /// Whether u32 cannot decide the rule: u32 sees neither whose a packet is nor a VLAN tag that
    /// was offloaded.
    pub fn needs_program(&self) -> bool {
        self.from.is_some() || self.packets.vlan.is_some()
    }
}

/// Where a rule sends packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user or a class. On a link where this owner has no class the packets go to the default
    /// class.
    Owner(Owner),
    /// To the default class, `1:fffe`.
    Default,
    /// Past the link's limits, to `1:fffd`.
    Unshaped,
}
