//! Texts with totals, kept below `/run/shaper` from one process to the next: they end with the
//! machine's uptime, as the kernel's counters do.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cgroup::make_folder;

/// Where they are.
pub const ROOM: &str = "/run/shaper";

/// Whose totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Totals {
    /// The classes'.
    Classes,
    /// The daemon's.
    Daemon,
}

/// The file for these totals of an instance.
pub fn path(totals: Totals, instance: &str) -> PathBuf {
    let name = match totals {
        Totals::Classes => "metrics",
        Totals::Daemon => "daemon",
    };
    Path::new(ROOM).join(format!("{name}-{instance}.json"))
}

/// Writes the text, for root to see: what others use is root's to know. Whoever reads meanwhile
/// sees the old text or the new one.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    make_folder(Path::new(ROOM))?;
    let new = path.with_extension("new");
    let mut file =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}
