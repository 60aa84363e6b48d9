//! bpf(2): loads the deciding program and keeps its maps (linux/bpf.h, kernel/bpf/syscall.c).

mod rule_maps;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};

use super::btf;
use super::probe::is_out_of_something;
use crate::classify::assembler::Instruction;
use crate::classify::program;
use crate::facts::Helpers;
use crate::tree::{MapIds, OwnerChange, OwnerTable, Program, Sockets, TagHelper, UidPrefix, Uids};
use crate::units::ClassId;
pub use rule_maps::{RuleMaps, load_rules};

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const MAP_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const MAP_FD_BY_ID: libc::c_long = 14;
const INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `enum bpf_map_type` and `enum bpf_prog_type`.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LPM_TRIE: u32 = 11;
const SCHED_CLS: u32 = 3;

/// `BPF_F_NO_PREALLOC`: entries are allocated as they come; a trie can do nothing else.
const NO_PREALLOC: u32 = 1;

/// The most entries of each map: twice as many accounts as there can be classes, for labels with
/// several accounts; a range of uids is at most 62 prefixes.
const ACCOUNTS: u32 = 1 << 17;
const RANGES: u32 = 1 << 16;
const GIVEN: u32 = 1 << 16;

/// Entries that are read with one system call.
const BATCH: usize = 4_096;

/// One map: an open descriptor and the number by which the kernel and our filter's name know it.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    id: u32,
    value_size: u32,
}

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

/// The key of an array's first value.
const ONLY_KEY: [u8; 4] = [0; 4];

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

impl Map {
    fn create(kind: u32, key: u32, entries: u32, name: [u8; 16]) -> io::Result<Map> {
        Map::create_with((kind, NO_PREALLOC), (key, 4), entries, name)
    }

    /// An array of one value of so many bytes.
    fn create_array(value_size: u32, name: [u8; 16]) -> io::Result<Map> {
        Map::create_with((ARRAY, 0), (4, value_size), 1, name)
    }

    fn create_with(
        (kind, flags): (u32, u32),
        (key_size, value_size): (u32, u32),
        max_entries: u32,
        name: [u8; 16],
    ) -> io::Result<Map> {
        /// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
        #[repr(C)]
        struct Create {
            kind: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            flags: u32,
            inner_map: u32,
            numa_node: u32,
            name: [u8; 16],
        }
        let (inner_map, numa_node) = (0, 0);
        let mut attr =
            Create { kind, key_size, value_size, max_entries, flags, inner_map, numa_node, name };
        // SAFETY: the attributes have the layout that the command reads, and hold no pointers.
        let fd = unsafe { new_descriptor(MAP_CREATE, &mut attr) }?;
        let id = info(fd.as_fd())?.id;
        Ok(Map { fd, id, value_size })
    }

    fn open(id: u32, kind: u32, key: u32) -> io::Result<Map> {
        Map::open_if(id, |found| (found.kind, found.key_size, found.value_size) == (kind, key, 4))
    }

    fn open_array(id: u32) -> io::Result<Map> {
        Map::open_if(id, |found| (found.kind, found.key_size, found.max_entries) == (ARRAY, 4, 1))
    }

    fn open_if(id: u32, fits: impl Fn(&MapInfo) -> bool) -> io::Result<Map> {
        /// The same for `BPF_MAP_GET_FD_BY_ID`.
        #[repr(C)]
        struct ById {
            id: u32,
            next_id: u32,
            flags: u32,
        }
        let mut attr = ById { id, next_id: 0, flags: 0 };
        // SAFETY: as above.
        let fd = unsafe { new_descriptor(MAP_FD_BY_ID, &mut attr) }?;
        // The number came from a filter's name, which anybody with root's rights can write.
        let found = info(fd.as_fd())?;
        if !fits(&found) {
            return Err(io::Error::other(format!("BPF map {id} is not one of shaper's")));
        }
        Ok(Map { fd, id, value_size: found.value_size })
    }

