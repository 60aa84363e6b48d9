//! The tree of groups, and which one each user is in. Touches nothing.

use std::collections::{HashMap, HashSet};

use crate::facts::Facts;
use crate::policy::{Diagnostic, Findings, Kind, Membership, Policy, Span, closest, quote};

use super::claims::Claims;
use super::positions::{GroupAt, Per, UserAt, groups, users};

/// How deep groups may nest. HTB allows 8 levels (`TC_HTB_MAXDEPTH`,
/// include/uapi/linux/pkt_sched.h), of which link, leaf and shard take one each.
const DEEPEST: usize = 5;

pub(super) struct Groups {
    /// Every group, parents before children, otherwise in file order.
    pub order: Vec<GroupAt>,
    pub parent: Per<GroupAt, Option<GroupAt>>,
    pub of_user: Per<UserAt, Option<GroupAt>>,
}

pub(super) fn resolve(
    policy: &Policy,
    facts: &Facts,
    claims: &Claims,
    findings: &mut Findings,
) -> Groups {
    let by_key: HashMap<&str, GroupAt> =
        groups(policy).map(|(at, line)| (line.key.value.as_str(), at)).collect();
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
    by_key: &HashMap<&str, GroupAt>,
    findings: &mut Findings,
) -> Per<GroupAt, Option<GroupAt>> {
    let mut parent = Per::group(policy, |_, line| {
        let name = line.parent.as_ref()?;
        let found = by_key.get(name.value.as_str()).copied();
        findings.need(found, || no_group(policy, &name.value, name.at))
    });
    // Each group is walked over once: what was seen on an earlier walk has no circle.
    let mut done = Per::group(policy, |_, _| false);
    for (start, _) in groups(policy) {
        let mut walk = Vec::new();
        let mut on_walk = HashSet::new();
        let mut next = Some(start);
        while let Some(at) = next.filter(|at| !done[*at]) {
            if !on_walk.insert(at) {
                let circle: Vec<GroupAt> = walk.iter().copied().skip_while(|g| *g != at).collect();
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

fn circular(policy: &Policy, circle: &[GroupAt]) -> Diagnostic {
    let name = |group: &GroupAt| group.line(policy).key.value.as_str();
    let at = circle.first().and_then(|group| group.line(policy).parent.as_ref()).map(|p| p.at);
    let path: Vec<&str> = circle.iter().chain(circle.first()).map(name).collect();
    Diagnostic::error(Kind::Group, at, format!("groups contain themselves: {}", path.join(" in ")))
        .help("remove one `parent` of the circle")
}

/// Parents before children; says which groups are too deep.
fn order(
    policy: &Policy,
    parent: &Per<GroupAt, Option<GroupAt>>,
    findings: &mut Findings,
) -> Vec<GroupAt> {
    let mut order = Vec::with_capacity(parent.len());
    // How many groups deep each group is (1: below no other), once its turn has come.
    let mut depth: Per<GroupAt, Option<usize>> = Per::group(policy, |_, _| None);
    for (group, _) in groups(policy) {
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

fn too_deep(policy: &Policy, group: GroupAt) -> Diagnostic {
    let line = group.line(policy);
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
    by_key: &HashMap<&str, GroupAt>,
    findings: &mut Findings,
) -> Per<UserAt, Option<GroupAt>> {
    let by_name: HashMap<&str, UserAt> =
        users(policy).map(|(at, line)| (line.key.value.as_str(), at)).collect();
    let mut listed: Per<UserAt, Option<(GroupAt, Span)>> = Per::user(policy, |_, _| None);
    for (group, line) in groups(policy) {
        for member in &line.users {
            let user = by_name.get(member.value.as_str()).copied();
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
                    .also(first, format!("in {}", quote(other.line(policy).key.value.as_str())))
                    .help("a class has one parent: keep one of the two"),
                ),
                Some(_) => {}
                None => listed[user] = Some((group, member.at)),
            }
        }
    }
    Per::user(policy, |user, line| {
        let written = line.group.as_ref().and_then(|membership| match &membership.value {
            Membership::None => Some((None, membership.at)),
            Membership::In(name) => {
                let found = by_key.get(name.as_str()).copied();
                let found = findings.need(found, || no_group(policy, name, membership.at));
                found.map(|group| (Some(group), membership.at))
            }
        });
        match (listed[user], written) {
            (None, None) => by_gid(facts, claims, user),
            (None, Some((group, _))) => group,
            (Some((group, _)), None) => Some(group),
            (Some((group, listed_at)), Some((written, at))) => {
                if written != Some(group) {
                    let name = quote(group.line(policy).key.value.as_str());
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
        }
    })
}

fn by_gid(facts: &Facts, claims: &Claims, user: UserAt) -> Option<GroupAt> {
    let accounts = claims.uids[user].iter().filter_map(|uid| facts.accounts.by_uid.get(uid));
    let gids: HashSet<u32> = accounts.flat_map(|account| account.gids.iter().copied()).collect();
    let mut groups = claims.gids.pairs();
    let his = |gid: &Option<u32>| gid.is_some_and(|gid| gids.contains(&gid));
    groups.find(|(_, gid)| his(gid)).map(|(group, _)| group)
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

fn empty(policy: &Policy, found: &Groups, findings: &mut Findings) {
    let used: HashSet<GroupAt> =
        found.of_user.iter().chain(&found.parent).filter_map(|group| *group).collect();
    for (group, line) in groups(policy) {
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
