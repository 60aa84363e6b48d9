//! What accounts are told of themselves: a file for each below `/run/shaper/told/INSTANCE`, named
//! by its uid. Each is root's, and one uid has it to read: an owner could fill `/run` by it, and a
//! group may have other members. Nobody but root makes, changes or lists anything there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::kept::ROOM;
use crate::cgroup::{make_directory, make_folder};
use crate::sys::xattr;

/// More than any account is told.
const MOST_BYTES: u64 = 1 << 20;

/// Whoever knows a name may open what is his, and nobody may list the others.
const MODE: u32 = 0o711;

/// Texts are as long as a multiple of this: anybody sees how long a file is.
const STRIDE: usize = 1 << 10;

fn all() -> PathBuf {
    Path::new(ROOM).join("told")
}

fn folder(instance: &str) -> PathBuf {
    all().join(instance)
}

/// What is kept for one uid, and until when its use was counted; `None`: it is told nothing.
///
/// # Errors
/// Those of the file system.
pub fn read(instance: &str, uid: u32) -> io::Result<Option<(String, SystemTime)>> {
    let folder = folder(instance);
    let is_there = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
    let (text, at) = match (read_text(&folder.join(uid.to_string())), fs::metadata(&folder)) {
        (Err(error), _) | (_, Err(error)) if !is_there(&error) => return Ok(None),
        (text, folder) => (text?, folder?.modified()?),
    };
    Ok(Some((text, at)))
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the room for an instance's.
///
/// # Errors
/// Those of the file system.
pub fn make_room(instance: &str) -> io::Result<()> {
    make_folder(Path::new(ROOM))?;
    make_directory(&all(), MODE)?;
    make_directory(&folder(instance), MODE)
}

/// Writes what one uid is told; whoever reads meanwhile sees the old text or the new one.
///
/// # Errors
/// Those of the file system, also where it has no access control lists.
pub fn write(instance: &str, uid: u32, text: &str) -> io::Result<()> {
    let path = folder(instance).join(uid.to_string());
    // A run by hand may write at the same time.
    let new = path.with_extension(std::process::id().to_string());
    let written = || {
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        let length = text.len().next_multiple_of(STRIDE);
        file.write_all(format!("{text:length$}").as_bytes())?;
        xattr::let_read(&file, uid)?;
        fs::rename(&new, &path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Whether that is what one uid is told already.
pub fn is_told(instance: &str, uid: u32, text: &str) -> bool {
    read_text(&folder(instance).join(uid.to_string())).is_ok_and(|told| told.trim_end() == text)
}

/// Removes what one uid is told.
///
/// # Errors
/// Those of the file system.
pub fn forget(instance: &str, uid: u32) -> io::Result<()> {
    match fs::remove_file(folder(instance).join(uid.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes all that is not of these uids, and notes that what is left is of now. Whose is there.
///
/// # Errors
/// Those of the file system.
pub fn keep_only(instance: &str, uids: &BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
    let folder = folder(instance);
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(&folder)? {
        let name = entry?.file_name();
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(uid) if uids.contains(&uid) => drop(there.insert(uid)),
            None if is_being_written(&name) => {}
            _ => fs::remove_file(folder.join(name))?,
        }
    }
    File::open(&folder)?.set_modified(SystemTime::now())?;
    Ok(there)
}

/// Whether another process that runs has just made the file, and will rename it.
fn is_being_written(name: &OsStr) -> bool {
    let writer = Path::new(name).extension().and_then(OsStr::to_str);
    writer.is_some_and(|pid| {
        pid != std::process::id().to_string() && Path::new("/proc").join(pid).exists()
    })
}

/// Removes all that an instance's accounts are told.
///
/// # Errors
/// Those of the file system.
pub fn forget_all(instance: &str) -> io::Result<()> {
    match fs::remove_dir_all(folder(instance)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Another instance may have some.
    let _is_empty = fs::remove_dir(all());
    Ok(())
}
