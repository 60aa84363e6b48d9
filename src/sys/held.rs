//! Sockets of other processes, reached through `/proc/PID/fd`: the owner and protocol of each, and
//! giving one to another owner (`sockfs_setattr`, net/socket.c: the owner of the inode and
//! `sk_uid`, which `bpf_get_socket_uid` reads).
//!
//! Not by `pidfd_getfd`: the kernel gives a socket the tag of every process that receives it
//! (`__receive_sock`, fs/file.c), so a look would change the socket's tag. Opening with O_PATH
//! receives no socket, needs a lesser right (PTRACE_MODE_READ), and reaches each thread's own
//! table.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};

/// The attribute in which a socket says its protocol (`sockfs_xattr_get`, net/socket.c; Linux 3.5).
const PROTOCOL: &std::ffi::CStr = c"system.sockprotoname";
/// `struct proto` has 32 bytes for the name.
const LONGEST_NAME: usize = 32;

/// A socket that another process has or had as a descriptor. This value keeps the inode alive and
/// not the socket: closing the last descriptor closes the connection.
#[derive(Debug)]
pub struct HeldSocket {
    path: File,
    /// The socket's inode in sockfs, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// The uid of the socket's owner.
    pub owner: u32,
}

/// The inode of a socket, as the link of a descriptor below `/proc` names it: `socket:[4711]`.
/// Files that are called so have a path with slashes.
pub fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

impl HeldSocket {
    /// `entry` is `/proc/PID/fd/N`, or a thread's. `None`: it is no socket. ENOENT: it was closed
    /// meanwhile; EACCES without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
    pub fn open(entry: &Path) -> io::Result<Option<HeldSocket>> {
        let path =
            File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(entry)?;
        // The number may be another file by now, one in a user's file system that never answers.
        // Reading the link of our own descriptor asks no file system.
        let Some(inode) = inode(&fs::read_link(own_link(&path))?) else { return Ok(None) };
        let owner = path.metadata()?.uid();
        Ok(Some(HeldSocket { path, inode, owner }))
    }

    /// The name of the socket's protocol (`struct proto`): `TCP`, `TCPv6`, `MPTCP`, `UDP`,
    /// `PACKET`, `UNIX-STREAM`, …
    pub fn protocol(&self) -> io::Result<String> {
        let link = CString::new(own_link(&self.path)).map_err(io::Error::other)?;
        let mut name = [0u8; LONGEST_NAME + 1];
        // SAFETY: both strings end in a zero, and the kernel writes at most as many bytes as the
        // buffer is said to have.
        let length = unsafe {
            libc::getxattr(link.as_ptr(), PROTOCOL.as_ptr(), name.as_mut_ptr().cast(), name.len())
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let name = name.get(..length).unwrap_or_default();
        Ok(String::from_utf8_lossy(name).trim_end_matches('\0').to_string())
    }

    /// Makes the uid the socket's owner. EPERM without CAP_CHOWN; ENOENT where the socket was
    /// closed meanwhile.
    pub fn give(&self, uid: u32) -> nix::Result<()> {
        fchownat(&self.path, "", Some(Uid::from_raw(uid)), None, AtFlags::AT_EMPTY_PATH)
    }
}

fn own_link(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    fn own(descriptor: &impl AsRawFd) -> Option<HeldSocket> {
        let entry = format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd());
        HeldSocket::open(Path::new(&entry)).unwrap()
    }

    #[test]
    fn a_socket_says_its_owner_and_protocol() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = own(&tcp).unwrap();
        assert_eq!(held.owner, nix::unistd::geteuid().as_raw());
        assert_eq!(held.protocol().unwrap(), "TCP");
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(own(&udp).unwrap().protocol().unwrap(), "UDP");
        let unix = UnixDatagram::unbound().unwrap();
        assert_eq!(own(&unix).unwrap().protocol().unwrap(), "UNIX");
    }

    #[test]
    fn a_file_is_no_socket_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("socket:[7]")).unwrap();
        assert!(own(&file).is_none());
        assert_eq!(inode(Path::new("socket:[7]")), Some(7));
        assert_eq!(inode(Path::new("/tmp/socket:[7]")), None);
        assert_eq!(inode(Path::new("pipe:[7]")), None);
    }

    #[test]
    fn a_socket_file_is_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
        assert!(own(&file).is_none());
    }

    #[test]
    fn a_given_socket_is_its_new_owners() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        own(&udp).unwrap().give(4001).unwrap();
        assert_eq!(own(&udp).unwrap().owner, 4001);
    }
}
