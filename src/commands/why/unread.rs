//! What the kernel has for a class, where the policy is refused or cannot be read.

use super::answer::{Answer, OnLink};
use super::standing::{self, Standing};
use crate::host::Kernel;
use crate::process;
use crate::status::{Link, Status, User};
use crate::tree::{Claim, Port, Reserved};
use crate::units::ClassId;

/// The claim in whose directory a process is.
pub(super) fn claim_of(kernel: &Kernel, pid: u32) -> Option<Claim> {
    let process = process::read_one(&kernel.proc_root, pid).ok()??;
    process::claim_of(&process, &kernel.view().ok()?)
}

/// What stands and goes in the class, and whose it is; `None`: it stands nowhere.
pub(super) fn of_class<'p>(
    status: &Status,
    ports: impl Iterator<Item = &'p Port>,
    subject: String,
    class: ClassId,
) -> Option<Answer> {
    let on_link = |port| Some(on_link(port, &standing::row(status, port, class)?));
    let links: Vec<OnLink> = ports.filter_map(on_link).collect();
    if links.is_empty() {
        return None;
    }
    let classid = class.to_string();
    let note = "this is what the kernel has: the policy is refused, or cannot be read";
    Some(Answer {
        claimed_by: claimed_by(status, &classid),
        links,
        notes: vec![note.to_string()],
        ..Answer::about(subject, Some(class))
    })
}

fn on_link(port: &Port, row: &Standing<'_>) -> OnLink {
    OnLink {
        port: port.to_string(),
        dev: port.link.to_string(),
        direction: port.direction.as_str(),
        rate_bit: Some(row.class.rate_bit),
        asked_rate_bit: row.class.asked_rate_bit,
        ceil_bit: row.class.ceil_bit,
        prio: row.class.prio,
        in_force: Some(row.in_force()),
        file_lacks: None,
    }
}

/// The line that the class was made for.
fn claimed_by(status: &Status, classid: &str) -> Option<String> {
    let of_user = |user: &User| match (user.source, &user.group) {
        ("users", _) => format!("users.{}", user.user),
        ("class", _) => format!("classes.{}", user.user),
        ("group", Some(group)) => format!("groups.{group}"),
        _ => Reserved::Everyone.to_string(),
    };
    let user = |link: &Link| link.users.iter().find(|it| it.classid == classid).map(of_user);
    let group = |link: &Link| {
        let group = link.groups.iter().find(|it| it.classid == classid)?;
        Some(format!("groups.{}", group.group))
    };
    status.links.iter().find_map(|link| user(link).or_else(|| group(link)))
}
