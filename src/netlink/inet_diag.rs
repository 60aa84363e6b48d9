//! Sockets as sock_diag lists them, with their tags (`linux/inet_diag.h`, net/ipv4/inet_diag.c). A
//! socket can keep a tag that no process has any more: a connection that nobody has accepted yet, a
//! descriptor in flight, data that an ended process left queued.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use super::decode::{Decoded, Undecodable};
use super::{Message, Request, attr};
use crate::tree::Family;
use crate::units::ClassId;

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h): the kind of the request and of each answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`: family, protocol, two bytes, the states wanted, and which socket.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`, before the attributes.
const HEADER: usize = 72;
/// `TCPF_LISTEN` (include/net/tcp_states.h).
const LISTEN: u32 = 1 << 10;
/// The attribute with `struct tcp_info` (linux/tcp.h), the bit that asks for it, and where
/// `tcpi_bytes_sent` is in it (Linux 4.19).
const INET_DIAG_INFO: u16 = 2;
const WITH_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
const TCPI_BYTES_SENT: usize = 200;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// What is between TCP and the program, and its name in there.
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_ULP_INFO_NAME: u16 = 1;
const INET_DIAG_CLASS_ID: u16 = 17;
/// Linux 5.9.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// The bit of `idiag_ext` that asks for the tag. `INET_DIAG_CLASS_ID` would be the 17th of 8 bits,
/// so the bit of `INET_DIAG_TCLASS` asks for both (`inet_diag_msg_attrs_fill`,
/// net/ipv4/inet_diag.c).
const WITH_TAG: u8 = 1 << (6 - 1);

/// A kind of sockets that the kernel lists with their tags, where it has the module for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP, with the subflows of MPTCP.
    Tcp,
    /// UDP without UDP-Lite.
    Udp,
    /// UDP with a checksum over a part of the data.
    UdpLite,
    /// SCTP's endpoints and associations.
    Sctp,
    /// Raw sockets of every protocol.
    Raw,
    /// MPTCP's connections; the subflows are listed as TCP.
    Mptcp,
}

impl Transport {
    /// All transports.
    pub const ALL: [Transport; 6] = [
        Transport::Tcp,
        Transport::Udp,
        Transport::UdpLite,
        Transport::Sctp,
        Transport::Raw,
        Transport::Mptcp,
    ];

    /// The transport's number in the IP header (linux/in.h).
    fn protocol(self) -> u32 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::UdpLite => 136,
            Transport::Sctp => 132,
            Transport::Raw => 255,
            Transport::Mptcp => 262,
        }
    }
}

/// All sockets of a family and a transport in the namespace, in every state.
pub fn sockets(family: Family, transport: Transport) -> Request {
    Request::raw_dump(SOCK_DIAG_BY_FAMILY, request(family, transport, u32::MAX))
}

/// Which sockets that listen for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listening {
    /// Sockets in `TCP_LISTEN`.
    Tcp,
    /// Endpoints that accept associations.
    Sctp,
    /// MPTCP sockets that listen; the kernel lists them apart from TCP's.
    Mptcp,
}

/// The sockets of the namespace that listen, without their connections.
pub fn listeners(family: Family, protocol: Listening) -> Request {
    let transport = match protocol {
        Listening::Tcp => Transport::Tcp,
        Listening::Sctp => Transport::Sctp,
        Listening::Mptcp => Transport::Mptcp,
    };
    Request::raw_dump(SOCK_DIAG_BY_FAMILY, request(family, transport, LISTEN))
}

/// The sockets of the namespace that are bound to a port: those of TCP and MPTCP that listen, and
/// all of UDP.
pub fn bound(family: Family, transport: Transport) -> Request {
    /// `TCPF_ESTABLISHED` and `TCPF_CLOSE`: UDP's with a peer and without one.
    const UDP: u32 = 1 << 1 | 1 << 7;
    let states = if transport == Transport::Udp { UDP } else { LISTEN };
    Request::raw_dump(SOCK_DIAG_BY_FAMILY, request(family, transport, states))
}

