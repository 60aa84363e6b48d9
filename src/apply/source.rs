//! Reading the policy file. A root process obeys what the file says, so nobody but root may be able
//! to write it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::failure::Failure;
use crate::policy::{self, Policy};

/// Reads and parses the policy at `path`; `-` is standard input. As root, a file that others can
/// write, or that lies in a folder where others can replace it, is refused.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    let mut text = Vec::new();
    let name = path.display().to_string();
    if path == Path::new("-") {
        limited(io::stdin().lock(), &mut text)
            .map_err(|error| cannot_read("standard input", &error))?;
        return Ok(policy::parse(&utf8("standard input", text)?, "-")?);
    }
    let file = File::open(path).map_err(|error| cannot_read(&name, &error))?;
    let meta = file.metadata().map_err(|error| cannot_read(&name, &error))?;
    if meta.is_dir() {
        return Err(Failure::Usage(format!("{name} is a folder; name the policy file in it")));
    }
    if nix::unistd::geteuid().is_root() {
        trusted(path, &meta)?;
    }
    limited(file, &mut text).map_err(|error| cannot_read(&name, &error))?;
    Ok(policy::parse(&utf8(&name, text)?, &name)?)
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

fn trusted(path: &Path, file: &Metadata) -> Result<(), Failure> {
    let name = path.display();
    // Where the file really lies: a link's own folder does not decide who can replace the target.
    let real = path.canonicalize().map_err(|error| cannot_read(&name.to_string(), &error))?;
    if let Some(who) = others_who_write(file) {
        return Err(Failure::Usage(format!(
            "{name} can be written by {who}, and root would obey it; cure: chown root:root {0} && chmod go-w {0}",
            real.display()
        )));
    }
    // Of a link, also the folder that it lies in: who can replace the link chooses the file.
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    for folder in [Some(parent), real.parent()].into_iter().flatten() {
        trusted_folder(path, folder)?;
    }
    Ok(())
}

fn trusted_folder(path: &Path, folder: &Path) -> Result<(), Failure> {
    let name = path.display();
    let meta =
        folder.metadata().map_err(|error| cannot_read(&folder.display().to_string(), &error))?;
    // In a sticky folder (/tmp) only a file's owner can replace it.
    if meta.mode() & 0o1000 == 0
        && let Some(who) = others_who_write(&meta)
    {
        return Err(Failure::Usage(format!(
            "{name} lies in {0}, which can be written by {who}, who could replace it; cure: chown root:root {0} && chmod go-w {0}, or move the policy to /etc/shaper",
            folder.display()
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
