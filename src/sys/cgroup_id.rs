//! The number of a cgroup (v2) that eBPF programs see (`bpf_skb_ancestor_cgroup_id`). Before Linux
//! 5.5 the inode is only its lower half, so it is asked for as the kernel's file handle, which has
//! the whole number on every kernel (name_to_handle_at(2)).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// `FILEID_KERNFS` (linux/exportfs.h), since Linux 5.5: the number as it is.
const KERNFS: i32 = 0xfe;
/// `FILEID_INO32_GEN`: before, the inode and its generation, which is how the kernel had the number
/// in memory (`union kernfs_node_id`, linux/kernfs.h).
const INODE_AND_GENERATION: i32 = 1;
/// `MAX_HANDLE_SZ`.
const MOST_BYTES: usize = 128;

/// `struct file_handle`, with room for any.
#[repr(C)]
struct Handle {
    handle_bytes: u32,
    handle_type: i32,
    bytes: [u8; MOST_BYTES],
}

/// The number of the cgroup whose directory this is; `None` where the file system has another kind
/// of handle or none.
///
/// # Errors
/// There is no such directory, or it may not be looked at.
pub fn cgroup_id(path: &Path) -> io::Result<Option<u64>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut handle =
        Handle { handle_bytes: MOST_BYTES as u32, handle_type: 0, bytes: [0; MOST_BYTES] };
    let mut mount = 0;
    // SAFETY: the path ends in a zero; the kernel writes a handle of at most `handle_bytes` bytes
    // into `bytes`, which has as many, and a number into `mount`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    match Errno::result(done) {
        Ok(_) => {
            let bytes = handle.bytes.get(..handle.handle_bytes as usize);
            Ok(bytes.and_then(|bytes| number(handle.handle_type, bytes)))
        }
        // A file system without handles, a kernel without the call, or a filter of system calls.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM | Errno::EOVERFLOW) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The number that a handle has.
fn number(kind: i32, bytes: &[u8]) -> Option<u64> {
    let whole = u64::from_ne_bytes(bytes.try_into().ok()?);
    matches!(kind, KERNFS | INODE_AND_GENERATION).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_number_is_whole_on_old_kernels_too() {
        assert_eq!(number(KERNFS, &4711_u64.to_ne_bytes()), Some(4711));
        // As Linux 4.19 answers: the inode 4711, of the first generation.
        let [low, high] = [4711_u32, 1].map(u32::to_ne_bytes);
        let old = number(INODE_AND_GENERATION, &[low, high].concat());
        assert_eq!(old, Some(u64::from_ne_bytes([low, high].concat().try_into().unwrap())));
        if cfg!(target_endian = "little") {
            assert_eq!(old, Some(1 << 32 | 4711), "the inode alone is another cgroup's number");
        }
        // Of tmpfs, of btrfs, of overlayfs.
        assert_eq!(number(INODE_AND_GENERATION, &[0; 12]), None);
        assert_eq!(number(0x4d, &[0; 20]), None);
        assert_eq!(number(0xf8, &[0; 8]), None);
    }

    #[test]
    fn here_it_is_the_inode() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(mount) = mounts.find(|it| it.get(2) == Some(&"cgroup2")) else { return };
        let root = Path::new(mount[1]);
        // Linux 5.5 and later, with inodes of 64 bits.
        if cfg!(target_pointer_width = "64") {
            assert_eq!(cgroup_id(root).unwrap(), Some(fs::metadata(root).unwrap().ino()));
        }
        let absent = cgroup_id(&root.join("no such cgroup")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
