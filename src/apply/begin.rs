//! How a run begins, locking the instance and looking, and how a failed one leaves no trace.

use std::time::Duration;

use super::confirm;
use super::moving::{self, Begun};
use super::options::ApplyOptions;
use super::session::{Request, Session};
use crate::cgroup::{self, Locked, Root};
use crate::desired;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Meaning;
use crate::sys::signal;

/// Looks and plans under the lock. Where the instance has no directory yet, and so nothing to lock,
/// looking and planning come first: a policy that is wrong is refused before anything is made.
pub(super) fn begin(
    session: &mut Session,
    request: &mut Request,
    may: ApplyOptions,
    policy: u64,
) -> Result<Begun, Failure> {
    session.kernel.look_for_hierarchy()?;
    let locked = lock_standing(&session.kernel, may, policy)?;
    let mut look = session.look(request)?;
    if let Some(locked) = &locked {
        let observation = &mut look.meaning.observation;
        session.kernel.tidy(locked, &observation.state.claims);
        let pinned = &mut observation.facts.pinned_cgroups;
        if !pinned.is_empty() {
            let gone = session.kernel.sweep_pinned();
            pinned.retain(|cgroup, _| !gone.contains(cgroup));
        }
    }
    let planned = session.plan(&request.intent, &mut look.meaning)?;
    signal::catch();
    let root = root_of(&look.meaning);
    if let Some(locked) = locked {
        if locked.kind() != root {
            return moving::begin(session, request, look, locked, root);
        }
        let mut left = session.kernel.left().map(|left| left.lock_left()).transpose()?;
        let moves = left.is_some();
        if let Some(other) = &left {
            match moving::take_along(&session.kernel, &look, &locked, other) {
                // What is in the other place stays there, for whoever may take it along. A daemon
                // that may not has others to see to meanwhile.
                Err(error @ cgroup::Error::LeftBehind { .. }) => {
                    log::warn!("the apply goes on all the same: {error}");
                    left = None;
                }
                taken_along => taken_along?,
            }
        }
        let planned = Some(planned);
        return Ok(Begun { locked, mounted: false, look, planned, left, moves, moved: false });
    }
    let mounted = session.kernel.make_room(root)?;
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
        Ok(look) => {
            let (planned, left) = (None, None);
            Ok(Begun { locked, mounted, look, planned, left, moves: false, moved: false })
        }
        Err(failure) => {
            leave_no_trace(&mut session.kernel, mounted, locked);
            Err(failure)
        }
    }
}

/// Where the instance has its directories with this policy.
pub(super) fn root_of(meaning: &Meaning) -> Root {
    match desired::reads_tags(&meaning.model, &meaning.facts().features) {
        true => Root::NetCls,
        false => Root::Plain,
    }
}

/// Takes the lock of the instance where it stands; `None`: it stands nowhere. Another run may have
/// moved it while the lock was waited for.
fn lock_standing(
    kernel: &Kernel,
    may: ApplyOptions,
    policy: u64,
) -> Result<Option<Locked>, Failure> {
    loop {
        match kernel.instance().filter(|instance| instance.root().exists()) {
            None => return Ok(None),
            Some(instance) => {
                let locked = lock(kernel, may, policy)?;
                let stands = kernel.instance();
                if stands.is_none_or(|now| now.kind() == instance.kind()) {
                    return Ok(Some(locked));
                }
            }
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
