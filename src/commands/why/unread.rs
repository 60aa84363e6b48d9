//! What the kernel has for a class, where the policy is refused or cannot be read.

use super::answer::{Answer, OnLink};
use super::standing::{self, Standing};
use crate::host::Kernel;
use crate::process;
use crate::status::{Link, Status, User};
use crate::tree::{Claim, KernelState, Owner, Port, Reserved};
use crate::units::ClassId;

/// The class in which the packets of a process are: its directory's, else its sockets' owner's.
/// `None`: nobody's, or not known, since a process that acts as another uid may have sockets of
/// both.
pub(super) fn class_of_process(kernel: &Kernel, state: &KernelState, pid: u32) -> Option<ClassId> {
    let process = process::read_one(&kernel.proc_root, pid).ok()??;
    let claim = process::claim_of(&process, &kernel.view().ok()?);
    let by_owner = || {
        let is_known = process.netns == Some(kernel.netns) && process.acting_uid == process.uid;
        state.owners.as_ref().filter(|_| is_known)?.class(process.uid)?.our_class()
    };
    claim.and_then(|claim| class_of(state, claim)).or_else(by_owner)
}

/// The class in which an account's packets are: of a deciding program's maps, which know each uid
/// that a line names, else that of his own or of his processes' directory.
pub(super) fn class_of_uid(kernel: &Kernel, state: &KernelState, uid: u32) -> Option<ClassId> {
    if let Some(owners) = &state.owners {
        let class = owners.class(uid).and_then(ClassId::our_class);
        return class.or(Some(ClassId::DEFAULT));
    }
    let own = class_of(state, Claim::Owner(Owner::Uid(uid)));
    let of_processes = || {
        let view = kernel.view().ok()?;
        let processes = process::scan(&kernel.proc_root).ok()?.processes;
        let mut his = processes.iter().filter(|process| process.uid == uid);
        his.find_map(|process| match process::claim_of(process, &view)? {
            claim @ Claim::Owner(_) => class_of(state, claim),
            Claim::Pinned(_) | Claim::Retired(..) => None,
        })
    };
    own.or_else(of_processes)
}

fn class_of(state: &KernelState, claim: Claim) -> Option<ClassId> {
    let claim = match claim {
        Claim::Pinned(owner) => Claim::Owner(owner),
        claim => claim,
    };
    state.claims.get(&claim)?.our_class()
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
    let is_nobodys = class == ClassId::DEFAULT && !names(&subject, class);
    let nobodys = is_nobodys.then_some("nobody claims it: it is in the default class");
    let note = "this is what the kernel has: the policy is refused, or cannot be read";
    Some(Answer {
        claimed_by: claimed_by(status, &classid),
        links,
        notes: nobodys.into_iter().chain([note]).map(str::to_string).collect(),
        ..Answer::about(subject, Some(class))
    })
}

/// Whether a word of the command line is this class's own.
fn names(word: &str, class: ClassId) -> bool {
    Reserved::of(word) == Some(Reserved::Default) || word.parse() == Ok(class)
}

fn on_link(port: &Port, row: &Standing<'_>) -> OnLink {
    OnLink {
        port: port.to_string(),
        dev: port.link.to_string(),
        direction: port.direction.as_str(),
        rate_bit: Some(row.class.rate_bit),
        asked_rate_bit: row.class.asked_rate_bit,
        ceil_bit: row.class.ceil_bit,
        boost_bytes: row.class.boost_bytes,
        limit: None,
        prio: row.class.prio,
        in_force: Some(row.in_force()),
        file_lacks: None,
    }
}

/// The line that the class was made for.
fn claimed_by(status: &Status, classid: &str) -> Option<String> {
    let user = |link: &Link| link.users.iter().find(|it| it.classid == classid).map(User::line);
    let group = |link: &Link| {
        let group = link.groups.iter().find(|it| it.classid == classid)?;
        Some(format!("groups.{}", group.group))
    };
    status.links.iter().find_map(|link| user(link).or_else(|| group(link)))
}
