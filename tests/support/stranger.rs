//! A user who wants out of his class by way of a network namespace of his own: one connection,
//! which he keeps when he, a thread, a child or its maker enters the namespace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use std::thread;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork, getuid, pause, setgid, setgroups, setuid};

use super::accounts::Account;
use super::cell::myself;

/// Who enters the namespace, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The sender, without a uid map.
    Sender,
    /// The sender, with one.
    Mapped,
    /// A child, which goes on with the connection while its parent ends.
    Child,
    /// The main thread, while another sends.
    Thread,
    /// The main thread, which then ends.
    EndedThread,
    /// Root, before it becomes the user: a server that isolates its clients.
    Server,
}

impl Way {
    pub const ALL: [Way; 6] =
        [Way::Sender, Way::Mapped, Way::Child, Way::Thread, Way::EndedThread, Way::Server];
}

/// A process that pours, and was told nothing yet.
pub struct Stranger {
    child: Child,
    out: ChildStdout,
}

impl Stranger {
    /// Becomes the account and connects.
    pub fn start(account: Account, way: Way, to: SocketAddr) -> Stranger {
        let mut command = myself(&["--stranger", &format!("{way:?}")]);
        command.args([account.uid.to_string(), to.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a stranger");
        let mut out = child.stdout.take().expect("its output");
        assert_eq!(line(&mut out), "connected");
        Stranger { child, out }
    }

    /// Lets him go; his process's pid from now on.
    pub fn leave(&mut self) -> u32 {
        self.child.stdin.take().expect("its input").write_all(b"\n").expect("tell it");
        line(&mut self.out).parse().expect("a pid")
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Whoever sends ends when its output has no reader.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(out: &mut ChildStdout) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while out.read(&mut byte).expect("read its output") == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    text
}

/// `--stranger WAY UID ADDRESS`
pub fn run(words: &[&str]) -> ExitCode {
    let [way, uid, to] = words else { return ExitCode::FAILURE };
    let Some(way) = Way::ALL.into_iter().find(|it| format!("{it:?}") == *way) else {
        return ExitCode::FAILURE;
    };
    match (uid.parse(), to.parse()) {
        (Ok(uid), Ok(to)) if play(way, uid, to).is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn play(way: Way, uid: u32, to: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to)?;
    let become_him = || {
        setgroups(&[])?;
        setgid(uid.into())?;
        setuid(uid.into())
    };
    let (user, net) = (CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNET);
    if way != Way::Server {
        become_him()?;
    }
    println!("connected");
    std::io::stdin().read_exact(&mut [0])?;
    match way {
        Way::Sender => unshare(user | net)?,
        Way::Server => {
            unshare(net)?;
            become_him()?;
        }
        Way::Mapped => {
            let outer = getuid();
            unshare(user | net)?;
            // What a user's process does may not be dumped: its files below /proc are root's.
            let _ = std::fs::write("/proc/self/setgroups", "deny");
            let _ = std::fs::write("/proc/self/uid_map", format!("0 {outer} 1"));
        }
        // SAFETY: this process has one thread.
        Way::Child => match unsafe { fork() }? {
            ForkResult::Parent { .. } => return Ok(()),
            ForkResult::Child => unshare(user | net)?,
        },
        Way::Thread | Way::EndedThread => {
            // A user namespace may only be made by a process of one thread.
            unshare(user)?;
            let stream = stream.try_clone()?;
            thread::spawn(move || pour(&stream));
            unshare(net)?;
            println!("{}", std::process::id());
            if way == Way::EndedThread {
                // SAFETY: ends this thread only; nothing of its stack is used by the other.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            pause();
        }
    }
    println!("{}", std::process::id());
    pour(&stream);
    Ok(())
}

/// Until its reader is gone, or the one of its output.
fn pour(mut stream: &TcpStream) {
    let block = [0x5a; 16_384];
    let orphaned = || {
        let mut out = libc::pollfd { fd: 1, events: 0, revents: 0 };
        // SAFETY: one `pollfd`, which lives until the call is over.
        unsafe { libc::poll(&raw mut out, 1, 0) };
        out.revents & libc::POLLERR != 0
    };
    while stream.write(&block).is_ok() && !orphaned() {}
    std::process::exit(0);
}

/// `--guest UID CGROUP`: a process of an engine's container, until it is killed.
pub fn guest(uid: &str, cgroup: &str) -> ExitCode {
    let entered = std::fs::write(format!("{cgroup}/cgroup.procs"), "0").is_ok()
        && unshare(CloneFlags::CLONE_NEWNET).is_ok()
        && uid.parse::<u32>().is_ok_and(|uid| setuid(uid.into()).is_ok());
    if entered {
        pause();
    }
    ExitCode::FAILURE
}

/// How a process is born outside its user's class: by one that has become the user a moment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// A child that names its grandparent as its parent (`CLONE_PARENT`).
    Sibling,
    /// A child's child, whose parent has ended.
    Twice,
    /// The last of so many, each of which forks the next and ends.
    Chain(u32),
    /// The same, each of which names the first one's parent.
    Siblings(u32),
}

/// `--born BIRTH UID`: prints `begun` once a child is the user, then the pid of the last one, which
/// lives until its output has no reader.
pub fn born(birth: &str, uid: &str) -> ExitCode {
    let Ok(uid) = uid.parse::<u32>() else { return ExitCode::FAILURE };
    let number = |text: &str| text.trim_end_matches(')').parse().unwrap_or(1);
    let (hops, flags) = match birth.split_once('(') {
        Some(("Chain", count)) => (number(count), libc::SIGCHLD),
        Some((_, count)) => (number(count), libc::SIGCHLD | libc::CLONE_PARENT),
        None if birth == "Twice" => (2, libc::SIGCHLD),
        None => (1, libc::SIGCHLD | libc::CLONE_PARENT),
    };
    // SAFETY: this process has one thread, and so has every child.
    let clone = |flags: i32| unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    // As cron does: a child becomes the user, and runs what the user wants.
    if clone(libc::SIGCHLD) != 0 {
        pause();
    }
    if setgroups(&[]).and(setgid(uid.into())).and(setuid(uid.into())).is_err() {
        return ExitCode::FAILURE;
    }
    println!("begun");
    for _ in 0..hops {
        match clone(flags) {
            0 => {}
            // SAFETY: ends the process without what its parent has to do at its end.
            _ => unsafe { libc::_exit(0) },
        }
    }
    println!("{}", std::process::id());
    let orphaned = || {
        let mut out = libc::pollfd { fd: 1, events: 0, revents: 0 };
        // SAFETY: one `pollfd`, which lives until the call is over.
        unsafe { libc::poll(&raw mut out, 1, 100) };
        out.revents & libc::POLLERR != 0
    };
    while !orphaned() {}
    // SAFETY: as above.
    unsafe { libc::_exit(0) }
}

/// The process that makes them, and what they print.
pub struct Maker {
    child: Child,
    out: ChildStdout,
}

impl Maker {
    /// Returns once a child of the maker's is the user.
    pub fn start(account: Account, birth: Birth) -> Maker {
        let mut command = myself(&["--born", &format!("{birth:?}"), &account.uid.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start a maker");
        let mut out = child.stdout.take().expect("its output");
        assert_eq!(line(&mut out), "begun");
        Maker { child, out }
    }

    /// The last one's pid, once it is there.
    pub fn born(&mut self) -> u32 {
        line(&mut self.out).parse().expect("a pid")
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
