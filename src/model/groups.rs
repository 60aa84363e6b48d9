//! The tree of groups, and which one each user is in. Touches nothing.

use std::collections::{HashMap, HashSet};

use crate::facts::Facts;
use crate::policy::{Diagnostic, Findings, Kind, Membership, Policy, Span, closest, quote};

use super::claims::Claims;

/// How deep groups may nest. HTB allows 8 levels (`TC_HTB_MAXDEPTH`,
/// include/uapi/linux/pkt_sched.h), of which link, leaf and shard take one each.
const DEEPEST: usize = 5;

/// Indexes are those of `Policy::groups` and `Policy::users`.
pub(super) struct Groups {
    /// Every group, parents before children, otherwise in file order.
    pub order: Vec<usize>,
    pub parent: Vec<Option<usize>>,
    pub of_user: Vec<Option<usize>>,
}

pub(super) fn resolve(
    policy: &Policy,
    facts: &Facts,
    claims: &Claims,
    findings: &mut Findings,
) -> Groups {
    let by_key: HashMap<&str, usize> =
        policy.groups.iter().enumerate().map(|(i, line)| (line.key.value.as_str(), i)).collect();
    let parent = parents(policy, &by_key, findings);
    let order = order(policy, &parent, findings);
    let of_user = members(policy, facts, claims, &by_key, findings);
    let groups = Groups { order, parent, of_user };
    empty(policy, &groups, findings);
    groups
}

fn no_group(policy: &Policy, name: &str, at: Span) -> Diagnostic {
    let known = policy.groups.iter().map(|line| line.key.value.as_str());
    let help = match closest(name, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => "add it to `groups`; a Unix group is named by the group's `gid`".to_string(),
    };
    Diagnostic::error(Kind::Group, at, format!("there is no group {} in this policy", quote(name)))
        .help(help)
}

/// The parent of each group. A circle is an error, said once, and one of its groups then counts as
/// without a parent.
fn parents(
    policy: &Policy,
    by_key: &HashMap<&str, usize>,
    findings: &mut Findings,
) -> Vec<Option<usize>> {
    let mut parent: Vec<Option<usize>> = Vec::with_capacity(policy.groups.len());
    for line in &policy.groups {
        parent.push(line.parent.as_ref().and_then(|name| {
            let found = by_key.get(name.value.as_str()).copied();
            findings.need(found, || no_group(policy, &name.value, name.at))
        }));
    }
    // Each group is walked over once: what was seen on an earlier walk has no circle.
    let mut done = vec![false; parent.len()];
    for start in 0..parent.len() {
        let mut walk = Vec::new();
        let mut on_walk = HashSet::new();
        let mut next = Some(start);
        while let Some(at) = next.filter(|at| !done[*at]) {
            if !on_walk.insert(at) {
                let circle: Vec<usize> = walk.iter().copied().skip_while(|g| *g != at).collect();
                findings.push(circular(policy, &circle));
                parent[at] = None;
                break;
            }
            walk.push(at);
            next = parent[at];
        }
        walk.into_iter().for_each(|at| done[at] = true);
    }
    parent
}

fn circular(policy: &Policy, circle: &[usize]) -> Diagnostic {
    let name = |group: &usize| policy.groups[*group].key.value.as_str();
    let at = circle.first().and_then(|group| policy.groups[*group].parent.as_ref()).map(|p| p.at);
    let path: Vec<&str> = circle.iter().chain(circle.first()).map(name).collect();
    Diagnostic::error(Kind::Group, at, format!("groups contain themselves: {}", path.join(" in ")))
        .help("remove one `parent` of the circle")
}

/// Parents before children; says which groups are too deep.
fn order(policy: &Policy, parent: &[Option<usize>], findings: &mut Findings) -> Vec<usize> {
    let mut order = Vec::with_capacity(parent.len());
    // How many groups are above each group, once its turn has come.
    let mut depth: Vec<Option<usize>> = vec![None; parent.len()];
    for group in 0..parent.len() {
        let mut chain = Vec::new();
        let mut next = Some(group);
        while let Some(at) = next.filter(|at| depth[*at].is_none()) {
            chain.push(at);
            next = parent[at];
        }
        let mut above = next.and_then(|at| depth[at]).unwrap_or(0);
        for at in chain.into_iter().rev() {
            above += 1;
            depth[at] = Some(above);
            order.push(at);
            // The groups below the first one that is too deep are so for the same reason.
            if above == DEEPEST + 1 {
                findings.push(too_deep(policy, at));
            }
        }
    }
    order
}

