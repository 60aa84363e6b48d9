//! The classes: every group, user, class and running account with its limits on every link, checked
//! against its parent. The kernel accepts a child's rate above its parent's and promises that
//! cannot be kept; here they are errors. Touches nothing.

use std::collections::{BTreeMap, HashMap};

use crate::facts::Facts;
use crate::policy::{
    self, ClassLine, EveryoneLine, Findings, LinkRef, OnLink, Policy, Span, UserLine, Written,
    quote,
};
use crate::tree::{Group, Key, Owner, Reserved};
use crate::units::Rate;

use super::above::Above;
use super::claims::Claims;
use super::groups::Groups;
use super::here::{GroupHere, Here, better};
use super::limits::{self, OfAll, Parent, Promise};
use super::minors;
use super::positions::{GroupAt, LinkAt, Per, groups, users};
use super::shaped::{Links, Shaped};
use super::{Asked, By, Claimed, Holds, Limits, Node};

pub(super) fn resolve(
    facts: &Facts,
    links: &Links<'_>,
    claims: &Claims,
    groups: &Groups,
    findings: &mut Findings,
) -> Vec<Node> {
    let policy = links.policy;
    minors::pins(policy, findings);
    minors::enough(policy, findings);
    let mut tree = Tree::new(policy, links, groups, findings);
    let leaves = tree.leaves(findings);
    let mut nodes = tree.groups(findings);
    nodes.extend(leaves);
    let everyone = tree.everyone(findings);
    nodes.extend(everyone.as_ref().and_then(|everyone| everyone.node.clone()));
    nodes.extend(everyone.as_ref().map(Everyone::newcomers));
    nodes.extend(tree.accounts(facts, claims, everyone.as_ref(), findings));
    nodes
}

/// A line with a class of its own: what lines of `users` and of `classes` have in common.
#[derive(Clone, Copy)]
struct Line<'a> {
    key: &'a Written<Key>,
    limits: &'a policy::Limits,
    links: &'a [(Written<LinkRef>, OnLink)],
}

impl<'a> Line<'a> {
    fn of_user(line: &'a UserLine) -> Line<'a> {
        Line { key: &line.key, limits: &line.limits, links: &line.links }
    }

    fn of_class(line: &'a ClassLine) -> Line<'a> {
        Line { key: &line.key, limits: &line.limits, links: &line.links }
    }
}

struct Tree<'a> {
    policy: &'a Policy,
    links: &'a Links<'a>,
    groups: &'a Groups,
    here: Per<LinkAt, Here<'a>>,
}

/// The limits of each account of a group, and where they are written.
#[derive(Clone)]
struct EachLimits {
    limits: Per<LinkAt, Option<Limits>>,
    holds: Per<LinkAt, Holds>,
    at: Span,
}

/// The line `everyone`, resolved.
struct Everyone<'a> {
    line: &'a EveryoneLine,
    /// The class of all accounts together, if the line has limits for that.
    node: Option<Node>,
    each: Per<LinkAt, Option<Limits>>,
    /// What gives each account its ceil.
    holds: Per<LinkAt, Holds>,
}

impl Everyone<'_> {
    fn limits_of_each(&self) -> EachLimits {
        let (limits, holds) = (self.each.clone(), self.holds.clone());
        EachLimits { limits, holds, at: self.line.at }
    }

    /// The newcomers' class: all newcomers together may send what one account may, without a
    /// guarantee, since each is there only until it has a class of its own; and without a boost,
    /// which whoever logs in anew would have once more.
    fn newcomers(&self) -> Node {
        let token = |limits: Limits| Limits { rate: Asked::Token, boost: None, ..limits };
        Node {
            owner: Owner::Newcomers,
            group: self.line.group(),
            pin: None,
            limits: self.each.along(|_, limits| limits.map(token)),
            holds: self.holds.clone(),
            at: self.line.at,
        }
    }
}

