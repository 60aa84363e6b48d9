//! Links without tags (`classifier: uid`): what a policy cannot have there, and what it may not
//! mean.

use super::Refusal;
use crate::facts::{Facts, Features, SOCKETS_HAVE_BOTH};
use crate::model::{Link, Model};
use crate::policy::{Diagnostic, Follow, Kind, Policy, Report, UnitRef, Written};
use crate::tree::Classifier;

/// Services that accept connections which become a user's as he logs in.
const LOGINS: [&str; 2] = ["ssh.service", "sshd.service"];

fn is_untagged(link: &Link, features: &Features) -> bool {
    match link.classifier {
        Some(classifier) => classifier == Classifier::Uid,
        None => features.no_net_cls.is_some() || features.spared.is_some(),
    }
}

/// The first link without tags, and the first unit that a line claims; `None`: one of them is
/// absent, and nothing is to be said.
fn first<'a>(
    policy: &'a Policy,
    model: &'a Model,
    features: &Features,
) -> Option<(&'a Link, &'a Written<UnitRef>)> {
    let link = model.links.iter().find(|link| is_untagged(link, features))?;
    let mut units = policy.users.iter().filter_map(|line| line.units.as_ref()?.first());
    Some((link, units.next()?))
}

/// Refuses a line that claims processes by their unit where a link reads no tags, and the cgroups
/// (v2) of sockets cannot be known either.
pub(super) fn allow(policy: &Policy, model: &Model, facts: &Facts) -> Result<(), Refusal> {
    let features = &facts.features;
    let Some((link, unit)) = first(policy, model, features) else { return Ok(()) };
    let name = &link.port.link;
    let tagged = model.links.iter().find(|link| !is_untagged(link, features));
    let lacks = match (&facts.unit_cgroups, tagged) {
        // Who may not load a program cannot try it.
        _ if !features.helpers.ancestor_cgroup && facts.lacks.is_none() => {
            "this kernel tells no program the cgroup of a socket (CONFIG_SOCK_CGROUP_DATA)"
                .to_string()
        }
        (Some(Err(why)), _) => why.to_string(),
        (_, Some(tagged)) if has_either(facts) => format!(
            "before Linux 5.15 sockets have no cgroup once tags are used, which {} reads",
            tagged.port.link
        ),
        (Some(Ok(_)) | None, _) => return Ok(()),
    };
    let why = format!("`units` needs the tags of net_cls or cgroup v2 at {name}, and {lacks}");
    let help = match features.no_net_cls {
        Some(_) => "give the unit an account of its own (`User=`) and the line its `uids`",
        None => "write `classifier: auto` there, or give the unit an account of its own (`User=`)",
    };
    let found = Diagnostic::error(Kind::Claim, unit.at, why).also(link.at, "this link").help(help);
    Err(Report::new(&policy.source, vec![found]).into())
}

/// Whether a socket has a tag or a cgroup here, and not both.
fn has_either(facts: &Facts) -> bool {
    facts.features.no_net_cls.is_none() && is_old(facts)
}

fn is_old(facts: &Facts) -> bool {
    facts.release.is_some_and(|release| release < SOCKETS_HAVE_BOTH) && !facts.has_both
}

/// Whether the policy says something for which `net_cls` is mounted although that disturbs
/// somebody: a classifier that goes by tags, or units where nothing else tells them.
pub fn needs_tags(policy: &Policy, facts: &Facts) -> bool {
    let has_units = policy.users.iter().any(|line| line.units.is_some());
    let has_cgroups = matches!(&facts.unit_cgroups, Some(Ok(units)) if !units.is_empty());
    policy.names_tags() || (has_units && (!has_cgroups || is_old(facts)))
}

/// Warns of lines with units of which more, or less, counts than their author may think where a
/// link reads no tags.
pub(super) fn warnings(policy: &Policy, model: &Model, facts: &Facts) -> Vec<Diagnostic> {
    let Some((link, first)) = first(policy, model, &facts.features) else { return Vec::new() };
    let name = &link.port.link;
    let mut said = Vec::new();
    if has_either(facts) {
        let why = format!(
            "at {name}, which reads no tags, `units` caps nothing if net_cls or net_prio was used since the boot: before Linux 5.15 that takes sockets their cgroup v2"
        );
        said.push(
            Diagnostic::warning(Kind::Claim, first.at, why)
                .help("boot with `cgroup_no_v1=net_cls,net_prio`, or Linux 5.15 or later"),
        );
    }
    // Somebody may have mounted a hierarchy beside systemd's.
    if matches!(&facts.unit_cgroups, Some(Ok(units)) if units.is_empty()) {
        let why = format!(
            "at {name}, which reads no tags, `units` is nobody: no unit of systemd's has a cgroup in cgroup v2"
        );
        said.push(
            Diagnostic::warning(Kind::Claim, first.at, why)
                .help("boot with `systemd.unified_cgroup_hierarchy=1`"),
        );
    }
    for line in policy.users.iter().filter(|line| line.follow == Follow::No) {
        let is_its = |login: &&str| model.matcher.units.find(login) == Some(&line.key.value);
        let login = LOGINS.into_iter().find(is_its);
        // An alias stands under another name.
        let says = |login: &str, unit: &&Written<UnitRef>| match &unit.value {
            UnitRef::Name(name) => name == login,
            UnitRef::Pattern(pattern) => pattern.fits(login),
        };
        let units = || line.units.iter().flatten();
        let unit = |login| units().find(|unit| says(login, unit)).or_else(|| units().next());
        if let Some((login, unit)) = login.and_then(|login| Some((login, unit(login)?))) {
            let why = format!(
                "at {name}, which reads no tags, a connection that {login} has accepted stays this line's when a user has logged in"
            );
            said.push(
                Diagnostic::warning(Kind::Claim, unit.at, why)
                    .help("add `follow: effective`: then the socket's owner goes first"),
            );
        }
    }
    said
}
