//! Why a process is in the class that it is in.

use super::answer::Answer;
use super::owner::{On, answer, in_force, otherwise, owner_of};
use crate::apply::Look;
use crate::failure::Failure;
use crate::model::Matcher;
use crate::process::{self, Decision, InstanceView, Process, Reason};
use crate::text::shown;
use crate::tree::{Claim, Owner, Turn};

pub(super) fn of_process(on: &On<'_>, look: &Look, process: &Process) -> Result<Answer, Failure> {
    let pid = process.pid;
    let meaning = &look.meaning;
    let accounts = &meaning.observation.facts.accounts;
    let matcher = &meaning.model.matcher;
    let view = on.kernel.view()?;
    let subject = format!("process {pid} ({}, uid {})", process.comm, process.uid);
    let mut notes = Vec::new();
    let mut owner = process::whose(process, matcher, accounts, &view);
    notes.extend(by_which_uid(process, matcher));
    let decision = on.kernel.decide(process, matcher, accounts, &view);
    if decision == Decision::Leave(Reason::Guest) {
        owner = None;
    }
    notes.extend(of_decision(on, process, &decision, &view));
    let elsewhere = process.netns.is_some_and(|netns| netns != view.netns);
    if elsewhere && matches!(decision, Decision::Stay | Decision::MoveTo(_)) {
        notes.push(
            "it is in another network namespace: the sockets that it had before are in the class, those that it makes there are not on these links"
                .to_string(),
        );
    }
    let is_here = process.netns == Some(view.netns);
    let by_cgroup = pinned_by_cgroup(on, pid);
    match process::claim_of(process, &view) {
        _ if !view.places && by_cgroup.is_some() => owner = by_cgroup.clone(),
        Some(Claim::Pinned(pinned)) => {
            notes.push("`shaper run` or `shaper attach` put it there".to_string());
            owner = Some(pinned);
        }
        None if is_here => {
            let (is, note) = by_sockets(on, process, owner);
            owner = is;
            notes.extend(note);
        }
        _ => {}
    }
    if by_cgroup.is_some() {
        notes.push(
            "where no tags are read, `shaper run` or `shaper attach` put it there by the cgroup of the sockets that it makes; those that it had before, was passed, or accepts from an older listener are whose they were"
                .to_string(),
        );
    }
    let mut answer = answer(on, subject, owner, notes);
    // Where nobody is placed it says nothing.
    answer.directory = process.net_cls.clone().filter(|_| view.places);
    Ok(answer)
}

/// Whose class the sockets are in that a process makes in a cgroup of ours, where no tags are read.
fn pinned_by_cgroup(on: &On<'_>, pid: u32) -> Option<Owner> {
    let state = &on.meaning.observation.state;
    let given = &state.owners.as_ref()?.cgroups;
    let pinned = on.kernel.pinned_process(pid)?;
    let class = given.get(&(pinned.cgroup, Turn::First))?;
    owner_of(state, *class)
}

/// Whose a process without a tag is now, and what is to be said of that: the owner of its sockets
/// decides, whatever the file says. `by_file`: whose it is by the file.
fn by_sockets(
    on: &On<'_>,
    process: &Process,
    by_file: Option<Owner>,
) -> (Option<Owner>, Option<String>) {
    let (meaning, uid) = (on.meaning, process.acting_uid);
    if let Some((owner, unit)) = by_cgroup(on, process) {
        let note = format!(
            "by the cgroup of the sockets that it makes in {}; sockets that it had before it came there, or that it was passed, are whose they were",
            shown(unit)
        );
        return (Some(owner), Some(note));
    }
    if process::counts_as(process, &meaning.model.matcher).0 != uid {
        let note = format!(
            "it acts as uid {uid} now: the sockets that it makes are that uid's, those that it had are not"
        );
        return (by_file, meaning.observation.state.owners.is_some().then_some(note));
    }
    match in_force(on, uid).filter(|is| Some(is) != by_file.as_ref()) {
        Some(is) => {
            let note = otherwise(on, &is, by_file.as_ref());
            (Some(is), Some(note))
        }
        None => (by_file, None),
    }
}

/// Whose are the sockets that a process makes in its unit's cgroup (v2), where no tags are read,
/// and which unit that is.
fn by_cgroup<'p>(on: &On<'_>, process: &'p Process) -> Option<(Owner, &'p str)> {
    let unit = process.unit.as_deref()?;
    let state = &on.meaning.observation.state;
    let given = &state.owners.as_ref().filter(|table| !table.cgroups.is_empty())?.cgroups;
    let cgroup = on.kernel.unit_cgroup(process.pid, unit)?;
    let class = match given.get(&(cgroup, Turn::First)) {
        Some(class) => class,
        None if process.acting_uid == 0 || in_force(on, process.acting_uid).is_none() => {
            given.get(&(cgroup, Turn::AfterOwner))?
        }
        None => return None,
    };
    Some((owner_of(state, *class)?, unit))
}

/// Why a process is not where it belongs, or is left alone.
fn of_decision(
    on: &On<'_>,
    process: &Process,
    decision: &Decision,
    view: &InstanceView,
) -> Option<String> {
    let state = &on.meaning.observation.state;
    Some(match decision {
        Decision::Leave(Reason::Foreign { .. }) => format!(
            "it sits in another's net_cls group `{}` and is left alone",
            shown(process.net_cls.as_deref().unwrap_or("/"))
        ),
        Decision::Leave(Reason::Guest) => {
            "it is a container engine's guest, in a network namespace of its own: not its uid's"
                .to_string()
        }
        Decision::Leave(Reason::OtherInstance { netns }) => match view.others.get(netns) {
            Some(name) => format!(
                "it is in a network namespace that another instance shapes ({name}): ask that one (--cgroup {name})"
            ),
            None => "it is in the host's network namespace: ask the host's instance".to_string(),
        },
        Decision::Leave(Reason::UnknownNamespace) => {
            "its network namespace may not be read (CAP_SYS_PTRACE): it is left alone".to_string()
        }
        // It is in the class by its sockets' owner.
        Decision::MoveTo(_) if !view.places => return None,
        Decision::MoveTo(_) => {
            let by_owner = match state.has_class_untagged(process.acting_uid) {
                true => ", and what it sends is in a class all the same, by the sockets' owner",
                false => "",
            };
            format!("it is not in its directory yet{by_owner}: the next apply places it")
        }
        Decision::TakeOut => {
            "it is in a directory of ours still: the next apply takes it out".to_string()
        }
        Decision::Stay | Decision::Leave(_) => return None,
    })
}

/// Of a process whose unit's line says `follow: effective`, why it is where it is.
fn by_which_uid(process: &Process, matcher: &Matcher) -> Option<String> {
    let unit = process.unit.as_deref().filter(|unit| matcher.units.follows(Some(unit)))?;
    Some(match process.acting_uid {
        0 => format!(
            "{} follows effective uids: it is root now, and stays with its last user, if it had one",
            shown(unit)
        ),
        uid => format!(
            "{} follows effective uids: it acts as uid {uid}, whom it counts for where somebody claims him",
            shown(unit)
        ),
    })
}
