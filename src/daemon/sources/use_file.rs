//! The file of what owners with a quota have used, as others write there what they grant.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use super::watched::WatchedFile;
use crate::apply::use_file;
use crate::host::Kernel;

/// The file; it is there as long as somebody has a quota.
pub(super) struct UseFile {
    path: PathBuf,
    watched: Option<WatchedFile>,
    /// That it cannot be watched was said.
    said: bool,
}

impl UseFile {
    /// That of an instance.
    pub(super) fn of(kernel: &Kernel) -> UseFile {
        UseFile { path: use_file(kernel), watched: None, said: false }
    }

    /// Watches it, or does not.
    pub(super) fn watch(&mut self, is_wanted: bool) {
        if !is_wanted {
            self.watched = None;
        } else if self.watched.is_none() {
            match WatchedFile::watch(&self.path) {
                Ok(watched) => (self.watched, self.said) = (Some(watched), false),
                Err(error) if !self.said => {
                    self.said = true;
                    let path = self.path.display();
                    log::warn!(
                        "a grant is in force up to 30 s late, since {path} cannot be watched: {error}"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// The descriptor that has something to tell.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.as_ref().map(AsFd::as_fd)
    }

    /// Whether somebody may have written to it.
    pub(super) fn changed(&self) -> bool {
        self.watched.as_ref().is_some_and(WatchedFile::changed)
    }
}