/// The sockets of the namespace that have a peer: those of TCP and MPTCP but for requests and
/// TIME-WAIT, and UDP's that are connected.
pub fn connections(family: Family, transport: Transport) -> Request {
    /// `TCPF_ESTABLISHED`, alone for UDP, and with `TCPF_SYN_SENT`, `TCPF_FIN_WAIT1`,
    /// `TCPF_FIN_WAIT2`, `TCPF_CLOSE_WAIT`, `TCPF_LAST_ACK` and `TCPF_CLOSING`
    /// (include/net/tcp_states.h).
    const ESTABLISHED: u32 = 1 << 1;
    const TCP: u32 = ESTABLISHED | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
    let states = if transport == Transport::Udp { ESTABLISHED } else { TCP };
    let mut payload = request(family, transport, states);
    // Of an MPTCP socket it would be `struct mptcp_info`.
    if transport == Transport::Tcp {
        payload[2] |= WITH_INFO;
    }
    Request::raw_dump(SOCK_DIAG_BY_FAMILY, payload)
}

fn request(family: Family, transport: Transport, states: u32) -> Vec<u8> {
    /// `IPPROTO_RAW` says that the protocol's number, which a byte is too small for, is in an
    /// attribute.
    const IN_ATTRIBUTE: u8 = 255;
    /// The head of the attribute `INET_DIAG_REQ_PROTOCOL` (linux/inet_diag.h): 8 bytes, kind 4.
    const REQ_PROTOCOL: [u16; 2] = [8, 4];
    let protocol = transport.protocol();
    let mut payload = vec![0; REQUEST];
    payload[0] = u8::from(match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    });
    payload[1] = u8::try_from(protocol).unwrap_or(IN_ATTRIBUTE);
    payload[2] = WITH_TAG;
    payload[4..8].copy_from_slice(&states.to_ne_bytes());
    if u8::try_from(protocol).is_err() {
        payload.extend(REQ_PROTOCOL.into_iter().flat_map(u16::to_ne_bytes));
        payload.extend(protocol.to_ne_bytes());
    }
    payload
}

/// The inode of one socket of the list; 0: no process has the socket yet.
pub fn inode(message: Message<'_>) -> Decoded<u64> {
    /// `idiag_inode`, the last of `struct inet_diag_msg`.
    const INODE: usize = HEADER - 4;
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let short = Undecodable::new("socket", "it is too short");
    Ok(Some(u64::from(attr::u32_at(message.payload, INODE).ok_or(short)?)))
}

/// The tag of one socket of the list. For a socket without a tag the kernel answers with its
/// priority (SO_PRIORITY), which HTB takes for a classid too.
pub fn tag(message: Message<'_>) -> Decoded<ClassId> {
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let short = Undecodable::new("socket", "it is too short");
    let attributes = message.payload.get(HEADER..).ok_or(short)?;
    let tag = attr::find(attributes, INET_DIAG_CLASS_ID).and_then(|value| attr::u32_at(value, 0));
    Ok(tag.map(ClassId))
}

/// A socket that is bound to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// Local address; unspecified: all of the host's.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// The ifindex of the device whose packets alone it gets; 0: any.
    pub device: u32,
    /// The owner's uid.
    pub uid: u32,
    /// As [`tag`] has it.
    pub tag: Option<ClassId>,
    /// A socket of IPv6 that gets no IPv4.
    pub v6_only: bool,
    /// The number of the cgroup (v2) in which it was made; `None`: the kernel does not say (before
    /// Linux 5.9).
    pub cgroup: Option<u64>,
}

/// One socket of [`bound`]'s list.
pub fn bound_socket(message: Message<'_>) -> Decoded<BoundSocket> {
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let tag = self::tag(message)?;
    let short = || Undecodable::new("socket", "it is too short");
    let (payload, word) =
        (message.payload, |at| attr::u32_at(message.payload, at).ok_or_else(short));
    let address = address(payload, 8)?;
    let only = attr::find(&payload[HEADER..], INET_DIAG_SKV6ONLY);
    let cgroup = attr::find(&payload[HEADER..], INET_DIAG_CGROUP_ID);
    Ok(Some(BoundSocket {
        address,
        port: u16::from_be_bytes([payload[4], payload[5]]),
        device: word(40)?,
        uid: word(64)?,
        tag,
        v6_only: only.is_some_and(|only| only.first().is_some_and(|only| *only != 0)),
        cgroup: cgroup.and_then(|id| id.try_into().ok()).map(u64::from_ne_bytes),
    }))
}

