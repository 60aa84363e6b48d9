//! Where the file is, and how it is opened and made.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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

/// What others use is root's to know.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Writes a new file that is on the disk, and locked before it has its name.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
