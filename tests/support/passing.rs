//! Connections that one process passes to another over a Unix socket (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// In the abstract namespace, where any account may bind.
pub fn mailbox(name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

pub fn give(what: &impl AsRawFd, to: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&SocketAddr::from_abstract_name(to)?)?;
    let passed = [what.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&passed)];
    let data = [IoSlice::new(b"take it")];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// Waits for the next one.
#[allow(unsafe_code, reason = "the kernel has just made this descriptor for us")]
pub fn take(mailbox: &UnixDatagram) -> io::Result<TcpStream> {
    let mut data = [0; 16];
    let mut data = [IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(mailbox.as_raw_fd(), &mut data, Some(&mut space), flags)?;
    let passed = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = passed.ok_or_else(|| io::Error::other("no descriptor came"))?;
    // SAFETY: recvmsg made the descriptor for this process, and nobody else knows its number.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}
