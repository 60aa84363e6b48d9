//! A user who tries to leave his class with a socket where retagging does not find it, or with a
//! process that nobody has placed yet. The process gets two orders: after the first it is ready,
//! after the second it sends.
#![allow(unsafe_code, reason = "clone(2) and exit(2) of single threads")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::{fchown, pause, setgid, setgroups, setresuid, setuid};

use super::accounts::Account;
use super::cell::myself;
use super::ring::Ring;
use super::source::nobody_listens;

/// The ways in which he tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// The connection is among the registered files of an io_uring, and nowhere else.
    Ring,
    /// The connection is in the descriptor table of a thread, and not in that of its process.
    OwnTable,
    /// The thread that sends is the last of its process, whose main thread has ended.
    EndedMain,
    /// Full connections in messages that nobody has received.
    InFlight,
    /// Full connections of a process that has ended.
    LeftQueued,
    /// A set-uid program that he ran becomes another user for good, with his connection.
    RealUid,
    /// The connection is chowned to a subordinate uid of the user, as which no process has ever
    /// run. The test writes the uid map.
    Subordinate,
    /// A process that has just become the user forks a child with CLONE_PARENT.
    Sibling,
}

impl Trick {
    pub const ALL: [Trick; 8] = [
        Trick::Ring,
        Trick::OwnTable,
        Trick::EndedMain,
        Trick::InFlight,
        Trick::LeftQueued,
        Trick::RealUid,
        Trick::Subordinate,
        Trick::Sibling,
    ];

    /// Whether the packets are only those that [`CONNECTIONS`] sockets have queued, which the
    /// receiver must not read before it is time.
    pub fn only_leaves(self) -> bool {
        matches!(self, Trick::InFlight | Trick::LeftQueued)
    }
}

pub const CONNECTIONS: usize = 2;

/// An account that no policy of the tests claims: `daemon` in Debian.
const ANOTHER: u32 = 1;

pub struct Fugitive {
    child: Child,
    orders: ChildStdin,
    out: ChildStdout,
}

