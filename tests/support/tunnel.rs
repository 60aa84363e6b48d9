//! A tunnel of a program's, as OpenVPN and wireguard-go are: packets read from a tun device are
//! sent again in datagrams, by a socket of the program's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use nix::libc;

/// `struct ifreq` with flags (linux/if.h).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// `IFF_TUN` and `IFF_TAP`, each with `IFF_NO_PI` (linux/if_tun.h).
pub const TUN: libc::c_short = 0x1001;
pub const TAP: libc::c_short = 0x1002;

/// Makes the device and carries its packets, until the process ends.
pub fn carry(
    device: &str,
    flags: libc::c_short,
    (from, to): (SocketAddr, SocketAddr),
) -> io::Result<()> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    request.name[..device.len()].copy_from_slice(device.as_bytes());
    // SAFETY: the request is as large as a `struct ifreq`, and the kernel keeps no pointer to it.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    let (mut out, back): (File, UdpSocket) = (tun.try_clone()?, socket.try_clone()?);
    let mut tun = tun;
    thread::spawn(move || {
        let mut packet = [0; 2_048];
        while let Ok(length) = tun.read(&mut packet) {
            let _full_or_nobody_there = socket.send(&packet[..length]);
        }
    });
    thread::spawn(move || {
        let mut packet = [0; 2_048];
        loop {
            if let Ok(length) = back.recv(&mut packet) {
                let _down = out.write(&packet[..length]);
            }
        }
    });
    Ok(())
}
