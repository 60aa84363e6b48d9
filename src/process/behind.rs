//! Which process is behind a change that the kernel tells of with the sender's netlink port. Most
//! sockets have their process's pid for a port (`netlink_autobind`, net/netlink/af_netlink.c), or
//! libnl's, in which the pid is the lower 22 bits. A port proves nothing (a pid of another process
//! namespace is another process's here), so the process is named only where it has that very
//! socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::text::Foreign;

/// The bits of a port of libnl's that are the pid (lib/socket.c, `generate_local_port`).
const PID_BITS: u32 = 0x3f_ffff;
/// `loginuid` of a process that nobody's login started.
const NO_LOGIN: u32 = u32::MAX;
/// How many bytes the list of sockets may have: 40,000 sockets or so. Any user can make it longer,
/// and whoever reads it waits for it.
const LONGEST: u64 = 4 << 20;

/// Who changed something, by the netlink ports of their sockets. `None`: it is not known who has
/// that socket.
pub type Changers = BTreeMap<u32, Option<Behind>>;

/// A process that changed something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behind {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// What it calls itself.
    pub comm: String,
    /// The uid of whoever logged in to start it; `None`: nobody did, as far as the kernel knows.
    pub login: Option<u32>,
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({}", self.pid, Foreign::from(self.comm.as_str()))?;
        match self.login {
            Some(uid) => write!(f, ", started by uid {uid})"),
            None => f.write_str(")"),
        }
    }
}

/// The processes that have the rtnetlink sockets with these ports, in this thread's network
/// namespace. `None`: it has ended, may not be looked at, or cannot be found by its port; or the
/// list of all sockets is too long.
pub fn behind(proc_root: &Path, ports: BTreeSet<u32>) -> Changers {
    if ports.is_empty() {
        return Changers::new();
    }
    let inodes = inodes(&list(proc_root).unwrap_or_default(), &ports);
    let one = |port: u32| inodes.get(&port).and_then(|inode| holder(proc_root, port, *inode));
    ports.into_iter().map(|port| (port, one(port))).collect()
}

/// All netlink sockets of this thread's network namespace; `None`: of too many.
fn list(proc_root: &Path) -> Option<String> {
    let file = File::open(proc_root.join("thread-self/net/netlink")).ok()?;
    let mut text = String::new();
    let length = file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
    u64::try_from(length).is_ok_and(|length| length <= LONGEST).then_some(text)
}

/// The process of this port, where it has the socket with this inode.
fn holder(proc_root: &Path, port: u32, inode: u64) -> Option<Behind> {
    let socket = format!("socket:[{inode}]");
    // PID 1 binds sockets for others, networkd's among them (`ListenNetlink=`), and what these do
    // with them is not its doing.
    let mut pids = [port, port & PID_BITS].into_iter().filter(|pid| *pid != 1);
    pids.find_map(|pid| {
        let process = proc_root.join(pid.to_string());
        let comm = fs::read(process.join("comm")).ok()?;
        let login = fs::read_to_string(process.join("loginuid")).ok();
        let mut open = fs::read_dir(process.join("fd")).ok()?;
        open.any(|entry| {
            let target = entry.and_then(|entry| fs::read_link(entry.path()));
            target.is_ok_and(|target| target == Path::new(&socket))
        })
        .then(|| Behind {
            pid,
            comm: String::from_utf8_lossy(comm.trim_ascii_end()).into_owned(),
            login: login.and_then(|uid| uid.trim().parse().ok()).filter(|uid| *uid != NO_LOGIN),
        })
    })
}

/// The inodes of the rtnetlink sockets with these ports in `/proc/net/netlink`, whose columns are
/// the socket, its protocol (0: rtnetlink), its port, …, its inode (`netlink_native_seq_show`).
fn inodes(sockets: &str, ports: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
    let inode = |line: &str| -> Option<(u32, u64)> {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let is_routes = columns.next()? == "0";
        let port = columns.next()?.parse().ok()?;
        let inode = columns.last()?.parse().ok()?;
        (is_routes && ports.contains(&port)).then_some((port, inode))
    };
    sockets.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const SOCKETS: &str = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000c3f0d0d2 0   4711       00000000 0        0        0     2        0        20001
00000000c3f0d0d3 9   4712       00000000 0        0        0     2        0        20002
00000000c3f0d0d4 0   4194304712 00000000 0        0        0     2        0        20003
00000000c3f0d0d5 0   1          00000000 0        0        0     2        0        20004
";

    fn write_list(root: &Path, sockets: &str) {
        let net = root.join("thread-self/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("netlink"), sockets).unwrap();
    }

    fn process(root: &Path, pid: u32, inode: u64, login: &str) {
        let folder = root.join(pid.to_string());
        let _before = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("comm"), "t\u{1b}c\n").unwrap();
        fs::write(folder.join("loginuid"), login).unwrap();
        symlink(format!("socket:[{inode}]"), folder.join("fd/3")).unwrap();
    }

    #[test]
    fn a_process_is_named_that_has_the_very_socket() {
        let root = tempfile::tempdir().unwrap();
        write_list(root.path(), SOCKETS);
        let process = |pid, inode, login| process(root.path(), pid, inode, login);
        let named = |port| {
            let found = behind(root.path(), BTreeSet::from([port])).remove(&port);
            found.expect("each port has an entry").map(|it| it.to_string())
        };
        assert_eq!(named(4711), None, "it has ended");
        process(4711, 20_001, "4294967295");
        assert_eq!(named(4711).as_deref(), Some("process 4711 (t\\u{1b}c)"));
        process(4711, 20_001, "1000");
        assert_eq!(named(4711).as_deref(), Some("process 4711 (t\\u{1b}c, started by uid 1000)"));
        process(4711, 20_009, "1000");
        assert_eq!(named(4711), None, "another process namespace's pid");
        process(4712, 20_002, "1000");
        assert_eq!(named(4712), None, "a socket of another protocol");
        assert_eq!(named(4713), None, "no such port");
        // One of libnl's: 1000 << 22 | 712.
        process(712, 20_003, "1000");
        assert!(named(4_194_304_712).is_some());
        process(1, 20_004, "4294967295");
        assert_eq!(named(1), None, "it bound the socket for networkd");
        // Several at once.
        process(4711, 20_001, "1000");
        let found = behind(root.path(), BTreeSet::from([4711, 4712, 4_194_304_712]));
        let pids: Vec<Option<u32>> = found.values().map(|it| Some(it.as_ref()?.pid)).collect();
        assert_eq!(pids, [Some(4711), None, Some(712)]);
        assert_eq!(behind(root.path(), BTreeSet::new()), Changers::new());
    }

    #[test]
    fn a_list_that_is_too_long_names_nobody() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 4711, 20_001, "1000");
        let of_users = "00000000c3f0d0d5 0 9 00000000 0 0 0 2 0 1\n";
        let longest = usize::try_from(LONGEST).unwrap();
        let lines = (longest - SOCKETS.len()) / of_users.len();
        for (more, is_named) in [(0, true), (1, false)] {
            write_list(root.path(), &(of_users.repeat(lines + more) + SOCKETS));
            let found = behind(root.path(), BTreeSet::from([4711]));
            assert_eq!(found[&4711].is_some(), is_named, "{} lines", lines + more);
        }
    }
}
