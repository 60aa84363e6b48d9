//! Quotas: what was used of them, and the caps that follow for classes. Touches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::facts::Facts;
use crate::policy::{Diagnostic, Findings, Kind, Policy, QuotaLine, quote};
use crate::quota::{Account, Counts, Period, Quota, Slots};
use crate::times::{TimeZone, Timestamp};
use crate::tree::{Group, Key, Owner};
use crate::units::Rate;

use super::metered::{Metered, Meters};
use super::positions::LinkAt;
use super::schedule::zone;
use super::shaped::Links;
use super::{Asked, By, Holds, LimitOf, Limits, Node};

/// The quotas of lines, each with its zone.
type Zoned = Arc<[(Quota, TimeZone)]>;

/// All quotas of a policy, by whose they are.
#[derive(Default)]
pub(super) struct Quotas<'p> {
    users: HashMap<&'p Key, Zoned>,
    groups: HashMap<&'p Key, Zoned>,
    each: HashMap<&'p Key, Zoned>,
    everyone: Option<Zoned>,
    each_of_everyone: Option<Zoned>,
    slots: Slots,
}

impl<'p> Quotas<'p> {
    /// Says what is wrong with them, too: zones that do not exist.
    pub(super) fn new(policy: &'p Policy, facts: &Facts, findings: &mut Findings) -> Quotas<'p> {
        let mut found = Quotas { slots: slots(policy, facts), ..Quotas::default() };
        for line in &policy.users {
            let zoned = zoned(&line.limits.quotas, facts, findings);
            found.users.extend(zoned.map(|zoned| (&line.key.value, zoned)));
        }
        for line in &policy.groups {
            let together = zoned(&line.limits.quotas, facts, findings);
            found.groups.extend(together.map(|zoned| (&line.key.value, zoned)));
            let each = line.each.as_ref().and_then(|it| zoned(&it.quotas, facts, findings));
            found.each.extend(each.map(|zoned| (&line.key.value, zoned)));
        }
        if let Some(line) = &policy.everyone {
            found.everyone = zoned(&line.limits.quotas, facts, findings);
            let each = line.each.as_ref();
            found.each_of_everyone = each.and_then(|it| zoned(&it.quotas, facts, findings));
        }
        found
    }

    /// Those of a node.
    fn of(&self, node: &Node) -> Option<&Zoned> {
        match (&node.owner, &node.group) {
            (Owner::User(key), _) => self.users.get(key),
            (Owner::Group(Group::Line(key)), _) => self.groups.get(key),
            (Owner::Group(Group::Everyone), _) => self.everyone.as_ref(),
            (Owner::Uid(_) | Owner::Subuids(_), Some(Group::Line(key))) => self.each.get(key),
            (Owner::Uid(_) | Owner::Subuids(_), _) => self.each_of_everyone.as_ref(),
            (Owner::Class(_) | Owner::Newcomers, _) => None,
        }
    }

    /// Gives nodes the caps that follow from what was used, and says what follows for each.
    /// `links`: those that the nodes' limits are of. `nodes` has parents before children.
    pub(super) fn hold(&self, facts: &Facts, links: &Links<'_>, nodes: &mut [Node]) -> Meters {
        let moment = facts.used.time.unwrap_or(facts.now);
        let (nothing, accounts) = (Account::default(), &facts.used.accounts);
        let mut metered: BTreeMap<Owner, Metered> = BTreeMap::new();
        for node in nodes.iter_mut() {
            let Some(quotas) = self.of(node) else { continue };
            let account = accounts.get(&node.owner).unwrap_or(&nothing);
            let found = Metered::of(Arc::clone(quotas), account, moment);
            if let (Some((_, held)), Some(why)) = (found.together.held, found.why()) {
                let why: Arc<str> = why.into();
                let (rate, until) = (held.step.rate, Some(held.until));
                let cap = Cap { rate, why, until, of: LimitOf::Own };
                node.limits.positions().for_each(|link| cap.lower(node, link));
            }
            metered.insert(node.owner.clone(), found);
        }
        if metered.values().any(|it| it.together.held.is_some()) {
            below_groups(nodes);
        }
        for node in nodes {
            if let Some(metered) = metered.get_mut(&node.owner) {
                let ceils = node.limits.iter().flatten().map(|it| it.ceil.bytes_per_second());
                metered.pace = ceils.fold(0, u64::saturating_add);
                let boosts = node.limits.iter().flatten().filter_map(|it| it.boost);
                metered.boost = boosts.fold(0, |sum, it| sum.saturating_add(it.0));
                let here = node.limits.positions().filter(|link| node.limits[*link].is_some());
                let carried = here.map(|link| links.shaped[link].link.rate.bytes_per_second());
                metered.fastest = carried.fold(0, u64::saturating_add);
            }
        }
        Meters { owners: metered, slots: self.slots.clone() }
    }
}

/// A cap that a quota sets.
struct Cap {
    rate: Rate,
    why: Arc<str>,
    until: Option<Timestamp>,
    of: LimitOf,
}

impl Cap {
    /// Gives a node the cap on a link where it has a higher ceil.
    fn lower(&self, node: &mut Node, link: LinkAt) {
        let Some(limits) = node.limits[link].as_mut().filter(|it| it.ceil > self.rate) else {
            return;
        };
        limits.ceil = self.rate;
        // What was saved up would go past it.
        limits.boost = None;
        limits.rate = match limits.rate {
            Asked::Promised(rate) => Asked::Promised(rate.min(self.rate)),
            Asked::Derived { floor } => {
                Asked::Derived { floor: floor.map(|floor| floor.min(self.rate)) }
            }
            Asked::Token => Asked::Token,
        };
        let why = Some(Arc::clone(&self.why));
        node.holds[link] = Holds { by: By::Quota, why, of: self.of.clone(), until: self.until };
    }
}

/// A group that a quota holds, or one in such a group, on one link.
struct HeldGroup {
    cap: Cap,
    /// Its members' promises are more than it has left.
    breaks: bool,
}

/// Members of a group that a quota holds have no more than the group, and no promise that the group
/// cannot keep: HTB serves a class up to its rate, whatever its parent's ceil is.
fn below_groups(nodes: &mut [Node]) {
    let links: Vec<LinkAt> = match nodes.first() {
        Some(node) => node.limits.positions().collect(),
        None => return,
    };
    for link in links {
        let mut promised: HashMap<Group, u64> = HashMap::new();
        for node in nodes.iter() {
            if let (Some(group), Some(rate)) = (&node.group, promise(node, link)) {
                let sum = promised.entry(group.clone()).or_default();
                *sum = sum.saturating_add(rate.bytes_per_second());
            }
        }
        let mut held: HashMap<Group, HeldGroup> = HashMap::new();
        for node in nodes.iter_mut() {
            let parent = node.group.as_ref().and_then(|group| held.get(group));
            let mut breaks = false;
            if let Some(HeldGroup { cap, breaks: broken }) = parent {
                cap.lower(node, link);
                breaks = *broken;
                if let Some(limits) = node.limits[link].as_mut().filter(|_| breaks) {
                    limits.rate = unpromised(limits);
                }
            }
            let Owner::Group(group) = &node.owner else { continue };
            let Some(limits) = node.limits[link] else { continue };
            let Holds { by: By::Quota, why: Some(why), of, until } = &node.holds[link] else {
                continue;
            };
            let sum = promised.get(group).copied().unwrap_or_default();
            breaks |= sum > limits.ceil.bytes_per_second();
            let of = match of {
                LimitOf::Own => LimitOf::Group(group.clone()),
                above => above.clone(),
            };
            let cap = Cap { rate: limits.ceil, why: Arc::clone(why), until: *until, of };
            held.insert(group.clone(), HeldGroup { cap, breaks });
        }
    }
}

/// What a parent must keep for a node, as the sums are checked ([`super::limits::add_up`]).
fn promise(node: &Node, link: LinkAt) -> Option<Rate> {
    let is_checked =
        matches!(node.owner, Owner::User(_) | Owner::Class(_) | Owner::Group(Group::Line(_)));
    match node.limits[link].filter(|_| is_checked)?.rate {
        Asked::Promised(rate) => Some(rate),
        Asked::Derived { floor } => floor,
        Asked::Token => None,
    }
}

fn unpromised(limits: &Limits) -> Asked {
    match limits.rate {
        Asked::Promised(_) | Asked::Derived { .. } => Asked::Derived { floor: None },
        Asked::Token => Asked::Token,
    }
}

fn zoned(lines: &[QuotaLine], facts: &Facts, findings: &mut Findings) -> Option<Zoned> {
    let mut zoned = Vec::with_capacity(lines.len());
    for line in lines {
        let zone = zone(line.tz.as_ref(), facts, findings);
        zoned.extend(zone.map(|zone| (line.quota.clone(), zone.clone())));
    }
    (!zoned.is_empty()).then(|| zoned.into())
}

/// What volumes in powers of 1000 come to, since reports have powers of 1024: of each such unit
/// that is written, the first.
pub(super) fn notes(policy: &Policy, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for line in policy.quotas() {
        let written = &line.volume.value;
        let unit = written.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
        let unit = unit.to_ascii_lowercase();
        if unit.contains('i') || !seen.insert(unit) {
            continue;
        }
        let message = format!("{} is {} bytes", quote(written), line.quota.volume.0);
        findings
            .push(Diagnostic::info(Kind::Rate, line.volume.at, message).help(
                "units without `i` are powers of 1000, those with it (`GiB`) powers of 1024",
            ));
    }
    let arrives = policy.links.iter().any(|line| line.down.is_some());
    for line in policy.quotas() {
        if line.quota.counts == Counts::Received && !arrives {
            let message = "no link shapes what arrives, so nothing is counted for this quota";
            findings.push(
                Diagnostic::warning(Kind::Shape, line.at, message)
                    .help("write `down: RATE` on a line of `links`"),
            );
        }
        if let Period::Month { starts: day @ 29.. } = line.quota.period {
            let message = format!("the month begins on day {day}, or on its last day");
            findings.push(
                Diagnostic::info(Kind::Time, line.at, message)
                    .help(format!("it does where a month has no day {day}")),
            );
        }
    }
}

/// Whose use is counted of these owners: those whose line may have a quota, whether they run or
/// have left.
pub fn counted<'a>(
    policy: &'a Policy,
    owners: impl IntoIterator<Item = &'a Owner>,
) -> BTreeSet<&'a Owner> {
    let users: BTreeSet<&Key> = policy
        .users
        .iter()
        .filter(|line| !line.limits.quotas.is_empty())
        .map(|line| &line.key.value)
        .collect();
    let groups: BTreeSet<&Key> = policy
        .groups
        .iter()
        .filter(|line| !line.limits.quotas.is_empty())
        .map(|line| &line.key.value)
        .collect();
    let everyone = policy.everyone.as_ref().is_some_and(|line| !line.limits.quotas.is_empty());
    // In which group an account is that has left is not known: all are counted.
    let each = policy.limits_of_each().any(|each| !each.quotas.is_empty());
    let is_counted = |owner: &&Owner| match owner {
        Owner::User(key) => users.contains(key),
        Owner::Group(Group::Line(key)) => groups.contains(key),
        Owner::Group(Group::Everyone) => everyone,
        Owner::Uid(_) | Owner::Subuids(_) => each,
        Owner::Class(_) | Owner::Newcomers => false,
    };
    owners.into_iter().filter(is_counted).collect()
}

/// Where the buckets of use begin for the quotas of a policy.
pub fn slots(policy: &Policy, facts: &Facts) -> Slots {
    let zone = |line: &QuotaLine| match &line.tz {
        None => Some(facts.zones.here.clone()),
        Some(tz) => facts.zones.named.get(&tz.value)?.as_ref().ok().cloned(),
    };
    let zoned: Vec<_> =
        policy.quotas().filter_map(|line| Some((line.quota.period, zone(line)?))).collect();
    Slots::new(zoned.iter().map(|(period, zone)| (*period, zone)))
}
