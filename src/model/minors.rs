//! Whether there are minors for all classes, and none is fixed twice. Touches nothing.

use std::collections::HashMap;

use crate::policy::{Diagnostic, Findings, Kind, Policy, Span, quote};
use crate::tree::Key;
use crate::units::Minor;

/// An error where there are more classes than minors: each needs one of its own, the same on every
/// link.
pub(super) fn enough(policy: &Policy, findings: &mut Findings) {
    let leaves = policy.users.len() + policy.classes.len();
    let groups = policy.groups.len() + usize::from(policy.everyone.is_some());
    let leaf_range = Minor::count(&Minor::USERS);
    let group_range = Minor::count(&Minor::GROUPS);
    let at = policy.links_at;
    if leaves > leaf_range {
        findings.push(
            Diagnostic::error(Kind::Shape, at, format!("there are {leaves} users and classes, {leaf_range} are possible"))
                .help("classids have 16 bits: accounts without a line of their own come in with `everyone` or a `gid` group, and have a class only while they run"),
        );
    }
    if groups > group_range {
        findings.push(
            Diagnostic::error(
                Kind::Shape,
                at,
                format!("there are {groups} groups, {group_range} are possible"),
            )
            .help("classids have 16 bits: join groups that have the same limits"),
        );
    }
}

/// An error where two lines have one `classid`.
pub(super) fn pins(policy: &Policy, findings: &mut Findings) {
    let mut seen: HashMap<Minor, (&Key, Span)> = HashMap::new();
    let users = policy.users.iter().map(|line| (&line.key, line.classid));
    let classes = policy.classes.iter().map(|line| (&line.key, line.classid));
    for (key, pin) in users.chain(classes) {
        let Some(pin) = pin else { continue };
        if let Some((other, first)) = seen.get(&pin.value) {
            let (one, other) = (quote(other.as_str()), quote(key.value.as_str()));
            findings.push(
                Diagnostic::error(
                    Kind::Name,
                    pin.at,
                    format!("{one} and {other} have the same classid 1:{}", pin.value),
                )
                .also(*first, "first here")
                .help("give one of them another, or leave it out to get a free one"),
            );
        } else {
            seen.insert(pin.value, (&key.value, pin.at));
        }
    }
}
