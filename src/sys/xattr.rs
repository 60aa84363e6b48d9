//! A file's extended attributes (xattr(7)): access control lists, a security label, what users
//! note.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// Gives a file all extended attributes of another.
///
/// # Errors
/// An attribute cannot be read or set. File systems without attributes have none: no error.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    let names = match read(|to, room| {
        // SAFETY: the kernel writes at most `room` bytes at `to`, which has as many.
        unsafe { libc::flistxattr(from.as_raw_fd(), to.cast(), room) }
    }) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        copy_one(from, to, &CString::from(name))?;
    }
    Ok(())
}

fn copy_one(from: &File, to: &File, name: &CString) -> io::Result<()> {
    let value = match read(|to, room| {
        // SAFETY: the name ends in a zero, and the kernel writes at most `room` bytes at `to`.
        unsafe { libc::fgetxattr(from.as_raw_fd(), name.as_ptr(), to.cast(), room) }
    }) {
        // It was removed meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => return Ok(()),
        value => value?,
    };
    // SAFETY: the name ends in a zero, and the kernel reads as many bytes as the value has.
    let set = unsafe {
        let (value, length) = (value.as_ptr().cast(), value.len());
        libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), value, length, 0)
    };
    Errno::result(set)?;
    Ok(())
}

/// Who has a file of root's to read: its owner, and one uid; nobody else (acl(5)).
///
/// # Errors
/// A file system without access control lists; a file of somebody else's.
pub fn let_read(file: &File, uid: u32) -> io::Result<()> {
    let list = reader(uid);
    let name = c"system.posix_acl_access";
    // SAFETY: the name ends in a zero, and the kernel reads as many bytes as the list has.
    let set = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), list.as_ptr().cast(), list.len(), 0)
    };
    Errno::result(set)?;
    Ok(())
}

/// The list as the kernel reads it (include/uapi/linux/posix_acl_xattr.h): a version, then entries
/// of a tag, permissions and an id, in the order of their tags.
fn reader(uid: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    let (owner, user, group, mask, others) = (0x01, 0x02, 0x04, 0x10, 0x20);
    let entries: [(u16, u16, u32); 5] = [
        (owner, 6, NOBODY),
        (user, 4, uid),
        (group, 0, NOBODY),
        (mask, 4, NOBODY),
        (others, 0, NOBODY),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// What `call` writes into a buffer: asked for its length first, with no room at all.
fn read(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let length = Errno::result(call(std::ptr::null_mut(), 0))?;
        let mut bytes = vec![0; length.unsigned_abs()];
        match Errno::result(call(bytes.as_mut_ptr(), bytes.len())) {
            // It grew between the two calls.
            Err(Errno::ERANGE) => {}
            length => {
                bytes.truncate(length?.unsigned_abs());
                return Ok(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let new = |name: &str| File::create_new(folder.path().join(name)).unwrap();
        let (from, to) = (new("from"), new("to"));
        let name = c"user.note";
        // SAFETY: the name ends in a zero, and three bytes are read.
        let set = unsafe {
            libc::fsetxattr(from.as_raw_fd(), name.as_ptr(), b"abc".as_ptr().cast(), 3, 0)
        };
        if Errno::result(set) == Err(Errno::EOPNOTSUPP) {
            return copy(&from, &to).unwrap();
        }
        copy(&from, &to).unwrap();
        let mut value = [0; 4];
        // SAFETY: the name ends in a zero, and the kernel writes at most four bytes.
        let length =
            unsafe { libc::fgetxattr(to.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), 4) };
        assert_eq!((length, &value), (3, b"abc\0"));
    }
}
