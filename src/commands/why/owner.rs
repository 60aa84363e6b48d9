//! What an owner of a class has: in the kernel first, then as the policy says.

use super::answer::{Answer, Lacks, OnLink};
use super::standing::{self, Standing};
use crate::commands::own::Own;
use crate::host::Kernel;
use crate::intent::Meaning;
use crate::model::{Asked, Claimed, Limits, Link, LinkAt, Node, Span};
use crate::policy::Policy;
use crate::status::{self, Limit, Status};
use crate::text::shown;
use crate::tree::{Claim, Group, KernelState, Owner, Port, Reserved};
use crate::units::ClassId;

/// Which kernel is asked about, what stands there and goes now, and which policy.
pub(super) struct On<'a> {
    pub kernel: &'a Kernel,
    pub status: &'a Status,
    pub policy: &'a Policy,
    pub meaning: &'a Meaning,
    /// The caller, where he is told of himself only; `None`: root.
    pub own: Option<&'a Own>,
}

/// What the file says of a class at a port that it shapes.
pub(super) enum Said {
    Limits(Limits, Option<Limit>),
    /// That the class is not there.
    NoClass,
    /// Nothing: it is no class that a line has.
    Nothing,
}

impl On<'_> {
    /// Each port where the class stands, or where the file says something of it.
    pub(super) fn links(
        &self,
        class: Option<ClassId>,
        said: impl Fn(LinkAt, &Link) -> Said,
    ) -> Vec<OnLink> {
        let model = &self.meaning.model.links;
        let row = |port: &Port| standing::row(self.status, port, class?);
        let on_link = |(at, link): (LinkAt, &Link)| {
            let row = row(&link.port);
            match said(at, link) {
                Said::Limits(limits, limit) => {
                    Some(OnLink { limit, ..with(&link.port, row.as_ref(), limits) })
                }
                Said::NoClass => Some(without(&link.port, &row?, Some(Lacks::Class))),
                Said::Nothing => Some(without(&link.port, &row?, None)),
            }
        };
        let is_left = |port: &&Port| model.iter().all(|link| link.port != **port);
        let left = self.meaning.observation.state.trees.keys().filter(is_left);
        let left = left.filter_map(|port| Some(without(port, &row(port)?, Some(Lacks::Link))));
        model.pairs().filter_map(on_link).chain(left).collect()
    }
}

/// A class at a port, with the limits that the file says.
fn with(port: &Port, row: Option<&Standing<'_>>, limits: Limits) -> OnLink {
    OnLink {
        dev: port.link.to_string(),
        direction: port.direction.as_str(),
        port: port.to_string(),
        rate_bit: row.map(|row| row.class.rate_bit),
        asked_rate_bit: match limits.rate {
            Asked::Promised(rate) => Some(rate.bits_per_second()),
            Asked::Derived { .. } | Asked::Token => None,
        },
        ceil_bit: limits.ceil.bits_per_second(),
        boost_bytes: limits.boost.map(|boost| boost.0),
        limit: None,
        prio: Some(limits.prio),
        in_force: row.map(Standing::in_force),
        file_lacks: None,
    }
}

/// A class that stands at a port, of which the file says no limits.
fn without(port: &Port, row: &Standing<'_>, file_lacks: Option<Lacks>) -> OnLink {
    OnLink {
        dev: port.link.to_string(),
        direction: port.direction.as_str(),
        port: port.to_string(),
        rate_bit: Some(row.class.rate_bit),
        asked_rate_bit: row.class.asked_rate_bit,
        ceil_bit: row.class.ceil_bit,
        boost_bytes: row.class.boost_bytes,
        limit: None,
        prio: row.class.prio,
        in_force: Some(row.in_force()),
        file_lacks,
    }
}

/// What an owner has; `None`: nobody claims the subject.
pub(super) fn answer(
    on: &On<'_>,
    subject: String,
    owner: Option<Owner>,
    mut notes: Vec<String>,
) -> Answer {
    let meaning = on.meaning;
    let node = owner.as_ref().and_then(|o| meaning.model.nodes.iter().find(|n| n.owner == *o));
    let observed = &meaning.observation.state;
    let classid = owner.as_ref().and_then(|o| observed.claims.get(&Claim::Owner(o.clone())));
    let id = classid.and_then(|classid| classid.our_class());
    if owner.is_none() {
        notes.push("nobody claims it: it is in the default class".to_string());
    } else if classid.is_none() && node.is_some() {
        let shared = owner.as_ref().and_then(|owner| newcomers(observed, owner));
        notes.push(match shared {
            None => "it has no class in the kernel yet: `shaper apply` makes it".to_string(),
            Some(class) => format!(
                "it has no class of its own yet: until `shaper apply` makes one, it shares class {class} (everyone) and its cap with all who are as new"
            ),
        });
    }
    let line = owner.as_ref().map(|owner| line_of(on, owner));
    if id.is_some() && line.as_ref().is_some_and(|(_, at)| at.is_none()) {
        notes.push("in force; the file has no such line: apply has not run since".to_string());
    }
    notes.extend(node.zip(id).and_then(|(node, id)| group_differs(on, node, id)));
    let at = line.as_ref().and_then(|(_, at)| *at);
    let said = |at: LinkAt, _: &Link| match node {
        None => Said::Nothing,
        Some(node) => node.limits[at].map_or(Said::NoClass, |limits| {
            let zone = &meaning.facts().zones.here;
            Said::Limits(limits, Limit::of(&node.holds[at], zone))
        }),
    };
    let links = on.links(id, said);
    let mut quotas = match &meaning.facts().used.unread {
        None => status::quotas(&meaning.model, &meaning.facts().zones.here),
        Some(_) => Vec::new(),
    };
    quotas.retain(|quota| Some(&quota.owner) == owner.as_ref());
    Answer {
        file: at.map(|at| on.policy.source.file_at(at).to_string()),
        line: at.map(|at| at.place.line),
        column: at.map(|at| at.place.column),
        claimed_by: line.map(|(name, _)| name),
        sender: match owner {
            Some(Owner::Group(_)) => None,
            _ => id.or_else(|| newcomers(observed, owner.as_ref()?)),
        },
        is_group: matches!(owner, Some(Owner::Group(_))),
        links,
        quotas,
        shares_with: node.map_or_else(Vec::new, |node| sharers(on, node)),
        notes,
        ..Answer::about(subject, id)
    }
}