fn too_deep(policy: &Policy, group: usize) -> Diagnostic {
    let line = &policy.groups[group];
    let name = quote(line.key.value.as_str());
    Diagnostic::error(
        Kind::Group,
        line.parent.as_ref().map_or(line.key.at, |parent| parent.at),
        format!("{name} is {} groups deep, {DEEPEST} are possible", DEEPEST + 1),
    )
    .help("HTB has 8 levels in all: give it a `parent` further up")
}

/// The group of each user: one that lists the user, or that the user's line names; else the first
/// `gid` group to which one of the line's accounts belongs.
fn members(
    policy: &Policy,
    facts: &Facts,
    claims: &Claims,
    by_key: &HashMap<&str, usize>,
    findings: &mut Findings,
) -> Vec<Option<usize>> {
    let users = policy.users_by_key();
    let mut listed: Vec<Option<(usize, Span)>> = vec![None; policy.users.len()];
    for (group, line) in policy.groups.iter().enumerate() {
        for member in &line.users {
            let user = users.get(member.value.as_str()).copied();
            let user = findings.need(user, || no_user(policy, &member.value, member.at));
            let Some(user) = user else { continue };
            match listed[user] {
                Some((other, first)) if other != group => findings.push(
                    Diagnostic::error(
                        Kind::Group,
                        member.at,
                        format!("{} is listed in two groups", quote(&member.value)),
                    )
                    .label(format!("in {}", quote(line.key.value.as_str())))
                    .also(first, format!("in {}", quote(policy.groups[other].key.value.as_str())))
                    .help("a class has one parent: keep one of the two"),
                ),
                Some(_) => {}
                None => listed[user] = Some((group, member.at)),
            }
        }
    }
    let mut of_user = Vec::with_capacity(policy.users.len());
    for (user, line) in policy.users.iter().enumerate() {
        let written = line.group.as_ref().and_then(|membership| match &membership.value {
            Membership::None => Some((None, membership.at)),
            Membership::In(name) => {
                let found = by_key.get(name.as_str()).copied();
                let found = findings.need(found, || no_group(policy, name, membership.at));
                found.map(|group| (Some(group), membership.at))
            }
        });
        of_user.push(match (listed[user], written) {
            (None, None) => by_gid(facts, claims, user),
            (None, Some((group, _))) => group,
            (Some((group, _)), None) => Some(group),
            (Some((group, listed_at)), Some((written, at))) => {
                if written != Some(group) {
                    let name = quote(policy.groups[group].key.value.as_str());
                    findings.push(
                        Diagnostic::error(
                            Kind::Group,
                            at,
                            format!("this line is listed in the group {name} and says otherwise"),
                        )
                        .also(listed_at, "listed here")
                        .help("keep one of the two"),
                    );
                }
                Some(group)
            }
        });
    }
    of_user
}

fn by_gid(facts: &Facts, claims: &Claims, user: usize) -> Option<usize> {
    let accounts = claims.uids[user].iter().filter_map(|uid| facts.accounts.by_uid.get(uid));
    let gids: HashSet<u32> = accounts.flat_map(|account| account.gids.iter().copied()).collect();
    claims.gids.iter().position(|gid| gid.is_some_and(|gid| gids.contains(&gid)))
}

fn no_user(policy: &Policy, name: &str, at: Span) -> Diagnostic {
    let known = policy.users.iter().map(|line| line.key.value.as_str());
    let help = match closest(name, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => {
            "add a line to `users`; the accounts of a Unix group come in with `gid`".to_string()
        }
    };
    Diagnostic::error(Kind::Group, at, format!("there is no user {} in this policy", quote(name)))
        .help(help)
}

fn empty(policy: &Policy, groups: &Groups, findings: &mut Findings) {
    let used: HashSet<usize> =
        groups.of_user.iter().chain(&groups.parent).filter_map(|group| *group).collect();
    for (group, line) in policy.groups.iter().enumerate() {
        if line.gid.is_none() && !used.contains(&group) {
            let name = quote(line.key.value.as_str());
            findings.push(
                Diagnostic::warning(
                    Kind::Group,
                    line.key.at,
                    format!("nobody is in the group {name}"),
                )
                .help("name members with `users: [bob]`, or a Unix group with `gid`"),
            );
        }
    }
}
