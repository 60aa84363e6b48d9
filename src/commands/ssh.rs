//! The ssh connection by which a person types. sudo and su drop the variables that tell of it, so
//! the processes above this one are asked, too.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::parent_id;
use std::path::Path;

use super::address::link_of;
use crate::facts::LinkFacts;
use crate::host::Kernel;
use crate::netlink::way;
use crate::process::parse_identity;
use crate::tree::LinkName;

/// The variables of a session (ssh(1)), as they begin in a process's environment.
const CONNECTION: &[u8] = b"SSH_CONNECTION=";
const OTHERS: [&[u8]; 2] = [b"SSH_CLIENT=", b"SSH_TTY="];

/// How many processes are looked at. A pid that is given again meanwhile could make a circle.
const MOST: usize = 100;

/// A connection by ssh.
#[derive(Debug)]
pub(super) struct Ssh {
    session: SshSession,
    /// Inode of the network namespace that the connection is in; `None`: it may not be read.
    netns: Option<u64>,
}

impl Ssh {
    /// The connection by which whoever called this command types; `None`: by none. `has_entered`:
    /// this process is in another network namespace than the one that it was started in.
    pub(super) fn of_caller(proc_root: &Path, has_entered: bool) -> Option<Ssh> {
        let own = std::process::id();
        let (session, first) = session_of(proc_root, own)?;
        let is_there = if first == own && has_entered { parent_id() } else { first };
        let netns = fs::metadata(proc_root.join(format!("{is_there}/ns/net"))).ok();
        Some(Ssh { session, netns: netns.map(|it| it.ino()) })
    }

    /// Whether the connection is in another network namespace than the kernel's links.
    pub(super) fn is_elsewhere(&self, kernel: &Kernel) -> bool {
        self.netns.is_some_and(|netns| netns != kernel.netns)
    }

    /// The link by which the connection's packets leave: the one that a link-local address names,
    /// else as the kernel routes them, else the one that has this host's address; `None`: none of
    /// these is known. `links`: the kernel's.
    pub(super) fn link<'l>(
        &self,
        kernel: &mut Kernel,
        mut links: impl Iterator<Item = (&'l LinkName, &'l LinkFacts)>,
    ) -> Option<LinkName> {
        let SshSession { own, peer, scope } = &self.session;
        let (own, peer) = ((*own)?, (*peer)?);
        if is_link_local(own) || is_link_local(peer) {
            // The same way leads over each link, and two links may have the same address.
            let named = scope.as_deref()?;
            return links.map(|(name, _)| name).find(|name| name.as_str() == named).cloned();
        }
        let question = way::between(own, peer);
        match kernel.netlink.get(&question, way::link) {
            Ok(Ok(Some(index))) => {
                links.find(|(_, facts)| facts.ifindex == index).map(|(name, _)| name.clone())
            }
            _ => None,
        }
        .or_else(|| link_of(own))
    }
}

/// An address that is of one link alone.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What the variables say of a session: the addresses of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SshSession {
    /// This host's.
    own: Option<IpAddr>,
    /// The other end's.
    peer: Option<IpAddr>,
    /// The link that they name (`fe80::1%eth0`).
    scope: Option<String>,
}

/// The session of the nearest process that has one, this or one above it; and the first process of
/// that session, which is where the connection is: those below it may have entered other network
/// namespaces since.
fn session_of(proc_root: &Path, pid: u32) -> Option<(SshSession, u32)> {
    let mut found: Option<(SshSession, u32)> = None;
    let mut pid = pid;
    for _ in 0..MOST {
        let process = proc_root.join(pid.to_string());
        // A process may have ended meanwhile, and another user's may not be read.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let session = session_in(&environment);
        let is_another =
            |(it, _): &(SshSession, u32)| session.as_ref().is_some_and(|new| new != it);
        if found.as_ref().is_some_and(is_another) {
            break;
        }
        let status = fs::read(process.join("status")).ok();
        let parent = status.and_then(|it| parse_identity(&it)).map_or(0, |it| it.parent);
        if let Some(session) = session {
            found = Some((session, pid));
        }
        pid = parent;
        if pid == 0 {
            break;
        }
    }
    found
}