/// A socket that has a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This host's end.
    pub local: BoundSocket,
    /// The other end's address.
    pub peer: IpAddr,
    /// The other end's port.
    pub peer_port: u16,
    /// Bytes of TCP that were sent, retransmissions too, without headers; `None`: not counted.
    pub sent_bytes: Option<u64>,
}

/// One socket of [`connections`]' list; `None` also for one that no process has any more, or not
/// yet, of which the kernel says that root owns it (`sock_i_uid`, net/core/sock.c), and for a
/// subflow of MPTCP, whose connection is listed apart with its owner.
pub fn connection(message: Message<'_>) -> Decoded<Connection> {
    let Some(local) = bound_socket(message)?.filter(|_| inode(message) != Ok(Some(0))) else {
        return Ok(None);
    };
    let payload = message.payload;
    let attributes = &payload[HEADER..];
    let layer = attr::find(attributes, INET_DIAG_ULP_INFO);
    let name = layer.and_then(|layer| attr::find(layer, INET_ULP_INFO_NAME));
    if name.is_some_and(|name| name.starts_with(b"mptcp")) {
        return Ok(None);
    }
    let info = attr::find(attributes, INET_DIAG_INFO);
    let sent = info.and_then(|info| info.get(TCPI_BYTES_SENT..TCPI_BYTES_SENT + 8));
    Ok(Some(Connection {
        local,
        peer: address(payload, 24)?,
        peer_port: u16::from_be_bytes([payload[6], payload[7]]),
        sent_bytes: sent.and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes),
    }))
}

