//! Which tags sockets have, and whether there are sockets whose tag is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use log::debug;

use crate::facts::Tags;
use crate::netlink::inet_diag::{self, Transport};
use crate::sys::held;
use crate::sys::route::{Netlink, SocketError};
use crate::tree::Family;
use crate::units::ClassId;

/// A table below `/proc/net`, and where a line has the owner's uid and the inode: the words of a
/// line, counted from 0.
struct Table {
    name: &'static str,
    uid: usize,
    inode: usize,
}

/// Sockets whose tag no list of any kernel has: those of ping (`ping_v4_format_sock`,
/// net/ipv4/ping.c) and of packets (`packet_seq_show`, net/packet/af_packet.c).
const UNLISTED: [Table; 3] = [
    Table { name: "icmp", uid: 7, inode: 9 },
    Table { name: "icmp6", uid: 7, inode: 9 },
    Table { name: "packet", uid: 7, inode: 8 },
];

impl Table {
    /// The table with the sockets of a `sock_diag` list, where the kernel was built without that
    /// (`raw_diag` is an option of its own).
    fn instead_of(family: Family, transport: Transport) -> Option<Table> {
        let (name, uid, inode) = match (transport, family) {
            (Transport::Raw, Family::V4) => ("raw", 7, 9),
            (Transport::Raw, Family::V6) => ("raw6", 7, 9),
            (Transport::Udp, Family::V4) => ("udp", 7, 9),
            (Transport::Udp, Family::V6) => ("udp6", 7, 9),
            (Transport::UdpLite, Family::V4) => ("udplite", 7, 9),
            (Transport::UdpLite, Family::V6) => ("udplite6", 7, 9),
            (Transport::Sctp, Family::V4) => ("sctp/eps", 6, 7),
            _ => return None,
        };
        Some(Table { name, uid, inode })
    }

    /// Inode and uid of each socket; one that was closed by everybody and still sends has the inode
    /// 0. The first line names the columns.
    fn sockets(&self, text: &str) -> Vec<(u64, u32)> {
        let socket = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode = words.get(self.inode)?.parse().ok()?;
            Some((inode, words.get(self.uid)?.parse().ok()?))
        };
        text.lines().skip(1).filter_map(socket).collect()
    }
}

/// Classes that some socket of the namespace carries as its tag.
///
/// A list goes on by position in a hash bucket, so a socket that closes between two datagrams can
/// hide the one behind it in its bucket, unsaid. That takes two sockets in one bucket and a
/// datagram that ends between them: the list is read twice, and what either shows counts.
///
/// Ping and packet sockets, and others that the kernel lists without tags, have the tag of the
/// directory of a process that has them: all directories' classids are written again before a class
/// is looked at, and no directory of a process names a retired class. A socket that no process has
/// (in flight, registered with an io_uring) may have any tag.
///
/// # Errors
/// The kernel has a list and refuses it.
pub fn tags(proc_root: &Path) -> Result<Tags, SocketError> {
    let mut tags = BTreeSet::new();
    let mut tables: Vec<Table> = UNLISTED.into_iter().collect();
    for transport in Transport::ALL {
        for family in [Family::V4, Family::V6] {
            match listed(family, transport) {
                Ok(list) => tags.extend(list),
                Err(error) if error.is_not_supported() => {
                    debug!("the {family:?} {transport:?} sockets: {error}");
                    tables.extend(Table::instead_of(family, transport));
                }
                Err(error) => return Err(error),
            }
        }
    }
    let mut untold: BTreeMap<u64, u32> = BTreeMap::new();
    for table in tables {
        let path = proc_root.join("net").join(table.name);
        // A missing table means that the kernel lacks the protocol.
        untold.extend(table.sockets(&fs::read_to_string(path).unwrap_or_default()));
    }
    Ok(match all_are_held(proc_root, untold) {
        true => Tags::Known(tags),
        false => {
            debug!("a socket that no process has may carry the tag of any class");
            Tags::Hidden
        }
    })
}

fn listed(family: Family, transport: Transport) -> Result<BTreeSet<ClassId>, SocketError> {
    let mut tags = BTreeSet::new();
    for _ in 0..2 {
        // A socket for each list: a refused one must not take the next along.
        let mut netlink = Netlink::for_sockets()?;
        let list = netlink.dump(&inet_diag::sockets(family, transport), inet_diag::tag)?;
        tags.extend(list.iter().filter_map(|tag| tag.our_class()));
    }
    Ok(tags)
}

/// Whether each of the sockets, by inode and with its owner's uid, is in the descriptor table of a
/// process of that uid or of one that `/proc` shows as root's (it does that with programs that had
/// more rights, as ping has): others' tables are not searched.
fn all_are_held(proc_root: &Path, mut sockets: BTreeMap<u64, u32>) -> bool {
    if sockets.is_empty() {
        return true;
    }
    let uids: BTreeSet<u32> = sockets.values().copied().chain([0]).collect();
    let Ok(processes) = fs::read_dir(proc_root) else { return false };
    for process in processes.flatten() {
        let is_pid = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let of_them = || process.metadata().is_ok_and(|meta| uids.contains(&meta.uid()));
        if !is_pid || !of_them() {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let link = fs::read_link(descriptor.path());
            if let Some(inode) = link.ok().as_deref().and_then(held::inode) {
                sockets.remove(&inode);
            }
        }
        if sockets.is_empty() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ICMP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n    3: 00000000:0003 00000000:0000 07 00000000:00000000 00:00000000 00000000  2001        0 4242 2 0000000000000000 0           \n";
    const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n000000005ea4014e 2      3    0000   0     0 0      101    4242831\n";

    #[test]
    fn owner_and_inode_are_read_from_the_kernels_tables() {
        let [icmp, _, packet] = UNLISTED;
        assert_eq!(icmp.sockets(ICMP), [(4242, 2001)]);
        assert_eq!(packet.sockets(PACKET), [(4_242_831, 101)]);
        assert_eq!(packet.sockets(""), []);
    }

    #[test]
    fn a_socket_that_no_process_has_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let fd = folder.path().join("7/fd");
        fs::create_dir_all(&fd).unwrap();
        symlink("socket:[4242]", fd.join("3")).unwrap();
        let uid = fs::metadata(&fd).unwrap().uid();
        let held = |sockets: &[u64]| {
            all_are_held(folder.path(), sockets.iter().map(|inode| (*inode, uid)).collect())
        };
        assert!(held(&[]) && held(&[4242]));
        assert!(!held(&[4242, 4243]));
        assert!(!held(&[0]), "closed by everybody");
    }
}