/// The session that `/proc/PID/environ` tells of.
fn session_in(environment: &[u8]) -> Option<SshSession> {
    let of = |name: &[u8]| {
        let mut values =
            environment.split(|byte| *byte == 0).filter_map(|it| it.strip_prefix(name));
        values.find(|value| !value.is_empty())
    };
    match of(CONNECTION) {
        Some(connection) => {
            let [(peer, at_peer), (own, at_own)] = [0, 2].map(|at| address(connection, at));
            Some(SshSession { own, peer, scope: at_own.or(at_peer) })
        }
        None => {
            let said = OTHERS.into_iter().find_map(of);
            said.map(|_| SshSession { own: None, peer: None, scope: None })
        }
    }
}

/// One of the client's address and port and the server's; and the link that it names.
fn address(connection: &[u8], at: usize) -> (Option<IpAddr>, Option<String>) {
    let words = std::str::from_utf8(connection).unwrap_or_default();
    let word = words.split_ascii_whitespace().nth(at).unwrap_or_default();
    let (address, scope) = match word.split_once('%') {
        Some((address, scope)) => (address, Some(scope.to_string())),
        None => (word, None),
    };
    (address.parse().ok().map(|it: IpAddr| it.to_canonical()), scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(addresses: Option<(&str, &str)>) -> Option<SshSession> {
        let address = |it: &str| it.parse().unwrap();
        let (peer, own) = addresses.map(|(peer, own)| (address(peer), address(own))).unzip();
        Some(SshSession { own, peer, scope: None })
    }

    #[test]
    fn what_sshd_tells_a_session_is_read() {
        let v4 = b"PATH=/bin\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0SSH_TTY=/dev/pts/1\0";
        assert_eq!(session_in(v4), session(Some(("192.0.2.9", "192.0.2.1"))));
        let v6 = b"SSH_CONNECTION=fe80::9%eth0 50000 fe80::1%eth0 22\0";
        let mut link_local = session(Some(("fe80::9", "fe80::1"))).unwrap();
        link_local.scope = Some("eth0".to_string());
        assert_eq!(session_in(v6), Some(link_local));
        let mapped = b"SSH_CONNECTION=::ffff:192.0.2.9 5 ::ffff:192.0.2.1 22\0";
        assert_eq!(session_in(mapped), session(Some(("192.0.2.9", "192.0.2.1"))));
        for unclear in [&b"SSH_CONNECTION=UNKNOWN\0"[..], b"SSH_TTY=/dev/pts/1\0"] {
            assert_eq!(session_in(unclear), session(None));
        }
        for none in [&b""[..], b"SSH_CONNECTION=\0HOME=/\0", b"NOT_SSH_TTY=/dev/pts/1\0"] {
            assert_eq!(session_in(none), None);
        }
    }

    #[test]
    fn a_session_is_found_above_what_drops_its_variables() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32, environment: &str| {
            let folder = root.path().join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("environ"), environment).unwrap();
            let ids = "Uid:\t0\t0\t0\t0\n";
            let status = format!("Name:\tx\nState:\tS (sleeping)\nPPid:\t{parent}\n{ids}");
            fs::write(folder.join("status"), status).unwrap();
        };
        process(1, 0, "");
        process(10, 1, "SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0");
        process(11, 10, "SUDO_USER=ann\0");
        process(12, 11, "");
        let at_10 = session(Some(("192.0.2.9", "192.0.2.1"))).unwrap();
        assert_eq!(session_of(root.path(), 12), Some((at_10.clone(), 10)));
        process(13, 1, "");
        assert_eq!(session_of(root.path(), 13), None);
        // Pids that were given again while this looked.
        process(14, 15, "");
        process(15, 14, "");
        assert_eq!(session_of(root.path(), 14), None);
        // Its parent has ended.
        process(16, 17, "");
        assert_eq!(session_of(root.path(), 16), None);
        // A server that was started in a session, and its own session.
        process(20, 10, "SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0");
        process(21, 20, "SSH_CONNECTION=192.0.2.7 50000 192.0.2.2 22\0");
        process(22, 21, "SSH_CONNECTION=192.0.2.7 50000 192.0.2.2 22\0");
        let inner = session(Some(("192.0.2.7", "192.0.2.2"))).unwrap();
        assert_eq!(session_of(root.path(), 22), Some((inner, 21)));
        process(9, 1, "");
        process(10, 9, "SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0");
        assert_eq!(session_of(root.path(), 12), Some((at_10, 10)), "and not its server");
    }
}
