//! `shaper clear`: everything that carries our mark goes; the kernel puts its own defaults back.

use super::Output;
use super::report;
use crate::apply::{self, Applied, may_change};
use crate::cli::Global;
use crate::desired;
use crate::execute;
use crate::failure::Failure;
use crate::kernel::Kernel;
use crate::observe::{self, Wanted};
use crate::plan::{Step, diff};
use crate::sys::signal;

pub fn clear(global: &Global, allow_disruption: bool) -> Result<Output, Failure> {
    let mut kernel = super::open(global)?;
    may_change(&kernel)?;
    let lock = match kernel.instance().filter(|instance| instance.root().exists()) {
        Some(instance) => Some(instance.lock(global.wait)?),
        None => None,
    };
    if lock.is_some()
        && let Some(instance) = kernel.instance()
    {
        apply::nothing_pending(&instance)?;
    }
    signal::catch();
    let observation = observe::observe(&mut kernel, Wanted::default())?.observation;
    let mut plan = diff(&observation.state, &desired::nothing(&observation), &observation.foreign);
    let left = if allow_disruption { Vec::new() } else { plan.without_disruption() };
    // The lock is in the mount: it is released, and the instance's directory removed, before that.
    let unmount = plan.steps.iter().any(|planned| planned.step == Step::Unmount);
    let steps =
        plan.steps.iter().map(|planned| &planned.step).filter(|step| **step != Step::Unmount);
    execute::perform(&mut kernel, &observation.facts, steps, &mut |_, _| match signal::caught() {
        Some(signal) => Err(execute::Cause::Interrupted(signal)),
        None => Ok(()),
    })
    .map_err(|failed| {
        let paths = kernel.paths(observation.facts.psched);
        Failure::step(
            &failed,
            &paths,
            "what was removed before stays removed; run `shaper clear` again",
        )
    })?;
    drop(lock);
    if left.is_empty() {
        remove_directory(&mut kernel, unmount)?;
    }
    let mut applied = Applied { steps: plan.steps, left, ..Applied::default() };
    applied.messages = kernel.netlink.changes_sent();
    let mut output = match global.json {
        true => {
            Output::json(report::applied_json(&applied, &kernel.paths(observation.facts.psched)))
        }
        false if applied.steps.is_empty() && applied.left.is_empty() => {
            Output::text(if global.quiet {
                String::new()
            } else {
                "nothing to clear\n".to_string()
            })
        }
        false => Output::text(report::applied_text(&applied, global.quiet)),
    };
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    Ok(output)
}

fn remove_directory(kernel: &mut Kernel, unmount: bool) -> Result<(), Failure> {
    if let Some(instance) = kernel.instance() {
        instance.forget_reverted()?;
        instance.remove_if_empty()?;
    }
    if unmount {
        kernel.unmount()?;
    }
    Ok(())
}
