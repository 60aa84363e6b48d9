//! The map of bound sockets, which the programs that find flows ask about others.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use super::map::{HASH, Map};
use crate::classify::servers::{self, ServerKey, Servers};
use crate::units::ClassId;

/// The bound sockets of the network namespace, the same for all links of an instance. As
/// [`super::Maps`], it lives as long as a filter uses it or somebody holds a descriptor.
#[derive(Debug)]
pub struct ServerMap {
    pub(super) map: Map,
    /// The entries, and when they were read.
    known: Option<(Servers, Instant)>,
}

/// How long nobody else is expected to have changed entries. To read them the kernel walks a
/// megabyte of buckets, however few entries there are.
const BELIEVED: Duration = Duration::from_secs(10);

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
        Ok(ServerMap { map: Map::open(id, HASH, servers::KEY_BYTES)?, known: None })
    }

    fn sized(entries: u32) -> io::Result<ServerMap> {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let name = *b"shaper_servers\0\0";
        Ok(ServerMap { map: Map::create(HASH, servers::KEY_BYTES, entries, name)?, known: None })
    }

    /// The kernel's number of the map, by which the filters' names know it.
    pub fn id(&self) -> u32 {
        self.map.id
    }

    /// Makes its entries these; how many were changed. What is there already is not written. What
    /// somebody else has changed is found within ten seconds.
    pub fn fill(&mut self, wanted: &Servers) -> io::Result<usize> {
        // What fails leaves it unknown what is there.
        let known = self.known.take().filter(|(_, read)| read.elapsed() < BELIEVED);
        let (standing, read) = match known {
            Some(known) => known,
            None => (self.read()?, Instant::now()),
        };
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
        let now_there = if changed > 0 { wanted.clone() } else { standing };
        self.known = Some((now_there, read));
        Ok(changed)
    }

    fn read(&self) -> io::Result<Servers> {
        const KEY: usize = servers::KEY_BYTES as usize;
        let entries = self.map.entries::<KEY>()?.into_iter();
        Ok(entries.map(|(key, class)| (ServerKey(key), ClassId(class))).collect())
    }
}