impl Fugitive {
    pub fn start(account: Account, trick: Trick, to: SocketAddr) -> Fugitive {
        let mut command = myself(&["--fugitive", &format!("{trick:?}")]);
        command.args([account.uid.to_string(), to.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a fugitive");
        let orders = child.stdin.take().expect("his orders");
        let mut out = child.stdout.take().expect("his answers");
        out.read_exact(&mut [0]).expect("he is ready");
        Fugitive { child, orders, out }
    }

    /// Writes the maps as newuidmap(1) does: in the namespace the user is root, and his first
    /// subordinate uid is 1.
    pub fn map(&self, account: Account, subordinate: u32) {
        let at = format!("/proc/{}", self.child.id());
        let uids = format!("0 {} 1\n1 {subordinate} 1\n", account.uid);
        fs::write(format!("{at}/uid_map"), uids).expect("map his uids");
        // His gid has the same number, whatever his groups are.
        fs::write(format!("{at}/gid_map"), format!("0 {} 1\n", account.uid)).expect("and his gid");
    }

    pub fn go(&mut self) {
        self.orders.write_all(b"\n").expect("tell him");
        self.out.read_exact(&mut [0]).expect("he has gone");
    }
}

impl Drop for Fugitive {
    fn drop(&mut self) {
        // A sender ends when its output has no reader.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `--fugitive TRICK UID ADDRESS`
pub fn run(words: &[&str]) -> ExitCode {
    let [trick, uid, to] = words else { return ExitCode::FAILURE };
    let trick = Trick::ALL.into_iter().find(|it| format!("{it:?}") == *trick);
    let (Some(trick), Ok(uid), Ok(to)) = (trick, uid.parse(), to.parse()) else {
        return ExitCode::FAILURE;
    };
    match play(trick, uid, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{trick:?}: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// One byte on standard output, without a buffer that two processes would share.
fn say() -> io::Result<()> {
    nix::unistd::write(io::stdout().as_fd(), b".")?;
    Ok(())
}

/// Says that he is ready, and waits.
fn wait() -> io::Result<()> {
    say()?;
    io::stdin().read_exact(&mut [0])
}

fn play(trick: Trick, uid: u32, to: SocketAddr) -> anyhow::Result<()> {
    match trick {
        // It becomes him later.
        Trick::Sibling => {}
        Trick::RealUid => {
            setgroups(&[])?;
            setresuid(uid.into(), uid.into(), 0.into())?;
        }
        _ => become_him(uid)?,
    }
    match trick {
        Trick::Ring => through_a_ring(to),
        Trick::OwnTable | Trick::EndedMain => from_another_thread(trick, to),
        Trick::InFlight => in_flight(to),
        Trick::LeftQueued => {
            let full = full(to)?;
            // After this process the connections exist in the kernel only.
            wait()?;
            drop(full);
            Ok(say()?)
        }
        Trick::RealUid => {
            let stream = TcpStream::connect(to)?;
            wait()?;
            setresuid(0.into(), 0.into(), 0.into())?;
            setresuid(ANOTHER.into(), ANOTHER.into(), ANOTHER.into())?;
            say()?;
            pour(&stream)
        }
        Trick::Subordinate => {
            unshare(CloneFlags::CLONE_NEWUSER)?;
            wait()?;
            let stream = TcpStream::connect(to)?;
            fchown(&stream, Some(1.into()), None)?;
            say()?;
            pour(&stream)
        }
        Trick::Sibling => beside_his_parent(uid, to),
    }
}

fn become_him(uid: u32) -> nix::Result<()> {
    setgroups(&[])?;
    setgid(uid.into())?;
    setuid(uid.into())
}

fn through_a_ring(to: SocketAddr) -> anyhow::Result<()> {
    let ring = Ring::keep(TcpStream::connect(to)?)?;
    wait()?;
    say()?;
    let block = [0x5a; 16_384];
    while ring.send(&block).is_ok() && !nobody_listens() {}
    Ok(())
}

/// A second thread sends: from a table of descriptors of its own, or when the main thread has
/// ended.
fn from_another_thread(trick: Trick, to: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to)?.into_raw_fd();
    let (ready, own) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let sender = thread::spawn(move || {
        if trick == Trick::OwnTable {
            unshare(CloneFlags::CLONE_FILES).expect("a table of its own");
        }
        // SAFETY: of this table's descriptor nobody else takes care.
        let stream = unsafe { TcpStream::from_raw_fd(stream) };
        ready.send(()).expect("the main thread waits");
        if trick == Trick::EndedMain {
            wait().expect("an order");
        } else {
            told.recv().expect("an order");
        }
        say().expect("somebody listens");
        pour(&stream)
    });
    own.recv()?;
    if trick == Trick::EndedMain {
        // SAFETY: ends this thread only; nothing of its stack is used by the other.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: this table's copy, which nobody uses any more.
    drop(unsafe { OwnedFd::from_raw_fd(stream) });
    wait()?;
    go.send(())?;
    let _ = sender.join();
    Ok(())
}

/// Full connections whose descriptors are only in a message that nobody receives.
fn in_flight(to: SocketAddr) -> anyhow::Result<()> {
    let (here, _there) = UnixDatagram::pair()?;
    for full in full(to)? {
        let (passed, data) = ([full.as_raw_fd()], [io::IoSlice::new(b"x")]);
        let rights = [ControlMessage::ScmRights(&passed)];
        let (fd, flags) = (here.as_raw_fd(), MsgFlags::empty());
        sendmsg::<UnixAddr>(fd, &data, &rights, flags, None)?;
    }
    wait()?;
    say()?;
    pause();
    Ok(())
}

fn beside_his_parent(uid: u32, to: SocketAddr) -> anyhow::Result<()> {
    wait()?;
    // SAFETY: this process has one thread, and so has its child.
    let clone = |flags: i32| unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    // As cron does: a child becomes the user, and runs what the user wants.
    if clone(libc::SIGCHLD) != 0 {
        pause();
    }
    become_him(uid)?;
    if clone(libc::SIGCHLD | libc::CLONE_PARENT) == 0 {
        let stream = TcpStream::connect(to)?;
        say()?;
        pour(&stream);
    }
    Ok(())
}

/// Connections whose receiver reads nothing, with full buffers.
fn full(to: SocketAddr) -> io::Result<Vec<TcpStream>> {
    (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(to)?;
            // The largest buffer that any process may have.
            nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBuf, &(1 << 20))?;
            stream.set_write_timeout(Some(std::time::Duration::from_millis(100)))?;
            while stream.write(&[0x5a; 16_384]).is_ok() {}
            Ok(stream)
        })
        .collect()
}

fn pour(mut stream: &TcpStream) -> ! {
    let block = [0x5a; 16_384];
    while stream.write(&block).is_ok() && !nobody_listens() {}
    std::process::exit(0)
}