    /// The value of an array of one.
    fn only_value(&self) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value_size as usize];
        self.element(MAP_LOOKUP, &ONLY_KEY, &mut value)?;
        Ok(value)
    }

    fn element(&self, command: libc::c_long, key: &[u8], value: &mut [u8]) -> io::Result<()> {
        /// The same for commands on one element.
        #[repr(C)]
        struct Element {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let mut attr = Element {
            map: descriptor(self.fd.as_fd()),
            padding: 0,
            key: if key.is_empty() { 0 } else { key.as_ptr().addr() as u64 },
            value: if value.is_empty() { 0 } else { value.as_mut_ptr().addr() as u64 },
            flags: 0,
        };
        // What a command does not read must be 0.
        // SAFETY: the layout is the command's; the key is as long as the map's (checked or set when
        // it was opened), and so is the value, or it is a key where the next one is asked for.
        unsafe { bpf(command, &mut attr) }.map(|_| ())
    }

    fn update(&self, key: &[u8], value: u32) -> io::Result<()> {
        self.element(MAP_UPDATE, key, &mut value.to_ne_bytes())
    }

    /// One that is gone already is no error.
    fn delete(&self, key: &[u8]) -> io::Result<()> {
        match self.element(MAP_DELETE, key, &mut []) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// All entries. Somebody who changes the map meanwhile may hide or double some: an instance's
    /// lock keeps our own from that, and the plan is verified by another look.
    fn entries<const KEY: usize>(&self) -> io::Result<Vec<([u8; KEY], u32)>> {
        match self.entries_by_batch() {
            // Linux 5.6; for tries 5.8 (EOPNOTSUPP is ENOTSUPP, 524, there).
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | 524 | libc::EPERM)) =>
            {
                self.entries_one_by_one()
            }
            other => other,
        }
    }

    fn entries_by_batch<const KEY: usize>(&self) -> io::Result<Vec<([u8; KEY], u32)>> {
        /// The same for `BPF_MAP_LOOKUP_BATCH`.
        #[repr(C)]
        struct Batch {
            in_batch: u64,
            out_batch: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }
        let mut entries = Vec::new();
        // Where a batch ended: a bucket's number (4 bytes) or a key.
        let mut token = [0_u8; 8];
        let (mut keys, mut values) = (vec![[0_u8; KEY]; BATCH], vec![0_u32; BATCH]);
        let mut first = true;
        loop {
            let mut attr = Batch {
                in_batch: if first { 0 } else { token.as_ptr().addr() as u64 },
                out_batch: token.as_mut_ptr().addr() as u64,
                keys: keys.as_mut_ptr().addr() as u64,
                values: values.as_mut_ptr().addr() as u64,
                count: BATCH as u32,
                map: descriptor(self.fd.as_fd()),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: the layout is the command's; keys and values have room for `count` entries of
            // the map's sizes, the token for either kind of it.
            let outcome = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
            let last = match outcome {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            let found = keys.iter().copied().zip(values.iter().copied());
            entries.extend(found.take(attr.count as usize));
            if last {
                return Ok(entries);
            }
            first = false;
        }
    }

    fn entries_one_by_one<const KEY: usize>(&self) -> io::Result<Vec<([u8; KEY], u32)>> {
        let mut entries = Vec::new();
        let mut key: Option<[u8; KEY]> = None;
        loop {
            let mut next = [0; KEY];
            match self.element(MAP_NEXT_KEY, key.as_ref().map_or(&[], |key| &key[..]), &mut next) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
                other => other?,
            }
            let mut value = [0; 4];
            match self.element(MAP_LOOKUP, &next, &mut value) {
                Ok(()) => entries.push((next, u32::from_ne_bytes(value))),
                // It went meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
            key = Some(next);
        }
    }
}

/// `struct bpf_map_info`, its head.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

fn info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    /// The same for `BPF_OBJ_GET_INFO_BY_FD`.
    #[repr(C)]
    struct InfoByFd {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = MapInfo::default();
    let mut attr = InfoByFd {
        fd: descriptor(fd),
        length: size_of::<MapInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the layout is the command's; it writes at most `length` bytes to `info`.
    unsafe { bpf(INFO_BY_FD, &mut attr) }?;
    Ok(info)
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
        Err(error) if is_out_of_something(&error) => Err(error),
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

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// How often a command is tried for which the kernel has no memory at hand, and how long it is left
/// to get some: entries of maps come from small reserves that it fills up a moment later
/// (kernel/bpf/memalloc.c), and those of maps that have gone come back as late.
const TRIES: u32 = 100;
const REFILL: Duration = Duration::from_millis(10);

/// # Safety
/// `attr` has the layout that the command reads and writes, and what it points to is valid for it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let mut tries = 0;
    loop {
        // SAFETY: by the caller.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
        if answer >= 0 {
            return i32::try_from(answer).map_err(io::Error::other);
        }
        let error = io::Error::last_os_error();
        tries += 1;
        if error.raw_os_error() != Some(libc::ENOMEM) || tries == TRIES {
            return Err(error);
        }
        std::thread::sleep(REFILL);
    }
}

/// # Safety
/// The same, of a command that answers with a new descriptor.
unsafe fn new_descriptor<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: by the caller.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
