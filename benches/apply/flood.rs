//! Small packets, as many as go, counted where they end: what one of them takes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::program::directory;

/// Bytes of payload: a frame of 60 bytes, 64 on a wire.
pub const SMALL: usize = 18;
/// For so long the packets of one measurement are counted, and so often.
const LENGTH: Duration = Duration::from_millis(10);
const TIMES: usize = 100;

/// This process, and so the sockets that it makes from now on, into a user's class.
pub fn move_to(user: u32) {
    let procs = directory(&format!("user/u{user:05}")).join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string()).expect("move to a user's directory");
}

/// Does something in the network namespace of a process. What it opens stays there.
pub fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let there = fs::File::open(format!("/proc/{pid}/ns/net")).expect("a process's namespace");
    let entered = || {
        setns(there, CloneFlags::CLONE_NEWNET).expect("enter it");
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join().expect("the work there"))
}

/// A socket whose packets nobody reads: it has room for one or two, and all others end there.
pub fn socket(from: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(from.into()).expect("a socket");
    setsockopt(&socket, sockopt::RcvBuf, &0).expect("room for few");
    socket
}

/// Address and port.
pub fn at(address: [u8; 4], port: u16) -> (Ipv4Addr, u16) {
    (address.into(), port)
}

/// The datagrams that have come to sockets, or to ports without one, of a process's namespace.
pub fn arrived(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp")).expect("the kernel's counters");
    let numbers = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1);
    // InDatagrams, NoPorts, InErrors.
    let numbers = numbers.expect("those of UDP").split(' ').take(3);
    numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// Nanoseconds for a packet that `send` sends and `count` has counted; `send` is told its turn. Of
/// many short measurements the fastest tenth counts: in others something else wanted the processor.
pub fn nanos(count: impl Fn() -> u64, mut send: impl FnMut(usize) -> io::Result<usize>) -> u64 {
    let mut turn = 0;
    let mut once = || {
        let (before, begun) = (count(), Instant::now());
        while begun.elapsed() < LENGTH {
            for _ in 0..64 {
                send(turn).expect("send");
                turn += 1;
            }
        }
        let time = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        time / (count() - before).max(1)
    };
    let mut times: Vec<u64> = (0..TIMES).map(|_| once()).collect();
    times.sort_unstable();
    times[TIMES / 10].max(1)
}
