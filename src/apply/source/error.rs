//! Why a policy file is not read, or not obeyed.

use std::io;
use std::path::Path;

use crate::failure::Failure;
use crate::policy::MAX_BYTES;
use crate::text::Foreign;

/// Why a policy file is not read, or not obeyed. `name` is the file as the command line has it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name is a folder's.
    #[error("{name} is a folder; name the policy file in it")]
    Folder {
        /// The file.
        name: Foreign,
    },
    /// No regular file: opening or reading it could wait for ever, or have an effect.
    #[error("{name} is {kind}, and a policy is a regular file; `-` reads standard input")]
    NotRegular {
        /// The file.
        name: Foreign,
        /// The kind of file: "a pipe (FIFO)", "a socket", "a device".
        kind: &'static str,
    },
    /// The bytes of this line (from 1) are not UTF-8.
    #[error("{name}:{line}: this is not UTF-8 text; save the file as UTF-8")]
    NotText {
        /// The file.
        name: Foreign,
        /// The line of the first such byte.
        line: usize,
    },
    /// Only a part of it would be read.
    #[error(
        "{name} has more than the {} bytes that a policy may have; is this the right file?",
        MAX_BYTES
    )]
    TooLarge {
        /// The file.
        name: Foreign,
    },
    /// The kernel refused to open or read it, or to look at a folder on the way to it.
    #[error("cannot read {name}: {source}{}", cure(.source))]
    Unreadable {
        /// The file.
        name: Foreign,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Its path names another file than the one that was opened.
    #[error("{name} was replaced just now; try again")]
    Replaced {
        /// The file.
        name: Foreign,
    },
    /// Others than root can write it.
    #[error(
        "{name} can be written by {who}, and root would obey it; cure: chown root:root {path} && chmod go-w {path}"
    )]
    Writable {
        /// The file.
        name: Foreign,
        /// The file's path without links.
        path: Foreign,
        /// Who.
        who: Writer,
    },
    /// Others than root can put another file in its place.
    #[error(
        "{name} lies {lies} {folder}, which can be written by {who}, who could replace it; cure: chown root:root {folder} && chmod go-w {folder}, or move the policy to /etc/shaper"
    )]
    FolderWritable {
        /// The file.
        name: Foreign,
        /// `in` or `below` the folder.
        lies: &'static str,
        /// A folder on the way to it.
        folder: Foreign,
        /// Who.
        who: Writer,
    },
    /// A symbolic link on the way to it is not root's.
    #[error(
        "{name} is reached by the link {link}, which uid {uid} made and could lead elsewhere; cure: let root make it, or name the file itself"
    )]
    ForeignLink {
        /// The file.
        name: Foreign,
        /// The link.
        link: Foreign,
        /// The link's owner.
        uid: u32,
    },
}

/// Who else than root can write a file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Writer {
    /// This uid, whose it is.
    #[error("its owner, uid {0}")]
    Owner(u32),
    /// This gid, whose it is.
    #[error("its group, gid {0}")]
    Group(u32),
    /// Every account.
    #[error("everybody")]
    Everybody,
}

impl SourceError {
    /// Whether the caller may not open the file, or a drop-in, or a folder on the way there.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, SourceError::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether there is no file at this path.
    pub fn is_absent(&self, path: &Path) -> bool {
        matches!(self, SourceError::Unreadable { name, source }
            if source.kind() == io::ErrorKind::NotFound && Path::new(name.raw()) == path)
    }
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; name another file, or begin with `shaper init`, which prints a starter policy (`shaper init --write FILE` makes it)"
        }
        _ => "",
    }
}

/// Nothing was touched: exit status 2.
impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Failure {
        Failure::Usage(error.to_string())
    }
}
