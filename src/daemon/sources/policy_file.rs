//! The policy file as it changes on disk: written in place, replaced by a rename, by another target
//! of a link to it, or with a folder above it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::apply::{self, WasRead};
use crate::failure::Failure;
use crate::sys::lease;

/// What is at the path of the policy file now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Now {
    Text(String),
    /// Somebody has had the file open for writing for this long, so its text may be incomplete.
    BeingWritten(Duration),
    /// The file differs from the look before. Further changes may follow, so it must be looked at
    /// again.
    Changing,
}

/// What differs if a file was changed or replaced since.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    mtime: (i64, i64),
    ctime: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            file: (meta.dev(), meta.ino()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
        }
    }
}

pub(super) struct PolicyFile {
    path: PathBuf,
    inotify: Inotify,
    watched: HashSet<WatchDescriptor>,
    /// There was an event after which nobody has looked yet. Until then further ones are no news,
    /// and not listened for.
    changed: bool,
    being_written: Option<Instant>,
    /// The file's stamp at the last look.
    seen: Option<Stamp>,
}

impl PolicyFile {
    pub(super) fn new(path: PathBuf) -> io::Result<PolicyFile> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut file = PolicyFile {
            path,
            inotify,
            watched: HashSet::new(),
            changed: false,
            being_written: None,
            seen: None,
        };
        file.watch();
        Ok(file)
    }

    /// Whether every folder and link on the way to the file is watched, so that no change can be
    /// missed. False where one does not exist.
    pub(super) fn is_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    /// The descriptor to listen to; `None` while a change waits to be looked at.
    pub(super) fn listen(&self) -> Option<BorrowedFd<'_>> {
        (!self.changed).then(|| self.inotify.as_fd())
    }

    /// The descriptor became readable.
    pub(super) fn heard(&mut self) {
        self.changed = true;
    }

    /// Looks at the file, and listens from now on.
    pub(super) fn read(&mut self) -> Result<Now, Failure> {
        self.changed = false;
        loop {
            match self.inotify.read_events() {
                Ok(_) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    log::warn!("cannot read what happened to {}: {errno}", self.path.display());
                    break;
                }
            }
        }
        // The watches come before reading, so that every later change is an event.
        self.watch();
        let WasRead { text, file, before } = apply::text_of(&self.path)?;
        let being_written = lease::is_being_written(&file).unwrap_or_else(|error| {
            log::debug!("cannot find out who writes {}: {error}", self.path.display());
            false
        });
        // A writer may have come and gone while the file was read.
        let stamp = Stamp::of(&before);
        let same = file.metadata().is_ok_and(|after| Stamp::of(&after) == stamp);
        if being_written || !same {
            let since = *self.being_written.get_or_insert_with(Instant::now);
            return Ok(Now::BeingWritten(since.elapsed()));
        }
        self.being_written = None;
        match self.seen.as_ref() == Some(&stamp) {
            true => Ok(Now::Text(text)),
            false => {
                self.seen = Some(stamp);
                Ok(Now::Changing)
            }
        }
    }

    /// Watches the file, each link on the way to it, and each folder, but not what else lies in the
    /// folders: others may make as many files there as they like. A second call follows what has
    /// changed on the way.
    fn watch(&mut self) {
        let of_folders = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        // A file that is replaced loses a link (IN_ATTRIB), also while somebody has it open.
        let of_files = of_folders
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DONT_FOLLOW;
        let mut watched = HashSet::new();
        let mut complete = true;
        let way = apply::way(&self.path).unwrap_or_default();
        for passed in &way {
            let flags = if passed.meta.is_dir() { of_folders } else { of_files };
            match self.inotify.add_watch(&passed.path, flags) {
                Ok(watch) => {
                    watched.insert(watch);
                }
                Err(errno) => {
                    log::debug!("cannot watch {}: {errno}", passed.path.display());
                    complete = false;
                }
            }
        }
        // Watches that are not needed any more; those of deleted files went with them.
        for old in self.watched.difference(&watched) {
            let _gone_already = self.inotify.rm_watch(*old);
        }
        self.watched = if complete { watched } else { HashSet::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn told(file: &mut PolicyFile) -> bool {
        let mut fds = [PollFd::new(file.listen().unwrap(), PollFlags::POLLIN)];
        let told = poll(&mut fds, PollTimeout::from(0_u8)).unwrap() > 0;
        file.heard();
        assert!(file.listen().is_none(), "more of it is no news");
        file.read().unwrap();
        told
    }

    #[test]
    fn every_way_to_change_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/policies.yaml"), "1").unwrap();
        let mut file = PolicyFile::new(path("etc/policies.yaml")).unwrap();
        assert!(!told(&mut file));
        fs::write(path("etc/policies.yaml"), "2").unwrap();
        assert!(told(&mut file), "written");
        fs::write(path("new"), "3").unwrap();
        told(&mut file);
        fs::rename(path("new"), path("etc/policies.yaml")).unwrap();
        assert!(told(&mut file), "renamed");
        fs::create_dir(path("etc2")).unwrap();
        fs::write(path("etc2/policies.yaml"), "4").unwrap();
        fs::rename(path("etc"), path("old")).unwrap();
        fs::rename(path("etc2"), path("etc")).unwrap();
        assert!(told(&mut file), "with its folder");
        fs::write(path("etc/policies.yaml"), "5").unwrap();
        assert!(told(&mut file), "written in the new folder");
    }

    #[test]
    fn the_target_of_a_link_is_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["etc", "a", "b"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("real.yaml"), name).unwrap();
        }
        symlink(path("a/real.yaml"), path("etc/policies.yaml")).unwrap();
        let mut file = PolicyFile::new(path("etc/policies.yaml")).unwrap();
        fs::write(path("a/real.yaml"), "new").unwrap();
        assert!(told(&mut file));
        fs::remove_file(path("etc/policies.yaml")).unwrap();
        symlink(path("b/real.yaml"), path("etc/policies.yaml")).unwrap();
        assert!(told(&mut file));
        fs::write(path("b/real.yaml"), "new").unwrap();
        assert!(told(&mut file));
    }

    #[test]
    fn what_others_do_in_its_folder_wakes_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/policies.yaml"), "1").unwrap();
        let mut file = PolicyFile::new(path("etc/policies.yaml")).unwrap();
        assert!(file.is_watched());
        for name in ["etc/other", "other", "etc/policies.yaml~"] {
            fs::write(path(name), "").unwrap();
            fs::rename(path(name), path("etc/another")).unwrap();
            fs::remove_file(path("etc/another")).unwrap();
        }
        assert!(!told(&mut file));
        fs::remove_file(path("etc/policies.yaml")).unwrap();
        assert!(file.read().is_err());
        assert!(!file.is_watched(), "what is not there has to be looked for");
        fs::write(path("etc/policies.yaml"), "2").unwrap();
        assert_eq!(file.read().unwrap(), Now::Changing);
        assert_eq!(file.read().unwrap(), Now::Text("2".to_string()));
        assert!(file.is_watched());
    }

    #[test]
    fn a_half_of_a_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.yaml");
        let mut writer = fs::File::create(&path).unwrap();
        writer.write_all(b"version: 1\n").unwrap();
        let mut file = PolicyFile::new(path.clone()).unwrap();
        assert!(matches!(file.read().unwrap(), Now::BeingWritten(_)));
        writer.write_all(b"links: {}\n").unwrap();
        drop(writer);
        assert!(told(&mut file), "it was closed");
        writer = fs::File::options().append(true).open(&path).unwrap();
        writer.write_all(b"users: {}\n").unwrap();
        drop(writer);
        assert_eq!(file.read().unwrap(), Now::Changing, "and written once more");
        assert_eq!(
            file.read().unwrap(),
            Now::Text("version: 1\nlinks: {}\nusers: {}\n".to_string())
        );
    }
}
