//! bpf(2): loads the deciding program and keeps its maps (linux/bpf.h, kernel/bpf/syscall.c).

mod call;
mod map;
mod rule_maps;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, setrlimit};

use super::btf;
use super::shortage::is_shortage;
use crate::classify::assembler::Instruction;
use crate::classify::program;
use crate::facts::Helpers;
use crate::tree::{MapIds, OwnerChange, OwnerTable, Program, Sockets, TagHelper, UidPrefix, Uids};
use crate::units::ClassId;
use call::new_descriptor;
use map::{HASH, LPM_TRIE, Map};
pub use rule_maps::{RuleMaps, load_rules};

/// `BPF_PROG_LOAD` of `enum bpf_cmd`.
const PROG_LOAD: libc::c_long = 5;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;

/// The most entries of each map: twice as many accounts as there can be classes, for labels with
/// several accounts; a range of uids is at most 62 prefixes.
const ACCOUNTS: u32 = 1 << 17;
const RANGES: u32 = 1 << 16;
const GIVEN: u32 = 1 << 16;

/// The three maps of the deciding programs of one instance. They live as long as somebody holds a
/// descriptor or a filter uses them; nothing is pinned.
#[derive(Debug)]
pub struct Maps {
    accounts: Map,
    ranges: Map,
    given: Map,
}

impl Maps {
    /// New maps that hold `table`. Needs CAP_BPF (CAP_SYS_ADMIN before Linux 5.8).
    pub fn create(table: &OwnerTable) -> io::Result<Maps> {
        // Before Linux 5.11 maps count as locked memory; where raising that limit is not allowed,
        // it may be enough.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let maps = Maps::sized(ACCOUNTS, RANGES, GIVEN)?;
        for (uid, class) in &table.accounts {
            maps.accounts.update(&uid.to_ne_bytes(), class.0)?;
        }
        for (prefix, class) in &table.ranges {
            maps.ranges.update(&prefix_key(*prefix), class.0)?;
        }
        Ok(maps)
    }

    /// The smallest that a program can be loaded with.
    pub fn for_trial() -> io::Result<Maps> {
        Maps::sized(1, 1, 1)
    }

    fn sized(accounts: u32, ranges: u32, given: u32) -> io::Result<Maps> {
        Ok(Maps {
            accounts: Map::create(HASH, 4, accounts, *b"shaper_accounts\0")?,
            ranges: Map::create(LPM_TRIE, 8, ranges, *b"shaper_ranges\0\0\0")?,
            given: Map::create(HASH, 8, given, *b"shaper_given\0\0\0\0")?,
        })
    }

    /// The maps of these numbers. Needs CAP_SYS_ADMIN; EPERM without.
    pub fn open(ids: MapIds) -> io::Result<Maps> {
        let MapIds([accounts, ranges, given]) = ids;
        Ok(Maps {
            accounts: Map::open(accounts, HASH, 4)?,
            ranges: Map::open(ranges, LPM_TRIE, 8)?,
            given: Map::open(given, HASH, 8)?,
        })
    }

    /// The kernel's numbers of the three, by which others find them.
    pub fn ids(&self) -> MapIds {
        MapIds([self.accounts.id, self.ranges.id, self.given.id])
    }

