//! Makes the kernel match a policy, verifies it, and puts back what was there when a step fails.
//! Used by `shaper apply`, the daemon and the tests. Looks through `observe`, acts through
//! `execute` and `process::place`.

mod applied;
mod begin;
mod clear;
mod confirm;
mod drain;
mod moving;
mod noted;
mod options;
mod place;
mod rounds;
mod session;
mod source;
mod telling;
mod undo;
mod used;

pub use applied::{Applied, InForce};
pub use clear::clear;
pub use confirm::{confirm, hash};
pub use drain::begin_to_drain;
pub use options::{ApplyOptions, QUIET};
pub use place::place;
pub use session::{Engines, Look, Request, Session, Who, may_change};
pub use source::{
    Draft, DraftError, Left, Passed, Remains, SourceError, WasRead, Writer, each_of, folder,
    is_drop_in, joined, keep, kept, links, read, read_alone, read_as_if, read_kept, text_of, texts,
    way, whole,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cgroup::Locked;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::execute::{Cause, Gate};
use crate::host::told;
pub use crate::intent::Options;
use crate::plan::{Journal, Step};
use crate::sys::signal;
use begin::{begin, leave_no_trace};
use moving::Begun;
use rounds::{Run, Trouble};
use undo::Before;
pub use used::{Keeps, end_use, use_file};

/// The gate of a run that a person may interrupt: between two steps it asks whether a signal came.
pub fn unless_interrupted(_: usize, _: &Step) -> Result<(), Cause> {
    match signal::caught() {
        Some(signal) => Err(Cause::Interrupted(signal)),
        None => Ok(()),
    }
}

/// Does what the request asks for. `gate` is called before each step.
///
/// # Errors
/// A policy that cannot hold here, before anything is touched; a refused step, after what was there
/// before is back (or with words on what is not).
pub fn apply(
    session: &mut Session,
    request: Request,
    may: ApplyOptions,
    gate: Gate<'_>,
) -> Result<Applied, Failure> {
    may_change(&session.kernel)?;
    if session.keeps_use() == Keeps::Nobody {
        session.keep_use(Keeps::Run);
    }
    let has_quotas = request.intent.policy.quotas().next().is_some();
    // What was counted by the policy in force is kept, whatever becomes of this one.
    if has_quotas && session.keeps_use() == Keeps::Caller && !may.repair {
        session.write_use();
    }
    let outcome = run(session, request, may, gate);
    // Where nothing was to be done, nothing is taken back.
    let waits = may.confirm.is_some() && outcome.as_ref().is_ok_and(|it| !it.steps.is_empty());
    // Whose use is whose says a policy that is in force to stay.
    let is_kept = match outcome {
        Ok(_) => !waits || !session.use_changes_hands(),
        Err(_) => may.repair,
    };
    match (has_quotas, session.keeps_use()) {
        // What waits to be confirmed may be taken back.
        (false, _) if outcome.is_ok() && !waits => session.pause_use(),
        (true, _) if !is_kept => session.forget_use(),
        (true, Keeps::Run) => session.write_use(),
        _ => {}
    }
    // What may be taken back nobody is told.
    if let (Keeps::Run, Some(in_force), false) = (session.keeps_use(), in_force(&outcome), waits) {
        let _all_are = session.tell_accounts(in_force, usize::MAX);
    }
    outcome
}

/// Tells accounts what is theirs to know of what stands by a policy that no apply of this process
/// has put in force; where that is not known (`None`), they are told nothing any more.
pub fn tell(session: &mut Session, request: Option<&Request>) {
    // What of a quota is used is known to who counts it.
    session.keep_use(Keeps::Run);
    let known = request.and_then(|request| {
        let meaning = session.look(request).ok()?.meaning;
        let stands = meaning.observation.state.clone();
        Some(InForce::new(meaning, stands, BTreeMap::new()))
    });
    session.write_use();
    match known {
        Some(in_force) => drop(session.tell_accounts(&in_force, usize::MAX)),
        None => {
            if let Err(error) = told::forget_all(&session.kernel.name) {
                log::warn!("accounts are told of limits that are over: {error}");
            }
        }
    }
}

fn in_force(outcome: &Result<Applied, Failure>) -> Option<&InForce> {
    outcome.as_ref().ok()?.in_force.as_ref()
}

fn run(
    session: &mut Session,
    mut request: Request,
    may: ApplyOptions,
    gate: Gate<'_>,
) -> Result<Applied, Failure> {
    let policy = hash(&request.intent.policy.source.text);
    let applies = Arc::clone(&request.intent.policy);
    let Begun { locked, mounted, look, planned, left, moves, moved } =
        begin(session, &mut request, may, policy)?;
    let plan = planned.as_ref().map(|it| &it.0);
    let before = Before::new(look.meaning.observation.clone(), &look.scan.processes);
    let before = before.with_pinned(&session.kernel, &look.scan.processes, plan);
    let applied = Applied::beginning(mounted);
    let (journal, link_went) = (Journal::default(), false);
    let mut run =
        Run { session, locked: &locked, request, may, gate, applied, journal, link_went, moves };
    let outcome = run.finish(look, planned);
    let Run { mut applied, journal, .. } = run;
    // From here on every failure undoes the run's steps, once.
    let kept = outcome.and_then(|()| match may.repair {
        true => Ok(()),
        false => Ok(locked.forget_reverted()?),
    });
    let noted = locked.policy();
    if kept.is_ok() {
        noted::note(&locked, &applies, policy);
    }
    let time = may.confirm.filter(|_| !applied.steps.is_empty());
    let empties = left.is_some();
    // A guard would inherit the lock.
    let left = left.filter(|_| time.is_none());
    let (locked, outcome) = match time.filter(|_| kept.is_ok()) {
        Some(time) => {
            let noted = noted.as_ref();
            let (before, journal) = (&before, &journal);
            let change = confirm::Change { before, journal, policy, noted, time, moved, empties };
            let (locked, started) = confirm::start(&session.kernel.name, &change, locked);
            (locked, started.map_err(Trouble::from))
        }
        None => (locked, kept),
    };
    let Err(trouble) = outcome else {
        // The guard of a change that waits to be confirmed decides which place is emptied.
        if let Some(left) = left.filter(|_| time.is_none()) {
            end_move(&mut session.kernel, left);
        }
        applied.found = Some(before.into_observation());
        return Ok(applied);
    };
    noted::note_again(&locked, noted.as_ref());
    let aftermath = before.bring_back(&mut session.kernel, &locked, &journal);
    let paths = session.kernel.paths(applied.psched);
    let left = left.or_else(|| session.kernel.left()?.lock_left().ok());
    match left.filter(|_| moved) {
        Some(left) => {
            moving::back(&session.kernel, before.asked_cgroups(), locked, left);
            moving::unmount(&mut session.kernel, mounted);
        }
        None => leave_no_trace(&mut session.kernel, mounted, locked),
    }
    Err(match trouble {
        Trouble::Step(failed) => Failure::step(&failed, &paths, &aftermath),
        Trouble::Other(failure) => failure.in_the_middle(&aftermath),
    })
}

/// Ends the move of all claims from `left`: what cannot be removed there now, the next apply
/// removes.
fn end_move(kernel: &mut Kernel, left: Locked) {
    if let Err(failure) = moving::finish(kernel, left) {
        log::warn!("the next apply removes what is left of a move: {}", failure.message());
    }
}
