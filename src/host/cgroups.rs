//! The cgroups (v2) of systemd's units: which there are, and their classes in the map that the
//! deciding programs ask where no tags are read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::Kernel;
use crate::cgroup::{self, Unified};
use crate::classify::cgroups::DEEPEST;
use crate::facts::UnitCgroups;
use crate::model::Matcher;
use crate::process::{self, Process};
use crate::tree::{Cgroup, Claim, Owner, Turn};

/// The cgroups of all units that have one.
///
/// # Errors
/// The mounts or the root of the hierarchy cannot be read.
pub(super) fn of_units() -> Result<UnitCgroups, cgroup::Error> {
    let unified = match Unified::find()? {
        Ok(unified) => unified,
        Err(why) => return Ok(Err(why)),
    };
    let root = unified.root();
    let read = |source| cgroup::Error::Io { verb: "read", path: root.to_path_buf(), source };
    let mut units = BTreeMap::new();
    below(root, 1, &mut units).map_err(read)?;
    Ok(Ok(units))
}

/// Adds the units in this directory and in the slices below it. What a unit makes in its own cgroup
/// is the unit's.
fn below(directory: &Path, level: u8, units: &mut BTreeMap<Cgroup, String>) -> io::Result<()> {
    if level > DEEPEST {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if process::is_slice(name) {
            // A slice may have ended meanwhile.
            let _gone = below(&entry.path(), level + 1, units);
        } else if let Some(unit) = process::unit_of_directory(name) {
            // It may have gone meanwhile.
            let Some(id) = cgroup::cgroup_number(&entry.path()) else { continue };
            units.insert(Cgroup { level, id }, unit.to_string());
        }
    }
    Ok(())
}

impl Kernel {
    /// Sets the class of the process's unit's cgroup, where a line claims the unit: a unit that has
    /// just come has a cgroup that the map does not know. Packets that its sockets have sent before
    /// were its owner's. To be called where a program asks for cgroups, which the instance does not
    /// say: one link may read tags, and another one none.
    pub fn give_unit(&self, process: &Process, matcher: &Matcher) {
        let (Some(maps), Some(unit)) = (&self.owners, process.unit.as_deref()) else { return };
        let Some(key) = matcher.units.find(unit) else { return };
        let Some(instance) = self.instance() else { return };
        let Ok(class) = instance.classid(&Claim::Owner(Owner::User(key.clone()))) else { return };
        let Some(class) = class.our_class() else { return };
        let turn = turn(matcher, unit);
        let Some(cgroup) = self.unit_cgroup(process.pid, unit) else { return };
        if let Err(error) = maps.give_cgroup((cgroup, turn), class) {
            log::warn!("what {unit} sends counts as its user's: {error}");
        }
    }

    /// The cgroup of the unit that a process is in, if it is in this unit still.
    pub fn unit_cgroup(&self, pid: u32, unit: &str) -> Option<Cgroup> {
        let text = fs::read(self.proc_root.join(format!("{pid}/cgroup"))).ok()?;
        let (path, found) = process::unit_cgroup(&text)?;
        if found != unit {
            return None;
        }
        Unified::find().ok()?.ok()?.cgroup(&path)
    }
}

/// When the cgroup of a unit is asked for.
fn turn(matcher: &Matcher, unit: &str) -> Turn {
    match matcher.units.follows(Some(unit)) {
        true => Turn::AfterOwner,
        false => Turn::First,
    }
}
