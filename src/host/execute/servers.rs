//! The map of bound sockets, filled. What it has is a fact, as who has logged in: no step says it,
//! and it is written anew after each run.

use std::io;

use log::debug;

use crate::host::Kernel;
use crate::host::observe::{self, ObserveError};
use crate::sys::bpf::ServerMap;

/// The map that new programs read: the one that is open, or a new one with the sockets of now.
pub(super) fn open(kernel: &mut Kernel) -> io::Result<&ServerMap> {
    if kernel.servers.is_none() {
        kernel.servers = Some(ServerMap::create()?);
        if let Err(error) = refresh_servers(kernel) {
            debug!("bound sockets: {error}");
        }
    }
    kernel.servers.as_ref().ok_or_else(|| io::Error::other("the map of bound sockets is not open"))
}

/// Looks which sockets are bound, and writes whose they are for the programs that find flows. Does
/// nothing where there is no such program. What others have written there is mended, soon
/// ([`ServerMap::fill`]).
///
/// # Errors
/// A list that cannot be read, or a map that cannot be written.
pub fn refresh_servers(kernel: &mut Kernel) -> Result<(), ObserveError> {
    if kernel.servers.is_none() {
        return Ok(());
    }
    let wanted = observe::servers(kernel)?;
    let Some(map) = &mut kernel.servers else { return Ok(()) };
    let write = |source| ObserveError::Read { path: "BPF map of bound sockets".into(), source };
    let changed = map.fill(&wanted).map_err(write)?;
    if changed > 0 {
        debug!("bound sockets: {} entries, {changed} of them changed", wanted.len());
    }
    Ok(())
}
