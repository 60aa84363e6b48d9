//! A change made over the very link that it shapes: unless somebody confirms it in time, a guard
//! process puts back what was there before.

use std::time::{Duration, Instant, SystemTime};

use super::moving;
use super::noted::note_again;
use super::undo::Before;
use crate::cgroup::{self, Attached, Locked, PolicyNote};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::plan::Journal;
use crate::sys::guard::{self, Detached};
use crate::text::record;
use crate::tree::NetCls;

/// How long the guard waits for another run to finish before it undoes the change.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an apply or a confirmation is refused because of earlier confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unconfirmed {
    /// The policy's hash is among those that a guard noted.
    #[error(
        "this policy was applied before and taken back, because nobody confirmed it; change it, or apply it with --force"
    )]
    TakenBack,
    /// No guard waits.
    #[error("no change waits to be confirmed")]
    NothingPending,
}

impl From<Unconfirmed> for Failure {
    fn from(refused: Unconfirmed) -> Failure {
        Failure::Usage(refused.to_string())
    }
}

/// The hash by which a policy is noted whose change was undone: FNV-1a of its text.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Refuses while a change waits to be confirmed, or if this policy was undone before.
pub(super) fn allowed(instance: &Locked, policy: u64, force: bool) -> Result<(), Failure> {
    nothing_pending(instance)?;
    if !force && instance.is_reverted(policy) {
        return Err(Unconfirmed::TakenBack.into());
    }
    Ok(())
}

/// Refuses while a change waits to be confirmed.
pub(super) fn nothing_pending(instance: &Locked) -> Result<(), Failure> {
    if let Some(guard) = instance.guards()?.first() {
        return Err(Failure::Locked(format!(
            "a change waits to be confirmed (guard process {guard}): `shaper confirm` keeps it, otherwise it is taken back when its time is over"
        )));
    }
    // Removes what a guard that was killed has left.
    Ok(instance.end_confirmation()?)
}

/// The change that the guard undoes.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub before: &'a Before,
    /// What the run did.
    pub journal: &'a Journal,
    /// The policy's [`hash`].
    pub policy: u64,
    /// What was noted as the policy in force.
    pub noted: Option<&'a PolicyNote>,
    /// How long the guard waits.
    pub time: Duration,
    /// This run has moved all claims here from the instance's other place.
    pub moved: bool,
    /// Nothing is left in that place that somebody else has to take along: who confirms empties it.
    pub empties: bool,
}

/// Starts the guard while the lock is still held, so that no other run comes between. Returns in
/// the process that called, with the lock; the guard never does.
pub(super) fn start(
    name: &str,
    change: &Change<'_>,
    locked: Locked,
) -> (Locked, Result<(), Failure>) {
    let refused = |error| Failure::refused(format!("cannot start a guard: {error}"));
    let guard = match guard::detach().map_err(refused) {
        Err(failure) => return (locked, Err(failure)),
        Ok(Detached::Guard) => {
            // The parent's lock is shared with us through the descriptor.
            drop(locked);
            watch_over(name, change);
            std::process::exit(0)
        }
        Ok(Detached::Parent(pid)) => locked.set_guard(pid, SystemTime::now() + change.time),
    };
    let seated = match guard {
        Ok(Attached::Moved | Attached::Counted) => Ok(()),
        Ok(other) => Err(Failure::refused(format!("the guard process ended at once: {other:?}"))),
        Err(error) => Err(error.into()),
    };
    (locked, seated)
}

fn watch_over(name: &str, change: &Change<'_>) {
    let is_confirmed = guard::wait(change.time);
    let outcome = lock_when_free(name).and_then(|(mut kernel, locked)| {
        let left = kernel.left().map(|left| left.lock_left()).transpose()?;
        if is_confirmed {
            if let Some(left) = left.filter(|_| change.empties) {
                moving::finish(&mut kernel, left)?;
            }
            return Ok(locked.end_confirmation()?);
        }
        // The note comes first: if this process is killed before the undo is done, nobody applies
        // the unconfirmed policy again by accident.
        let noted = locked.set_reverted(change.policy);
        let came_of_it = change.before.bring_back(&mut kernel, &locked, change.journal);
        note_again(&locked, change.noted);
        say(&format!("shaper: nobody confirmed the change: {came_of_it}"));
        let ended = noted.and_then(|()| locked.end_confirmation());
        if let Some(left) = left.filter(|_| change.moved) {
            let noted_there = left.set_reverted(change.policy);
            let was_net_cls = locked.places();
            moving::back(&kernel, change.before.asked_cgroups(), locked, left);
            let is_ours = was_net_cls && kernel.net_cls() == NetCls::Ours;
            moving::unmount(&mut kernel, is_ours);
            noted_there?;
        }
        Ok(ended?)
    });
    match outcome {
        Ok(()) => {}
        Err(failure) if is_confirmed => {
            say(&format!("shaper: confirmed, but: {}", failure.message()));
        }
        Err(failure) => say(&format!("shaper: {}", failure.message())),
    }
}

/// Locks the instance as soon as no other run has the lock, however long that takes: the undo was
/// promised, but must not happen beside another run. The kernel is opened anew, because handles
/// from before the fork are shared with the parent.
fn lock_when_free(name: &str) -> Result<(Kernel, Locked), Failure> {
    let mut kernel = Kernel::open(Some(name))?;
    // The hierarchy may have been unmounted meanwhile, and still has its directories.
    if kernel.instance().is_none() {
        kernel.mount()?;
    }
    loop {
        match kernel.lock(PATIENCE) {
            Err(error @ cgroup::Error::Locked { .. }) => say(&format!("shaper: {error}")),
            other => return Ok((kernel, other?)),
        }
    }
}

/// The guard has no terminal: the kernel's log is where an administrator looks after such a change.
fn say(sentence: &str) {
    if let Err(error) = std::fs::write("/dev/kmsg", record(sentence)) {
        log::warn!("{sentence} ({error})");
    }
}

/// Keeps the pending change.
pub fn confirm(kernel: &Kernel) -> Result<(), Failure> {
    let nothing = || Failure::from(Unconfirmed::NothingPending);
    let instance = kernel.instance().ok_or_else(nothing)?;
    let guards = instance.guards()?;
    if guards.is_empty() {
        return Err(nothing());
    }
    for pid in guards {
        guard::confirm(pid).map_err(|error| {
            Failure::refused(format!("cannot tell the guard process {pid}: {error}"))
        })?;
    }
    let until = Instant::now() + PATIENCE;
    while !instance.guards()?.is_empty() {
        if Instant::now() > until {
            return Err(Failure::refused("the guard process does not end; look at it with ps"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match instance.has_reverted() {
        true => Err(Failure::refused("too late: the change was taken back just now")),
        false => Ok(()),
    }
}
