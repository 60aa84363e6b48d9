//! Takes away everything that carries our mark; the kernel puts its own defaults back.

use super::applied::Applied;
use super::confirm::nothing_pending;
use super::options::ApplyOptions;
use super::session::may_change;
use super::undo::Before;
use crate::cgroup::Root;
use crate::desired;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::execute::{self, Gate};
use crate::host::observe::{self, Wanted};
use crate::host::told;
use crate::plan::{Step, Whole, diff};
use crate::process;
use crate::sys::signal;

const UNMOUNT: Step = Step::Mount(Whole::Remove(()));

/// Clears the instance. `gate` is asked before each step.
///
/// # Errors
/// A refused step, after what was there before is back (or with words on what is not).
pub fn clear(kernel: &mut Kernel, may: ApplyOptions, gate: Gate<'_>) -> Result<Applied, Failure> {
    may_change(kernel)?;
    kernel.look_for_hierarchy()?;
    let stands = kernel.instance().is_some_and(|instance| instance.root().exists());
    let mut mounted = false;
    if !stands {
        // Somebody may have removed the directory that says so.
        told::forget_all(&kernel.name).map_err(Failure::refused)?;
        // There is no directory to lock; where there is nothing to clear either, none is made.
        let observation = observe::observe(kernel, Wanted::default())?.observation;
        let psched = observation.facts.psched;
        if diff(&observation, &desired::nothing(&observation)).is_empty() {
            let _left = kernel.remove_pinned(None);
            return Ok(Applied { psched, ..Applied::default() });
        }
        let no_net_cls = observe::no_net_cls(kernel)?.is_some();
        mounted = kernel.make_room(if no_net_cls { Root::Plain } else { Root::NetCls })?;
    }
    let locked = kernel.lock(may.wait)?;
    nothing_pending(&locked)?;
    signal::catch();
    let observation = observe::observe(kernel, Wanted::default())?.observation;
    let processes = process::scan(&kernel.proc_root).map_err(Failure::refused)?.processes;
    let mut plan = diff(&observation, &desired::nothing(&observation));
    let before = Before::new(observation.clone(), &processes);
    let before = before.with_pinned(kernel, &processes, Some(&plan));
    let left = if may.disrupt { Vec::new() } else { plan.without_disruption(&observation.state) };
    // The lock is in the hierarchy: the instance's directory is removed and the lock released
    // before the hierarchy is unmounted.
    let steps = || plan.steps.iter().map(|planned| &planned.step);
    let now = steps().filter(|step| **step != UNMOUNT);
    let (journal, done) = execute::perform(kernel, &locked, &observation.facts, now, gate);
    if let Err(failed) = done {
        let paths = kernel.paths(observation.facts.psched);
        return Err(Failure::step(&failed, &paths, &before.bring_back(kernel, &locked, &journal)));
    }
    let unmount = steps().any(|step| *step == UNMOUNT);
    if left.is_empty() {
        kernel.remove_left_pinned(&observation.state.claims);
        locked.forget_reverted()?;
        locked.forget_said()?;
        locked.forget_policy()?;
        if let Some(left) = kernel.left() {
            left.lock_left()?.remove_all()?;
        }
        if let Err(error) = told::forget_all(&kernel.name) {
            log::warn!("what users were told of their limits is left: {error}");
        }
        locked.remove_if_empty()?;
        drop(locked);
        if unmount {
            kernel.unmount()?;
        }
    }
    if mounted {
        // Unmounting what this run itself has mounted is no step.
        plan.steps.retain(|planned| planned.step != UNMOUNT);
    }
    let psched = observation.facts.psched;
    let messages = kernel.netlink.changes_sent();
    let found = Some(before.into_observation());
    Ok(Applied { steps: plan.steps, left, psched, messages, found, ..Applied::default() })
}
