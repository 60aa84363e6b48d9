//! The way of an instance's claims from one of its two places to the other, where the policy begins
//! or ceases to need `net_cls`; and the end of that way, forwards or back.
//!
//! The claims are copied first, with their classids, and the instance stands at the new place from
//! then on: nobody's class changes by that. Then processes are placed, or their connections given
//! to their users, while the old filter still answers; then the filters are exchanged, each packet
//! meeting the old or the new one; and at the very end the old place is emptied. What `run` and
//! `attach` put into a class goes along: from directories of `net_cls` to cgroups (v2), or back.

use std::collections::BTreeSet;

use super::session::{Look, Request, Session};
use crate::cgroup::{Attached, Error, Locked, Root, Unified};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe;
use crate::plan::Plan;
use crate::tree::{Claim, KernelState, NetCls, Owner};
use crate::units::ClassId;

/// A run that holds the lock and has looked.
pub(super) struct Begun {
    pub locked: Locked,
    /// The hierarchy had to be mounted.
    pub mounted: bool,
    pub look: Look,
    /// The plan from the look, where it was made already.
    pub planned: Option<(Plan, KernelState)>,
    /// The instance's other place, where it has something that is to go: this run, or one that was
    /// cut short, has moved all claims from there.
    pub left: Option<Locked>,
    /// All claims were moved here from the other place, by whichever run.
    pub moves: bool,
    /// It was this run that moved them.
    pub moved: bool,
}

/// Moves all claims to `root`, and looks again.
pub(super) fn begin(
    session: &mut Session,
    request: &Request,
    look: Look,
    from: Locked,
    root: Root,
) -> Result<Begun, Failure> {
    if root == Root::Plain {
        may_take_along(&session.kernel, &look, &from)?;
    }
    let mounted = session.kernel.make_room(root)?;
    let moved = take_over(&session.kernel, &look, &from, root);
    let outcome = match moved {
        Ok(locked) => match session.look_beyond(request, Some(look.scan)) {
            Ok(look) => {
                let left = Some(from);
                let planned = None;
                let (moves, moved) = (true, true);
                return Ok(Begun { locked, mounted, look, planned, left, moves, moved });
            }
            Err(failure) => {
                let asked = look.meaning.observation.state.asks_cgroups();
                back(&session.kernel, asked, locked, from);
                failure
            }
        },
        Err(error) => error.into(),
    };
    unmount(&mut session.kernel, mounted);
    Err(outcome)
}

/// Refuses what [`take_along`] would refuse after all claims were copied: whoever may not make
/// cgroups (v2), as the unit's daemon, is here again and again.
fn may_take_along(kernel: &Kernel, look: &Look, from: &Locked) -> Result<(), Error> {
    let Ok(unified) = Unified::find()? else { return Ok(()) };
    for (claim, owner, _) in pinned(look) {
        let mut members =
            from.members(claim)?.into_iter().filter(|pid| !is_put(kernel, *pid, owner));
        if let Some(path) = members.find_map(|pid| kernel.cannot_pin(&unified, pid, owner)) {
            return Err(Error::LeftBehind { path });
        }
    }
    Ok(())
}

/// The claims that `run` and `attach` put processes into, whose these are, and their classes.
fn pinned(look: &Look) -> impl Iterator<Item = (&Claim, &Owner, ClassId)> {
    let claims = look.meaning.observation.state.claims.iter();
    claims.filter_map(|(claim, class)| Some((claim, claim.pinned()?, *class)))
}

/// Whether the process is in a cgroup (v2) of the owner's.
fn is_put(kernel: &Kernel, pid: u32, owner: &Owner) -> bool {
    kernel.pinned_process(pid).is_some_and(|it| it.owner == *owner)
}

/// Copies all claims to `root`; where that fails nothing is left there.
fn take_over(kernel: &Kernel, look: &Look, from: &Locked, root: Root) -> Result<Locked, Error> {
    let locked = kernel.at(root).ok_or(Error::NotMounted)?.lock_left()?;
    let claims = &look.meaning.observation.state.claims;
    let taken = locked.note_namespace(kernel.netns).and_then(|()| locked.take_over(from, claims));
    match taken.and_then(|()| take_along(kernel, look, &locked, from)) {
        Ok(()) => Ok(locked),
        Err(error) => {
            let given_back = locked.give_back(from);
            let gone = locked.remove_all();
            log::debug!("after the failure: gave back {given_back:?}, removed {gone:?}");
            Err(error)
        }
    }
}

