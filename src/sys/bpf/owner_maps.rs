//! The maps of the deciding programs and of labels: the class of each uid, and of guests' sources.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use nix::sys::resource::{Resource, setrlimit};

use super::map::{HASH, LPM_TRIE, Map};
use crate::classify::cgroups;
use crate::classify::inner::{self, SOURCE_KEY_BYTES};
use crate::tree::{Cgroup, MapIds, OwnerChange, OwnerKey, OwnerTable, Turn, UidPrefix};
use crate::units::ClassId;

/// The most entries of each map: twice as many accounts as there can be classes, for labels with
/// several accounts; a range of uids is at most 62 prefixes.
const ACCOUNTS: u32 = 1 << 17;
const RANGES: u32 = 1 << 16;
const GIVEN: u32 = 1 << 16;
const SOURCES: u32 = 1 << 16;

/// The four maps of the programs of one instance. They exist as long as somebody has a
/// descriptor or a filter uses them; nothing is pinned.
#[derive(Debug)]
pub struct Maps {
    pub(super) accounts: Map,
    pub(super) ranges: Map,
    pub(super) given: Map,
    pub(super) sources: Map,
    /// Held while the mask of levels is changed: several threads place processes. What another
    /// process loses of it at the same time, the next look finds missing.
    levels: Mutex<()>,
}

impl Maps {
    /// Makes maps with the contents of `table`. Needs CAP_BPF (CAP_SYS_ADMIN before Linux 5.8).
    pub fn create(table: &OwnerTable) -> io::Result<Maps> {
        // Before Linux 5.11 maps count as locked memory. An error is ignored, since the limit may
        // be high enough as it is.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let maps = Maps::sized([ACCOUNTS, RANGES, GIVEN, SOURCES])?;
        for (uid, class) in &table.accounts {
            maps.accounts.update(&uid.to_ne_bytes(), class.0)?;
        }
        for (prefix, class) in &table.ranges {
            maps.ranges.update(&prefix_key(*prefix), class.0)?;
        }
        for (source, class) in &table.sources {
            maps.sources.update(&inner::key(*source), class.0)?;
        }
        for ((cgroup, turn), class) in &table.cgroups {
            maps.give_cgroup((*cgroup, *turn), *class)?;
        }
        Ok(maps)
    }

    /// Makes the smallest maps with which a program can be loaded.
    pub fn for_trial() -> io::Result<Maps> {
        Maps::sized([1; 4])
    }

    fn sized([accounts, ranges, given, sources]: [u32; 4]) -> io::Result<Maps> {
        let source = SOURCE_KEY_BYTES as u32;
        Ok(Maps {
            accounts: Map::create(HASH, 4, accounts, *b"shaper_accounts\0")?,
            ranges: Map::create(LPM_TRIE, 8, ranges, *b"shaper_ranges\0\0\0")?,
            given: Map::create(HASH, 8, given, *b"shaper_given\0\0\0\0")?,
            sources: Map::create(LPM_TRIE, source, sources, *b"shaper_sources\0\0")?,
            levels: Mutex::default(),
        })
    }

    /// The maps of these numbers. Needs CAP_SYS_ADMIN; EPERM without.
    pub fn open(ids: MapIds) -> io::Result<Maps> {
        let MapIds([accounts, ranges, given, sources]) = ids;
        Ok(Maps {
            accounts: Map::open(accounts, HASH, 4)?,
            ranges: Map::open(ranges, LPM_TRIE, 8)?,
            given: Map::open(given, HASH, 8)?,
            sources: Map::open(sources, LPM_TRIE, SOURCE_KEY_BYTES as u32)?,
            levels: Mutex::default(),
        })
    }

    /// The kernel's numbers of the four maps, by which others find them.
    pub fn ids(&self) -> MapIds {
        MapIds([self.accounts.id, self.ranges.id, self.given.id, self.sources.id])
    }

    /// The contents of the maps.
    pub fn table(&self) -> io::Result<OwnerTable> {
        let accounts = self.accounts.entries::<4>()?;
        let accounts: BTreeMap<_, _> = accounts
            .into_iter()
            .map(|(uid, class)| (u32::from_ne_bytes(uid), ClassId(class)))
            .collect();
        let ranges = self.ranges.entries::<8>()?.into_iter().map(|(key, class)| {
            let [a, b, c, d, uid @ ..] = key;
            let bits = u32::from_ne_bytes([a, b, c, d]);
            let bits = u8::try_from(bits).unwrap_or(u8::MAX);
            (UidPrefix { uid: u32::from_be_bytes(uid), bits }, ClassId(class))
        });
        let sources = self.sources.entries::<SOURCE_KEY_BYTES>()?.into_iter();
        let sources =
            sources.filter_map(|(key, class)| Some((inner::source(key)?, ClassId(class))));
        let cgroups = self.cgroups()?;
        Ok(OwnerTable { accounts, ranges: ranges.collect(), sources: sources.collect(), cgroups })
    }

