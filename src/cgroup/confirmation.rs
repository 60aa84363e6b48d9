//! A change that waits to be confirmed. The guard, the process that will undo it, is in the
//! instance's directory `confirm`, so the kernel says whether a confirmation is pending. A policy
//! that was undone leaves an empty directory `reverted/<hash>`. Neither directory has a classid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{
    Attached, PROCS, make_directory, members_of, move_process, remove_with_notes, subdirectories,
};
use super::error::Error;
use super::instance::Instance;
use super::layout::{CONFIRM, REVERTED};
use super::lock::Locked;

/// How the name begins by which the guard is known where no process is in the directory: its pid
/// and its start time follow.
const GUARD: &str = "guard-";

/// The start time of a living process, in clock ticks since boot, as `/proc` has it.
fn born_at(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18).map(str::to_string)
}

impl Instance {
    /// The pids of the guards of a pending confirmation; empty: none is pending.
    pub fn guards(&self) -> Result<Vec<u32>, Error> {
        let path = self.root().join(CONFIRM);
        if self.places() {
            return members_of(&path);
        }
        let names = subdirectories(&path)?;
        let guards = names.iter().filter_map(|name| {
            let (pid, born) = name.strip_prefix(GUARD)?.split_once('-')?;
            (born_at(pid)? == born).then(|| pid.parse().ok())?
        });
        Ok(guards.collect())
    }

    /// When the pending change is taken back, in whole seconds; `None`: that is not known.
    pub fn confirm_until(&self) -> Option<SystemTime> {
        let names = subdirectories(&self.root().join(CONFIRM)).ok()?;
        let whens = names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok());
        let last = whens.filter(|when| *when < u64::MAX / 2).max()?;
        Some(UNIX_EPOCH + Duration::from_secs(last))
    }

    /// Whether a change waited to be confirmed and its guard was killed: the change may be half
    /// undone.
    pub fn lost_guard(&self) -> Result<bool, Error> {
        Ok(self.root().join(CONFIRM).is_dir() && self.guards()?.is_empty())
    }

    /// Whether the policy with this hash was undone because nobody confirmed it.
    pub fn is_reverted(&self, hash: u64) -> bool {
        self.root().join(REVERTED).join(format!("{hash:016x}")).is_dir()
    }

    /// Whether any policy was taken back since the last one that was kept.
    pub fn has_reverted(&self) -> bool {
        self.root().join(REVERTED).is_dir()
    }
}

impl Locked {
    /// Makes a process the guard, which takes the change back at `until`.
    pub fn set_guard(&self, pid: u32, until: SystemTime) -> Result<Attached, Error> {
        let path = self.root().join(CONFIRM);
        make_directory(&path)?;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        make_directory(&path.join(format!("{until:x}")))?;
        if self.places() {
            return move_process(pid, &path.join(PROCS));
        }
        let Some(born) = born_at(&pid.to_string()) else { return Ok(Attached::Dead) };
        make_directory(&path.join(format!("{GUARD}{pid}-{born}")))?;
        Ok(Attached::Counted)
    }

    /// Ends the pending confirmation: the guards, if any are left, go to the hierarchy's root.
    pub fn end_confirmation(&self) -> Result<(), Error> {
        for pid in self.guards()? {
            self.release(pid)?;
        }
        remove_with_notes(&self.root().join(CONFIRM))
    }

    /// Notes that the policy with this hash was undone.
    pub fn set_reverted(&self, hash: u64) -> Result<(), Error> {
        let path = self.root().join(REVERTED);
        make_directory(&path)?;
        make_directory(&path.join(format!("{hash:016x}")))
    }

    /// Forgets all policies that were undone.
    pub fn forget_reverted(&self) -> Result<(), Error> {
        remove_with_notes(&self.root().join(REVERTED))
    }
}
