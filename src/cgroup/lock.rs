//! One run at a time: flock(2) on a directory in the instance's, which works also where /run is
//! read-only, and leaves no stale lock behind when a run is killed. Only root may open that
//! directory, since whoever can open a directory can lock it; the instance's own directory is for
//! all to read.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::directory::{make, make_directory, make_folder};
use super::error::Error;
use super::instance::Instance;
use super::layout::LOCK;

/// The pause between two tries. It is short, because a person waits, and most runs have the lock
/// for well under a second.
const PAUSE: Duration = Duration::from_millis(20);

/// An instance whose lock this run has until the value is dropped. Functions that change claims are
/// methods of this type, and functions that change traffic control take one as an argument, so that
/// no change without the lock can be written. Placing a process is one write that can be repeated,
/// and a method of [`Instance`].
#[derive(Debug)]
pub struct Locked {
    instance: Instance,
    directory: File,
}

impl Deref for Locked {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Instance {
    /// One run at a time: see [`Locked`]. Makes the instance's directory if it is missing, but not
    /// those above it.
    ///
    /// # Errors
    /// Another run has the lock for longer than `wait`; the directory cannot be made or locked.
    pub fn lock(&self, wait: Duration) -> Result<Locked, Error> {
        Locked::take(self.clone(), wait)
    }
}

impl Locked {
    /// This lock, for the instance at another path: somebody may have mounted the hierarchy anew,
    /// elsewhere. If the directory there is another one, its lock is taken.
    ///
    /// # Errors
    /// Another run has that lock for longer than `wait`; the directory cannot be read or made.
    pub fn at(&self, instance: Instance, wait: Duration) -> Result<Locked, Error> {
        let own = &instance.root().join(LOCK);
        let held = self.directory.metadata().map_err(Error::io("inspect", own))?;
        match fs::metadata(own) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                let directory = self.directory.try_clone().map_err(Error::io("lock", own))?;
                Ok(Locked { instance, directory })
            }
            _ => Locked::take(instance, wait),
        }
    }

    /// Takes the lock of `instance`, whose directory is made if it is missing (not those above it:
    /// without the hierarchy there is nothing to lock). Tries for `wait`, at least once.
    fn take(instance: Instance, wait: Duration) -> Result<Locked, Error> {
        let start = Instant::now();
        loop {
            if let Some(directory) = Locked::attempt(&instance)? {
                return Ok(Locked { instance, directory });
            }
            if start.elapsed() >= wait {
                return Err(Error::Locked { path: instance.root().to_path_buf() });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn attempt(instance: &Instance) -> Result<Option<File>, Error> {
        let is_plain = !instance.places();
        let instance = instance.root();
        let directory = &instance.join(LOCK);
        // The run that has the lock may remove the directory meanwhile (`clear`), and a third run
        // may make it anew and lock that one: our lock counts only while the path still names the
        // directory that we have locked.
        loop {
            if is_plain && let Some(above) = instance.parent() {
                make_folder(above).map_err(Error::io("make", above))?;
            }
            match make_directory(instance) {
                // Whoever removed the last instance has removed what was above it.
                Err(Error::Io { source, .. })
                    if is_plain && source.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                made => made?,
            }
            match make(directory, 0o700) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    // A directory that was made here and cannot be locked is removed again, if it
                    // is empty.
                    let _not_ours_alone = fs::remove_dir(instance);
                    return Err(Error::io("make", directory)(error));
                }
                Ok(()) => {}
            }
            let file = match File::open(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::io("open", directory))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", directory)(error)),
            }
            let held = file.metadata().map_err(Error::io("inspect", directory))?;
            match fs::metadata(directory) {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(file));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("inspect", directory)(error));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn take(path: &Path, wait: Duration) -> Result<Locked, Error> {
        Locked::take(Instance::new(path.to_path_buf()), wait)
    }

    #[test]
    fn where_the_hierarchy_is_mounted_twice_the_lock_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shaper");
        let first = take(&path, Duration::ZERO).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        std::os::unix::fs::symlink(&path, &elsewhere).unwrap();
        let moved = first.at(Instance::new(elsewhere.clone()), Duration::ZERO).unwrap();
        assert_eq!(moved.root(), elsewhere);
        drop(first);
        let third = take(&path, Duration::ZERO);
        assert!(matches!(third, Err(Error::Locked { .. })), "{third:?}");
        // Another directory has a lock of its own.
        let other = moved.at(Instance::new(folder.path().join("other")), Duration::ZERO).unwrap();
        drop(moved);
        take(&path, Duration::ZERO).unwrap();
        let third = take(other.root(), Duration::ZERO);
        assert!(matches!(third, Err(Error::Locked { .. })), "{third:?}");
    }

    #[test]
    fn a_second_run_is_told_that_the_first_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shaper");
        let first = take(&path, Duration::ZERO).unwrap();
        let second = take(&path, Duration::from_millis(50));
        assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
        drop(first);
        take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_waiting_run_gets_the_lock_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shaper");
        let first = take(&path, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take(&path, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
            assert!(second.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_directory_that_was_removed_and_made_anew_is_another_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shaper");
        let first = take(&path, Duration::ZERO).unwrap();
        fs::remove_dir(path.join(LOCK)).unwrap();
        fs::remove_dir(&path).unwrap();
        let second = take(&path, Duration::ZERO).unwrap();
        drop(first);
        let third = take(&path, Duration::ZERO);
        assert!(matches!(third, Err(Error::Locked { .. })), "{third:?}");
        drop(second);
    }

    #[test]
    fn without_the_hierarchy_there_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone/shaper");
        assert!(matches!(take(&gone, Duration::ZERO), Err(Error::Io { .. })));
    }
}
