//! Connections that root accepted and handed on: each is given to the user whose process serves it
//! now, so that it counts as his also when it loses its tag.
//!
//! A socket's owner is whoever made or accepted it, and only CAP_CHOWN changes that. A connection
//! that sshd, inetd or a unit with `Accept=yes` hands on is owned by root, and would count by its
//! tag alone, which changes when the descriptor is passed to another process. So whenever a process
//! comes into a user's claim, the sockets of root that it has are made the user's: TCP, MPTCP and
//! SCTP connections, UDP, raw, ping and packet sockets.
//!
//! A process of root's that acts for a user (`follow: effective`) serves him over its connections:
//! those that root owns are made his. Where it has none of root's and none of his, those of the
//! user before are made his. Datagram sockets stay as they are, since a server serves all users
//! with one.
//!
//! Never given are: a listener; a socket that another owner than root has already, so that nobody
//! makes another user pay by passing him one; and a socket that processes of two users have.
//! Processes of root that have it too (sshd's monitor, the service manager) do not count: root
//! serves the same client with it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Process;
use super::descriptors::{Descriptors, Protocol, descriptors, is_gone, reach};
use super::served::{Held, Server, go_along};
use crate::netlink::Request;
use crate::netlink::inet_diag::{self, Listening, Transport};
use crate::sys::Netlink;
use crate::sys::threads::in_parts;
use crate::tree::Family;

/// Sockets of root's that were found in processes of users, to be given to these users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// The sockets, by inode.
    found: BTreeMap<u64, Found>,
    servers: Vec<Server>,
    refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// The path `/proc/PID/fd/N`.
    entry: PathBuf,
    protocol: Protocol,
    /// The uid of the socket's owner.
    owner: u32,
    /// The uid of the user whose process has the socket; `None`: processes of several users have
    /// it.
    uid: Option<u32>,
}

/// What was handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// How many sockets were given to their users.
    pub given: u32,
    /// Why one or more sockets were not given: a capability is missing, or a list that the kernel
    /// does not have.
    pub refused: Option<String>,
}

