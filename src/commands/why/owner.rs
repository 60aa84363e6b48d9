//! What an owner of a class has: in the kernel first, then as the policy says.

use super::answer::{Answer, OnLink};
use super::standing;
use crate::host::Kernel;
use crate::intent::Meaning;
use crate::model::{Asked, Claimed, Limits, Link, LinkAt, Node, Span};
use crate::policy::Policy;
use crate::status::Status;
use crate::tree::{Claim, Group, Owner, Reserved};
use crate::units::ClassId;

/// Which kernel is asked about, what stands there and goes now, and which policy.
pub(super) struct On<'a> {
    pub kernel: &'a Kernel,
    pub status: &'a Status,
    pub policy: &'a Policy,
    pub meaning: &'a Meaning,
}

impl On<'_> {
    /// Each port where the class stands, or where the file says something of it.
    pub(super) fn links(
        &self,
        class: Option<ClassId>,
        said: impl Fn(LinkAt, &Link) -> Option<Limits>,
    ) -> Vec<OnLink> {
        let rows = class.map_or_else(Vec::new, |id| standing::rows(self.status, &id.to_string()));
        let is_unshaped = class == Some(ClassId::UNSHAPED);
        let on_link = |(at, link): (LinkAt, &Link)| {
            let (dev, direction) = (link.port.link.as_str(), link.port.direction.as_str());
            let is_here = |row: &&standing::Standing<'_>| {
                row.link.dev == dev && row.link.direction == direction
            };
            let row = rows.iter().find(is_here);
            let limits = said(at, link);
            Some(OnLink {
                dev: dev.to_string(),
                direction,
                port: link.port.to_string(),
                rate_bit: row.map(|row| row.class.rate_bit),
                asked_rate_bit: match limits.map(|limits| limits.rate) {
                    Some(Asked::Promised(rate)) => Some(rate.bits_per_second()),
                    Some(Asked::Derived { .. } | Asked::Token) => None,
                    None => row.and_then(|row| row.class.asked_rate_bit),
                },
                ceil_bit: match limits {
                    Some(limits) => limits.ceil.bits_per_second(),
                    None => row?.class.ceil_bit,
                },
                prio: limits.map(|it| it.prio).or_else(|| row.and_then(|row| row.class.prio)),
                in_force: row.map(|row| row.in_force(is_unshaped)),
            })
        };
        self.meaning.model.links.pairs().filter_map(on_link).collect()
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
    } else if classid.is_none() {
        notes.push("it has no class in the kernel yet: `shaper apply` makes it".to_string());
    }
    let line = owner.as_ref().map(|owner| line_of(on, owner));
    let source = &on.policy.source;
    let file = |at: Option<Span>| at.map_or(source.file(), |at| source.file_at(at));
    let said = |at: LinkAt, _: &Link| node.and_then(|node| node.limits[at]);
    let links = on.links(id, said);
    Answer {
        version: 1,
        subject,
        file: line.as_ref().map(|(_, at)| file(*at).to_string()),
        line: line.as_ref().and_then(|(_, at)| Some(at.as_ref()?.place.line)),
        column: line.as_ref().and_then(|(_, at)| Some(at.as_ref()?.place.column)),
        claimed_by: line.map(|(name, _)| name),
        classid: id.map(|id| id.to_string()),
        directory: None,
        comes_in_by: Vec::new(),
        connection: Vec::new(),
        links,
        shares_with: node.map_or_else(Vec::new, |node| sharers(meaning, node)),
        notes,
    }
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

/// Accounts whose processes are in the same class.
fn sharers(meaning: &Meaning, node: &Node) -> Vec<String> {
    let accounts = &meaning.observation.facts.accounts;
    let claims = |uid: &u32| {
        let claimed = meaning.model.matcher.claim(*uid, None, accounts);
        claimed.is_some_and(|claimed| claimed.owner() == node.owner)
    };
    let name = |uid: &u32| {
        accounts
            .by_uid
            .get(uid)
            .map_or_else(|| format!("uid {uid}"), |account| account.name.clone())
    };
    accounts.running.iter().filter(|uid| claims(uid)).map(name).collect()
}