    /// The classes of cgroups.
    pub fn cgroups(&self) -> io::Result<BTreeMap<(Cgroup, Turn), ClassId>> {
        let levels = self.given.value(&cgroups::MASK_KEY)?.unwrap_or_default();
        let cgroups = self.given.entries::<8>()?.into_iter().filter_map(|(key, class)| {
            let (cgroup, turn) = cgroups::cgroup(key)?;
            // Nobody asks about other levels.
            let is_asked = levels & cgroups::bit(cgroup.level, turn) != 0;
            is_asked.then_some(((cgroup, turn), ClassId(class)))
        });
        Ok(cgroups.collect())
    }

    /// Sets or removes one entry. ENOENT: there was no entry to remove.
    pub fn perform(&self, change: &OwnerChange) -> io::Result<()> {
        match (change.key, change.to) {
            (OwnerKey::Account(uid), Some(to)) => self.accounts.update(&uid.to_ne_bytes(), to.0),
            (OwnerKey::Account(uid), None) => self.accounts.delete(&uid.to_ne_bytes()),
            (OwnerKey::Prefix(prefix), Some(to)) => self.ranges.update(&prefix_key(prefix), to.0),
            (OwnerKey::Prefix(prefix), None) => self.ranges.delete(&prefix_key(prefix)),
            (OwnerKey::Source(source), Some(to)) => self.sources.update(&inner::key(source), to.0),
            (OwnerKey::Source(source), None) => self.sources.delete(&inner::key(source)),
            (OwnerKey::Cgroup(cgroup, turn), Some(to)) => self.give_cgroup((cgroup, turn), to),
            (OwnerKey::Cgroup(cgroup, turn), None) => match cgroups::key(cgroup, turn) {
                Some(key) => self.given.delete(&key),
                None => Ok(()),
            },
        }
    }

    /// Sets the class of a cgroup's sockets. Of one that is too deep to be asked about nothing is
    /// set.
    pub fn give_cgroup(&self, (cgroup, turn): (Cgroup, Turn), class: ClassId) -> io::Result<()> {
        let Some(key) = cgroups::key(cgroup, turn) else { return Ok(()) };
        self.given.update(&key, class.0)?;
        let _lock = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = self.given.value(&cgroups::MASK_KEY)?.unwrap_or_default();
        let bit = cgroups::bit(cgroup.level, turn);
        match levels & bit {
            0 => self.given.update(&cgroups::MASK_KEY, levels | bit),
            _ => Ok(()),
        }
    }

    /// The pairs of owner and class that were given on purpose.
    pub fn given(&self) -> io::Result<Vec<(u32, ClassId)>> {
        let entries = self.given.entries::<8>()?.into_iter();
        let pairs = entries.filter(|(key, _)| cgroups::is_pair(*key));
        Ok(pairs
            .map(|([a, b, c, d, e, f, g, h], _)| {
                let tag = u32::from_ne_bytes([e, f, g, h]);
                (u32::from_ne_bytes([a, b, c, d]), ClassId(tag))
            })
            .collect())
    }

    /// The class of a socket with this owner and this tag, as the deciding program has it
    /// ([`crate::classify::program`]); [`ClassId::NONE`]: nobody's.
    pub fn class_of(&self, uid: u32, tag: ClassId) -> io::Result<ClassId> {
        let by_tag = tag != ClassId::NONE;
        if uid == 0 && by_tag {
            return Ok(tag);
        }
        let mut class = self.accounts.value(&uid.to_ne_bytes())?;
        if uid == 0 {
            return Ok(class.map_or(ClassId::NONE, ClassId));
        }
        if class.is_none() {
            class = self.ranges.value(&prefix_key(UidPrefix { uid, bits: 32 }))?;
        }
        let class = class.map_or(ClassId::NONE, ClassId);
        let is_given = || Ok::<_, io::Error>(self.given.value(&pair_key(uid, tag))?.is_some());
        Ok(if by_tag && tag != class && is_given()? { tag } else { class })
    }

    /// Gives the pair: from now on, packets of `uid`'s sockets with the class's tag are in that
    /// class.
    pub fn give(&self, uid: u32, class: ClassId) -> io::Result<()> {
        self.given.update(&pair_key(uid, class), 1)
    }

    /// Takes a pair back that [`Maps::give`] gave. ENOENT: the pair was not given.
    pub fn take_back(&self, uid: u32, class: ClassId) -> io::Result<()> {
        self.given.delete(&pair_key(uid, class))
    }
}

/// `struct bpf_lpm_trie_key`: the length in the machine's byte order, the data in the network's.
fn prefix_key(prefix: UidPrefix) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) =
        (u32::from(prefix.bits).to_ne_bytes(), prefix.uid.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

fn pair_key(uid: u32, class: ClassId) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (uid.to_ne_bytes(), class.0.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}
