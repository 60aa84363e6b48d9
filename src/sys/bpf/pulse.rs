//! The map by which the program that redirects knows that packets come to the ifb, and the programs
//! that read and write it.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, setrlimit};

use super::load::load_with;
use super::map::Map;
use crate::classify::redirect;

/// The pulse of one ifb. As [`super::Maps`], it lives as long as a filter uses it or somebody holds
/// a descriptor. Both filters that use it are made in one run.
#[derive(Debug)]
pub struct Pulse {
    map: Map,
}

impl Pulse {
    /// One in which no question is open. Needs what [`super::Maps::create`] does.
    pub fn create() -> io::Result<Pulse> {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        Ok(Pulse { map: Map::create_array(redirect::VALUE_BYTES, *b"shaper_pulse\0\0\0\0")? })
    }

    /// The kernel's number of the map, by which the filters' names know it.
    pub fn id(&self) -> u32 {
        self.map.id
    }

    /// Loads the program that notes that packets come.
    pub fn load_pulse(&self) -> io::Result<OwnedFd> {
        load_with(&redirect::pulse(), &[&self.map], *b"shaper_pulse\0\0\0\0")
    }

    /// Loads the program that chooses what goes through the ifb of this ifindex. EINVAL before
    /// Linux 5.12, which cannot ask whether it is there.
    pub fn load_redirect(&self, ifb: u32) -> io::Result<OwnedFd> {
        load_with(&redirect::redirect(ifb), &[&self.map], *b"shaper_redirect\0")
    }
}