impl Handover {
    /// Whether there is nothing to hand over, and nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.servers.is_empty() && self.refused.is_none()
    }

    /// Notes the sockets of root's that a user's process has. Root's own processes are passed over.
    pub fn look(&mut self, proc_root: &Path, process: &Process) {
        if process.uid != 0 {
            self.look_for(proc_root, process.pid, process.uid);
        }
    }

    /// Notes the sockets of a session that is still root's and is about to become this user's.
    pub fn look_at_session(&mut self, proc_root: &Path, session: &Process, uid: u32) {
        // The sockets of `su` are its caller's, and stay so.
        if session.uid == 0 && uid != 0 {
            self.look_for(proc_root, session.pid, uid);
        }
    }

    /// Notes the sockets of a process of root's that acts for this user.
    pub fn look_at_server(&mut self, proc_root: &Path, pid: u32, uid: u32) {
        let mut held = Vec::new();
        for (entry, inode) in self.sockets(proc_root, pid) {
            match Held::read(entry.clone(), inode) {
                Ok(connection) => held.extend(connection),
                Err(error) => self.refuse(&entry, &error),
            }
        }
        if held.iter().any(|connection| connection.owner != uid) {
            self.servers.push(Server { uid, held });
        }
    }

    fn sockets(&mut self, proc_root: &Path, pid: u32) -> Vec<(PathBuf, u64)> {
        let Descriptors { sockets, unread, .. } = descriptors(proc_root, pid);
        if let Some((table, error)) = unread {
            self.refuse(&table, &error);
        }
        sockets
    }

    fn look_for(&mut self, proc_root: &Path, pid: u32, uid: u32) {
        for (entry, inode) in self.sockets(proc_root, pid) {
            if let Err(error) = self.note(&entry, inode, uid) {
                self.refuse(&entry, &error);
            }
        }
    }

    fn note(&mut self, entry: &Path, inode: u64, uid: u32) -> io::Result<()> {
        let Some(socket) = reach(entry, inode)?.filter(|socket| socket.owner == 0) else {
            return Ok(());
        };
        if let Some(protocol) = Protocol::of(&socket.protocol()?) {
            let found = Found { entry: entry.to_path_buf(), protocol, owner: 0, uid: Some(uid) };
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
                known.get_mut().uid = None;
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Adds the findings of another look. Only all looks together know which sockets several users
    /// have.
    pub fn merge(&mut self, other: Handover) {
        for (inode, found) in other.found {
            self.add(inode, found);
        }
        self.servers.extend(other.servers);
        if self.refused.is_none() {
            self.refused = other.refused;
        }
    }

    /// Leaves out sockets that a process of another user among these (pid and real uid) has too.
    /// Reads the descriptors of all of them, but only where any socket was found.
    pub fn leave_shared(&mut self, proc_root: &Path, processes: &[(u32, u32)]) {
        let of_servers = self.servers.iter().flat_map(|server| &server.held);
        let connections: BTreeSet<u64> = of_servers.map(|held| held.inode).collect();
        if self.found.is_empty() && connections.is_empty() {
            return;
        }
        let known = |inode: &u64| self.found.contains_key(inode) || connections.contains(inode);
        let holders = |part: &[(u32, u32)]| -> Vec<(u64, u32)> {
            let held = part.iter().filter(|(_, uid)| *uid != 0).flat_map(|(pid, uid)| {
                descriptors(proc_root, *pid).sockets.into_iter().map(|(_, inode)| (inode, *uid))
            });
            held.filter(|(inode, _)| known(inode)).collect()
        };
        for (inode, uid) in in_parts(processes, holders).concat() {
            for server in self.servers.iter_mut().filter(|server| server.uid != uid) {
                server.held.retain(|held| held.inode != inode);
            }
            if let Some(found) = self.found.get_mut(&inode)
                && found.uid != Some(uid)
            {
                found.uid = None;
            }
        }
    }

    /// Gives each socket to its user.
    pub fn give(mut self) -> HandedOver {
        let mut done = HandedOver { given: 0, refused: self.refused.take() };
        let mut listeners = Listeners::default();
        for Server { uid, mut held } in std::mem::take(&mut self.servers) {
            held.retain(|held| !listeners.include(held.protocol, held.inode, &mut done.refused));
            for Held { inode, entry, protocol, owner } in go_along(uid, held) {
                let protocol = Protocol::Connections(protocol);
                self.add(inode, Found { entry, protocol, owner, uid: Some(uid) });
            }
        }
        for (inode, Found { entry, protocol, owner, uid }) in self.found {
            let Some(uid) = uid else { continue };
            if let Protocol::Connections(protocol) = protocol
                && listeners.include(protocol, inode, &mut done.refused)
            {
                continue;
            }
            match hand_over(&entry, inode, owner, uid) {
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

/// Which sockets listen, by protocol; the kernel is asked when one is looked up.
#[derive(Default)]
struct Listeners(BTreeMap<u16, Option<Listed>>);

/// What the kernel lists of a protocol, by inode.
enum Listed {
    /// The sockets that listen.
    Listening(BTreeSet<u64>),
    /// The connections, where those that listen are in no list.
    Connected(BTreeSet<u64>),
}

impl Listeners {
    /// Whether the socket listens; true also where the kernel does not say, with the reason in
    /// `refused`.
    fn include(&mut self, protocol: Listening, inode: u64, refused: &mut Option<String>) -> bool {
        let known = self.0.entry(protocol as u16).or_insert_with(|| {
            let say = |error: &io::Error| {
                refused.get_or_insert_with(|| {
                    format!("the kernel does not list {protocol:?} listeners: {error}")
                });
            };
            let listed = inodes(|family| inet_diag::listeners(family, protocol));
            let listed = match listed.map(Listed::Listening) {
                // A kernel without `mptcp_diag` lists an MPTCP socket's subflows as TCP's, and with
                // the inode of the MPTCP socket, which they share (`mptcp_sock_graft`).
                Err(_) if protocol == Listening::Mptcp => {
                    inodes(|family| inet_diag::connections(family, Transport::Tcp))
                        .map(Listed::Connected)
                }
                listed => listed,
            };
            listed.inspect_err(say).ok()
        });
        known.as_ref().is_none_or(|listed| match listed {
            Listed::Listening(inodes) => inodes.contains(&inode),
            Listed::Connected(inodes) => !inodes.contains(&inode),
        })
    }
}

/// Gives a socket to `uid`, unless the descriptor is another file by now or the socket's owner is
/// not `owner` any more; whether it was given.
fn hand_over(entry: &Path, inode: u64, owner: u32, uid: u32) -> io::Result<bool> {
    match reach(entry, inode)? {
        Some(socket) if socket.owner == owner => {
            socket.give(uid)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Inodes of the sockets of both families that the kernel lists.
fn inodes(list: impl Fn(Family) -> Request) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let listed = Netlink::for_sockets()
            .and_then(|mut netlink| netlink.dump(&list(family), inet_diag::inode));
        inodes.extend(listed.map_err(io::Error::other)?);
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::held::HeldSocket;
    use std::fs;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    fn found(uid: u32) -> Handover {
        let entry = PathBuf::from(format!("/proc/{uid}/fd/0"));
        let found = Found { entry, protocol: Protocol::Packets, owner: 0, uid: Some(uid) };
        Handover { found: BTreeMap::from([(7, found)]), ..Handover::default() }
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
    fn what_another_user_holds_too_does_not_go_along() {
        let socket = std::net::TcpStream::connect(
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        );
        let _socket = socket.unwrap();
        let looked = || {
            let mut handover = Handover::default();
            handover.look_at_server(Path::new("/proc"), std::process::id(), 4_000_000_001);
            handover
        };
        let (own, connections) = (std::process::id(), looked().servers[0].held.len());
        assert!(connections > 0);
        for (uid, left) in [(4_000_000_001, connections), (4_000_000_002, 0)] {
            let mut handover = looked();
            handover.leave_shared(Path::new("/proc"), &[(own, uid)]);
            assert_eq!(handover.servers[0].held.len(), left, "{uid}");
        }
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
        assert!(!hand_over(&entry, inode + 1, 0, 4001).unwrap());
        if nix::unistd::geteuid().is_root() {
            assert!(hand_over(&entry, inode, 0, 4001).unwrap());
            assert!(!hand_over(&entry, inode, 0, 4002).unwrap(), "it has an owner now");
        }
        drop(socket);
        assert!(is_gone(&hand_over(&entry, inode, 4001, 0).unwrap_err()));
    }

    #[test]
    fn the_kernel_lists_listeners_without_their_connections() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = |fd: i32| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let listed = inodes(|family| inet_diag::listeners(family, Listening::Tcp)).unwrap();
        assert!(listed.contains(&inode(listener.as_raw_fd())));
        assert!(!listed.contains(&inode(client.as_raw_fd())));
    }
}
