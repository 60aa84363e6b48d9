//! The policy file as it changes on disk: written in place, replaced by a rename, or by another
//! target of a link to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::apply;
use crate::failure::Failure;
use crate::policy::Policy;

pub struct PolicyFile {
    path: PathBuf,
    inotify: Inotify,
}

impl PolicyFile {
    pub fn new(path: PathBuf) -> io::Result<PolicyFile> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let file = PolicyFile { path, inotify };
        file.watch();
        Ok(file)
    }

    pub fn read(&self) -> Result<Policy, Failure> {
        apply::read(&self.path)
    }

    /// Watches the folder that the file lies in, the folder that it really lies in if it is a link,
    /// and the folders above those two, which may be replaced as a whole. Done again, it follows.
    fn watch(&self) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB;
        let named = std::path::absolute(&self.path).ok();
        let real = self.path.canonicalize().ok();
        for file in [named, real].into_iter().flatten() {
            for folder in file.ancestors().skip(1).take(2) {
                if let Err(errno) = self.inotify.add_watch(folder, flags) {
                    log::debug!("cannot watch {}: {errno}", folder.display());
                }
            }
        }
    }

    /// Takes what has happened, after the descriptor became readable. Something did: whether it was
    /// the file, its text says.
    pub fn heard(&self) {
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
        self.watch();
    }
}

impl AsFd for PolicyFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn told(file: &PolicyFile) -> bool {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        let told = poll(&mut fds, PollTimeout::from(0_u8)).unwrap() > 0;
        file.heard();
        told
    }

    #[test]
    fn every_way_to_change_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/policies.yaml"), "1").unwrap();
        let file = PolicyFile::new(path("etc/policies.yaml")).unwrap();
        assert!(!told(&file));
        fs::write(path("etc/policies.yaml"), "2").unwrap();
        assert!(told(&file), "written");
        fs::write(path("new"), "3").unwrap();
        told(&file);
        fs::rename(path("new"), path("etc/policies.yaml")).unwrap();
        assert!(told(&file), "renamed");
        fs::create_dir(path("etc2")).unwrap();
        fs::write(path("etc2/policies.yaml"), "4").unwrap();
        fs::rename(path("etc"), path("old")).unwrap();
        fs::rename(path("etc2"), path("etc")).unwrap();
        assert!(told(&file), "with its folder");
        fs::write(path("etc/policies.yaml"), "5").unwrap();
        assert!(told(&file), "written in the new folder");
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
        let file = PolicyFile::new(path("etc/policies.yaml")).unwrap();
        fs::write(path("a/real.yaml"), "new").unwrap();
        assert!(told(&file));
        fs::remove_file(path("etc/policies.yaml")).unwrap();
        symlink(path("b/real.yaml"), path("etc/policies.yaml")).unwrap();
        assert!(told(&file));
        fs::write(path("b/real.yaml"), "new").unwrap();
        assert!(told(&file));
    }
}
