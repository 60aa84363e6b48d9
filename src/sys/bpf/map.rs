//! One map: made or opened, and its entries read and written (kernel/bpf/syscall.c).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::call::{bpf, descriptor, new_descriptor};

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
pub(super) const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const MAP_NEXT_KEY: libc::c_long = 4;
const MAP_FD_BY_ID: libc::c_long = 14;
const INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `enum bpf_map_type`.
pub(super) const HASH: u32 = 1;
const ARRAY: u32 = 2;
pub(super) const LRU_HASH: u32 = 9;
pub(super) const LPM_TRIE: u32 = 11;

/// `BPF_F_NO_PREALLOC`: entries are allocated as they come; a trie can do nothing else.
const NO_PREALLOC: u32 = 1;

/// Entries that are read with one system call.
const BATCH: usize = 4_096;

/// The key of an array's first value.
pub(super) const ONLY_KEY: [u8; 4] = [0; 4];

/// One map: an open descriptor, and the number by which the kernel and our filter's name know the
/// map.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) fd: OwnedFd,
    pub(super) id: u32,
    value_size: u32,
}

impl Map {
    pub(super) fn create(kind: u32, key: u32, entries: u32, name: [u8; 16]) -> io::Result<Map> {
        Map::create_with((kind, NO_PREALLOC), (key, 4), entries, name)
    }

    /// Makes an array of one value of `value_size` bytes.
    pub(super) fn create_array(value_size: u32, name: [u8; 16]) -> io::Result<Map> {
        Map::create_with((ARRAY, 0), (4, value_size), 1, name)
    }

    pub(super) fn create_with(
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

    pub(super) fn open(id: u32, kind: u32, key: u32) -> io::Result<Map> {
        Map::open_sized(id, kind, (key, 4))
    }

    /// `sizes`: of a key and a value.
    pub(super) fn open_sized(id: u32, kind: u32, sizes: (u32, u32)) -> io::Result<Map> {
        let fits =
            |found: &MapInfo| found.kind == kind && (found.key_size, found.value_size) == sizes;
        Map::open_if(id, fits)
    }

    pub(super) fn open_array(id: u32) -> io::Result<Map> {
        Map::open_if(id, |found| (found.kind, found.key_size, found.max_entries) == (ARRAY, 4, 1))
    }

    fn open_if(id: u32, fits: impl Fn(&MapInfo) -> bool) -> io::Result<Map> {
        /// The head of `union bpf_attr` for `BPF_MAP_GET_FD_BY_ID`.
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

    /// The value of an array that has one.
    pub(super) fn only_value(&self) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value_size as usize];
        self.element(MAP_LOOKUP, &ONLY_KEY, &mut value)?;
        Ok(value)
    }

    pub(super) fn element(
        &self,
        command: libc::c_long,
        key: &[u8],
        value: &mut [u8],
    ) -> io::Result<()> {
        /// The head of `union bpf_attr` for commands on one element.
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

    pub(super) fn update(&self, key: &[u8], value: u32) -> io::Result<()> {
        self.element(MAP_UPDATE, key, &mut value.to_ne_bytes())
    }

    /// The value for this key, if there is one.
    pub(super) fn value(&self, key: &[u8]) -> io::Result<Option<u32>> {
        let mut value = [0; 4];
        match self.element(MAP_LOOKUP, key, &mut value) {
            Ok(()) => Ok(Some(u32::from_ne_bytes(value))),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an entry; an entry that is gone already is no error.
    pub(super) fn delete(&self, key: &[u8]) -> io::Result<()> {
        match self.element(MAP_DELETE, key, &mut []) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// All entries. A change of the map meanwhile may hide or double some of them; the instance's
    /// lock keeps other runs of shaper away, and another look verifies the plan.
    pub(super) fn entries<const KEY: usize>(&self) -> io::Result<Vec<([u8; KEY], u32)>> {
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
        /// The head of `union bpf_attr` for `BPF_MAP_LOOKUP_BATCH`.
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
        // Where the last batch ended: a bucket's number (4 bytes) or a key.
        let mut token = vec![0_u8; KEY.max(4)];
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
                // The entry was removed meanwhile.
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
    /// The head of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
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
