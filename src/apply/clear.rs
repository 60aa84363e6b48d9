//! Takes away everything that carries our mark; the kernel puts its own defaults back.

use super::confirm::nothing_pending;
use super::undo::Before;
use super::{Applied, ApplyOptions, may_change};
use crate::desired;
use crate::facts::Observation;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::execute::{self, Gate};
use crate::host::observe::{self, Wanted};
use crate::plan::{Journal, Plan, Step, Whole, diff};
use crate::process;
use crate::sys::signal;

/// Clears the instance. `gate` is asked before each step.
///
/// # Errors
/// A refused step, after what was there before is back (or with words on what is not).
pub fn clear(kernel: &mut Kernel, may: ApplyOptions, gate: Gate<'_>) -> Result<Applied, Failure> {
    may_change(kernel)?;
    kernel.look_for_hierarchy()?;
    let standing = kernel.instance().filter(|instance| instance.root().exists());
    let lock = standing.map(|instance| instance.lock(may.wait)).transpose()?;
    if let Some(instance) = kernel.instance().filter(|_| lock.is_some()) {
        nothing_pending(&instance)?;
    }
    signal::catch();
    let observation = observe::observe(kernel, Wanted::default())?.observation;
    let processes = process::scan(&kernel.proc_root).map_err(Failure::refused)?.processes;
    let before = Before::new(observation.clone(), &processes);
    let mut plan = diff(&observation, &desired::nothing(&observation));
    let left = if may.disrupt { Vec::new() } else { plan.without_disruption() };
    let mut journal = Journal::default();
    let done = take_away(kernel, &observation, &plan, gate, &mut journal);
    let unmount = done.map_err(|failed| {
        let paths = kernel.paths(observation.facts.psched);
        Failure::step(&failed, &paths, &before.bring_back(kernel, &journal))
    })?;
    if left.is_empty() {
        if let Some(instance) = kernel.instance() {
            instance.forget_reverted()?;
            instance.forget_said()?;
            instance.remove_if_empty()?;
        }
        drop(lock);
        if unmount {
            kernel.unmount()?;
        }
    }
    let psched = observation.facts.psched;
    let messages = kernel.netlink.changes_sent();
    Ok(Applied { steps: plan.steps, left, psched, messages, ..Applied::default() })
}

/// Performs all but the unmounting, and says whether that is still to do: the lock is in the mount,
/// so the instance's directory is removed, and it is released, before that.
fn take_away(
    kernel: &mut Kernel,
    observation: &Observation,
    plan: &Plan,
    gate: Gate<'_>,
    journal: &mut Journal,
) -> Result<bool, execute::Failed> {
    let steps = plan.steps.iter().map(|planned| &planned.step);
    let unmount = Step::Mount(Whole::Remove(()));
    let now = steps.clone().filter(|step| **step != unmount);
    execute::perform(kernel, &observation.facts, now, gate, journal)?;
    Ok(steps.clone().any(|step| *step == unmount))
}
