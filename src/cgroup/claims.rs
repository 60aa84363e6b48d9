//! The other place of an instance's directories, for hosts where nothing needs `net_cls`: the same
//! directories in `/run`, which is gone after a boot as the hierarchy is; and the way of all claims
//! from one place to the other. Whatever ends a move, one of the two places has all claims, and its
//! notes say which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::directory::{make_directory, remove, remove_with_notes, subdirectories};
use super::error::Error;
use super::instance::Instance;
use super::layout::{CONFIRM, MOVED, MOVING, POLICY, REVERTED, ROOMS, SAID, UNSWEPT};
use super::lock::Locked;
use crate::tree::Claim;
use crate::units::ClassId;

/// Below which instances have their directories that need no `net_cls`.
pub const CLAIMS: &str = "/run/shaper/claims";

/// The instance of this name without `net_cls`.
pub fn plain_instance(name: &str) -> Instance {
    Instance::plain(Path::new(CLAIMS).join(name))
}

impl Instance {
    /// The one of its two places where the instance stands; `None`: in neither. Where a move was
    /// cut short it stands in both, and the notes say which of them has all claims.
    pub fn standing(net_cls: Option<Instance>, plain: Instance) -> Option<Instance> {
        let net_cls = net_cls.filter(|it| it.root().is_dir());
        let plain = Some(plain).filter(|it| it.root().is_dir());
        match (net_cls, plain) {
            (Some(net_cls), Some(plain)) => {
                let has = |it: &Instance, note: &str| it.root().join(note).is_dir();
                // A run may have made a directory to lock and nothing more.
                let is_empty = |it: &Instance| !ROOMS.iter().any(|room| has(it, room));
                let goes_on = match (has(&net_cls, MOVED), has(&plain, MOVED)) {
                    (true, false) => plain,
                    (false, true) => net_cls,
                    _ if has(&net_cls, MOVING) => plain,
                    _ if is_empty(&net_cls) && !is_empty(&plain) => plain,
                    _ => net_cls,
                };
                Some(goes_on)
            }
            (net_cls, plain) => net_cls.or(plain),
        }
    }
}

impl Locked {
    /// Takes over all claims of the instance's other place, with their classids. From the last step
    /// on this is where the instance stands; `from` keeps its directories, and the processes in
    /// them, until [`Locked::remove_all`].
    pub fn take_over(&self, from: &Locked, claims: &BTreeMap<Claim, ClassId>) -> Result<(), Error> {
        make_directory(&self.root().join(MOVING))?;
        // What an earlier move has left here that was cut short.
        let (left, _) = self.observe()?;
        for claim in left.keys().rev().filter(|claim| !claims.contains_key(claim)) {
            self.remove(claim)?;
        }
        for (claim, classid) in claims {
            self.make(claim, *classid)?;
        }
        for notes in [REVERTED, SAID, POLICY] {
            let path = self.root().join(notes);
            let theirs: BTreeSet<String> =
                subdirectories(&from.root().join(notes))?.into_iter().collect();
            for old in subdirectories(&path)?.iter().filter(|name| !theirs.contains(*name)) {
                remove(&path.join(old))?;
            }
            if !theirs.is_empty() {
                make_directory(&path)?;
            }
            theirs.iter().try_for_each(|name| make_directory(&path.join(name)))?;
        }
        if from.has_unswept() {
            self.note_unswept()?;
        }
        make_directory(&from.root().join(MOVED))?;
        remove(&self.root().join(MOVED))?;
        remove(&self.root().join(MOVING))
    }

    /// The opposite of [`Locked::take_over`], as long as `to` has all that it had then.
    pub fn give_back(&self, to: &Locked) -> Result<(), Error> {
        make_directory(&self.root().join(MOVING))?;
        remove(&to.root().join(MOVED))
    }

    /// Notes that cgroups (v2) of ours stand whose claims are gone.
    ///
    /// # Errors
    /// The note cannot be made.
    pub fn note_unswept(&self) -> Result<(), Error> {
        make_directory(&self.root().join(UNSWEPT))
    }

