//! Senders: each in a thread of its actor, until told to stop.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};
use nix::unistd::{Gid, Uid, getuid, setfsuid, setgroups, setresgid, setresuid};

use super::accounts::Account;
use super::orders::Acting;
use super::timeline::{HEADER, write_header};

/// A sender at work.
pub struct Source {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Source {
    /// Writes to the connection as fast as it takes the bytes.
    pub fn pour(stream: TcpStream) -> io::Result<Source> {
        keep_queue_short(&stream)?;
        Ok(Source::start(move |stop| {
            let bytes = pour(&stream, &|_| stop.load(Ordering::Relaxed));
            (bytes, 0)
        }))
    }

    /// Sends numbered datagrams at a constant rate of payload. A datagram that the kernel refuses
    /// (a full queue) is counted as sent: the receiver sees the gap.
    pub fn beat(socket: UdpSocket, bytes: usize, bits_per_second: u64) -> Source {
        Source::start(move |stop| {
            let mut datagram = vec![0; bytes.max(HEADER)];
            let uid = getuid().as_raw();
            let started = Instant::now();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let due = Duration::from_micros(sent * bytes as u64 * 8_000_000 / bits_per_second);
                match due.checked_sub(started.elapsed()) {
                    Some(early) => sleep(early.min(Duration::from_millis(50))),
                    None => {
                        write_header(uid, sent, &mut datagram);
                        let _ = socket.send(&datagram);
                        sent += 1;
                    }
                }
            }
            (sent * datagram.len() as u64, sent)
        })
    }

    /// Writes to the connection, or sends datagrams of so many bytes, without numbers, as fast as
    /// the socket takes them, with as large a queue as the system gives.
    pub fn flood(socket: impl Flood, bytes: usize) -> io::Result<Source> {
        socket.prepare()?;
        Ok(Source::start(move |stop| {
            let block = vec![0x5a; bytes];
            let (mut sent, mut packets) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                match socket.put(&block) {
                    Ok(n) => {
                        sent += n as u64;
                        packets += 1;
                    }
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    // A full queue: what is refused is gone.
                    Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                    Err(_) => break,
                }
            }
            (sent, packets)
        }))
    }

    fn start(work: impl FnOnce(&AtomicBool) -> (u64, u64) + Send + 'static) -> Source {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Source { stop, thread: thread::spawn(move || work(&told)) }
    }

    /// Bytes and packets that it sent; packets only where they are its own.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// What can be written to without end.
pub trait Flood: Send + 'static {
    fn prepare(&self) -> io::Result<()>;
    fn put(&self, block: &[u8]) -> io::Result<usize>;
}

impl Flood for TcpStream {
    fn prepare(&self) -> io::Result<()> {
        self.set_write_timeout(Some(Duration::from_millis(200)))
    }

    fn put(&self, block: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(block)
    }
}

impl Flood for UdpSocket {
    /// Room for more than the sender misses while it waits for a CPU.
    fn prepare(&self) -> io::Result<()> {
        self.set_write_timeout(Some(Duration::from_millis(200)))?;
        Ok(setsockopt(self, sockopt::SndBufForce, &(4 << 20))?)
    }

    fn put(&self, block: &[u8]) -> io::Result<usize> {
        self.send(block)
    }
}

/// A TCP connection from one address of the host.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// Writes so many bytes as fast as the connection takes them, and says how many it took; what the
/// socket's buffer has room for is queued there when this returns.
pub fn send(stream: &TcpStream, bytes: u64) -> io::Result<u64> {
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    Ok(pour(stream, &|sent| sent >= bytes))
}

