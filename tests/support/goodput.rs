//! How fast downloads are whose sender makes packets of one segment or of many.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::{self, sleep};
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::accounts::Account;
use super::clock::Micros;
use super::world::{Download, Family, UPLINK, World};

/// linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// What the far side's TCP gives to its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// Up to 64 kB in one (TSO): so they come to the host's link, too.
    Large,
    /// As long as a frame may be.
    OfTheMtu,
}

/// From now on, for new connections.
pub fn send(world: &World, packets: Packets) {
    let most = match packets {
        Packets::Large => 65_535,
        Packets::OfTheMtu => 1,
    };
    world.on_far(&format!("ip link set far0 gso_max_segs {most}"));
}

/// The uplink merges packets of one flow that it receives, as a network card's driver does (GRO);
/// a veth does so where its other end leaves none whole.
pub fn merge(world: &World) {
    // linux/ethtool.h.
    const ETHTOOL_STSO: u32 = 0x1f;
    const ETHTOOL_SGRO: u32 = 0x2c;
    let far = File::open(format!("/proc/{}/ns/net", world.far.pid())).expect("its namespace");
    let there = || {
        setns(far, CloneFlags::CLONE_NEWNET).expect("enter the far side");
        set_offload("far0", ETHTOOL_STSO, 0);
    };
    thread::scope(|scope| scope.spawn(there).join().expect("it is done there"));
    set_offload(UPLINK, ETHTOOL_SGRO, 1);
    // Packets wait for so many nanoseconds for others, as behind a card that interrupts seldom.
    for (file, value) in [("napi_defer_hard_irqs", "1"), ("gro_flush_timeout", "1000000")] {
        fs::write(format!("/sys/class/net/{UPLINK}/{file}"), value).expect("a link's setting");
    }
}

#[allow(unsafe_code, reason = "no crate has this call")]
fn set_offload(link: &str, what: u32, value: u32) {
    let mut command = [what, value];
    // SAFETY: zeros are a value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = request.ifr_name.iter_mut().zip(link.bytes());
    name.for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    // SAFETY: the kernel reads both numbers of `command`, which lives until it has answered.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(done, 0, "{link}, {what:#x}: {}", io::Error::last_os_error());
}

/// How many packets came to a device to be sent, where one that was merged of many is one.
pub fn packets(link: &str) -> u64 {
    let path = format!("/sys/class/net/{link}/statistics/tx_packets");
    let count = fs::read_to_string(&path).expect("the kernel's counter");
    count.trim().parse().expect("a number")
}

/// Bits a second of the frames that carried what this account's processes received over so many
/// connections for so long: 1,514 bytes for 1,448 of payload. Before that the connections run for
/// `start`: a start fills the queue, and what that drops makes gaps in the stream. What comes
/// behind a gap is received only when the gap is filled, and would count too late.
pub fn downloads(
    world: &mut World,
    account: Account,
    connections: u32,
    start: Duration,
    time: Duration,
) -> u64 {
    let mut all: Vec<Download> =
        (0..connections).map(|_| world.downloading(account, Family::V4)).collect();
    sleep(start);
    let from = Micros::now();
    sleep(time);
    let to = Micros::now();
    let payload: u64 = all.iter_mut().map(|download| download.seen().rate(from, to)).sum();
    payload * 1_514 / 1_448
}