    /// Whether that is noted.
    pub fn has_unswept(&self) -> bool {
        self.root().join(UNSWEPT).is_dir()
    }

    /// Removes the note.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_unswept(&self) -> Result<(), Error> {
        remove(&self.root().join(UNSWEPT))
    }

    /// Removes all that the instance has here, but for what others have made.
    ///
    /// # Errors
    /// A directory that cannot be removed; others' directories are no error.
    pub fn remove_all(&self) -> Result<(), Error> {
        let (claims, _) = self.observe()?;
        // What is below another one goes first.
        for claim in claims.keys().rev() {
            match self.remove(claim) {
                Err(Error::Occupied { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        self.end_confirmation()?;
        for notes in [REVERTED, SAID, POLICY, CONFIRM] {
            remove_with_notes(&self.root().join(notes))?;
        }
        self.remove_if_empty().map(drop)
    }
}

impl Instance {
    /// Locks what a move has left here.
    ///
    /// # Errors
    /// As [`Instance::lock`].
    pub fn lock_left(&self) -> Result<Locked, Error> {
        self.lock(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::layout::LOCK;

    /// Which of the two places the instance stands at that have these directories.
    fn standing(net_cls: &[&str], plain: &[&str]) -> &'static str {
        let folder = tempfile::tempdir().unwrap();
        for (place, names) in [("net_cls", net_cls), ("plain", plain)] {
            names
                .iter()
                .for_each(|name| fs::create_dir_all(folder.path().join(place).join(name)).unwrap());
        }
        let net_cls = Instance::new(folder.path().join("net_cls"));
        let plain = Instance::plain(folder.path().join("plain"));
        match Instance::standing(Some(net_cls), plain) {
            Some(instance) if instance.places() => "net_cls",
            Some(_) => "plain",
            None => "nowhere",
        }
    }

    #[test]
    fn an_instance_stands_where_its_claims_are() {
        let claims = "user/ann";
        assert_eq!(standing(&[], &[]), "nowhere");
        assert_eq!(standing(&[claims], &[]), "net_cls");
        assert_eq!(standing(&[], &[claims]), "plain");
        // A move, step by step: the other place is locked, then filled, then takes over.
        assert_eq!(standing(&[claims], &[LOCK]), "net_cls");
        assert_eq!(standing(&[claims], &[LOCK, MOVING, claims]), "net_cls");
        assert_eq!(standing(&[claims, MOVED], &[LOCK, MOVING, claims]), "plain");
        assert_eq!(standing(&[claims, MOVED], &[claims]), "plain");
        assert_eq!(standing(&[LOCK, MOVED], &[claims]), "plain");
        // The same the other way.
        assert_eq!(standing(&[LOCK], &[claims]), "plain");
        assert_eq!(standing(&[LOCK, MOVING, claims], &[claims]), "plain");
        assert_eq!(standing(&[MOVING, claims], &[claims, MOVED]), "net_cls");
        assert_eq!(standing(&[claims], &[LOCK, MOVED]), "net_cls");
        // Whoever waited for the lock has made the emptied place again.
        assert_eq!(standing(&[LOCK], &[LOCK, claims]), "plain");
        assert_eq!(standing(&[LOCK, claims], &[LOCK]), "net_cls");
    }

    #[test]
    fn what_cannot_be_emptied_keeps_the_note_of_its_move() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::plain(folder.path().join("blue"));
        for path in ["user/bob/theirs", MOVED, "netns/7"] {
            fs::create_dir_all(instance.root().join(path)).unwrap();
        }
        let locked = instance.lock(Duration::ZERO).unwrap();
        locked.remove_all().unwrap();
        assert!(instance.root().join("user/bob/theirs").is_dir());
        assert!(instance.root().join(MOVED).is_dir());
        fs::remove_dir(instance.root().join("user/bob/theirs")).unwrap();
        locked.remove_all().unwrap();
        assert!(!instance.root().exists());
    }
}
