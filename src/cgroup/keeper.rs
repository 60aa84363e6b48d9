//! The daemon that keeps an instance, for others to find: it has a record lock (fcntl(2)) on the
//! directory `watch` in the instance's. The kernel says which process has the lock, drops the lock
//! with the process, and does not pass it on to children. Only root may open that directory, as
//! with the lock of a run.
//!
//! A process loses such a lock when it closes any descriptor of the directory, so the daemon itself
//! must not ask who keeps the instance.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::condition::{Condition, forget};
use super::directory::{make, make_directory, remove_with_notes};
use super::error::Error;
use super::instance::Instance;
use super::layout::WATCH;
use crate::sys::record_lock::{self, Kind};

/// The daemon's lock on its instance. When the value is dropped, the lock goes, and the directory
/// with it.
#[derive(Debug)]
pub struct Keeping {
    path: PathBuf,
    directory: File,
    /// The name of the directory that tells this daemon's condition; `None`: none was told yet.
    told: Option<String>,
}

impl Instance {
    /// The daemon that keeps this instance: its pid, or 0 where it is in another process namespace.
    pub fn keeper(&self) -> Result<Option<u32>, Error> {
        let path = self.root().join(WATCH);
        match File::open(&path) {
            Ok(directory) => record_lock::holder(&directory).map_err(Error::io("inspect", &path)),
            // Without the permission to ask, this process may change nothing either.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    /// Makes this process the daemon that keeps the instance, which must exist. There may be
    /// several (one was told to begin despite another); others find the one that began first.
    pub fn keep(&self) -> Result<Keeping, Error> {
        let path = self.root().join(WATCH);
        make(&path, 0o700).map_err(Error::io("make", &path))?;
        forget(&path)?;
        let directory = File::open(&path).map_err(Error::io("open", &path))?;
        record_lock::take(&directory, Kind::Shared).map_err(Error::io("lock", &path))?;
        Ok(Keeping { path, directory, told: None })
    }
}

impl Keeping {
    /// Tells others this daemon's condition from now on. It must not list the directory: closing a
    /// descriptor of it would drop the lock.
    ///
    /// # Errors
    /// The directory is gone, or no directory can be renamed or made in it.
    pub fn tell(&mut self, condition: &Condition) -> Result<(), Error> {
        let new = condition.name();
        let at = |name: &str| self.path.join(name);
        let renamed = self.told.as_ref().map(|old| fs::rename(at(old), at(&new)));
        match renamed {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("rename to", &at(&new))(error));
            }
            // It is the first condition, or another daemon that began has removed the last one.
            Some(Err(_)) | None => make_directory(&at(&new))?,
        }
        self.told = Some(new);
        Ok(())
    }

    /// Whether the path still names the directory that is locked: the instance may have been
    /// removed, and made anew.
    pub fn holds(&self) -> bool {
        let same = |held: fs::Metadata, named: fs::Metadata| {
            (held.dev(), held.ino()) == (named.dev(), named.ino())
        };
        match (self.directory.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(named)) => same(held, named),
            _ => false,
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.holds() {
            let _with_the_instance_then = remove_with_notes(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_what_no_daemon_holds() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        assert_eq!(instance.keeper().unwrap(), None);
        fs::create_dir(instance.root()).unwrap();
        let keeping = instance.keep().unwrap();
        assert!(keeping.holds());
        fs::remove_dir(instance.root().join(WATCH)).unwrap();
        assert!(!keeping.holds());
        let again = instance.keep().unwrap();
        assert!(again.holds());
        drop((keeping, again));
        assert!(!instance.root().join(WATCH).exists());
    }
}
