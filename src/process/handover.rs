//! Connections that root accepted and handed on: each is given to the user whose process serves it
//! now, so that he cannot lose it as his by losing its tag.
//!
//! A socket belongs to whoever made or accepted it, and only CAP_CHOWN changes that. What sshd, inetd or
//! a unit with `Accept=yes` hands on is root's, and would count by its tag alone, which goes over to
//! whoever is passed the descriptor. So whenever a process comes into a user's claim, what it holds of
//! root's is made the user's: TCP, MPTCP and SCTP connections, UDP, raw, ping and packet sockets.
//!
//! Never given are: a listener; a socket that has an owner other than root already, so that nobody makes
//! another pay by passing him one; and a socket that processes of two users hold. Root's own copies (sshd's
//! monitor keeps one, so does the service manager) do not count: root serves the same client with them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Process;
use crate::netlink::inet_diag::{self, Listening};
use crate::state::Family;
use crate::sys::Netlink;
use crate::sys::held::{self, HeldSocket};
use crate::sys::threads::in_parts;

/// Of one process so many descriptors are looked at: a login has a few dozen, and looking at so many
/// takes some 10 ms.
const MOST: usize = 4_096;

/// Sockets of root's that processes of users were found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// By inode.
    found: BTreeMap<u64, Found>,
    refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// `/proc/PID/fd/N`.
    entry: PathBuf,
    protocol: Protocol,
    /// Whose process holds it; `None`: several users' do.
    uid: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Sockets that are their users' now.
    pub given: u32,
    /// Why one or more were not given: a capability that is missing, a list that the kernel has not.
    pub refused: Option<String>,
}

/// Kinds of sockets that send packets of their own, as far as giving them differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// One socket listens, others are its connections.
    Connections(Listening),
    /// A socket sends to anybody.
    Packets,
}

impl Protocol {
    /// By the name in `struct proto`.
    fn of(name: &str) -> Option<Protocol> {
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

impl Handover {
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.refused.is_none()
    }

    /// Notes what a user's process holds of root's. Root's own processes keep what they have.
    pub fn look(&mut self, proc_root: &Path, process: &Process) {
        if process.uid != 0 {
            self.look_for(proc_root, process.pid, process.uid);
        }
    }

    /// What a session of root's holds that will be this user's once it has become his.
    pub fn look_at_session(&mut self, proc_root: &Path, session: &Process, uid: u32) {
        // What `su` holds is its caller's.
        if session.uid == 0 && uid != 0 {
            self.look_for(proc_root, session.pid, uid);
        }
    }

    fn look_for(&mut self, proc_root: &Path, pid: u32, uid: u32) {
        let Descriptors { sockets, unread } = descriptors(proc_root, pid);
        if let Some((table, error)) = unread {
            self.refuse(&table, &error);
        }
        for (entry, _) in sockets {
            if let Err(error) = self.note(&entry, uid) {
                self.refuse(&entry, &error);
            }
        }
    }

    fn note(&mut self, entry: &Path, uid: u32) -> io::Result<()> {
        let Some(socket) = HeldSocket::open(entry)?.filter(|socket| socket.owner == 0) else {
            return Ok(());
        };
        if let Some(protocol) = Protocol::of(&socket.protocol()?) {
            let found = Found { entry: entry.to_path_buf(), protocol, uid: Some(uid) };
            self.add(socket.inode, found);
        }
        Ok(())
    }

    fn add(&mut self, inode: u64, found: Found) {
        match self.found.entry(inode) {
            Entry::Vacant(free) => {
                free.insert(found);
            }
            Entry::Occupied(mut known) if known.get().uid != found.uid => {
                known.get_mut().uid = None
            }
            Entry::Occupied(_) => {}
        }
    }

    /// What another look found too: together they know of sockets that several users hold.
    pub fn merge(&mut self, other: Handover) {
        for (inode, found) in other.found {
            self.add(inode, found);
        }
        if self.refused.is_none() {
            self.refused = other.refused;
        }
    }

    /// Leaves out sockets that another user's process among these (pid and real uid) holds too. Costs
    /// nothing where nothing was found, otherwise a look at the descriptors of all of them.
    pub fn leave_shared(&mut self, proc_root: &Path, processes: &[(u32, u32)]) {
        if self.found.is_empty() {
            return;
        }
        let holders = |part: &[(u32, u32)]| -> Vec<(u64, u32)> {
            let held = part.iter().filter(|(_, uid)| *uid != 0).flat_map(|(pid, uid)| {
                descriptors(proc_root, *pid).sockets.into_iter().map(|(_, inode)| (inode, *uid))
            });
            held.filter(|(inode, _)| self.found.contains_key(inode)).collect()
        };
        for (inode, uid) in in_parts(processes, holders).concat() {
            if let Some(found) = self.found.get_mut(&inode)
                && found.uid != Some(uid)
            {
                found.uid = None;
            }
        }
    }

    /// Gives each to its user.
    pub fn give(self) -> HandedOver {
        let Handover { found, refused } = self;
        let mut done = HandedOver { given: 0, refused };
        let mut listening: BTreeMap<u16, Option<BTreeSet<u64>>> = BTreeMap::new();
        for (inode, Found { entry, protocol, uid }) in found {
            let Some(uid) = uid else { continue };
            if let Protocol::Connections(protocol) = protocol {
                let known = listening.entry(protocol as u16).or_insert_with(|| {
                    listeners(protocol)
                        .inspect_err(|error| {
                            done.refused.get_or_insert_with(|| {
                                format!("the kernel does not list {protocol:?} listeners: {error}")
                            });
                        })
                        .ok()
                });
                if known.as_ref().is_none_or(|inodes| inodes.contains(&inode)) {
                    continue;
                }
            }
            match hand_over(&entry, inode, uid) {
                Ok(true) => done.given += 1,
                Ok(false) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    done.refused.get_or_insert_with(|| {
                        format!("{} cannot be given to uid {uid}: {error}", entry.display())
                    });
                }
            }
        }
        done
    }

