//! Links without tags (`classifier: uid`): what a policy cannot have there.

use super::Refusal;
use crate::facts::Features;
use crate::model::{Link, Model};
use crate::policy::{Diagnostic, Kind, Policy, Report};
use crate::tree::Classifier;

/// Refuses a line that claims processes by their unit where a link goes by the owner of a packet's
/// socket alone: to which unit a process belongs its sockets do not say.
pub(super) fn allow(policy: &Policy, model: &Model, features: &Features) -> Result<(), Refusal> {
    let is_untagged = |link: &&Link| match link.classifier {
        Some(classifier) => classifier == Classifier::Uid,
        None => features.no_net_cls.is_some(),
    };
    let Some(link) = model.links.iter().find(is_untagged) else { return Ok(()) };
    let mut lines = policy.users.iter().filter_map(|line| line.units.as_ref()?.first());
    let Some(unit) = lines.next() else { return Ok(()) };
    let name = &link.port.link;
    let (why, help) = match features.no_net_cls {
        Some(why) => (
            format!("`units` needs the tags of net_cls, and {why}"),
            "give the unit an account of its own (`User=`) and the line its `uids`",
        ),
        None => (
            format!("`units` needs the tags of net_cls, and {name} has `classifier: uid`"),
            "write `classifier: auto` there, or give the unit an account of its own (`User=`)",
        ),
    };
    let found = Diagnostic::error(Kind::Claim, unit.at, why).also(link.at, "this link").help(help);
    Err(Report::new(&policy.source, vec![found]).into())
}
