//! Reading the policy file. A root process obeys what the file says, so nobody but root may be able
//! to write it, nor to put another in its place: every folder on the way to it counts.

mod way;

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::failure::Failure;
use crate::policy::{self, Policy};
use crate::text::shown;
pub use way::{Passed, way};

/// Reads and parses the policy at `path`; `-` is standard input.
///
/// # Errors
/// As [`text_of`], and what the policy itself has wrong.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        limited(io::stdin().lock(), &mut text)
            .map_err(|error| cannot_read("standard input", &error))?;
        return Ok(policy::parse(&utf8("standard input", text)?, "-")?);
    }
    Ok(policy::parse(&text_of(path)?.text, &path.display().to_string())?)
}

/// A file that was read.
#[derive(Debug)]
pub struct WasRead {
    /// What the file says.
    pub text: String,
    /// Its descriptor, which keeps the inode from being given to another file.
    pub file: File,
    /// As it was before it was read.
    pub before: Metadata,
}

/// The text of the file at `path`. Waits for nobody: a FIFO has no writer perhaps, a
/// device may do anything when it is opened.
///
/// # Errors
/// What is no regular file, cannot be read, or is not UTF-8; as root, a file that others can write,
/// or replace.
pub fn text_of(path: &Path) -> Result<WasRead, Failure> {
    let name = shown(&path.to_string_lossy()).to_string();
    let unreadable = |error| cannot_read(&name, &error);
    // Before it is opened: opening a device can be an act by itself.
    regular(&name, path.metadata().map_err(unreadable)?.file_type())?;
    // It may be another file by now.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let mut file = file.map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    regular(&name, before.file_type())?;
    if nix::unistd::geteuid().is_root() {
        trusted(&name, path, &before)?;
    }
    let mut text = Vec::new();
    limited(&mut file, &mut text).map_err(unreadable)?;
    Ok(WasRead { text: utf8(&name, text)?, file, before })
}

fn regular(name: &str, kind: FileType) -> Result<(), Failure> {
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => {
            return Err(Failure::Usage(format!("{name} is a folder; name the policy file in it")));
        }
        () if kind.is_fifo() => "a pipe (FIFO)",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Failure::Usage(format!(
        "{name} is {what}, and a policy is a regular file; `-` reads standard input"
    )))
}

/// Reads no more than the parser will take, and one byte that says that there was more.
fn limited(from: impl Read, text: &mut Vec<u8>) -> io::Result<usize> {
    from.take(policy::MAX_BYTES as u64 + 1).read_to_end(text)
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    // Cut off, perhaps within a character: the parser says that it is too large.
    if bytes.len() > policy::MAX_BYTES {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::Usage(format!("{name}:{line}: this is not UTF-8 text; save the file as UTF-8"))
    })
}

fn cannot_read(name: &str, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => "; `shaper init` prints a starter policy",
        _ => "",
    };
    Failure::Usage(format!("cannot read {name}: {error}{cure}"))
}

/// As sshd's StrictModes: the file, and each folder and link on the way to it from `/`.
fn trusted(name: &str, path: &Path, file: &Metadata) -> Result<(), Failure> {
    let passed = way(path).map_err(|error| cannot_read(name, &error))?;
    let real = passed.iter().rev().find(|passed| !passed.is_link());
    let real = real.ok_or_else(|| cannot_read(name, &io::ErrorKind::NotFound.into()))?;
    if (real.meta.dev(), real.meta.ino()) != (file.dev(), file.ino()) {
        return Err(Failure::Usage(format!("{name} was replaced just now; try again")));
    }
    if let Some(who) = others_who_write(file) {
        return Err(Failure::Usage(format!(
            "{name} can be written by {who}, and root would obey it; cure: chown root:root {0} && chmod go-w {0}",
            shown(&real.path.to_string_lossy())
        )));
    }
    // Nearest first: that is where the cure is most often.
    for passed in passed.iter().rev().filter(|passed| passed.meta.is_dir()) {
        let direct =
            real.path.parent() == Some(&passed.path) || path.parent() == Some(&passed.path);
        trusted_folder(name, passed, if direct { "in" } else { "below" })?;
    }
    // In a sticky folder (/tmp) anybody can make a link.
    let foreign = passed.iter().find(|passed| passed.is_link() && passed.meta.uid() != 0);
    if let Some(Passed { path, meta }) = foreign {
        return Err(Failure::Usage(format!(
            "{name} is reached by the link {}, which uid {} made and could lead elsewhere; cure: let root make it, or name the file itself",
            shown(&path.to_string_lossy()),
            meta.uid()
        )));
    }
    Ok(())
}

fn trusted_folder(name: &str, folder: &Passed, lies: &str) -> Result<(), Failure> {
    let Passed { path, meta } = folder;
    // In a sticky folder (/tmp) only a file's owner can replace it, and the folder's.
    let sticky = meta.mode() & 0o1000 != 0 && meta.uid() == 0;
    if !sticky && let Some(who) = others_who_write(meta) {
        return Err(Failure::Usage(format!(
            "{name} lies {lies} {0}, which can be written by {who}, who could replace it; cure: chown root:root {0} && chmod go-w {0}, or move the policy to /etc/shaper",
            shown(&path.to_string_lossy())
        )));
    }
    Ok(())
}

/// Who else than root can write; `None`: nobody.
fn others_who_write(meta: &Metadata) -> Option<String> {
    if meta.uid() != 0 {
        Some(format!("its owner, uid {}", meta.uid()))
    } else if meta.mode() & 0o002 != 0 {
        Some("everybody".to_string())
    } else if meta.mode() & 0o020 != 0 {
        // Also group root: with an access control list these bits are what the list may grant.
        Some(format!("its group, gid {}", meta.gid()))
    } else {
        None
    }
}
