//! What `run` and `attach` put into a class where no tags are read: cgroups (v2) of the instance,
//! whose sockets have the class in the map that the deciding programs ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use log::{debug, warn};

use super::Kernel;
use crate::cgroup::{self, Attached, Locked, PinnedCgroup, TRIES, Unified};
use crate::classify::cgroups::DEEPEST;
use crate::process;
use crate::tree::{Cgroup, Claim, Owner, Turn};
use crate::units::ClassId;

impl Kernel {
    /// The instance's cgroups; none where cgroup v2 is not mounted, or seen as a whole.
    ///
    /// # Errors
    /// The hierarchy cannot be listed.
    pub fn pinned(&self) -> Result<Vec<PinnedCgroup>, cgroup::Error> {
        match Unified::find()? {
            Ok(unified) => unified.pinned(&self.name, DEEPEST),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The cgroup of the instance's in which a process is, with its sockets from then on.
    pub fn pinned_process(&self, pid: u32) -> Option<PinnedCgroup> {
        let path = self.unified_path(pid)?;
        Unified::find().ok()?.ok()?.pinned_at(&path, &self.name)
    }

    /// Where in cgroup v2 a process is.
    pub(super) fn unified_path(&self, pid: u32) -> Option<String> {
        let text = fs::read(self.proc_root.join(format!("{pid}/cgroup"))).ok()?;
        process::unified_path(&text)
    }

    /// Puts a process into a cgroup of the owner's, below the one in which it is, so that its
    /// sockets are in this class from now on; those that it has stay whose they are. To be called
    /// with the instance's lock, or a run may put other maps in the place of these meanwhile.
    ///
    /// # Errors
    /// The cgroup cannot be made, or is too deep; the map cannot be written.
    pub fn pin(
        &self,
        unified: &Unified,
        pid: u32,
        owner: &Owner,
        class: ClassId,
    ) -> Result<Attached, cgroup::Error> {
        for _ in TRIES {
            let Some(path) = self.unified_path(pid) else { return Ok(Attached::Dead) };
            let tell = |cgroup| match &self.owners {
                Some(maps) => {
                    let given = maps.give_cgroup((cgroup, Turn::First), class);
                    given.map_err(|source| cgroup::Error::Untold { source })
                }
                None => Ok(()),
            };
            let put = unified.pin((pid, &path), (&self.name, owner), DEEPEST, tell)?;
            if put != Attached::NoDirectory {
                return Ok(put);
            }
        }
        Ok(Attached::NoDirectory)
    }

    /// In which cgroup [`Kernel::pin`] would put a process, where the hierarchy is read-only there.
    pub fn cannot_pin(&self, unified: &Unified, pid: u32, owner: &Owner) -> Option<PathBuf> {
        let path = self.unified_path(pid)?;
        unified.is_read_only(&path).then(|| unified.place(&path, (&self.name, owner)))
    }

    /// Takes a process out of the instance's cgroups, into the one above.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn unpin(&self, pid: u32) -> Result<Attached, cgroup::Error> {
        let Ok(unified) = Unified::find()? else { return Ok(Attached::Moved) };
        for _ in TRIES {
            let Some(path) = self.unified_path(pid) else { return Ok(Attached::Dead) };
            let Some(pinned) = unified.pinned_at(&path, &self.name) else {
                return Ok(Attached::Moved);
            };
            if unified.release(pid, &pinned)? == Attached::Dead {
                return Ok(Attached::Dead);
            }
        }
        Ok(Attached::NoDirectory)
    }

    /// The processes that are in cgroups of the owner's.
    ///
    /// # Errors
    /// The hierarchy cannot be read.
    pub fn pinned_members(&self, owner: &Owner) -> Result<Vec<u32>, cgroup::Error> {
        let Ok(unified) = Unified::find()? else { return Ok(Vec::new()) };
        let mut members = Vec::new();
        for pinned in unified.pinned(&self.name, DEEPEST)?.iter().filter(|it| it.owner == *owner) {
            members.extend(unified.members(pinned)?);
        }
        Ok(members)
    }

    /// The processes that are in cgroups of the instance's, and whose these are.
    ///
    /// # Errors
    /// The hierarchy cannot be read.
    pub fn pinned_processes(&self) -> Result<BTreeMap<u32, Owner>, cgroup::Error> {
        let Ok(unified) = Unified::find()? else { return Ok(BTreeMap::new()) };
        let mut processes = BTreeMap::new();
        for pinned in unified.pinned(&self.name, DEEPEST)? {
            let members = unified.members(&pinned)?.into_iter();
            processes.extend(members.map(|pid| (pid, pinned.owner.clone())));
        }
        Ok(processes)
    }

    /// The owners whose cgroups have a process.
    ///
    /// # Errors
    /// The hierarchy cannot be listed.
    pub fn pinned_owners(&self) -> Result<BTreeSet<Owner>, cgroup::Error> {
        let Ok(unified) = Unified::find()? else { return Ok(BTreeSet::new()) };
        let found = unified.pinned(&self.name, DEEPEST)?.into_iter();
        Ok(found.filter(|it| unified.is_occupied(it)).map(|it| it.owner).collect())
    }

    /// Removes the instance's cgroups in which nobody is any more; which ones those were.
    pub fn sweep_pinned(&self) -> BTreeSet<Cgroup> {
        let swept = Unified::find().and_then(|unified| {
            let Ok(unified) = unified else { return Ok(BTreeSet::new()) };
            // What is deeper goes first.
            let all = unified.pinned(&self.name, DEEPEST)?.into_iter().rev();
            let gone = all.filter(|it| unified.remove_if_empty(it));
            Ok(gone.map(|it| it.cgroup).collect())
        });
        swept.unwrap_or_else(|error| {
            debug!("cgroups without processes: {error}");
            BTreeSet::new()
        })
    }

    /// Removes the owner's cgroups, or all of the instance's; the processes in them go to the ones
    /// above. Whether they are gone: not where this process may not write there, or a process has
    /// no way back.
    pub fn remove_pinned(&self, of: Option<&Owner>) -> bool {
        said(self.remove_those(|it| of.is_none_or(|owner| it.owner == *owner)))
    }

    /// Removes what is left of all of the instance's cgroups once these claims are removed. Why one
    /// of theirs stays was said as its claim went.
    pub fn remove_left_pinned(&self, claims: &BTreeMap<Claim, ClassId>) {
        // Once more: one may have been in the way of another, which has gone by now.
        if let Err(error) = self.remove_those(|_| true) {
            debug!("{error}");
        }
        let _left =
            said(self.remove_those(|it| !claims.contains_key(&Claim::Pinned(it.owner.clone()))));
    }

    fn remove_those(&self, which: impl Fn(&PinnedCgroup) -> bool) -> Result<(), cgroup::Error> {
        let Ok(unified) = Unified::find()? else { return Ok(()) };
        let all = unified.pinned(&self.name, DEEPEST)?;
        // What is deeper goes first.
        let outcomes: Vec<_> =
            all.iter().rev().filter(|it| which(it)).map(|it| unified.remove(it)).collect();
        outcomes.into_iter().collect()
    }

    /// Removes cgroups whose claims went while nobody might remove them, as it is noted. Until then
    /// what is in them counts by its owner.
    pub fn tidy(&self, locked: &Locked, claims: &BTreeMap<Claim, ClassId>) {
        if !locked.has_unswept() {
            return;
        }
        let is_left = |it: &PinnedCgroup| !claims.contains_key(&Claim::Pinned(it.owner.clone()));
        let tidied = self.remove_those(is_left).and_then(|()| locked.forget_unswept());
        if let Err(error) = tidied {
            debug!("cgroups without a claim: {error}");
        }
    }
}

/// Says why cgroups stay; whether they are gone.
fn said(outcome: Result<(), cgroup::Error>) -> bool {
    match outcome {
        Ok(()) => return true,
        // The unit's daemon (ProtectControlGroups=): who removes them says [`Kernel::tidy`].
        Err(error) if error.errno() == Some(libc::EROFS) => debug!("{error}"),
        Err(error) => warn!("{error}"),
    }
    false
}
