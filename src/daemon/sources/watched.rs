//! A file of the system as it changes on disk, or the link that stands for it: usermod(8) puts
//! another `/etc/subuid` in its place, an editor may write into it, `timedatectl` makes another
//! link of `/etc/localtime`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The file and its folder, where only root makes files, and seldom.
pub(super) struct WatchedFile {
    path: PathBuf,
    inotify: Inotify,
}

impl WatchedFile {
    /// # Errors
    /// The folder does not exist, or cannot be watched. The file itself may come later.
    pub(super) fn watch(path: &Path) -> io::Result<WatchedFile> {
        let missing = || io::Error::other(format!("{} is no file's path", path.display()));
        let (folder, _) = path.parent().zip(path.file_name()).ok_or_else(missing)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let file = WatchedFile { path: path.to_path_buf(), inotify };
        file.inotify.add_watch(
            folder,
            AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_DELETE,
        )?;
        file.watch_itself()?;
        Ok(file)
    }

    /// Watches the file too: one that is mounted here from elsewhere has events in its own folder
    /// only.
    fn watch_itself(&self) -> io::Result<()> {
        match self.inotify.add_watch(&self.path, AddWatchFlags::IN_CLOSE_WRITE) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads the events. Whether one was about the file; true also where events were lost.
    pub(super) fn changed(&self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            // Events of the watch of the file itself have no name.
            let is_its =
                |name: Option<&OsStr>| name.is_none_or(|name| Some(name) == self.path.file_name());
            changed |= events.iter().any(|event| is_its(event.name.as_deref()));
        }
        if changed && let Err(error) = self.watch_itself() {
            log::debug!("cannot watch {}: {error}", self.path.display());
        }
        changed
    }
}

impl AsFd for WatchedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn whatever_happens_to_the_file_is_told_and_nothing_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("subuid"), folder.path().join("subuid+"));
        let file = WatchedFile::watch(&path).unwrap();
        assert!(!file.changed());
        let write = |path: &Path| fs::write(path, "bob:1:1\n").unwrap();
        write(&other);
        assert!(!file.changed(), "another file");
        for _ in 0..2 {
            write(&path);
            assert!(file.changed());
            write(&other);
            fs::rename(&other, &path).unwrap();
            assert!(file.changed());
        }
        fs::remove_file(&path).unwrap();
        assert!(file.changed());
        assert!(!file.changed());
        write(&other);
        symlink(&other, &path).unwrap();
        assert!(file.changed(), "a link, which nobody writes to and closes");
    }
}
