//! The maps of a program of rules, and how it is loaded.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, setrlimit};

use super::load::load_with;
use super::map::{MAP_UPDATE, Map, ONLY_KEY};
use super::owner_maps::Maps;
use crate::classify::program_rules;
use crate::tree::{ProgramRule, RuleMapIds, RuleProgram};

/// The two maps of one program of rules. As [`Maps`], they exist as long as a filter uses them or
/// somebody has a descriptor.
#[derive(Debug)]
pub struct RuleMaps {
    text: Map,
    counts: Map,
}

impl RuleMaps {
    /// Makes maps with these rules and all counts at 0. Needs what [`Maps::create`] needs.
    pub fn create(rules: &[ProgramRule]) -> io::Result<RuleMaps> {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let mut text = serde_json::to_vec(rules)?;
        let counts = u32::try_from(8 * rules.len().max(1)).map_err(io::Error::other)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let maps = RuleMaps {
            text: Map::create_array(length, *b"shaper_rules\0\0\0\0")?,
            counts: Map::create_array(counts, *b"shaper_counts\0\0\0")?,
        };
        maps.text.element(MAP_UPDATE, &ONLY_KEY, &mut text)?;
        Ok(maps)
    }

    /// The maps of these numbers. Needs CAP_SYS_ADMIN; EPERM without.
    pub fn open(ids: RuleMapIds) -> io::Result<RuleMaps> {
        Ok(RuleMaps { text: Map::open_array(ids.text)?, counts: Map::open_array(ids.counts)? })
    }

    /// The kernel's numbers of the two maps, by which others find them.
    pub fn ids(&self) -> RuleMapIds {
        RuleMapIds { text: self.text.id, counts: self.counts.id }
    }

    /// The program's rules, read from the map with their text.
    pub fn rules(&self) -> io::Result<Vec<ProgramRule>> {
        Ok(serde_json::from_slice(&self.text.only_value()?)?)
    }

    /// How many packets each rule has matched, in their order.
    pub fn counts(&self) -> io::Result<Vec<u64>> {
        let value = self.counts.only_value()?;
        let counts = value.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
        Ok(counts.map(u64::from_ne_bytes).collect())
    }
}

/// Loads a program of rules, with its own maps and, where it asks who sends, with the deciding
/// program's.
pub fn load_rules(
    program: &RuleProgram,
    maps: &RuleMaps,
    owners: Option<&Maps>,
) -> io::Result<OwnedFd> {
    // A program without `from` names no map of owners, so any map can stand at their numbers.
    let of_owners = |pick: fn(&Maps) -> &Map| owners.map_or(&maps.text, pick);
    let maps = [
        of_owners(|owners| &owners.accounts),
        of_owners(|owners| &owners.ranges),
        of_owners(|owners| &owners.given),
        &maps.counts,
        &maps.text,
    ];
    load_with(&program_rules::compile(program), &maps, *b"shaper_rules\0\0\0\0")
}