/// One of the two addresses of `struct inet_diag_sockid`.
fn address(payload: &[u8], at: usize) -> Result<IpAddr, Undecodable> {
    let short = || Undecodable::new("socket", "it is too short");
    let bytes = payload.get(at..at + 16).ok_or_else(short)?;
    Ok(match (u8::from(AddressFamily::Inet) == payload[0], bytes) {
        (true, [a, b, c, d, ..]) => IpAddr::from([*a, *b, *c, *d]),
        (_, bytes) => IpAddr::from(<[u8; 16]>::try_from(bytes).map_err(|_| short())?),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn answer(attributes: &[u8]) -> Vec<u8> {
        [&[0; HEADER], attributes].concat()
    }

    fn read(payload: &[u8]) -> Decoded<ClassId> {
        tag(Message { kind: SOCK_DIAG_BY_FAMILY, payload })
    }

    #[test]
    fn the_request_asks_for_tags_in_every_state() {
        let mut bytes = Vec::new();
        sockets(Family::V6, Transport::Udp).write_to(7, &mut bytes);
        assert_eq!(bytes.len(), 16 + REQUEST);
        assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x301_u16.to_ne_bytes(), "NLM_F_REQUEST and NLM_F_DUMP");
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
        assert_eq!(bytes[16..24], [10, 17, 0x20, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(bytes[24..].iter().all(|byte| *byte == 0), "any address and port");
    }

    #[test]
    fn the_request_for_listeners_names_the_protocol_in_an_attribute_where_a_byte_is_too_small() {
        let mut bytes = Vec::new();
        listeners(Family::V4, Listening::Mptcp).write_to(7, &mut bytes);
        assert_eq!(bytes[16..24], [2, 255, 0x20, 0, 0, 4, 0, 0]);
        assert_eq!(bytes[16 + REQUEST..], [8, 0, 4, 0, 6, 1, 0, 0]);
        bytes.clear();
        listeners(Family::V4, Listening::Tcp).write_to(7, &mut bytes);
        assert_eq!(bytes[16..24], [2, 6, 0x20, 0, 0, 4, 0, 0]);
        assert_eq!(bytes.len(), 16 + REQUEST);
    }

    #[test]
    fn an_inode_is_the_last_of_the_head() {
        let mut message = [0; HEADER];
        message[HEADER - 4..].copy_from_slice(&4711_u32.to_ne_bytes());
        let read = |payload| inode(Message { kind: SOCK_DIAG_BY_FAMILY, payload });
        assert_eq!(read(&message), Ok(Some(4711)));
        assert!(read(&message[1..]).is_err());
    }

    #[test]
    fn a_sockets_tag_is_a_classid() {
        let class = [8, 0, 17, 0, 0x1a, 0, 1, 0];
        let shutdown = [5, 0, 8, 0, 0, 0, 0, 0];
        assert_eq!(read(&answer(&[shutdown, class].concat())), Ok(Some(ClassId(0x1_001a))));
        assert_eq!(read(&answer(&shutdown)), Ok(None), "a connection in TIME-WAIT has none");
    }

    #[test]
    fn a_bound_socket_is_read_whole() {
        let mut head = [0; HEADER];
        head[..6].copy_from_slice(&[10, 7, 0, 0, 0x14, 0xe9]);
        head[8..24].copy_from_slice(&Ipv6Addr::from_bits(0xfd00 << 112 | 7).octets());
        head[40..44].copy_from_slice(&3_u32.to_ne_bytes());
        head[64..68].copy_from_slice(&1_001_u32.to_ne_bytes());
        let only = [5, 0, 11, 0, 1, 0, 0, 0];
        let class = [8, 0, 17, 0, 0x1a, 0, 1, 0];
        let cgroup = [&[12, 0, 21, 0][..], &4_711_u64.to_ne_bytes()].concat();
        let whole = [&head[..], &only, &class, &cgroup].concat();
        let read = |payload| bound_socket(Message { kind: SOCK_DIAG_BY_FAMILY, payload });
        let socket = BoundSocket {
            address: "fd00::7".parse().unwrap(),
            port: 5_353,
            device: 3,
            uid: 1_001,
            tag: Some(ClassId(0x1_001a)),
            v6_only: true,
            cgroup: Some(4_711),
        };
        assert_eq!(read(&whole), Ok(Some(socket)));
        head[0] = 2;
        head[8..24].copy_from_slice(&[&[10, 1, 2, 3], &[0; 12][..]].concat());
        let v4 = read(&head).unwrap().unwrap();
        assert_eq!((v4.address, v4.tag), ("10.1.2.3".parse().unwrap(), None));
        assert_eq!(v4.cgroup, None);
        assert!(read(&head[1..]).is_err());
        // The same with a peer, and with what it has sent.
        head[6..8].copy_from_slice(&[0x01, 0xbb]);
        head[24..28].copy_from_slice(&[10, 9, 8, 7]);
        let read = |attributes: &[u8]| {
            let payload = [&head[..], attributes].concat();
            connection(Message { kind: SOCK_DIAG_BY_FAMILY, payload: &payload }).unwrap()
        };
        assert_eq!(read(&class), None, "no process has it");
        head[68] = 1;
        let read = |attributes: &[u8]| {
            let payload = [&head[..], attributes].concat();
            connection(Message { kind: SOCK_DIAG_BY_FAMILY, payload: &payload }).unwrap()
        };
        let subflow = [&[16, 0, 19, 0, 10, 0, 1, 0][..], b"mptcp\0\0\0"].concat();
        assert_eq!(read(&subflow), None);
        let read = |attributes: &[u8]| read(attributes).unwrap();
        let udp = read(&class);
        assert_eq!((udp.local.tag, udp.sent_bytes), (socket.tag, None));
        assert_eq!((udp.peer, udp.peer_port), ("10.9.8.7".parse().unwrap(), 443));
        let info = [&[212, 0, 2, 0][..], &[0; 200], &77_u64.to_ne_bytes()].concat();
        assert_eq!(read(&info).sent_bytes, Some(77));
        assert_eq!(read(&[&[204, 0, 2, 0][..], &[0; 200]].concat()).sent_bytes, None, "Linux 4.18");
    }

    #[test]
    fn half_a_message_is_an_error() {
        assert!(read(&[0; HEADER - 1]).is_err());
        assert_eq!(tag(Message { kind: 3, payload: &[] }), Ok(None));
    }
}
