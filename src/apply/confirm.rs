//! A change made over the very link that it shapes: unless somebody confirms it in time, a guard
//! process puts back what was there before.

use std::time::{Duration, Instant};

use super::undo::Before;
use crate::cgroup::{Attached, Instance, Lock};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::plan::Journal;
use crate::sys::guard::{self, Detached};
use crate::text::record;

/// How long the guard waits for another run to finish before it takes the change back.
const PATIENCE: Duration = Duration::from_secs(60);

/// What names a policy whose change was taken back: FNV-1a of its text.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Refuses when a change waits to be confirmed, or when this very policy was taken back.
pub(super) fn allowed(instance: &Instance, policy: u64, force: bool) -> Result<(), Failure> {
    nothing_pending(instance)?;
    if !force && instance.is_reverted(policy) {
        return Err(Failure::Usage(
            "this policy was applied before and taken back, because nobody confirmed it; change it, or apply it with --force"
                .to_string(),
        ));
    }
    Ok(())
}

/// Refuses while a change waits to be confirmed.
pub(super) fn nothing_pending(instance: &Instance) -> Result<(), Failure> {
    if let Some(guard) = instance.guards()?.first() {
        return Err(Failure::Locked(format!(
            "a change waits to be confirmed (guard process {guard}): `shaper confirm` keeps it, otherwise it is taken back when its time is over"
        )));
    }
    // What a guard that was killed left.
    Ok(instance.end_confirmation()?)
}

/// What the guard takes back.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub before: &'a Before,
    /// What the run did.
    pub journal: &'a Journal,
    /// The policy's [`hash`].
    pub policy: u64,
    /// How long it waits.
    pub time: Duration,
}

/// Starts the guard while the lock is still held, so that no other run comes between. Returns in
/// the process that called; the guard never does.
pub(super) fn start(
    kernel: &Kernel,
    change: &Change<'_>,
    lock: &mut Option<Lock>,
) -> Result<(), Failure> {
    let Some(instance) = kernel.instance() else { return Ok(()) };
    match guard::detach()
        .map_err(|error| Failure::refused(format!("cannot start a guard: {error}")))?
    {
        Detached::Parent(pid) => match instance.set_guard(pid)? {
            Attached::Moved => Ok(()),
            other => Err(Failure::refused(format!("the guard process ended at once: {other:?}"))),
        },
        Detached::Guard => {
            // The parent's lock is shared with us through the descriptor.
            drop(lock.take());
            watch_over(&kernel.name, &instance, change);
            std::process::exit(0)
        }
    }
}

fn watch_over(name: &str, instance: &Instance, change: &Change<'_>) {
    let Change { before, journal, policy, time } = *change;
    if guard::wait(time) {
        if let Err(error) = instance.end_confirmation() {
            say(&format!("shaper: confirmed, but: {error}"));
        }
        return;
    }
    // Others may have waited for the same moment.
    let _lock = instance.lock(PATIENCE);
    // First of all: were this process killed before it is done, nobody would bring back by accident
    // what nobody confirmed.
    let noted = instance.set_reverted(policy);
    let came_of_it = match Kernel::open(Some(name)) {
        Ok(mut kernel) => before.bring_back(&mut kernel, journal),
        Err(error) => error.to_string(),
    };
    say(&format!("shaper: nobody confirmed the change: {came_of_it}"));
    if let Err(error) = noted.and_then(|()| instance.end_confirmation()) {
        say(&format!("shaper: {error}"));
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
    let nothing = || Failure::Usage("no change waits to be confirmed".to_string());
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
