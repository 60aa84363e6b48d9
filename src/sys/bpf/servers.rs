//! The map of bound sockets, which the programs that find flows ask about others.

use std::io;

use nix::sys::resource::{Resource, setrlimit};

use super::map::{HASH, Map};
use crate::classify::servers::{self, ServerKey, Servers};
use crate::units::ClassId;

/// The bound sockets of the network namespace, the same for all links of an instance. As
/// [`super::Maps`], it lives as long as a filter uses it or somebody holds a descriptor.
#[derive(Debug)]
pub struct ServerMap {
    pub(super) map: Map,
}

impl ServerMap {
    /// One without entries. Needs what [`super::Maps::create`] does.
    pub fn create() -> io::Result<ServerMap> {
        ServerMap::sized(u32::try_from(servers::MOST).map_err(io::Error::other)?)
    }

    /// The smallest that programs can be loaded with.
    pub fn for_trial() -> io::Result<ServerMap> {
        ServerMap::sized(1)
    }

    /// The map of this number. Needs CAP_SYS_ADMIN; EPERM without.
    pub fn open(id: u32) -> io::Result<ServerMap> {
        Ok(ServerMap { map: Map::open(id, HASH, servers::KEY_BYTES)? })
    }

    fn sized(entries: u32) -> io::Result<ServerMap> {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let name = *b"shaper_servers\0\0";
        Ok(ServerMap { map: Map::create(HASH, servers::KEY_BYTES, entries, name)? })
    }

    /// The kernel's number of the map, by which the filters' names know it.
    pub fn id(&self) -> u32 {
        self.map.id
    }

    /// Makes its entries these, whatever it has had; how many were changed. What is there already
    /// is not written.
    pub fn fill(&self, wanted: &Servers) -> io::Result<usize> {
        const KEY: usize = servers::KEY_BYTES as usize;
        let standing: Servers = self
            .map
            .entries::<KEY>()?
            .into_iter()
            .map(|(key, class)| (ServerKey(key), ClassId(class)))
            .collect();
        let mut changed = 0;
        // First, so that there is room.
        for key in standing.keys().filter(|key| !wanted.contains_key(*key)) {
            self.map.delete(&key.0)?;
            changed += 1;
        }
        for (key, class) in wanted.iter().filter(|(key, class)| standing.get(*key) != Some(*class))
        {
            self.map.update(&key.0, class.0)?;
            changed += 1;
        }
        Ok(changed)
    }
}
