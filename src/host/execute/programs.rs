//! The programs that several filters share, each loaded once when it is first needed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::failed::Cause;
use crate::sys::bpf::{self, Maps};
use crate::tree::{Label, Program, Sockets};

/// Those of one run.
#[derive(Default)]
pub(super) struct Programs {
    deciding: BTreeMap<Program, OwnedFd>,
    clearing: BTreeMap<Sockets, OwnedFd>,
    labelling: BTreeMap<Label, OwnedFd>,
}

impl Programs {
    /// The deciding program; `maps`: which it reads.
    pub(super) fn deciding(&mut self, it: Program, maps: &Maps) -> Result<BorrowedFd<'_>, Cause> {
        once(&mut self.deciding, it, || bpf::load(it, maps))
    }

    /// Other maps take the place of those that programs read.
    pub(super) fn forget_readers(&mut self) {
        self.deciding.clear();
        self.labelling.clear();
    }

    /// The program that clears priorities.
    pub(super) fn clearing(&mut self, sockets: Sockets) -> Result<BorrowedFd<'_>, Cause> {
        once(&mut self.clearing, sockets, || bpf::load_clear_priority(sockets))
    }

    /// The program that labels what comes in by an inner link; `maps`: where it asks for sources.
    pub(super) fn labelling(
        &mut self,
        label: Label,
        maps: Option<&Maps>,
    ) -> Result<BorrowedFd<'_>, Cause> {
        once(&mut self.labelling, label, || bpf::load_label(label, maps))
    }
}

fn once<K: Ord>(
    loaded: &mut BTreeMap<K, OwnedFd>,
    program: K,
    load: impl FnOnce() -> io::Result<OwnedFd>,
) -> Result<BorrowedFd<'_>, Cause> {
    let file: &OwnedFd = match loaded.entry(program) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(none) => none.insert(load().map_err(Cause::Bpf)?),
    };
    Ok(file.as_fd())
}
