//! Receivers: a port that takes what comes, over IPv4 and IPv6, and keeps time; and an echo.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};

use super::clock::Micros;
use super::orders::Proto;
use super::timeline::{Timeline, read_header};

const RECEIVE_BUFFER: usize = 8 << 20;

type Shared = Arc<Mutex<Timeline>>;

/// The receivers of one actor.
#[derive(Default)]
pub struct Sinks(BTreeMap<(Proto, u16), Shared>);

impl Sinks {
    /// Receives from now on; the port is bound when this returns.
    pub fn open(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        let timeline = Shared::default();
        let notes = Arc::clone(&timeline);
        match proto {
            Proto::Tcp => {
                let listener = TcpListener::bind(any(port))?;
                thread::spawn(move || accept_all(&listener, &notes));
            }
            Proto::Udp => {
                let socket = UdpSocket::bind(any(port))?;
                // A receiver that has to wait for a CPU must not look like a lossy link.
                // A user's own is as large as it may be.
                setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
                    .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER))?;
                thread::spawn(move || receive_all(&socket, &notes));
            }
        }
        self.0.insert((proto, port), timeline);
        Ok(())
    }

    /// Receives over a connection that stands already, under this port's name.
    pub fn drain(&mut self, stream: TcpStream, port: u16) {
        let timeline = Shared::default();
        let notes = Arc::clone(&timeline);
        thread::spawn(move || read_all(stream, &notes));
        self.0.insert((Proto::Tcp, port), timeline);
    }

    pub fn seen(&self, proto: Proto, port: u16) -> Option<Timeline> {
        self.0.get(&(proto, port)).map(|timeline| lock(timeline).clone())
    }
}

/// Sends every datagram back from now on.
pub fn echo(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(any(port))?;
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    });
    Ok(())
}

/// Both families: an IPv6 socket takes IPv4 too.
fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

fn lock(timeline: &Shared) -> std::sync::MutexGuard<'_, Timeline> {
    timeline.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept_all(listener: &TcpListener, notes: &Shared) {
    while let Ok((stream, _)) = listener.accept() {
        let notes = Arc::clone(notes);
        thread::spawn(move || read_all(stream, &notes));
    }
}

fn read_all(mut stream: TcpStream, notes: &Shared) {
    let mut buffer = vec![0; 65_536];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        lock(notes).note(Micros::now(), n as u64);
    }
}

fn receive_all(socket: &UdpSocket, notes: &Shared) {
    let mut buffer = vec![0; 65_536];
    while let Ok((n, _)) = socket.recv_from(&mut buffer) {
        let mut notes = lock(notes);
        notes.note(Micros::now(), n as u64);
        if let Some((uid, number)) = read_header(&buffer[..n]) {
            notes.note_numbered(uid, number);
        }
    }
}
