//! How a run begins, locking the instance and looking, and how a failed one leaves no trace.

use std::time::Duration;

use super::confirm;
use super::options::ApplyOptions;
use super::session::{Look, Request, Session};
use crate::cgroup::{self, Locked};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::plan::Plan;
use crate::sys::signal;
use crate::tree::KernelState;

/// A run that holds the lock and has looked.
pub(super) struct Begun {
    pub locked: Locked,
    /// The hierarchy had to be mounted.
    pub mounted: bool,
    pub look: Look,
    /// The plan from the look, where it was made already.
    pub planned: Option<(Plan, KernelState)>,
}

/// Looks and plans under the lock. Where the instance has no directory yet, and so nothing to lock,
/// looking and planning come first: a policy that is wrong is refused before anything is made.
pub(super) fn begin(
    session: &mut Session,
    request: &mut Request,
    may: ApplyOptions,
    policy: u64,
) -> Result<Begun, Failure> {
    session.kernel.look_for_hierarchy()?;
    let stands = session.kernel.instance().is_some_and(|instance| instance.root().exists());
    let locked = stands.then(|| lock(&session.kernel, may, policy)).transpose()?;
    let mut look = session.look(request)?;
    let planned = session.plan(&request.intent, &mut look.meaning)?;
    signal::catch();
    if let Some(locked) = locked {
        return Ok(Begun { locked, mounted: false, look, planned: Some(planned) });
    }
    let mounted = session.kernel.mount()?;
    // The processes of the first look are still where they were, and are not read again, which
    // would take a second for 20,000.
    let seen = match mounted {
        false => Some(look.scan),
        true if session.kernel.is_empty_hierarchy() => Some(look.scan.in_new_hierarchy()),
        true => None,
    };
    request.intent.good = look.meaning.good_links();
    // Taking the lock makes the directory. Another run may have made it since.
    let locked = lock(&session.kernel, may, policy)
        .inspect_err(|_| unmount_unused(&mut session.kernel, mounted))?;
    match session.look_beyond(request, seen) {
        Ok(look) => Ok(Begun { locked, mounted, look, planned: None }),
        Err(failure) => {
            leave_no_trace(&mut session.kernel, mounted, locked);
            Err(failure)
        }
    }
}

/// Takes the instance's lock; refused where a change waits to be confirmed, or this policy was
/// undone before.
fn lock(kernel: &Kernel, may: ApplyOptions, policy: u64) -> Result<Locked, Failure> {
    let locked = kernel.lock(may.wait)?;
    confirm::allowed(&locked, policy, may.force)?;
    Ok(locked)
}

/// After a failed run: removes an instance directory without claims, under the lock, so that a run
/// that waits for the lock finds out; then, once the lock is released, unmounts a mount that this
/// run made.
pub(super) fn leave_no_trace(kernel: &mut Kernel, mounted: bool, locked: Locked) {
    // The undo may have mounted the hierarchy anew.
    let instance = kernel.instance().ok_or(cgroup::Error::NotMounted);
    let now = instance.and_then(|instance| locked.at(instance, Duration::ZERO));
    let gone = now.and_then(|locked| locked.remove_if_empty());
    drop(locked);
    log::debug!("after the failure: removed {gone:?}");
    unmount_unused(kernel, mounted);
}

/// Unmounts what this run mounted, unless the instance has a directory there, which another run
/// made.
fn unmount_unused(kernel: &mut Kernel, mounted: bool) {
    if mounted && kernel.instance().is_some_and(|instance| !instance.root().exists()) {
        let unmounted = kernel.unmount();
        log::debug!("after the failure: unmounted {unmounted:?}");
    }
}
