//! MPTCP sockets, which the standard library does not make.
#![allow(unsafe_code, reason = "socket(2) with a protocol that no crate names")]

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen as listen_on};

/// `IPPROTO_MPTCP`.
const PROTOCOL: libc::c_int = 262;

pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen_on(&socket, Backlog::new(4)?)?;
    Ok(TcpListener::from(socket))
}

pub fn connect_to(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(to)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}

/// Whether both ends speak MPTCP; otherwise the connection is one of plain TCP.
pub fn is_mptcp(socket: BorrowedFd<'_>) -> bool {
    let (mut protocol, mut length) =
        (0, libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0));
    let fd = socket.as_raw_fd();
    // SAFETY: the answer is an int, and its length is given.
    let done = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PROTOCOL,
            (&raw mut protocol).cast(),
            &raw mut length,
        )
    };
    done == 0 && protocol == PROTOCOL
}

fn socket(for_address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if for_address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, PROTOCOL) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
