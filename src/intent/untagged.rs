//! Links without tags (`classifier: uid`): what a policy cannot have there.

use super::Refusal;
use crate::facts::Facts;
use crate::model::{Link, Model};
use crate::policy::{Diagnostic, Kind, Policy, Report};
use crate::tree::Classifier;

/// Refuses a line that claims processes by their unit where a link reads no tags, and the cgroups
/// (v2) of sockets cannot be known either.
pub(super) fn allow(policy: &Policy, model: &Model, facts: &Facts) -> Result<(), Refusal> {
    let features = &facts.features;
    let is_untagged = |link: &&Link| match link.classifier {
        Some(classifier) => classifier == Classifier::Uid,
        None => features.no_net_cls.is_some(),
    };
    let Some(link) = model.links.iter().find(is_untagged) else { return Ok(()) };
    let mut lines = policy.users.iter().filter_map(|line| line.units.as_ref()?.first());
    let Some(unit) = lines.next() else { return Ok(()) };
    let name = &link.port.link;
    let lacks = match &facts.unit_cgroups {
        // Who may not load a program cannot try it.
        _ if !features.helpers.ancestor_cgroup && facts.lacks.is_none() => {
            "this kernel tells no program the cgroup of a socket (CONFIG_SOCK_CGROUP_DATA)"
                .to_string()
        }
        Some(Err(why)) => why.to_string(),
        Some(Ok(_)) | None => return Ok(()),
    };
    let why = format!("`units` needs the tags of net_cls or cgroup v2 at {name}, and {lacks}");
    let help = match features.no_net_cls {
        Some(_) => "give the unit an account of its own (`User=`) and the line its `uids`",
        None => "write `classifier: auto` there, or give the unit an account of its own (`User=`)",
    };
    let found = Diagnostic::error(Kind::Claim, unit.at, why).also(link.at, "this link").help(help);
    Err(Report::new(&policy.source, vec![found]).into())
}
