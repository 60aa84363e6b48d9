//! A user who tries to have his packets counted elsewhere by the way in which he sends them. The
//! process says what the kernel refused, and sends until its output has no reader.
#![allow(unsafe_code, reason = "socket options and calls that no crate names")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, ExitCode, Stdio};
use std::{io, ptr};

use nix::libc::{self, c_int};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{setgid, setgroups, setuid};

use super::accounts::Account;
use super::cell::myself;
use super::source::{nobody_listens, unbound};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The highest SO_PRIORITY that needs no capability.
    Priority,
    Tos,
    IpOptions,
    /// Echo requests over a ping socket.
    Ping,
    SendFile,
    Splice,
    ZeroCopy,
    /// Datagrams that are cut only after the qdisc.
    UdpGso,
    /// Datagrams of many fragments each.
    Fragments,
    /// Three hundred connections at once.
    Connections,
    /// From a user namespace in which he has every capability.
    OwnRoot,
}

impl Attempt {
    pub const ALL: [Attempt; 11] = [
        Attempt::Priority,
        Attempt::Tos,
        Attempt::IpOptions,
        Attempt::Ping,
        Attempt::SendFile,
        Attempt::Splice,
        Attempt::ZeroCopy,
        Attempt::UdpGso,
        Attempt::Fragments,
        Attempt::Connections,
        Attempt::OwnRoot,
    ];
}

const CONNECTIONS: usize = 300;
const BLOCK: usize = 16_384;
const A_BLOCK: [u8; BLOCK] = [0x5a; BLOCK];

/// Beside what `libc` has: linux/udp.h.
const UDP_SEGMENT: c_int = 103;

pub struct Attempting {
    child: Child,
    /// The names of the calls that the kernel did not refuse.
    pub allowed: String,
}