impl<'a> Tree<'a> {
    fn new(
        policy: &'a Policy,
        links: &'a Links<'a>,
        groups: &'a Groups,
        findings: &mut Findings,
    ) -> Tree<'a> {
        let here = links.shaped.along(|_, shaped| Here::new(policy, shaped));
        let mut tree = Tree { policy, links, groups, here };
        for &group in &groups.order {
            let line = group.line(policy);
            let mut said = false;
            for (link, shaped) in links.shaped.pairs() {
                let parent = tree.parent(link, groups.parent[group]);
                let written = shaped.written(&line.limits);
                let found = limits::group(line.key.value.as_str(), &written, shaped, parent);
                let here = &mut tree.here[link].groups[group];
                here.by_window = parent.by_window || shaped.holds(&line.limits).by == By::When;
                match found {
                    Ok(of_all) => here.of_all = of_all,
                    Err(error) => {
                        here.of_all.ceil = parent.ceil;
                        // The same line is wrong on the other links too, and is reported once.
                        if !std::mem::replace(&mut said, true) {
                            findings.push(error);
                        }
                    }
                }
                let (ceil, key) = (here.of_all.ceil, line.key.value.clone());
                let above = tree.above(link, groups.parent[group]);
                let above = above.group(Group::Line(key), &line.limits, ceil, shaped);
                tree.here[link].groups[group].above = above;
            }
        }
        tree
    }

    fn above(&self, link: LinkAt, group: Option<GroupAt>) -> &Above {
        let here = &self.here[link];
        group.map_or(&here.link, |group| &here.groups[group].above)
    }

    fn parent(&self, link: LinkAt, group: Option<GroupAt>) -> Parent<'a> {
        let leave = self.links.shaped.iter().filter(|shaped| !shaped.arrives());
        let one_of_several = leave.count() > 1;
        match group {
            None => Parent {
                ceil: self.links.shaped[link].link.rate,
                group: None,
                by_window: self.links.shaped[link].by_window(),
                one_of_several,
            },
            Some(group) => Parent {
                ceil: self.here[link].groups[group].of_all.ceil,
                group: Some(group.line(self.policy).key.value.as_str()),
                by_window: self.here[link].groups[group].by_window,
                one_of_several,
            },
        }
    }

    /// The nodes of users and classes.
    fn leaves(&mut self, findings: &mut Findings) -> Vec<Node> {
        let policy = self.policy;
        let mut nodes = Vec::with_capacity(policy.users.len() + policy.classes.len());
        for (user, line) in users(policy) {
            let group = self.groups.of_user[user];
            let (limits, holds) = self.leaf(Line::of_user(line), group, findings);
            nodes.push(Node {
                owner: Owner::User(line.key.value.clone()),
                group: group.map(|group| Group::Line(group.line(policy).key.value.clone())),
                pin: line.classid.map(|pin| pin.value),
                limits,
                holds,
                at: line.key.at,
            });
        }
        for line in &policy.classes {
            let (limits, holds) = self.leaf(Line::of_class(line), None, findings);
            nodes.push(Node {
                owner: Owner::Class(line.key.value.clone()),
                group: None,
                pin: line.classid.map(|pin| pin.value),
                limits,
                holds,
                at: line.key.at,
            });
        }
        nodes
    }

    fn leaf(
        &mut self,
        line: Line<'a>,
        group: Option<GroupAt>,
        findings: &mut Findings,
    ) -> (Per<LinkAt, Option<Limits>>, Per<LinkAt, Holds>) {
        let Line { key, limits: written, links: on_links } = line;
        let mut special: Vec<(LinkAt, &OnLink)> = Vec::with_capacity(on_links.len());
        // What is named exactly goes before patterns, wherever it stands.
        let is_pattern = |name: &LinkRef| matches!(name, LinkRef::Pattern(_));
        let (patterns, exact): (Vec<_>, Vec<_>) =
            on_links.iter().partition(|(name, _)| is_pattern(&name.value));
        for (name, on_link) in exact.into_iter().chain(patterns) {
            let found = findings.take(self.links.find(name)).unwrap_or_default();
            special.extend(found.into_iter().map(|link| (link, on_link)));
        }
        let mut said = false;
        let written = |link: LinkAt| {
            let here = special.iter().find(|(at, _)| *at == link).map(|(_, on_link)| *on_link);
            match here {
                Some(OnLink::None) => None,
                Some(OnLink::Limits(limits)) => Some(limits),
                None => Some(written),
            }
        };
        let shaped = &self.links.shaped;
        let holds = |link, shaped: &Shaped<'_>| {
            let limits = written(link)?;
            let now = shaped.written(limits);
            let above = self.above(link, group);
            Some(above.holds_below(shaped.holds(limits), now.ceil.or(now.rate), shaped))
        };
        let holds = shaped.along(|link, shaped| holds(link, shaped).unwrap_or_default());
        let limits = shaped.along(|link, shaped| {
            let written = shaped.written(written(link)?);
            match limits::leaf(&key.value, &written, shaped, self.parent(link, group)) {
                Ok(found) => {
                    let here = &mut self.here[link];
                    if let Some(group) = group {
                        better(&mut here.groups[group].best, found.prio);
                    }
                    if let (Asked::Promised(rate), Some(at)) = (found.rate, written.rate) {
                        let name = key.value.as_str();
                        here.below(group).push(Promise { name, rate, at: at.at });
                    }
                    Some(found)
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        findings.push(error);
                    }
                    None
                }
            }
        });
        (limits, holds)
    }

    /// The groups' nodes, once all promises below them are known; checks every parent's sum.
    fn groups(&mut self, findings: &mut Findings) -> Vec<Node> {
        let policy = self.policy;
        let mut nodes = Vec::with_capacity(policy.groups.len());
        for &group in self.groups.order.iter().rev() {
            let line = group.line(policy);
            let parent = self.groups.parent[group];
            let name = line.key.value.as_str();
            let limits = self.links.shaped.along(|link, shaped| {
                let here = &mut self.here[link];
                let GroupHere { of_all, promises, best, .. } = &here.groups[group];
                let (OfAll { rate, ceil, boost }, best) = (*of_all, *best);
                let of = || format!("the group {} on {}", quote(name), shaped.link.port);
                let floor = limits::add_up(promises, rate.unwrap_or(ceil), of, findings);
                if let (Some(parent), Some(prio)) = (parent, best) {
                    better(&mut here.groups[parent].best, prio);
                }
                if let Some(rate) = rate.or(floor) {
                    let written = shaped.written(&line.limits).rate;
                    let at = written.map_or(line.key.at, |rate| rate.at);
                    here.below(parent).push(Promise { name, rate, at });
                }
                let rate = rate.map_or(Asked::Derived { floor }, Asked::Promised);
                Some(Limits { rate, ceil, boost, prio: best.unwrap_or(0) })
            });
            let holds = self.here.along(|_, here| here.groups[group].above.holds().clone());
            nodes.push(Node {
                owner: Owner::Group(Group::Line(line.key.value.clone())),
                group: parent.map(|parent| Group::Line(parent.line(policy).key.value.clone())),
                pin: None,
                limits,
                holds,
                at: line.key.at,
            });
        }
        for (link, shaped) in self.links.shaped.pairs() {
            let of = || shaped.words();
            limits::add_up(&self.here[link].promises, shaped.link.rate, of, findings);
        }
        nodes.reverse();
        nodes
    }

    fn everyone(&self, findings: &mut Findings) -> Option<Everyone<'a>> {
        let line = self.policy.everyone.as_ref()?;
        let group = line.group();
        let name = Reserved::Everyone.as_str();
        let on_links = self.links.shaped.try_along(|link, shaped| {
            let top = self.parent(link, None);
            let written = shaped.written(&line.limits);
            let of_all = findings.take(limits::group(name, &written, shaped, top))?;
            let OfAll { rate, ceil, boost } = of_all;
            let asked = rate.map_or(Asked::Derived { floor: None }, Asked::Promised);
            let written = line.each.as_ref().map(|each| shaped.written(each));
            let prio = written.as_ref().map_or(0, limits::prio);
            let together = Limits { rate: asked, ceil, boost, prio };
            let by_window = top.by_window || shaped.holds(&line.limits).by == By::When;
            let group = group.as_ref().map(|_| name);
            let parent = Parent { ceil, group, by_window, ..top };
            let lowered = limits::lowered(written.as_ref(), shaped, parent);
            let each = findings.take(limits::each(name, written.as_ref(), shaped, parent))?;
            let link_above = self.above(link, None);
            let above = link_above.group(Group::Everyone, &line.limits, ceil, shaped);
            Some((together, each, lowered, above))
        })?;
        let lowered: Vec<_> = on_links.iter().map(|(_, _, lowered, _)| *lowered).collect();
        self.each_is_lowered(name, &lowered, findings);
        let together = on_links.along(|_, (together, ..)| Some(*together));
        let each = on_links.along(|_, (_, each, ..)| Some(*each));
        let node = group.map(|group| Node {
            owner: Owner::Group(group),
            group: None,
            pin: None,
            limits: together,
            holds: on_links.along(|_, (.., above)| above.holds().clone()),
            at: line.at,
        });
        let above = |link| match line.group() {
            Some(_) => &on_links[link].3,
            None => self.above(link, None),
        };
        let holds = self.holds_of_each(line.each.as_ref(), above);
        Some(Everyone { line, node, each, holds })
    }

    /// The nodes of accounts that run and have no line of their own, by uid; then those of ranges
    /// of subordinate uids that have one class together.
    fn accounts(
        &self,
        facts: &Facts,
        claims: &Claims,
        everyone: Option<&Everyone<'a>>,
        findings: &mut Findings,
    ) -> Vec<Node> {
        let each = self.each(findings);
        let mut accounts: BTreeMap<Owner, Option<Group>> = BTreeMap::new();
        let matcher = &claims.matcher;
        let present = facts.accounts.present();
        let claimed = present.filter_map(|uid| matcher.claim(uid, None, &facts.accounts));
        for claimed in claimed.chain(matcher.claim_ranges(&facts.accounts)) {
            let owner = claimed.owner();
            if let Claimed::Account { group, .. } | Claimed::Subuids { group, .. } = claimed {
                accounts.insert(owner, group);
            }
        }
        let nodes = accounts.into_iter().filter_map(|(owner, group)| {
            let of_group = group.as_ref().and_then(|group| each.get(group.as_str()));
            let EachLimits { limits, holds, at } = match of_group {
                Some(each) => each.clone(),
                None => everyone?.limits_of_each(),
            };
            Some(Node { owner, group, pin: None, limits, holds, at })
        });
        nodes.collect()
    }

    fn holds_of_each<'b>(
        &self,
        each: Option<&policy::Limits>,
        above: impl Fn(LinkAt) -> &'b Above,
    ) -> Per<LinkAt, Holds> {
        self.links.shaped.along(|link, shaped| {
            let own = each.map(|each| shaped.holds(each)).unwrap_or_default();
            let now = each.map(|each| shaped.written(each));
            above(link).holds_below(own, now.and_then(|now| now.ceil.or(now.rate)), shaped)
        })
    }

    /// A warning where `each` is lowered on all links of one direction.
    fn each_is_lowered(
        &self,
        name: &str,
        lowered: &[Option<(Rate, Span, Rate)>],
        findings: &mut Findings,
    ) {
        for arrives in [false, true] {
            let here = self.links.shaped.iter().zip(lowered);
            let here = here.filter(|(shaped, _)| shaped.arrives() == arrives);
            let here = here.map(|(_, lowered)| *lowered);
            if let Some(warning) = limits::each_is_lowered(name, here) {
                findings.push(warning);
            }
        }
    }

    /// The limits of each account of a `gid` group, by the group's name, and where they are
    /// written.
    fn each(&self, findings: &mut Findings) -> HashMap<&'a str, EachLimits> {
        let mut found = HashMap::new();
        for (group, line) in groups(self.policy).filter(|(_, line)| line.gid.is_some()) {
            let name = line.key.value.as_str();
            let mut lowered = Vec::with_capacity(self.links.shaped.len());
            let mut said = false;
            let limits = self.links.shaped.along(|link, shaped| {
                let parent = self.parent(link, Some(group));
                let written = line.each.as_ref().map(|each| shaped.written(each));
                lowered.push(limits::lowered(written.as_ref(), shaped, parent));
                match limits::each(name, written.as_ref(), shaped, parent) {
                    Ok(each) => Some(each),
                    Err(error) => {
                        if !std::mem::replace(&mut said, true) {
                            findings.push(error);
                        }
                        None
                    }
                }
            });
            self.each_is_lowered(name, &lowered, findings);
            let above = |link| self.above(link, Some(group));
            let holds = self.holds_of_each(line.each.as_ref(), above);
            let at = line.each.as_ref().map_or(line.key.at, |each| each.at);
            found.insert(name, EachLimits { limits, holds, at });
        }
        found
    }
}