/// Becomes the account for good, in all threads: real and effective, and its groups.
pub fn become_account(account: Account) -> nix::Result<()> {
    // Root is the only one who may change; a user's child is the user already.
    if getuid().as_raw() == account.uid {
        return Ok(());
    }
    let gid = Gid::from_raw(account.gid);
    let uid = Uid::from_raw(account.uid);
    let groups: Vec<Gid> =
        account.also.into_iter().chain([account.gid]).map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Acts as a user, as a server of root's does, and comes back from it with 0. By the calling thread
/// alone, as smbd does: the C library's functions would interrupt whatever the other threads are
/// about.
#[allow(unsafe_code, reason = "the system call itself, which the C library wraps for all threads")]
pub fn act(uid: u32, by: Acting) -> nix::Result<()> {
    let become_uid = |real: i64| {
        // SAFETY: three numbers, of which -1 keeps what is.
        let result = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, real, uid, -1) };
        nix::errno::Errno::result(result).map(drop)
    };
    match by {
        Acting::Effective => become_uid(-1),
        Acting::RealToo => become_uid(uid.into()),
        Acting::ForFiles => {
            setfsuid(Uid::from_raw(uid));
            Ok(())
        }
    }
}

/// The child that inherits a connection as its standard input, as inetd's children do: becomes the
/// user and pours until it is killed.
pub fn heir(uid: &str, gid: &str) -> ExitCode {
    let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return ExitCode::FAILURE };
    let Ok(inherited) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let stream = TcpStream::from(inherited);
    let ready = become_account(Account { uid, gid, also: None }).is_ok();
    if !ready || keep_queue_short(&stream).is_err() {
        return ExitCode::FAILURE;
    }
    pour(&stream, &|_| false);
    ExitCode::SUCCESS
}

/// Sends echo requests over a ping socket, which any user may open in a cell, and counts the
/// replies.
pub fn ping(to: SocketAddr, count: u32, payload: usize) -> io::Result<u32> {
    let (family, proto, kind) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let fd: OwnedFd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, proto)?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut message = vec![0; 8 + payload];
    let mut replies = 0;
    for number in 0..count {
        message[0] = kind;
        message[6..8].copy_from_slice(&u16::try_from(number).unwrap_or(0).to_be_bytes());
        socket.send_to(&message, to)?;
        let mut reply = vec![0; 8 + payload];
        match socket.recv(&mut reply) {
            Ok(_) => replies += 1,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(replies)
}

/// Times so many round trips to a UDP echo, in microseconds; a lost one is left out.
pub fn probe(to: SocketAddr, count: u32, every: Duration) -> io::Result<Vec<u64>> {
    let socket = unbound(to)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut rtts = Vec::new();
    for number in 0..count {
        let started = Instant::now();
        socket.send(&number.to_be_bytes())?;
        let mut reply = [0; 4];
        // An answer that comes after its time-out must not be taken for the next one's.
        while let Ok(n) = socket.recv(&mut reply) {
            if n == 4 && reply == number.to_be_bytes() {
                rtts.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
                break;
            }
        }
        sleep(every.saturating_sub(started.elapsed()));
    }
    Ok(rtts)
}

/// A UDP socket of the address's family.
pub fn unbound(to: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
}

/// What is queued in the socket when a stream is told to stop must still leave within the class's
/// rate; the kernel's default of some MB takes seconds.
fn keep_queue_short(stream: &TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    Ok(setsockopt(stream, sockopt::SndBuf, &131_072)?)
}

fn pour(mut stream: &TcpStream, enough: &dyn Fn(u64) -> bool) -> u64 {
    let block = [0x5a; 16_384];
    let mut sent = 0;
    while !enough(sent) {
        match stream.write(&block) {
            Ok(n) => sent += n as u64,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    sent
}

/// Whether nobody reads this process's output any more.
pub fn nobody_listens() -> bool {
    let mut out = nix::libc::pollfd { fd: 1, events: 0, revents: 0 };
    // SAFETY: one `pollfd`, which lives until the call is over.
    unsafe { nix::libc::poll(&raw mut out, 1, 0) };
    out.revents & nix::libc::POLLERR != 0
}