impl Attempting {
    /// Starts an attempt; when this returns all its connections stand and it sends. The receivers
    /// are at the address's TCP and UDP port.
    pub fn start(account: Account, attempt: Attempt, to: SocketAddr) -> Attempting {
        let mut command = myself(&["--attempt", &format!("{attempt:?}")]);
        command.args([account.uid.to_string(), to.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("somebody who tries");
        let out = child.stdout.as_mut().expect("his output");
        let mut line = || {
            let (mut said, mut byte) = (Vec::new(), [0]);
            while out.read(&mut byte).expect("what he says") == 1 && byte != *b"\n" {
                said.push(byte[0]);
            }
            assert_eq!(byte, *b"\n", "{attempt:?} could not begin");
            String::from_utf8_lossy(&said).into_owned()
        };
        let (allowed, _begins) = (line(), line());
        Attempting { child, allowed }
    }
}

impl Drop for Attempting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `--attempt ATTEMPT UID ADDRESS`
pub fn run(words: &[&str]) -> ExitCode {
    let [attempt, uid, to] = words else { return ExitCode::FAILURE };
    let attempt = Attempt::ALL.into_iter().find(|it| format!("{it:?}") == *attempt);
    let (Some(attempt), Ok(uid), Ok(to)) = (attempt, uid.parse::<u32>(), to.parse()) else {
        return ExitCode::FAILURE;
    };
    let become_him = || {
        setgroups(&[])?;
        setgid(uid.into())?;
        setuid(uid.into())
    };
    let done = become_him().map_err(io::Error::from).and_then(|()| {
        let mut allowed = refused("as himself");
        if attempt == Attempt::OwnRoot {
            let (user, cgroup) = (CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWCGROUP);
            unshare(user | cgroup | CloneFlags::CLONE_NEWNS)?;
            let _ = std::fs::write("/proc/self/setgroups", "deny");
            let _ = std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"));
            allowed += &refused("in a user namespace");
        }
        println!("{allowed}");
        send(attempt, to)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{attempt:?}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Tries calls that need a capability over the host's network or cgroups; returns the names of
/// those that worked.
fn refused(who: &str) -> String {
    let udp = UdpSocket::bind("0.0.0.0:0").expect("a UDP socket");
    let opens = |family, kind, protocol| {
        // SAFETY: a system call without pointers.
        unsafe { libc::socket(family, kind, protocol) >= 0 }
    };
    // A process in a cgroup namespace of its own may mount the hierarchy, but only from its own
    // directory downwards.
    let flags = nix::mount::MsFlags::empty();
    let _ = nix::mount::mount(Some("x"), "/mnt", Some("cgroup"), flags, Some("net_cls"));
    let writes = |directory: &str| {
        std::fs::write(format!("{directory}/cgroup.procs"), "0").is_ok()
            || std::fs::write(format!("{directory}/net_cls.classid"), "0").is_ok()
            || std::fs::create_dir(format!("{directory}/his")).is_ok()
    };
    let tried = [
        ("SO_MARK", set(&udp, libc::SOL_SOCKET, libc::SO_MARK, 1).is_ok()),
        ("SO_PRIORITY 7", set(&udp, libc::SOL_SOCKET, libc::SO_PRIORITY, 7).is_ok()),
        ("SO_PRIORITY 1:0", set(&udp, libc::SOL_SOCKET, libc::SO_PRIORITY, 0x1_0000).is_ok()),
        ("a raw socket", opens(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)),
        ("a packet socket", opens(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("his cgroup", writes(super::program::NET_CLS) || writes("/mnt")),
        ("a chown", nix::unistd::fchown(&udp, Some(1.into()), None).is_ok()),
    ];
    let got = tried.iter().filter(|(_, got)| *got);
    got.map(|(what, _)| format!("{who}: {what}; ")).collect()
}

fn set(socket: &impl AsRawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    set_bytes(socket, level, option, &value.to_ne_bytes())
}

fn set_bytes(socket: &impl AsRawFd, level: c_int, option: c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let (fd, at) = (socket.as_raw_fd(), value.as_ptr().cast());
    // SAFETY: the kernel reads as many bytes as there are.
    done(unsafe { libc::setsockopt(fd, level, option, at, length) } as isize).map(|_| ())
}

fn done(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn send(attempt: Attempt, to: SocketAddr) -> io::Result<()> {
    let udp = || -> io::Result<UdpSocket> {
        let socket = unbound(to)?;
        socket.connect(to)?;
        Ok(socket)
    };
    match attempt {
        Attempt::Priority | Attempt::Tos | Attempt::IpOptions | Attempt::OwnRoot => {
            with_an_option(attempt, TcpStream::connect(to)?)
        }
        Attempt::Ping => pings(to),
        Attempt::SendFile => from_a_file(&TcpStream::connect(to)?),
        Attempt::Splice => from_a_pipe(&TcpStream::connect(to)?),
        Attempt::ZeroCopy => without_copies(&TcpStream::connect(to)?),
        Attempt::UdpGso => {
            let socket = udp()?;
            set(&socket, libc::SOL_UDP, UDP_SEGMENT, 1_400)?;
            forever(|| socket.send(&A_BLOCK[..14_000]).map(|_| ()))
        }
        Attempt::Fragments => {
            let socket = udp()?;
            forever(|| socket.send(&A_BLOCK).map(|_| ()))
        }
        Attempt::Connections => over_many_connections(to),
    }
}

fn with_an_option(attempt: Attempt, mut stream: TcpStream) -> io::Result<()> {
    match attempt {
        Attempt::Priority => set(&stream, libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?,
        Attempt::Tos => set(&stream, libc::IPPROTO_IP, libc::IP_TOS, 0x10)?,
        // Three that mean nothing, and the end.
        Attempt::IpOptions => {
            set_bytes(&stream, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0])?;
        }
        _ => {}
    }
    forever(|| stream.write(&A_BLOCK).map(|_| ()))
}

fn pings(to: SocketAddr) -> io::Result<()> {
    let (family, protocol, kind) = match to.ip() {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128),
    };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM, protocol) };
    done(fd as isize)?;
    // SAFETY: the kernel has just opened it for us alone.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut request = [0; 1_400];
    request[0] = kind;
    forever(|| socket.send_to(&request, to).map(|_| ()))
}

fn from_a_file(stream: &TcpStream) -> io::Result<()> {
    let name = c"zeros";
    // SAFETY: a name that ends with a zero.
    let file = unsafe { libc::memfd_create(name.as_ptr(), 0) };
    done(file as isize)?;
    // SAFETY: as above, for a file of our own.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    nix::unistd::ftruncate(&file, 1 << 20)?;
    forever(|| {
        let mut offset: libc::off_t = 0;
        let (out, from) = (stream.as_raw_fd(), file.as_raw_fd());
        // SAFETY: the offset lives until the call is over.
        done(unsafe { libc::sendfile(out, from, &raw mut offset, 1 << 20) }).map(|_| ())
    })
}

fn from_a_pipe(stream: &TcpStream) -> io::Result<()> {
    let (read, write) = nix::unistd::pipe()?;
    forever(|| {
        nix::unistd::write(&write, &A_BLOCK)?;
        let (from, out, none) = (read.as_raw_fd(), stream.as_raw_fd(), ptr::null_mut());
        // SAFETY: no offsets are given.
        done(unsafe { libc::splice(from, none, out, none, BLOCK, 0) }).map(|_| ())
    })
}

fn without_copies(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let fd = stream.as_raw_fd();
    forever(|| {
        // SAFETY: the block outlives the process's sending.
        let sent = unsafe { libc::send(fd, A_BLOCK.as_ptr().cast(), BLOCK, libc::MSG_ZEROCOPY) };
        // What has been sent is told in the error queue, which must not fill up.
        let mut header: libc::msghdr =
            // SAFETY: all zeros is an empty message.
            unsafe { std::mem::zeroed() };
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the message has room for nothing, and nothing is written.
        while unsafe { libc::recvmsg(fd, &raw mut header, flags) } >= 0 {}
        done(sent).map(|_| ())
    })
}

fn over_many_connections(to: SocketAddr) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to)?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    forever(|| {
        for stream in &mut streams {
            match stream.write(&A_BLOCK) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok(())
    })
}

/// Sends until nobody reads the process's output; a full queue or buffer is tried again. A ping
/// socket of IPv6 never waits for room in its buffer, whatever its flags say (`ping_v6_sendmsg`,
/// net/ipv6/ping.c).
fn forever(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    println!();
    loop {
        match send() {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            other => other?,
        }
        if nobody_listens() {
            return Ok(());
        }
    }
}