/// That the class stands in another group than the file has it in.
fn group_differs(on: &On<'_>, node: &Node, id: ClassId) -> Option<String> {
    let mut ports = on.meaning.observation.state.trees.keys();
    let is = ports.find_map(|port| standing::row(on.status, port, id))?.group();
    let says = node.group.as_ref().map(ToString::to_string);
    let named = |group: Option<&str>| match group {
        Some(group) => format!("in group {}", shown(group)),
        None => "in no group".to_string(),
    };
    (is != says.as_deref()).then(|| {
        let (is, says) = (named(is), named(says.as_deref()));
        format!("in force it is {is}; the file says {says}: apply has not run since")
    })
}

/// The class in which packets are of an account, or a range, that has no class of its own yet.
fn newcomers(state: &KernelState, owner: &Owner) -> Option<ClassId> {
    let uid = match owner {
        Owner::Uid(uid) => *uid,
        Owner::Subuids(range) => range.first,
        _ => return None,
    };
    state.owners.as_ref()?.class(uid)?.our_class()
}

/// The line that claims for an owner, and its place. An account that has no process has no class,
/// but the line that would claim it is known all the same.
pub(super) fn line_of(on: &On<'_>, owner: &Owner) -> (String, Option<Span>) {
    let meaning = on.meaning;
    let place = |owner: &Owner| {
        let node = meaning.model.nodes.iter().find(|node| node.owner == *owner);
        node.map(|node| node.at)
    };
    match owner {
        Owner::User(key) => (format!("users.{key}"), place(owner)),
        Owner::Class(key) => (format!("classes.{key}"), place(owner)),
        Owner::Group(Group::Line(key)) => (format!("groups.{key}"), place(owner)),
        Owner::Subuids(_) | Owner::Newcomers | Owner::Group(Group::Everyone) => {
            let line = on.policy.everyone.as_ref();
            (Reserved::Everyone.to_string(), line.map(|line| line.at))
        }
        Owner::Uid(uid) => {
            let accounts = &meaning.observation.facts.accounts;
            match meaning.model.matcher.claim(*uid, None, accounts) {
                Some(Claimed::Account { group: Some(group @ Group::Line(_)), .. }) => {
                    (format!("groups.{group}"), place(&Owner::Group(group)))
                }
                _ => {
                    let line = on.policy.everyone.as_ref();
                    (Reserved::Everyone.to_string(), line.map(|line| line.at))
                }
            }
        }
    }
}

/// That what is in force is somebody's, and the file says another's.
pub(super) fn otherwise(on: &On<'_>, is: &Owner, by_file: Option<&Owner>) -> String {
    let says = by_file.map_or_else(|| "nobody's".to_string(), |owner| line_of(on, owner).0);
    let (is, says) = (is.to_string(), shown(&says).to_string());
    format!("in force it is {}'s; the file says {says}: apply has not run since", shown(&is))
}

/// Whose packets of a uid are, by the maps of the deciding program; `None`: nobody's, or those of
/// all newcomers.
pub(super) fn in_force(on: &On<'_>, uid: u32) -> Option<Owner> {
    let state = &on.meaning.observation.state;
    owner_of(state, state.owners.as_ref()?.class(uid)?)
}

/// Whose a class is; `None`: nobody's, or that of all newcomers.
pub(super) fn owner_of(state: &KernelState, class: ClassId) -> Option<Owner> {
    let class = class.our_class()?;
    let mut claims = state.claims.iter().filter(|(_, id)| **id == class);
    claims.find_map(|(claim, _)| match claim {
        Claim::Owner(Owner::Newcomers) => None,
        Claim::Owner(owner) => Some(owner.clone()),
        _ => None,
    })
}

/// Accounts whose processes are in the same class: those that whoever asks may be told of.
fn sharers(on: &On<'_>, node: &Node) -> Vec<String> {
    let accounts = &on.meaning.observation.facts.accounts;
    let claims = |uid: &u32| {
        let claimed = on.meaning.model.matcher.claim(*uid, None, accounts);
        claimed.is_some_and(|claimed| claimed.owner() == node.owner)
    };
    let may = |uid: &u32| on.own.is_none_or(|own| own.uid == *uid);
    let name = |uid: &u32| {
        accounts
            .by_uid
            .get(uid)
            .map_or_else(|| format!("uid {uid}"), |account| account.name.clone())
    };
    accounts.running.iter().filter(|uid| may(uid) && claims(uid)).map(name).collect()
}
