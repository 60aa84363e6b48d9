//! Removing directories: those of claims, and in the end the instance's own.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::condition::forget;
use super::directory::{make_directory, members_of, remove, remove_files, subdirectories};
use super::error::Error;
use super::hierarchy::remove_mount_point;
use super::layout::{LOCK, MOVED, MOVING, NETNS, ROOMS, UNSWEPT, WATCH};
use super::lock::Locked;
use crate::tree::Claim;

/// How often a directory's processes are moved out before that is given up, because they come
/// faster than they go. Under a fork storm up to 23 times were needed.
const MAX_EVICTIONS: u32 = 200;

impl Locked {
    /// Removes the claim's directory. Its processes are moved to the hierarchy's root first, and so
    /// are in the default class. That it does not exist is no error.
    pub fn remove(&self, claim: &Claim) -> Result<(), Error> {
        self.evict_and_remove(&self.directory(claim))
    }

    /// Removes rooms without claims and, where no claim and nothing foreign is left, the note of
    /// the namespace, the lock, and the instance's own directory. Returns whether all of that is
    /// gone: an instance that still has a directory stays known to others, and locked.
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        for room in ROOMS.into_iter().chain([UNSWEPT]) {
            self.remove_unless_occupied(&self.root().join(room))?;
        }
        let own = [NETNS, LOCK, WATCH, MOVED, MOVING];
        if subdirectories(self.root())?.iter().any(|name| !own.contains(&name.as_str())) {
            return Ok(false);
        }
        self.forget_namespace()?;
        self.remove_unless_occupied(&self.root().join(LOCK))?;
        // A daemon is found as long as there is something that it keeps.
        let of_a_move = [MOVED, MOVING];
        let left = subdirectories(self.root())?;
        if left.iter().all(|name| name == WATCH || of_a_move.contains(&name.as_str())) {
            let watch = self.root().join(WATCH);
            forget(&watch)?;
            self.evict_and_remove(&watch)?;
        }
        // The notes of a move go last, and stay with what stays: without them an empty place could
        // be taken for the one that has all claims.
        let noted = of_a_move.map(|note| self.root().join(note)).into_iter();
        let noted: Vec<_> = noted.filter(|note| note.is_dir()).collect();
        noted.iter().try_for_each(|note| remove(note))?;
        let gone = self.remove_unless_occupied(self.root());
        if self.root().is_dir() {
            noted.iter().try_for_each(|note| make_directory(note))?;
        }
        gone?;
        if !self.places()
            && let Some(above) = self.root().parent()
        {
            remove_mount_point(above);
        }
        Ok(!self.root().exists())
    }

    fn remove_unless_occupied(&self, path: &Path) -> Result<(), Error> {
        match self.evict_and_remove(path) {
            Err(Error::Occupied { .. }) => Ok(()),
            other => other,
        }
    }

    fn evict_and_remove(&self, path: &Path) -> Result<(), Error> {
        let occupied = |what: String| Error::Occupied { path: path.to_path_buf(), what };
        let mut last = 0;
        if !self.places() {
            remove_files(path)?;
        }
        for _ in 0..MAX_EVICTIONS {
            match fs::remove_dir(path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                // A cgroup with processes or directories is EBUSY; ENOTEMPTY on other file systems.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(error) => return Err(Error::io("remove", path)(error)),
            }
            if let Some(name) = subdirectories(path)?.first() {
                return Err(occupied(format!("a directory `{name}`")));
            }
            let members = members_of(path)?;
            last = members.len();
            if members.is_empty() {
                // A process is ending: `cgroup.procs` does not list it any more, but the directory
                // cannot be removed until it has ended.
                std::thread::sleep(Duration::from_millis(2));
            }
            for pid in members {
                self.release(pid)?;
            }
        }
        Err(occupied(format!("{last} processes that cannot be moved out")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cgroup::Instance;

    #[test]
    fn an_instance_that_holds_something_keeps_its_lock_and_its_note() {
        for kept in ["user/bob", "spare"] {
            let folder = tempfile::tempdir().unwrap();
            let instance = Instance::new(folder.path().join("blue"));
            for path in [kept, "uid", LOCK] {
                fs::create_dir_all(instance.root().join(path)).unwrap();
            }
            instance.note_namespace(7).unwrap();
            let locked = instance.lock(Duration::ZERO).unwrap();
            assert!(!locked.remove_if_empty().unwrap());
            let left = subdirectories(instance.root()).unwrap();
            let room = kept.split('/').next().unwrap();
            assert_eq!(
                BTreeSet::from_iter(left),
                BTreeSet::from([room, LOCK, NETNS].map(String::from))
            );
            assert_eq!(instance.noted_namespaces().unwrap(), [7]);
            fs::remove_dir(instance.root().join(kept)).unwrap();
            assert!(locked.remove_if_empty().unwrap());
        }
    }
}
