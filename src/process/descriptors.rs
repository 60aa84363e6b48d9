//! The sockets among a process's descriptors, found and reached through `/proc`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::netlink::inet_diag::Listening;
use crate::sys::held::{self, HeldSocket};

/// How many descriptors of one process are looked at: a login has a few dozen, and so many take
/// some 10 ms.
const MOST: usize = 4_096;

/// Kinds of sockets that send packets, by how they are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Sockets that listen, and their connections.
    Connections(Listening),
    /// Sockets without connections, which send to anybody.
    Packets,
}

impl Protocol {
    /// The kind of a protocol, by its name in `struct proto`; `None`: its sockets send no packets.
    pub(super) fn of(name: &str) -> Option<Protocol> {
        Some(match name {
            "TCP" | "TCPv6" => Protocol::Connections(Listening::Tcp),
            "MPTCP" | "MPTCPv6" => Protocol::Connections(Listening::Mptcp),
            "SCTP" | "SCTPv6" => Protocol::Connections(Listening::Sctp),
            "UDP" | "UDPv6" | "UDP-Lite" | "UDPLITEv6" | "RAW" | "RAWv6" | "PING" | "PINGv6"
            | "PACKET" => Protocol::Packets,
            _ => return None,
        })
    }
}

/// The sockets among a process's descriptors.
pub(super) struct Descriptors {
    /// The path `/proc/PID/fd/N` of each socket, and its inode.
    pub sockets: Vec<(PathBuf, u64)>,
    /// A table (CAP_DAC_READ_SEARCH) or entry (CAP_SYS_PTRACE) that may not be read: the last one.
    pub unread: Option<(PathBuf, io::Error)>,
    /// The process has descriptors, of sockets or of other files.
    is_open: bool,
}

/// The sockets in all descriptor tables of a process: threads may have tables of their own
/// (`unshare(CLONE_FILES)`), and a main thread that ended has none.
pub(super) fn descriptors(proc_root: &Path, pid: u32) -> Descriptors {
    let folder = proc_root.join(pid.to_string());
    let tasks = folder.join("task");
    // A folder has a link for itself, one for its name, and one for each folder in it: three with a
    // single thread.
    let alone = fs::metadata(&tasks).is_ok_and(|tasks| tasks.nlink() <= 3);
    if alone {
        let of_main = in_tables(vec![folder.join("fd")]);
        // Without descriptors, the main thread may have ended just now while threads that it
        // started go on.
        if of_main.is_open {
            return of_main;
        }
    }
    match fs::read_dir(&tasks) {
        Ok(tasks) => in_tables(tasks.flatten().map(|task| task.path().join("fd")).collect()),
        Err(_) => in_tables(vec![folder.join("fd")]),
    }
}

fn in_tables(tables: Vec<PathBuf>) -> Descriptors {
    let (mut sockets, mut unread, mut left, mut is_open) = (Vec::new(), None, MOST, false);
    for table in tables {
        let entries = match fs::read_dir(&table) {
            Ok(entries) => entries,
            Err(error) => {
                unread = Some((table, error));
                continue;
            }
        };
        for entry in entries.flatten().take(left) {
            left -= 1;
            is_open = true;
            let entry = entry.path();
            match fs::read_link(&entry) {
                Ok(link) => sockets.extend(held::inode(&link).map(|inode| (entry, inode))),
                Err(error) if !is_gone(&error) => unread = Some((entry, error)),
                Err(_) => {}
            }
        }
    }
    Descriptors { sockets, unread, is_open }
}

/// Opens the socket with this inode that a process has as this descriptor; `None`: the descriptor
/// is another file by now. A main thread that ends loses its table, and then the socket is reached
/// through the tables of other threads.
pub(super) fn reach(entry: &Path, inode: u64) -> io::Result<Option<HeldSocket>> {
    let is_it = |socket: &HeldSocket| socket.inode == inode;
    match HeldSocket::open(entry) {
        Err(error) if is_gone(&error) => {
            let open = |entry: PathBuf| HeldSocket::open(&entry).ok().flatten().filter(is_it);
            in_other_threads(entry).into_iter().find_map(open).map(Some).ok_or(error)
        }
        found => Ok(found?.filter(is_it)),
    }
}

/// `/proc/PID/task/TID/fd/N` of each thread, for `/proc/PID/fd/N` or one thread's.
fn in_other_threads(entry: &Path) -> Vec<PathBuf> {
    let (Some(number), Some(task)) = (entry.file_name(), entry.ancestors().nth(2)) else {
        return Vec::new();
    };
    let tasks = fs::read_dir(task.join("task"));
    let tasks = tasks.or_else(|_| fs::read_dir(task.parent().unwrap_or(task)));
    tasks.into_iter().flatten().flatten().map(|task| task.path().join("fd").join(number)).collect()
}

/// Whether the error says that the process ended or the descriptor was closed meanwhile.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn sockets_are_found_in_a_threads_own_table() {
        let shared = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = |socket: &UdpSocket| {
            fs::metadata(format!("/proc/thread-self/fd/{}", socket.as_raw_fd())).unwrap().ino()
        };
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            let own = UdpSocket::bind("127.0.0.1:0").unwrap();
            let Descriptors { sockets, unread, .. } =
                descriptors(Path::new("/proc"), std::process::id());
            assert!(unread.is_none());
            let found: BTreeSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
            assert!(found.contains(&inode(&own)) && found.contains(&inode(&shared)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_a_thread_has_given_up_is_reached_through_another() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = socket.as_raw_fd();
        let at = |task: &str| PathBuf::from(format!("/proc/self/{task}fd/{number}"));
        let inode = HeldSocket::open(&at("")).unwrap().unwrap().inode;
        // A thread that has ended has no table, just as a main thread that has ended.
        let ended = std::thread::spawn(nix::unistd::gettid).join().unwrap();
        let entry = at(&format!("task/{ended}/"));
        assert!(HeldSocket::open(&entry).is_err());
        assert_eq!(reach(&entry, inode).unwrap().unwrap().inode, inode);
        assert!(reach(&entry, inode + 1).is_err(), "not that one");
        assert!(
            in_other_threads(&at("")).contains(&at(&format!("task/{}/", nix::unistd::gettid())))
        );
    }
}
