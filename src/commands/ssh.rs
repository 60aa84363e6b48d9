//! The ssh connection by which a person types. sudo and su drop the variables that tell of it, so
//! the processes above this one are asked, too.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::address::link_of;
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
    /// The link that has this host's address of the connection; `None`: none is known to have it.
    pub link: Option<LinkName>,
}

impl Ssh {
    /// The connection by which whoever called this command types; `None`: by none.
    pub(super) fn of_caller(proc_root: &Path) -> Option<Ssh> {
        let session = session_of(proc_root, std::process::id())?;
        Some(Ssh { link: session.address.and_then(link_of) })
    }
}

/// What the variables say of a session.
#[derive(Debug, PartialEq, Eq)]
struct SshSession {
    /// This host's address of the connection.
    address: Option<IpAddr>,
}

/// The session of the nearest process that has one: this, or one above it.
fn session_of(proc_root: &Path, pid: u32) -> Option<SshSession> {
    let mut pid = pid;
    for _ in 0..MOST {
        let process = proc_root.join(pid.to_string());
        // A process may have ended meanwhile, and another user's may not be read.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if let Some(session) = session_in(&environment) {
            return Some(session);
        }
        pid = parse_identity(&fs::read(process.join("status")).ok()?)?.parent;
        if pid == 0 {
            return None;
        }
    }
    None
}

/// The session that `/proc/PID/environ` tells of.
fn session_in(environment: &[u8]) -> Option<SshSession> {
    let of = |name: &[u8]| {
        let mut values =
            environment.split(|byte| *byte == 0).filter_map(|it| it.strip_prefix(name));
        values.find(|value| !value.is_empty())
    };
    match of(CONNECTION) {
        Some(connection) => Some(SshSession { address: own_address(connection) }),
        None => OTHERS.into_iter().find_map(of).map(|_| SshSession { address: None }),
    }
}

/// Of the client's address and port and the server's.
fn own_address(connection: &[u8]) -> Option<IpAddr> {
    let words = std::str::from_utf8(connection).ok()?;
    // A link-local address names its link, too.
    let address = words.split_ascii_whitespace().nth(2)?.split('%').next()?;
    Some(address.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(address: Option<&str>) -> Option<SshSession> {
        Some(SshSession { address: address.map(|it| it.parse().unwrap()) })
    }

    #[test]
    fn what_sshd_tells_a_session_is_read() {
        let v4 = b"PATH=/bin\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0SSH_TTY=/dev/pts/1\0";
        assert_eq!(session_in(v4), session(Some("192.0.2.1")));
        let v6 = b"SSH_CONNECTION=fe80::9%eth0 50000 fe80::1%eth0 22\0";
        assert_eq!(session_in(v6), session(Some("fe80::1")));
        let mapped = b"SSH_CONNECTION=::ffff:192.0.2.9 5 ::ffff:192.0.2.1 22\0";
        assert_eq!(session_in(mapped), session(Some("192.0.2.1")));
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
        assert_eq!(session_of(root.path(), 12), session(Some("192.0.2.1")));
        process(13, 1, "");
        assert_eq!(session_of(root.path(), 13), None);
        // Pids that were given again while this looked.
        process(14, 15, "");
        process(15, 14, "");
        assert_eq!(session_of(root.path(), 14), None);
        // Its parent has ended.
        process(16, 17, "");
        assert_eq!(session_of(root.path(), 16), None);
    }
}
