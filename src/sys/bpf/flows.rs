//! The map of one link's flows, and the programs that read and write it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use super::load::load_with;
use super::map::{LRU_HASH, Map};
use super::owner_maps::Maps;
use super::servers::ServerMap;
use crate::classify::flows;
use crate::classify::servers::SERVERS;
use crate::tree::Tag;

/// Flows that are remembered: 7.3 MB. The kernel forgets those that were used longest ago.
const FLOWS: u32 = 1 << 16;

/// The flows of one link. As [`Maps`], it lives as long as a filter uses it or somebody holds a
/// descriptor. Programs that take the places of others go on with it; where they cannot have it,
/// they have a new one, which the next packets fill.
#[derive(Debug)]
pub struct Flows {
    map: Map,
    /// When this process made it; `None`: another one did.
    made: Option<Instant>,
}

impl Flows {
    /// One that knows no flow. Needs what [`Maps::create`] does.
    pub fn create() -> io::Result<Flows> {
        Flows::sized(FLOWS)
    }

    /// The smallest that programs can be loaded with.
    pub fn for_trial() -> io::Result<Flows> {
        Flows::sized(1)
    }

    /// The map of this number. Needs CAP_SYS_ADMIN; EPERM without.
    pub fn open(id: u32) -> io::Result<Flows> {
        let sizes = (flows::KEY_BYTES, flows::VALUE_BYTES);
        Ok(Flows { map: Map::open_sized(id, LRU_HASH, sizes)?, made: None })
    }

    fn sized(entries: u32) -> io::Result<Flows> {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let sizes = (flows::KEY_BYTES, flows::VALUE_BYTES);
        let map = Map::create_with((LRU_HASH, 0), sizes, entries, *b"shaper_flows\0\0\0\0")?;
        Ok(Flows { map, made: Some(Instant::now()) })
    }

    /// Whether this process made the map less than so long ago.
    pub fn is_younger_than(&self, age: Duration) -> bool {
        self.made.is_some_and(|made| made.elapsed() < age)
    }

    /// The kernel's number of the map, by which the filters' names know it.
    pub fn id(&self) -> u32 {
        self.map.id
    }

    /// Loads the program that notes flows. `owners`: the maps of the deciding program, where `tag`
    /// asks them.
    pub fn load_learn(&self, tag: Tag, owners: Option<&Maps>) -> io::Result<OwnedFd> {
        // Where they are not asked for, no instruction names them.
        let of_owners = |pick: fn(&Maps) -> &Map| owners.map_or(&self.map, pick);
        let maps = [
            of_owners(|owners| &owners.accounts),
            of_owners(|owners| &owners.ranges),
            of_owners(|owners| &owners.given),
            &self.map,
        ];
        load_with(&flows::learn(tag), &maps, *b"shaper_learn\0\0\0\0")
    }

    /// Loads the program that finds flows, and where one is unknown asks for bound sockets.
    /// `shards` and `for_rules`: as [`flows::find`] has them.
    pub fn load_find(
        &self,
        (shards, for_rules): (bool, bool),
        servers: &ServerMap,
    ) -> io::Result<OwnedFd> {
        let mut maps = [&self.map; SERVERS as usize + 1];
        maps[SERVERS as usize] = &servers.map;
        load_with(&flows::find(shards, for_rules), &maps, *b"shaper_find\0\0\0\0\0")
    }
}
