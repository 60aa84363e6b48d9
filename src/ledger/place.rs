//! Where the file is.

use std::path::{Path, PathBuf};

/// The folder: what the service manager says (systemd.exec(5), `StateDirectory`), else where it
/// would be.
pub fn folder() -> PathBuf {
    let told = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    told.unwrap_or_else(|| PathBuf::from("/var/lib/shaper"))
}

/// The file for the use of an instance.
pub fn path(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("use-{instance}"))
}