/// Has what `run` and `attach` put into a class stay in it, at the instance's new place; also what
/// a run that was killed meanwhile has not taken along.
///
/// # Errors
/// This process may not make cgroups (v2), and would take processes out of their classes.
pub(super) fn take_along(
    kernel: &Kernel,
    look: &Look,
    to: &Locked,
    from: &Locked,
) -> Result<(), Error> {
    let taken_along = match to.kind() {
        Root::Plain => to_cgroups(kernel, look, from),
        Root::NetCls => from_cgroups(kernel, to),
    };
    match taken_along {
        Err(Error::ReadOnly { path }) => Err(Error::LeftBehind { path }),
        Err(error) => {
            log::warn!("what `run` and `attach` put into a class counts by its owner: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// How often processes are looked for that others have forked meanwhile.
const MOST_PASSES: usize = 64;

/// Puts what is in directories for `run` and `attach` into cgroups (v2), whose sockets have the
/// same classes from then on; its older sockets count by their owners.
fn to_cgroups(kernel: &Kernel, look: &Look, from: &Locked) -> Result<(), Error> {
    for (claim, owner, class) in pinned(look) {
        let mut given_up = BTreeSet::new();
        for _ in 0..MOST_PASSES {
            let mut members = from.members(claim)?;
            members.retain(|pid| !is_put(kernel, *pid, owner) && !given_up.contains(pid));
            if members.is_empty() {
                break;
            }
            let Ok(unified) = Unified::find()? else { return Ok(()) };
            for pid in members {
                match kernel.pin(&unified, pid, owner, class) {
                    Ok(_) => {}
                    Err(error @ Error::ReadOnly { .. }) => return Err(error),
                    // One that cannot be put there keeps no other from it.
                    Err(error) => {
                        log::warn!("process {pid} counts by its owner: {error}");
                        given_up.insert(pid);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The opposite: where tags are read, what is in such cgroups goes into the claims' directories. It
/// stays in its cgroups as well, until [`finish`].
fn from_cgroups(kernel: &Kernel, to: &Locked) -> Result<(), Error> {
    for owner in kernel.pinned_owners()? {
        let claim = Claim::Pinned(owner.clone());
        for _ in 0..MOST_PASSES {
            let there = to.members(&claim)?;
            let mut members = kernel.pinned_members(&owner)?;
            members.retain(|pid| !there.contains(pid));
            let put = members.into_iter().map(|pid| to.attach(pid, &claim));
            let put: Vec<Attached> = put.collect::<Result<_, _>>()?;
            if !put.contains(&Attached::Moved) {
                break;
            }
        }
    }
    Ok(())
}

/// Empties the place from which all claims were moved, and unmounts a hierarchy of ours that nobody
/// needs any more.
///
/// # Errors
/// A directory that cannot be removed.
pub(super) fn finish(kernel: &mut Kernel, left: Locked) -> Result<(), Failure> {
    let was_net_cls = left.places();
    left.remove_all()?;
    drop(left);
    if !was_net_cls && !observe::open_owners(kernel)? {
        let _left = kernel.remove_pinned(None);
    }
    unmount(kernel, was_net_cls && kernel.net_cls() == NetCls::Ours);
    Ok(())
}

/// Puts the instance back where it stood before this run, and empties the new place. Where no
/// program asked for cgroups before (`asked`), those that were made go as well.
pub(super) fn back(kernel: &Kernel, asked: bool, new: Locked, old: Locked) {
    if old.places() && !asked {
        let _left = kernel.remove_pinned(None);
    }
    let came_of_it = new.give_back(&old).and_then(|()| new.remove_all());
    if let Err(error) = came_of_it {
        log::warn!("the claims are in two places now, until the next apply: {error}");
    }
    drop((new, old));
    log::debug!("the instance is back at {:?}", kernel.instance());
}

/// Unmounts a hierarchy of ours (`is_ours`) that nobody needs any more.
pub(super) fn unmount(kernel: &mut Kernel, is_ours: bool) {
    if is_ours && kernel.is_empty_hierarchy() {
        let unmounted = kernel.unmount();
        log::debug!("without use for net_cls: unmounted {unmounted:?}");
    }
}
