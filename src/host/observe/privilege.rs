//! What this process may do.

use std::fs;
use std::path::Path;

use super::error::ObserveError;
use crate::facts::Lack;

/// Linux's number of CAP_NET_ADMIN (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// What this process lacks to change links and directories; `None`: nothing.
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn lack(proc_root: &Path) -> Result<Option<Lack>, ObserveError> {
    let path = proc_root.join("self/status");
    let status = fs::read_to_string(&path)
        .map_err(|source| ObserveError::Read { path: path.display().to_string(), source })?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    Ok(if effective & (1 << CAP_NET_ADMIN) == 0 {
        Some(Lack::NetAdmin)
    } else if !nix::unistd::geteuid().is_root() {
        Some(Lack::Root)
    } else {
        None
    })
}
