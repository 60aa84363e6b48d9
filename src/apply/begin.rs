//! How a run begins: it locks the instance and looks; and how a failed one leaves no trace.

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
    /// What follows from the look, where that was found out already.
    pub planned: Option<(Plan, KernelState)>,
}

/// Looks and plans under the lock. Where the instance has no directory yet, so that there is
/// nothing to lock, it is looked and planned before anything is made: whatever is wrong with the
/// policy is said before anything is touched.
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
    // Who runs is known, and sits where he sat: reading them all again would take a second for
    // 20,000.
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

/// The instance's lock, where no change waits to be confirmed and the policy was not taken back.
fn lock(kernel: &Kernel, may: ApplyOptions, policy: u64) -> Result<Locked, Failure> {
    let locked = kernel.lock(may.wait)?;
    confirm::allowed(&locked, policy, may.force)?;
    Ok(locked)
}

/// After a failed run: an instance directory without claims goes, under the lock, so that whoever
/// waits for it finds out; then, the lock released, a mount that this run made.
pub(super) fn leave_no_trace(kernel: &mut Kernel, mounted: bool, locked: Locked) {
    // Undoing may have mounted the hierarchy anew.
    let instance = kernel.instance().ok_or(cgroup::Error::NotMounted);
    let now = instance.and_then(|instance| locked.at(instance, Duration::ZERO));
    let gone = now.and_then(|locked| locked.remove_if_empty());
    drop(locked);
    log::debug!("after the failure: removed {gone:?}");
    unmount_unused(kernel, mounted);
}

/// A mount that this run made goes, unless somebody's directory of the instance stands there.
fn unmount_unused(kernel: &mut Kernel, mounted: bool) {
    if mounted && kernel.instance().is_some_and(|instance| !instance.root().exists()) {
        let unmounted = kernel.unmount();
        log::debug!("after the failure: unmounted {unmounted:?}");
    }
}
