//! What a policy means on this host, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::holds::Holds;
use super::matcher::Matcher;
use super::metered::Meters;
use super::positions::{LinkAt, Per};
use crate::policy::{GuestOwner, LeafChoice, Span, quote};
use crate::times::Timestamp;
use crate::tree::{Classifier, Group, LinkName, Match, Owner, Packets, Port};
use crate::units::{Bytes, Minor, Rate};

/// A whole policy, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// In file order.
    pub links: Per<LinkAt, Link>,
    /// Links of patterns that are there and cannot be shaped, each with the reason; elsewhere that
    /// is an error.
    pub unfit: BTreeMap<LinkName, String>,
    /// What the lines of `links` name as their classifier, those of absent links too.
    pub classifiers: BTreeSet<Option<Classifier>>,
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
    /// What follows from quotas, for each owner that has some.
    pub metered: Meters,
    /// The first moment at which the same policy means something else on the same host, if nothing
    /// more of a quota is used; `None`: it never does.
    pub valid_until: Option<Timestamp>,
}

/// A shaped link in one direction: its rate, default class, classifier and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which link, and which direction.
    pub port: Port,
    /// Class 1:1: rate = ceil.
    pub rate: Rate,
    /// What gives it that rate.
    pub holds: Holds,
    /// The device's own speed, if its driver knows it.
    pub speed: Option<Rate>,
    /// Class 1:fffe, its rate already resolved.
    pub default: Limits,
    /// The classifier that the policy names; `None`: the best one that the kernel has.
    pub classifier: Option<Classifier>,
    /// What arrives may go past the link's nftables `netdev` chains and flowtables.
    pub bypass_firewall: bool,
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
    /// What gives the class its ceil on each of them.
    pub holds: Per<LinkAt, Holds>,
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
    /// What may pass above the ceil after a pause; `None`: no more than any class sends at once.
    pub boost: Option<Bytes>,
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

/// A link behind which guests are: a veth of the host's, a tap, a bridge, a tunnel, a port of Open
/// vSwitch. It is no shaped link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerLink {
    /// Whose what comes in by the link is, if its source is in no network of `addresses`; `None`:
    /// nobody's.
    pub owner: Option<Owner>,
    /// Whose it is by its source: the longest prefix decides. No network is there twice.
    pub addresses: Vec<(IpNet, Owner)>,
    /// How it is known whose the link is; `None`: it is nobody's.
    pub how: Option<How>,
}

/// How it is known whose what comes in by a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// A line names the container with this name or id.
    Container(String),
    /// A line names the network namespace.
    Namespace(String),
    /// A line names the link.
    Interface,
    /// No line names the container, and `guests` says where its user is found.
    Owned(String, GuestOwner),
    /// A process with this uid began the network namespace, and `guests` says that it counts.
    Process(u32),
    /// The link is a port of the bridge with this name, which is the user's.
    Port(String),
}

/// As warnings and `shaper why` say it.
impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Container(name) => write!(f, "the container {}", quote(name)),
            How::Namespace(name) => write!(f, "the network namespace {}", quote(name)),
            How::Interface => f.write_str("the interface"),
            How::Owned(name, by) => {
                write!(f, "the container {}, by its {}", quote(name), by.as_str())
            }
            How::Process(uid) => write!(f, "a network namespace of uid {uid}"),
            How::Port(bridge) => write!(f, "a port of {bridge}"),
        }
    }
}
