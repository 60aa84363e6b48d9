//! What the kernel has, where the policy is refused or cannot be read, of whom and of a connection.

use super::answer::{Answer, OnLink};
use super::connection::Known;
use super::guest::{self, Guest};
use super::standing::{self, Standing};
use super::subject::{Subject, is_unit, named};
use super::ways::{self, Bound};
use crate::cli::WhyOptions;
use crate::commands::counting::Counting;
use crate::commands::own::ALL_THERE_IS;
use crate::facts::Observation;
use crate::host::Kernel;
use crate::process::{self, Process};
use crate::status::{Link, Status, User};
use crate::text::shown;
use crate::tree::{Claim, KernelState, Owner, Port, Reserved, Turn};
use crate::units::ClassId;

/// The answer by what stands alone; `None`: the kernel knows nothing of it. `uid`: the subject's;
/// `bound`: who has bound the host's own end of a connection.
pub(super) fn answer(
    counting: &Counting,
    status: &Status,
    (asked, uid): (&Subject<'_>, Option<u32>),
    (options, bound): (&WhyOptions, Option<Bound>),
) -> Option<Answer> {
    let seen = counting.observation();
    if seen.state.trees.is_empty() {
        return None;
    }
    let subject = shown(&options.subject).to_string();
    let of = |subject, class| of_class(status, seen.state.trees.keys(), subject, class);
    let guest = |name| guest::find(seen, name).filter(|_| counting.own.is_none());
    let mut answer = match (asked, class_in_kernel(counting, asked, uid)) {
        (Subject::Connection, _) => match bound {
            None => ways::of_nobody(options),
            Some(bound) => {
                let mut answer = of(ways::subject(options), bound.class)?;
                answer.notes.extend(bound.notes(options));
                answer
            }
        },
        (Subject::Guest(name), _) => of_guest(&guest(name)?, seen, of)?,
        (_, Some(class)) => of(subject, class)?,
        (Subject::Name(name), None) => of_guest(&guest(name)?, seen, of)?,
        (_, None) => return None,
    };
    // Whoever is not root may not read all rules, nor whose the others' packets are.
    if counting.own.is_none() {
        ways::say(Known { seen, status, meaning: None }, options, &mut answer);
    }
    answer.notes.push(ALL_THERE_IS.to_string());
    Some(answer)
}

fn of_guest(
    guest: &Guest<'_>,
    seen: &Observation,
    of: impl Fn(String, ClassId) -> Option<Answer>,
) -> Option<Answer> {
    let class = guest::class(seen, guest).unwrap_or(ClassId::DEFAULT);
    let answer = of(guest.what().to_string(), class)?;
    Some(Answer { comes_in_by: guest.comes_in_by(), ..answer })
}

/// The class that a subject has in the kernel, as far as the kernel says whose classes are. `uid`:
/// the subject's.
fn class_in_kernel(counting: &Counting, asked: &Subject<'_>, uid: Option<u32>) -> Option<ClassId> {
    let state = &counting.observation().state;
    let owned = |owner| state.claims.get(&Claim::Owner(owner)).and_then(|id| id.our_class());
    let of_process = |pid: &str| class_of_process(&counting.kernel, state, pid.parse().ok()?);
    let of_uid = || class_of_uid(&counting.kernel, state, uid?);
    match asked {
        Subject::Process(pid) => of_process(pid),
        Subject::Uid(_) => of_uid(),
        Subject::Class(class) => Some(*class),
        Subject::Name(name) => of_process(name)
            .or_else(|| named(name).find_map(owned))
            .or_else(|| class_of_unit(&counting.kernel, state, name))
            .or_else(of_uid),
        Subject::Guest(_) | Subject::Connection => None,
    }
}

/// The class in which the packets of a process are: its directory's, else that of its sockets'
/// cgroup, else their owner's. `None`: nobody's, or not known, since a process that acts as another
/// uid may have sockets of both.
fn class_of_process(kernel: &Kernel, state: &KernelState, pid: u32) -> Option<ClassId> {
    let process = process::read_one(&kernel.proc_root, pid).ok()??;
    let claim = process::claim_of(&process, &kernel.view().ok()?);
    let of_claim = claim.and_then(|claim| class_of(state, claim));
    let by_owner = || {
        let is_known = process.netns == Some(kernel.netns) && process.acting_uid == process.uid;
        state.owners.as_ref().filter(|_| is_known)?.class(process.uid)?.our_class()
    };
    let in_cgroup = |turn| class_of_cgroup(kernel, state, &process, turn);
    of_claim
        .or_else(|| in_cgroup(Turn::First))
        .or_else(by_owner)
        .or_else(|| in_cgroup(Turn::AfterOwner))
}

/// The class of the sockets that a process makes in its cgroup (v2): one of ours, or its unit's.
fn class_of_cgroup(
    kernel: &Kernel,
    state: &KernelState,
    process: &Process,
    turn: Turn,
) -> Option<ClassId> {
    let given = &state.owners.as_ref().filter(|table| !table.cgroups.is_empty())?.cgroups;
    let pinned = || given.get(&(kernel.pinned_process(process.pid)?.cgroup, turn));
    let unit = || given.get(&(kernel.unit_cgroup(process.pid, process.unit.as_deref()?)?, turn));
    pinned().or_else(unit)?.our_class()
}

/// The class of a unit's processes.
fn class_of_unit(kernel: &Kernel, state: &KernelState, name: &str) -> Option<ClassId> {
    let processes = process::scan(&kernel.proc_root).ok().filter(|_| is_unit(name))?.processes;
    let mut its = processes.iter().filter(|process| process.unit.as_deref() == Some(name));
    its.find_map(|process| class_of_process(kernel, state, process.pid))
}

/// The class in which an account's packets are: of a deciding program's maps, which know each uid
/// that a line names, else that of his own or of his processes' directory.
fn class_of_uid(kernel: &Kernel, state: &KernelState, uid: u32) -> Option<ClassId> {
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
fn of_class<'p>(
    status: &Status,
    ports: impl Iterator<Item = &'p Port>,
    subject: String,
    class: ClassId,
) -> Option<Answer> {
    let links = on_links(status, ports, class);
    if links.is_empty() {
        return None;
    }
    let classid = class.to_string();
    let is_nobodys = class == ClassId::DEFAULT && !names(&subject, class);
    let nobodys = is_nobodys.then_some("nobody claims it: it is in the default class");
    Some(Answer {
        claimed_by: claimed_by(status, &classid),
        links,
        notes: nobodys.into_iter().map(str::to_string).collect(),
        sender: Some(class).filter(|_| !is_nobodys),
        is_group: class.minor().is_group(),
        is_for_nobody: !is_nobodys && [ClassId::DEFAULT, ClassId::UNSHAPED].contains(&class),
        ..Answer::about(subject, Some(class))
    })
}

/// Whether a word of the command line is this class's own.
fn names(word: &str, class: ClassId) -> bool {
    Reserved::of(word) == Some(Reserved::Default) || word.parse() == Ok(class)
}

/// What stands and goes in the class at each port.
pub(crate) fn on_links<'p>(
    status: &Status,
    ports: impl Iterator<Item = &'p Port>,
    class: ClassId,
) -> Vec<OnLink> {
    let on_link = |port| Some(on_link(port, &standing::row(status, port, class)?));
    ports.filter_map(on_link).collect()
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
