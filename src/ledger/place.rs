//! Where the file is, and how it is opened and made.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::{fchownat, geteuid};

use crate::units::Bytes;

/// No file of use is longer: one of fifty thousand users, each with several rolling periods, is not
/// half of it.
const LONGEST: u64 = 1 << 30;

/// The folder, which `SHAPER_STATE` may name. Not `STATE_DIRECTORY` (systemd.exec(5)): whoever
/// grants more from another service has that service's.
pub fn folder() -> PathBuf {
    let told = std::env::var_os("SHAPER_STATE").map(PathBuf::from);
    told.unwrap_or_else(|| PathBuf::from("/var/lib/shaper"))
}

/// The file for the use of an instance.
pub fn path(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("use-{instance}"))
}

/// The folder of the file, root's alone.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

/// The file; where there is none, with `beginning` as one that is whole from its first moment.
pub(super) fn open(path: &Path, beginning: impl FnOnce() -> Vec<u8>) -> io::Result<File> {
    let there = || how().open(path);
    let file = match there() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let new = before(path, &format!("new-{}-", std::process::id()));
            let made = write_whole(&new, &beginning()).and_then(|_| fs::hard_link(&new, path));
            let _ = fs::remove_file(&new);
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => there()?,
            }
        }
        file => file?,
    };
    let file = plain(file)?;
    // A backup that was put back by hand may be anybody's, who could write there what he likes.
    let own = geteuid();
    if file.metadata()?.uid() != own.as_raw() {
        // Not fchown(2), which the filters of the units refuse.
        fchownat(&file, "", Some(own), None, AtFlags::AT_EMPTY_PATH)?;
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// What others use is root's to know.
fn how() -> OpenOptions {
    let mut how = File::options();
    how.read(true).write(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
    how
}

/// The file's name with a word before it, as no file of an instance begins.
pub(super) fn before(path: &Path, word: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{word}{name}"))
}

/// All bytes of the file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    rest(&mut plain(file)?, 0)
}

/// All bytes of an open file from this one on.
pub(super) fn rest(file: &mut File, begin: u64) -> io::Result<Vec<u8>> {
    // It may have grown since it was opened.
    is_readable(file)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A pipe would be waited for, and a file of any length would take as much memory.
fn plain(file: File) -> io::Result<File> {
    is_readable(&file)?;
    Ok(file)
}

fn is_readable(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    match found.is_file() {
        true if found.len() <= LONGEST => Ok(()),
        true => Err(io::Error::other(format!(
            "it has {}, more than the use of any host; move it away",
            Bytes(found.len()).to_volume()
        ))),
        false => Err(io::Error::other("it is no plain file; move it away")),
    }
}

/// Writes a new file that is on the disk, and locked before it has its name.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = plain(how().create(true).open(path)?)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