    /// What they hold.
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
        Ok(OwnerTable { accounts, ranges: ranges.collect() })
    }

    /// Sets one entry or takes it away. ENOENT: it was not there to be taken away.
    pub fn perform(&self, change: &OwnerChange) -> io::Result<()> {
        match (change.uids, change.to) {
            (Uids::Account(uid), Some(to)) => self.accounts.update(&uid.to_ne_bytes(), to.0),
            (Uids::Account(uid), None) => self.accounts.delete(&uid.to_ne_bytes()),
            (Uids::Prefix(prefix), Some(to)) => self.ranges.update(&prefix_key(prefix), to.0),
            (Uids::Prefix(prefix), None) => self.ranges.delete(&prefix_key(prefix)),
        }
    }

    /// The pairs of owner and class that were given on purpose.
    pub fn given(&self) -> io::Result<Vec<(u32, ClassId)>> {
        let entries = self.given.entries::<8>()?.into_iter();
        Ok(entries
            .map(|([a, b, c, d, e, f, g, h], _)| {
                let tag = u32::from_ne_bytes([e, f, g, h]);
                (u32::from_ne_bytes([a, b, c, d]), ClassId(tag))
            })
            .collect())
    }

    /// Packets of `uid`'s sockets that carry the class's number are the class's from now on.
    pub fn give(&self, uid: u32, class: ClassId) -> io::Result<()> {
        self.given.update(&pair_key(uid, class), 1)
    }

    /// The contrary of [`Maps::give`]. ENOENT: the pair was not given.
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

/// Loads a deciding program that reads these maps. Needs CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN
/// before Linux 5.8); EPERM without. A filter that uses it keeps it alive; the descriptor may be
/// closed then.
pub fn load(program: Program, maps: &Maps) -> io::Result<OwnedFd> {
    load_instructions(&program::decide(program), maps)
}

/// Loads any program of traffic control whose maps are numbered as the deciding one's.
pub fn load_instructions(program: &[Instruction], maps: &Maps) -> io::Result<OwnedFd> {
    let maps = [&maps.accounts, &maps.ranges, &maps.given];
    load_with(program, &maps, *b"shaper_decide\0\0\0")
}

/// Loads the program that clears priorities.
pub fn load_clear_priority(sockets: Sockets) -> io::Result<OwnedFd> {
    // As before maps: programs count, too.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    load_with(&program::clear_priority(sockets), &[], *b"shaper_priority\0")
}

fn load_with(program: &[Instruction], maps: &[&Map], name: [u8; 16]) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the rest counts as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        let map = instruction.map().and_then(|number| maps.get(number));
        let immediate = map.map_or(instruction.immediate, |map| map.fd.as_raw_fd());
        bytes.extend(Instruction { immediate, ..*instruction }.bytes());
    }
    let mut attr = Load {
        kind: SCHED_CLS,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: bytes.as_ptr().addr() as u64,
        // The functions that read the tag are for programs under the GPL only.
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: the layout is the command's; instructions and licence outlive the call, which only
    // reads them.
    unsafe { new_descriptor(PROG_LOAD, &mut attr) }
}

/// Whether this process may load programs, but none that reads the kernel's own values.
pub fn may_not_read_kernel() -> bool {
    /// Bits of `CapEff` (linux/capability.h): CAP_SYS_ADMIN, which stands for both of the others,
    /// then CAP_PERFMON and CAP_BPF (Linux 5.8).
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & BPF != 0 && mask & (SYS_ADMIN | PERFMON) == 0
}

/// Which functions a deciding program can call here; `None` where none can be loaded at all.
pub fn helpers() -> io::Result<Helpers> {
    let maps = Maps::for_trial()?;
    let loads = |tag, sockets| load(Program { shards: true, tag, sockets, mptcp: None }, &maps);
    let takes = |tag, sockets| match loads(tag, sockets) {
        Err(error) if is_shortage(&error) => Err(error),
        answer => Ok(answer.is_ok()),
    };
    let netns_cookie = takes(TagHelper::Task, Sockets::Cookie(1))?;
    let socket_tag = takes(TagHelper::Socket, Sockets::All)?;
    if !netns_cookie && !socket_tag {
        loads(TagHelper::Task, Sockets::All)?;
    }
    let layout = btf::mptcp_layout()?;
    let mptcp = layout.filter(|_| {
        let (tag, sockets) = (TagHelper::Task, Sockets::All);
        load(Program { shards: true, tag, sockets, mptcp: layout }, &maps).is_ok()
    });
    Ok(Helpers { socket_tag, netns_cookie, mptcp })
}
