//! Messages to the service manager (sd_notify(3)), if there is one. The daemon places logins within
//! a millisecond, so it never waits for a manager that does not read.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// How often the daemon tells that it goes on, during work that takes longer than this.
pub(super) const ALIVE: Duration = Duration::from_secs(5);
/// How long telling READY may take: the manager ends a unit that never became ready, so this one
/// message is waited for.
const READY: Duration = Duration::from_secs(5);

/// Sends these states. One that cannot be sent is not lost: a sign of life is repeated, and the
/// next state has it too.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = tell_at(&name, states) {
        log::debug!("cannot tell the service manager: {error}");
    }
}

fn tell_at(name: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let mut message = String::new();
    for state in states {
        let _to_a_string = writeln!(message, "{state}");
    }
    let socket = UnixDatagram::unbound()?;
    match states.iter().any(|state| matches!(state, NotifyState::Ready)) {
        true => socket.set_write_timeout(Some(READY))?,
        false => socket.set_nonblocking(true)?,
    }
    // An abstract name is written with an @.
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    socket.send_to_addr(message.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let start = Instant::now();
        let mut told = 0;
        let lost = loop {
            match tell_at(path.as_os_str(), &[NotifyState::Status("failing: 50% of nothing")]) {
                Ok(()) => told += 1,
                Err(error) => break error,
            }
            assert!(told < 1_000_000, "its queue has no end");
        };
        assert_eq!(lost.kind(), io::ErrorKind::WouldBlock);
        assert!(start.elapsed() < READY, "{:?}", start.elapsed());
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"STATUS=failing: 50% of nothing\n");
        assert!(told > 0);
    }

    #[test]
    fn a_manager_is_found_by_an_abstract_name_too() {
        let name = format!("shaper-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let states = [NotifyState::Ready, NotifyState::Status("idle")];
        tell_at(OsStr::new(&format!("@{name}")), &states).unwrap();
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"READY=1\nSTATUS=idle\n");
    }
}
