//! What a test tells an actor to do, and what the actor answers: one JSON document a line, so that
//! a test steps its actors one by one and nothing happens by chance.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::accounts::Account;
use super::exchange::Parcel;
use super::timeline::Timeline;

/// A socket of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Proto {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acting {
    Effective,
    /// With the real uid too, root being the saved one, as smbd does.
    RealToo,
    ForFiles,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Nothing; the answer says that it runs, and in its own namespaces.
    Ready,
    /// Drops root for good: groups, gid, uid, real and effective.
    Become(Account),
    /// Acts as this uid from now on, and stays root for the rest: the thread that takes orders.
    Act { uid: u32, by: Acting },
    /// Becomes this effective uid and root again, so many times, with a rest after each change.
    Flip { uid: u32, times: u32, rest_us: u64 },
    /// A TCP connection. Answers [`Answer::Socket`].
    Connect(SocketAddr),
    /// A TCP connection that leaves from this address of the host. Answers [`Answer::Socket`].
    ConnectFrom { from: SocketAddr, to: SocketAddr },
    /// An MPTCP connection. Answers [`Answer::Socket`].
    ConnectMptcp(SocketAddr),
    /// A TCP listener. Answers [`Answer::Socket`].
    Listen(SocketAddr),
    /// Waits for a connection. Answers [`Answer::Socket`].
    Accept(SocketId),
    /// A UDP socket that sends there. Answers [`Answer::Socket`].
    Datagram(SocketAddr),
    /// Writes to a connection as fast as it takes the bytes, until [`Order::Stop`].
    Pour(SocketId),
    /// Writes so many bytes to a connection, rounded up to 16 kB, and keeps it open; done when the
    /// socket has taken them, sent or not. Answers [`Answer::Sent`].
    Send { socket: SocketId, bytes: u64 },
    /// Sends numbered datagrams of so many bytes, so many bits of payload a second, until `Stop`.
    Beat { socket: SocketId, bytes: usize, bits_per_second: u64 },
    /// Writes blocks of so many bytes to a connection, or sends datagrams of so many, unnumbered,
    /// as fast as it goes, until `Stop`.
    Flood { socket: SocketId, bytes: usize },
    /// Ends `Pour`, `Beat` or `Flood` and closes the socket. Answers [`Answer::Sent`].
    Stop(SocketId),
    /// Starts a child that becomes the account, has the connection as its standard input, and pours
    /// into it until killed; this process closes its own copy. Answers [`Answer::Child`].
    Hand { socket: SocketId, to: Account },
    /// Opens a mailbox of this name, in which connections can arrive (SCM_RIGHTS).
    Mailbox(String),
    /// Passes a connection to somebody's mailbox and keeps its own copy.
    Give { socket: SocketId, to: String },
    /// Takes what came to the mailbox. Answers [`Answer::Socket`].
    Take,
    /// Makes a tap device whose frames are sent from here to there, in datagrams.
    Tap { device: String, from: SocketAddr, to: SocketAddr },
    /// Makes a tun device whose packets are sent from here to there, in datagrams.
    Tunnel { device: String, from: SocketAddr, to: SocketAddr },
    /// Sends so many ICMP echo requests and waits for each reply. Answers [`Answer::Replies`].
    Ping { to: SocketAddr, count: u32, payload: usize },
    /// Sends UDP probes to an echo and times each. Answers [`Answer::Rtts`].
    Probe { to: SocketAddr, count: u32, every_ms: u64 },
    /// Receives all that comes to a port, IPv4 and IPv6, and keeps time.
    Sink { proto: Proto, port: u16 },
    /// Receives all that comes over a connection, and keeps time under this port's name.
    Drain { socket: SocketId, port: u16 },
    /// Takes part in connections that each carry so much, until the end.
    Serve { at: SocketAddr, parcel: Parcel },
    /// So many connections to such a server, one after the other.
    Exchange { to: SocketAddr, times: u32, parcel: Parcel },
    /// Sends every datagram back.
    Echo(u16),
    /// What a sink has seen. Answers [`Answer::Seen`].
    Seen { proto: Proto, port: u16 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Socket(SocketId),
    Child(u32),
    Sent {
        bytes: u64,
        packets: u64,
    },
    Replies(u32),
    /// Round-trip times in microseconds; what never came back is missing.
    Rtts(Vec<u64>),
    Seen(Timeline),
    Failed(String),
}
