//! The policy file and its drop-ins as they change on disk: written in place, replaced by a rename,
//! by another target of a link to them, or with a folder above them.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::apply::{self, WasRead};
use crate::failure::Failure;
use crate::policy::Source;
use crate::sys::lease;

/// What is at the path of the policy file now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Now {
    Text(Source),
    /// Somebody has had a file open for writing for this long, so its text may be incomplete.
    BeingWritten(Duration),
    /// A file differs from the look before, or there is another one. Further changes may follow, so
    /// it must be looked at again.
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
    /// The watch of the folder of drop-ins, whose events name them.
    drop_ins: Option<WatchDescriptor>,
    /// There was an event after which nobody has looked yet. Until then further ones are no news,
    /// and not listened for.
    changed: bool,
    being_written: Option<Instant>,
    /// The files' stamps at the last look.
    seen: Option<Vec<(String, Stamp)>>,
}

impl PolicyFile {
    pub(super) fn new(path: PathBuf) -> io::Result<PolicyFile> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut file = PolicyFile {
            path,
            inotify,
            watched: HashSet::new(),
            drop_ins: None,
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

    /// The descriptor became readable. Whether there is news of the policy: in the folder of
    /// drop-ins other files come and go.
    pub(super) fn heard(&mut self) -> bool {
        let events = self.events();
        self.changed |= events.iter().any(|event| self.is_news(event));
        self.changed
    }

    fn is_news(&self, event: &InotifyEvent) -> bool {
        let Some(name) = &event.name else { return true };
        match self.drop_ins == Some(event.wd) {
            true => apply::is_drop_in(name),
            false => {
                apply::folder(&self.path).is_some_and(|folder| folder.file_name() == Some(name))
            }
        }
    }

    /// What happened since the last call.
    fn events(&self) -> Vec<InotifyEvent> {
        let mut all = Vec::new();
        loop {
            match self.inotify.read_events() {
                Ok(events) => all.extend(events),
                Err(Errno::EAGAIN) => return all,
                Err(errno) => {
                    log::warn!("cannot read what happened to {}: {errno}", self.path.display());
                    return all;
                }
            }
        }
    }

    /// Looks at the file, and listens from now on.
    pub(super) fn read(&mut self) -> Result<Now, Failure> {
        self.changed = false;
        self.events();
        // The watches come before reading, so that every later change is an event.
        self.watch();
        let files = apply::each_of(&self.path, Looked::at)?;
        if files.iter().any(|file| file.is_being_written) {
            let since = *self.being_written.get_or_insert_with(Instant::now);
            return Ok(Now::BeingWritten(since.elapsed()));
        }
        self.being_written = None;
        let source =
            apply::joined(files.iter().map(|file| (file.name.clone(), file.text.as_str())));
        let stamps = files.into_iter().map(|file| (file.name, file.stamp)).collect();
        match self.seen.as_ref() == Some(&stamps) {
            true => Ok(Now::Text(source)),
            false => {
                self.seen = Some(stamps);
                Ok(Now::Changing)
            }
        }
    }

    /// Watches the files, each link on the way to them, and each folder, but not what else lies in
    /// the folders: others may make as many files there as they like. A second call follows what
    /// has changed on the way.
    fn watch(&mut self) {
        let mut watched = HashSet::new();
        let mut complete = true;
        self.drop_ins = None;
        let folder = apply::folder(&self.path);
        for (path, flags) in self.on_the_way(folder.as_deref()) {
            match self.inotify.add_watch(&path, flags) {
                Ok(watch) => {
                    watched.insert(watch);
                    self.drop_ins =
                        self.drop_ins.or((Some(&path) == folder.as_ref()).then_some(watch));
                }
                Err(errno) => {
                    log::debug!("cannot watch {}: {errno}", path.display());
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

    /// What is to be watched, and for which events. `folder`: that of drop-ins.
    fn on_the_way(&self, folder: Option<&Path>) -> BTreeMap<PathBuf, AddWatchFlags> {
        let of_folders = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        // A file that is replaced loses a link (IN_ATTRIB), also while somebody has it open.
        let of_files = of_folders
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DONT_FOLLOW;
        let comes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let goes = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        let mut all = BTreeMap::new();
        // Without a file there is nothing to watch, and it is looked for.
        if apply::way(&self.path).is_err() {
            return all;
        }
        let mut add = |path: PathBuf, flags| *all.entry(path).or_insert(flags) |= flags;
        let links = folder.map(apply::links).unwrap_or_default();
        for end in links.iter().map(PathBuf::as_path).chain([self.path.as_path()]) {
            for passed in apply::way(end).unwrap_or_default() {
                let flags = if passed.meta.is_dir() { of_folders } else { of_files };
                add(passed.path, flags);
            }
        }
        let Some(folder) = folder else { return all };
        match apply::way(folder) {
            Ok(way) => {
                for passed in way {
                    let flags = if passed.meta.is_dir() { of_folders } else { of_files };
                    add(passed.path, flags);
                }
                let names = comes | goes | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
                add(folder.to_path_buf(), of_folders | names);
            }
            // It may come, where root alone makes files; elsewhere the next look finds it.
            Err(_) => {
                if let Some(above) = folder.parent().filter(|above| is_roots_alone(above)) {
                    add(above.to_path_buf(), of_folders | comes);
                }
            }
        }
        all
    }
}

/// Whether root alone makes files in a folder.
fn is_roots_alone(folder: &Path) -> bool {
    folder.metadata().is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o022 == 0)
}

/// What a look found of one file.
struct Looked {
    name: String,
    text: String,
    stamp: Stamp,
    is_being_written: bool,
}

impl Looked {
    fn at(was_read: WasRead) -> Looked {
        let name = was_read.name();
        let WasRead { text, file, before, .. } = was_read;
        let being_written = lease::is_being_written(&file).unwrap_or_else(|error| {
            log::debug!("cannot find out who writes {name}: {error}");
            false
        });
        // A writer may have come and gone while the file was read.
        let stamp = Stamp::of(&before);
        let same = file.metadata().is_ok_and(|after| Stamp::of(&after) == stamp);
        Looked { name, text, stamp, is_being_written: being_written || !same }
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
        let is_news = file.heard();
        assert!(is_news || !told || !file.changed);
        assert!(!is_news || file.listen().is_none(), "more of it is no news");
        file.read().unwrap();
        told && is_news
    }

    fn text(file: &PolicyFile, text: &str) -> Now {
        Now::Text(Source::new(&file.path.display().to_string(), text))
    }

    #[test]
    fn drop_ins_are_noticed_as_they_come_change_and_go_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/p.yaml"), "1").unwrap();
        let mut file = PolicyFile::new(path("etc/p.yaml")).unwrap();
        fs::create_dir(path("etc/p.d")).unwrap();
        assert!(told(&mut file), "the folder comes");
        fs::write(path("etc/p.d/a.yaml"), "2").unwrap();
        assert!(told(&mut file), "written");
        fs::write(path("etc/p.d/.b.yaml"), "3").unwrap();
        fs::write(path("etc/p.d/b.yaml~"), "3").unwrap();
        assert!(!told(&mut file), "no drop-ins");
        fs::rename(path("etc/p.d/.b.yaml"), path("etc/p.d/b.yaml")).unwrap();
        assert!(told(&mut file), "renamed");
        let Now::Text(source) = file.read().unwrap() else { panic!("it is calm") };
        assert_eq!(&*source.text, "1\n2\n3");
        fs::remove_file(path("etc/p.d/a.yaml")).unwrap();
        assert!(told(&mut file), "removed");
        fs::write(path("elsewhere.yaml"), "4").unwrap();
        symlink(path("elsewhere.yaml"), path("etc/p.d/c.yaml")).unwrap();
        assert!(told(&mut file), "a link");
        fs::write(path("elsewhere.yaml"), "5").unwrap();
        assert!(told(&mut file), "its target");
        let Now::Text(source) = file.read().unwrap() else { panic!("it is calm") };
        assert_eq!(&*source.text, "1\n3\n5");
        let writer = fs::File::options().append(true).open(path("etc/p.d/b.yaml")).unwrap();
        assert!(matches!(file.read().unwrap(), Now::BeingWritten(_)));
        drop(writer);
        fs::rename(path("etc/p.d"), path("old")).unwrap();
        assert!(told(&mut file), "the folder goes");
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
        assert_eq!(file.read().unwrap(), text(&file, "2"));
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
        assert_eq!(file.read().unwrap(), text(&file, "version: 1\nlinks: {}\nusers: {}\n"));
    }
}
