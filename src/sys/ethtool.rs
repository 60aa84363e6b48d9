//! A link's speed and offloads, by ioctl (`SIOCETHTOOL`): unlike /sys/class/net it follows the
//! thread's network namespace.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::tree::LinkName;
use crate::units::Rate;

/// linux/ethtool.h
const ETHTOOL_GSET: u32 = 0x1;
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_LRO`
const LRO: u32 = 1 << 15;
/// `struct ethtool_link_settings` and room for its three masks of at most 127 words.
const LINK_SETTINGS: usize = 48 + 3 * 127 * 4;
/// `SPEED_UNKNOWN`, and what `ethtool_cmd` makes of it.
const UNKNOWN: [u32; 3] = [0, 0xffff, 0xffff_ffff];

/// The speed that the driver says; `None` where the driver does not know it (virtio, no carrier,
/// most virtual links), or the link is gone.
///
/// # Errors
/// No descriptor or memory for the question. That says nothing of the link, and a speed that
/// counted as unknown would give its class another rate.
pub fn speed(link: &LinkName) -> io::Result<Option<Rate>> {
    let mbit = match link_settings(link)? {
        Some(mbit) => Some(mbit),
        None => gset(link)?,
    };
    let known = mbit.filter(|mbit| !UNKNOWN.contains(mbit));
    Ok(known.and_then(|mbit| Rate::from_bits_per_second(u64::from(mbit) * 1_000_000)))
}

/// Whether large receive offload is on; `None`: the driver does not say, or the link is gone.
///
/// # Errors
/// As [`speed`].
pub fn lro(link: &LinkName) -> io::Result<Option<bool>> {
    // `struct ethtool_value`: the command, and the flags.
    let mut request = [0_u8; LINK_SETTINGS];
    request[..4].copy_from_slice(&ETHTOOL_GFLAGS.to_ne_bytes());
    let answered = ioctl(link, &mut request)?;
    let flags = u32::from_ne_bytes([request[4], request[5], request[6], request[7]]);
    Ok(answered.then_some(flags & LRO != 0))
}

/// Since Linux 4.6. The first call tells how many words the masks have, as a negative number.
fn link_settings(link: &LinkName) -> io::Result<Option<u32>> {
    // i8 link_mode_masks_nwords, after speed, duplex, port, phy, autoneg, mdio, mdix, mdix control.
    const NWORDS: usize = 14;
    let mut request = [0_u8; LINK_SETTINGS];
    request[..4].copy_from_slice(&ETHTOOL_GLINKSETTINGS.to_ne_bytes());
    if !ioctl(link, &mut request)? {
        return Ok(None);
    }
    let words = request[NWORDS].cast_signed().checked_neg().filter(|words| *words > 0);
    let Some(words) = words else { return Ok(None) };
    request = [0; LINK_SETTINGS];
    request[..4].copy_from_slice(&ETHTOOL_GLINKSETTINGS.to_ne_bytes());
    request[NWORDS] = words.cast_unsigned();
    let answered = ioctl(link, &mut request)?;
    Ok(answered.then(|| u32::from_ne_bytes([request[4], request[5], request[6], request[7]])))
}

/// `struct ethtool_cmd`: the speed's low half at 12, its high half at 28.
fn gset(link: &LinkName) -> io::Result<Option<u32>> {
    let mut request = [0_u8; LINK_SETTINGS];
    request[..4].copy_from_slice(&ETHTOOL_GSET.to_ne_bytes());
    let answered = ioctl(link, &mut request)?;
    let half = |at: usize| u32::from(u16::from_ne_bytes([request[at], request[at + 1]]));
    Ok(answered.then(|| half(28) << 16 | half(12)))
}

/// Has the kernel read and write `request`, whose first word is the command. False: the driver does
/// not know the command, or there is no such link.
fn ioctl(link: &LinkName, request: &mut [u8; LINK_SETTINGS]) -> io::Result<bool> {
    let kind = SockType::Datagram;
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero `ifreq` is a valid one: it holds only numbers and a pointer.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the name is NUL-terminated (at most 15 bytes of 16), and the data is as long as the
    // longest answer to the commands used here: `ethtool_cmd` has 44 bytes, and link settings
    // have 48 and three masks of as many words as we said, at most 127.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::ENOMEM) => Err(Errno::ENOMEM.into()),
        Err(_) => Ok(false),
    }
}
