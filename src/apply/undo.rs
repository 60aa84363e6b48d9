//! Back to what was observed before: a plan like any other, and the roots that were taken over.

use crate::execute;
use crate::kernel::Kernel;
use crate::observe::{self, Wanted};
use crate::plan::diff;
use crate::process::{self, Moved};
use crate::state::{LinkFacts, LinkName, NetCls, Observation, RootQdisc};

/// Qdiscs that are whole without classes and filters of their own.
const CLASSLESS: [&str; 9] =
    ["fq_codel", "fq", "sfq", "cake", "tbf", "pfifo", "bfifo", "pfifo_head_drop", "codel"];

/// Brings back the state in `before`, and the processes that were moved since; on failure, what stands instead.
pub(super) fn undo(
    kernel: &mut Kernel,
    before: &Observation,
    moves: &[Moved],
) -> Result<(), String> {
    let mut state = before.state.clone();
    // The mount is taken back by whoever made it, once the lock in it is released.
    if state.net_cls == NetCls::Unmounted {
        state.net_cls = kernel.net_cls();
    }
    let now = look(kernel)?;
    let plan = diff(&now.state, &state, &now.foreign);
    let steps = plan.steps.iter().map(|planned| &planned.step);
    execute::perform(kernel, &now.facts, steps, &mut |_, _| Ok(()))
        .map_err(|failed| format!("`{}`: {failed}", failed.step))?;
    let now = look(kernel)?;
    let left = diff(&now.state, &state, &now.foreign);
    if !left.is_empty() {
        return Err(format!("this is still different:\n{left}"));
    }
    if let Some(instance) = kernel.instance() {
        process::put_back(&kernel.proc_root, &instance, moves)
            .map_err(|error| error.to_string())?;
    }
    for (name, link) in &before.facts.links {
        restore_root(kernel, name, link, &now)?;
    }
    Ok(())
}

fn look(kernel: &mut Kernel) -> Result<Observation, String> {
    observe::observe(kernel, Wanted::default())
        .map(|sight| sight.observation)
        .map_err(|error| error.to_string())
}

/// A foreign root that was taken over comes back, as far as it is one qdisc.
fn restore_root(
    kernel: &mut Kernel,
    name: &LinkName,
    before: &LinkFacts,
    now: &Observation,
) -> Result<(), String> {
    let RootQdisc::Foreign { kind, handle, options, .. } = &before.root else { return Ok(()) };
    let Some(link) = now.facts.links.get(name).filter(|link| link.root != before.root) else {
        return Ok(());
    };
    if !CLASSLESS.contains(&kind.as_str()) {
        return Err(format!(
            "the root qdisc that was taken over on {name} ({kind} {handle}) had classes of its own, which cannot be put back; the kernel's default stands there"
        ));
    }
    execute::restore_root(kernel, link.ifindex, kind, *handle, options).map_err(|error| {
        format!("the root qdisc that was taken over on {name} ({kind} {handle}) cannot be put back: {error}")
    })
}