    fn refuse(&mut self, entry: &Path, error: &io::Error) {
        if !is_gone(error) && self.refused.is_none() {
            self.refused = Some(format!("{} cannot be looked at: {error}", entry.display()));
        }
    }
}

/// Gives a socket, unless that descriptor is another one by now, or it has another owner.
fn hand_over(entry: &Path, inode: u64, uid: u32) -> io::Result<bool> {
    match HeldSocket::open(entry)? {
        Some(socket) if socket.inode == inode && socket.owner == 0 => {
            socket.give(uid)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The process or its descriptor was closed meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR)
    )
}

/// Inodes of all sockets of the network namespace that listen.
fn listeners(protocol: Listening) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let list = Netlink::for_sockets().and_then(|mut netlink| {
            netlink.dump(&inet_diag::listeners(family, protocol), inet_diag::inode)
        });
        inodes.extend(list.map_err(io::Error::other)?);
    }
    Ok(inodes)
}

/// The sockets among a process's descriptors.
struct Descriptors {
    /// `/proc/PID/fd/N`, and the inode.
    sockets: Vec<(PathBuf, u64)>,
    /// What may not be read: a table (CAP_DAC_READ_SEARCH), or an entry (CAP_SYS_PTRACE).
    unread: Option<(PathBuf, io::Error)>,
}

/// Threads may have tables of their own (`unshare(CLONE_FILES)`), and a main thread that ended has none.
fn descriptors(proc_root: &Path, pid: u32) -> Descriptors {
    let folder = proc_root.join(pid.to_string());
    let tasks = folder.join("task");
    // A folder has a link for itself, one for its name, and one for each folder in it.
    let alone = fs::metadata(&tasks).is_ok_and(|tasks| tasks.nlink() <= 3);
    let tables: Vec<PathBuf> = match (alone, fs::read_dir(&tasks)) {
        (false, Ok(tasks)) => tasks.flatten().map(|task| task.path().join("fd")).collect(),
        _ => vec![folder.join("fd")],
    };
    let (mut sockets, mut unread, mut left) = (Vec::new(), None, MOST);
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
            let entry = entry.path();
            match fs::read_link(&entry) {
                Ok(link) => sockets.extend(held::inode(&link).map(|inode| (entry, inode))),
                Err(error) if !is_gone(&error) => unread = Some((entry, error)),
                Err(_) => {}
            }
        }
    }
    Descriptors { sockets, unread }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    fn found(uid: u32) -> Handover {
        let entry = PathBuf::from(format!("/proc/{uid}/fd/0"));
        let found = Found { entry, protocol: Protocol::Packets, uid: Some(uid) };
        Handover { found: BTreeMap::from([(7, found)]), refused: None }
    }

    #[test]
    fn what_several_users_hold_is_nobodys() {
        let holder = |handover: &Handover| handover.found[&7].uid;
        let mut handover = found(1000);
        handover.merge(found(1000));
        assert_eq!(holder(&handover), Some(1000));
        handover.merge(found(1001));
        handover.merge(found(1000));
        assert_eq!(holder(&handover), None);
    }

    #[test]
    fn the_first_refusal_is_kept() {
        let refused = |why: &str| Handover { refused: Some(why.into()), ..Handover::default() };
        let mut handover = found(1000);
        handover.merge(refused("a"));
        handover.merge(refused("b"));
        assert_eq!(handover.refused.as_deref(), Some("a"));
        assert!(!refused("a").is_empty());
    }

    #[test]
    fn a_socket_is_given_only_while_it_is_that_one_and_roots() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let entry = PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        let inode = HeldSocket::open(&entry).unwrap().unwrap().inode;
        assert!(!hand_over(&entry, inode + 1, 4001).unwrap());
        if nix::unistd::geteuid().is_root() {
            assert!(hand_over(&entry, inode, 4001).unwrap());
            assert!(!hand_over(&entry, inode, 4002).unwrap(), "it has an owner now");
        }
        drop(socket);
        assert!(is_gone(&hand_over(&entry, inode, 4001).unwrap_err()));
    }

    #[test]
    fn sockets_are_found_in_a_threads_own_table() {
        let shared = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = |socket: &UdpSocket| {
            fs::metadata(format!("/proc/thread-self/fd/{}", socket.as_raw_fd())).unwrap().ino()
        };
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            let own = UdpSocket::bind("127.0.0.1:0").unwrap();
            let Descriptors { sockets, unread } =
                descriptors(Path::new("/proc"), std::process::id());
            assert!(unread.is_none());
            let found: BTreeSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
            assert!(found.contains(&inode(&own)) && found.contains(&inode(&shared)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_kernel_lists_listeners_without_their_connections() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = |fd: i32| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let listed = listeners(Listening::Tcp).unwrap();
        assert!(listed.contains(&inode(listener.as_raw_fd())));
        assert!(!listed.contains(&inode(client.as_raw_fd())));
    }
}
