//! Whose a packet is that arrives before its flow is known: the owner of the socket that is bound
//! to the port. The first packet of a connection to a user's server is such a one, and all of UDP
//! that nobody answers. Pure.
//!
//! A socket that is bound to one address goes before one that takes all addresses; sockets of
//! several classes at one address and port are nobody's. A socket that takes all addresses gets
//! only what goes to an address of the host, or to a group: what is forwarded to a guest with the
//! same port is no business of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::assembler::{Assembler, FRAME, Label, R0, R1, R2, R9, Register, Width};
use super::program::look_up;
use crate::units::ClassId;

/// Hash map: [`ServerKey`] → classid, `u32` in the machine's byte order. Numbered behind the map of
/// flows.
pub const SERVERS: u8 = 4;
/// Bytes of a [`ServerKey`].
pub const KEY_BYTES: u32 = 20;
/// Entries that the map has room for.
pub const MOST: usize = 1 << 16;

/// Protocols whose bound sockets the map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Sockets that listen, with MPTCP's.
    Tcp,
    /// All sockets.
    Udp,
}

impl Protocol {
    /// In the IP header.
    fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// A socket that is bound to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it gets.
    pub protocol: Protocol,
    /// Its local address; an unspecified one stands for all.
    pub address: IpAddr,
    /// Its local port.
    pub port: u16,
    /// Whether one of IPv6 gets IPv4 as well, if its address is unspecified.
    pub both: bool,
    /// Its owner's class; [`ClassId::NONE`]: nobody's.
    pub class: ClassId,
}

/// `{local[16]; be16 port; u8 protocol; u8 4 or 6}`, an IPv4 address in the first four bytes. A
/// local address of zeros stands for all; port and protocol 0 say that the address is the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey(pub [u8; KEY_BYTES as usize]);

impl ServerKey {
    fn new(address: IpAddr, port: u16, protocol: u8) -> ServerKey {
        let mut key = [0; KEY_BYTES as usize];
        let (address, kind): (&[u8], u8) = match &address {
            IpAddr::V4(address) => (&address.octets(), 4),
            IpAddr::V6(address) => (&address.octets(), 6),
        };
        key.iter_mut().zip(address).for_each(|(to, from)| *to = *from);
        let [high, low] = port.to_be_bytes();
        key[16..].copy_from_slice(&[high, low, protocol, kind]);
        ServerKey(key)
    }
}

/// What the map is to have.
pub type Servers = BTreeMap<ServerKey, ClassId>;

/// The entries for these sockets on a host with these addresses. Where there are more than
/// [`MOST`], those of the classes with the fewest are there: nobody is pushed out by a user who
/// binds all ports.
pub fn servers(sockets: &[Bound], addresses: &BTreeSet<IpAddr>) -> Servers {
    // Whose a key is by sockets of its own family, else by those of IPv6 that get IPv4 too.
    let mut by_key: BTreeMap<ServerKey, (bool, ClassId)> = BTreeMap::new();
    let mut add = |key: ServerKey, is_other_family: bool, class: ClassId| {
        let found = by_key.entry(key).or_insert((is_other_family, class));
        match found.0.cmp(&is_other_family) {
            std::cmp::Ordering::Greater => *found = (is_other_family, class),
            std::cmp::Ordering::Equal if found.1 != class => found.1 = ClassId::NONE,
            _ => {}
        }
    };
    for Bound { protocol, address, port, both, class } in sockets {
        // Anybody may bind an address that is not the host's (IP_FREEBIND): a guest's.
        let own = address.to_canonical();
        if !(own.is_unspecified() || own.is_multicast() || addresses.contains(&own)) {
            continue;
        }
        let number = protocol.number();
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                let v4 = v6.to_canonical();
                add(ServerKey::new(v4, *port, number), true, *class);
            }
            address => add(ServerKey::new(*address, *port, number), false, *class),
        }
        if *both && *address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            add(ServerKey::new(all, *port, number), true, *class);
        }
    }
    let mut of_class: BTreeMap<ClassId, usize> = BTreeMap::new();
    by_key.values().for_each(|(_, class)| *of_class.entry(*class).or_default() += 1);
    let mut entries: Vec<_> = by_key.into_iter().map(|(key, (_, class))| (key, class)).collect();
    let room = MOST.saturating_sub(addresses.len());
    if entries.len() > room {
        entries.sort_by_key(|(_, class)| of_class.get(class).copied());
        entries.truncate(room);
    }
    let of_host = addresses.iter().map(|address| (ServerKey::new(*address, 0, 0), ClassId::LINK));
    entries.into_iter().chain(of_host).collect()
}

/// Whose a packet is that comes to this address and port of a host with such a map, as the program
/// finds it; `None`: nobody's.
pub fn class_of(servers: &Servers, to: (IpAddr, u16), protocol: u8) -> Option<ClassId> {
    let (local, port) = to;
    let all: IpAddr = match local {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let at = |address| servers.get(&ServerKey::new(address, port, protocol));
    let is_hosts = local.is_multicast() || servers.contains_key(&ServerKey::new(local, 0, 0));
    let found = at(local).or_else(|| if is_hosts { at(all) } else { None });
    found.copied().filter(|class| *class != ClassId::NONE)
}

/// Where on the stack a packet's flow is.
pub(super) struct OnStack {
    /// The local address, 16 bytes.
    pub local: i16,
    /// The local port, 2 bytes.
    pub port: i16,
    /// The protocol and 4 or 6, a byte each.
    pub protocol: i16,
    /// Room for a [`ServerKey`].
    pub key: i16,
}

const CLASS: Register = R9;
const PORT: i16 = 16;
const PROTOCOL: i16 = 18;
const KIND: i16 = 19;

/// CLASS = that of the socket to which such a packet goes; or on to `unknown`.
pub(super) fn class_of_server(a: &mut Assembler, at: &OnStack, unknown: Label) {
    let (ports, found, v6, all, own) = (a.label(), a.label(), a.label(), a.label(), a.label());
    a.load(Width::Byte, R1, FRAME, at.protocol);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        a.jump_if_is(R1, protocol.number().into(), ports);
    }
    a.jump(unknown);
    a.bind(ports);
    for half in [0, 8] {
        a.load(Width::Double, R1, FRAME, at.local + half);
        a.store(Width::Double, FRAME, at.key + half, R1);
    }
    copy_port(a, at);
    look_up(a, SERVERS, at.key);
    a.jump_if_not(R0, 0, found);
    // To a group?
    a.load(Width::Byte, R1, FRAME, at.key);
    a.load(Width::Byte, R2, FRAME, at.key + KIND);
    a.jump_if_is(R2, 6, v6);
    a.and(R1, 0xf0);
    a.jump_if_is(R1, 0xe0, all);
    a.jump(own);
    a.bind(v6);
    a.jump_if_is(R1, 0xff, all);
    a.bind(own);
    a.store_value(Width::Half, FRAME, at.key + PORT, 0);
    a.store_value(Width::Byte, FRAME, at.key + PROTOCOL, 0);
    look_up(a, SERVERS, at.key);
    a.jump_if_is(R0, 0, unknown);
    copy_port(a, at);
    a.bind(all);
    for half in [0, 8] {
        a.store_value(Width::Double, FRAME, at.key + half, 0);
    }
    look_up(a, SERVERS, at.key);
    a.jump_if_is(R0, 0, unknown);
    a.bind(found);
    a.load(Width::Word, CLASS, R0, 0);
}

fn copy_port(a: &mut Assembler, at: &OnStack) {
    for (from, to) in [(at.port, PORT), (at.protocol, PROTOCOL)] {
        a.load(Width::Half, R1, FRAME, from);
        a.store(Width::Half, FRAME, at.key + to, R1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: ClassId = ClassId(0x1_0010);
    const BOB: ClassId = ClassId(0x1_0011);
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn bound(address: &str, port: u16, class: ClassId) -> Bound {
        let address = address.parse().unwrap();
        Bound { protocol: Protocol::Udp, address, port, both: true, class }
    }

    /// What the map has for the address and port.
    fn whose(sockets: &[Bound], address: &str, port: u16) -> Option<ClassId> {
        let key = ServerKey::new(address.parse().unwrap(), port, Protocol::Udp.number());
        servers(sockets, &BTreeSet::from([HOST])).get(&key).copied()
    }

    #[test]
    fn a_socket_of_ipv6_gets_ipv4_too_unless_one_of_ipv4_is_there() {
        let both = [bound("::", 53, ANN)];
        assert_eq!(whose(&both, "::", 53), Some(ANN));
        assert_eq!(whose(&both, "0.0.0.0", 53), Some(ANN));
        let mapped = [bound("::ffff:10.0.0.1", 53, ANN)];
        assert_eq!(whose(&mapped, "10.0.0.1", 53), Some(ANN));
        let only = [Bound { both: false, ..bound("::", 53, ANN) }];
        assert_eq!(whose(&only, "0.0.0.0", 53), None);
        let mut two = [bound("::", 53, ANN), bound("0.0.0.0", 53, BOB)];
        for _ in 0..2 {
            assert_eq!(whose(&two, "0.0.0.0", 53), Some(BOB));
            assert_eq!(whose(&two, "::", 53), Some(ANN));
            two.reverse();
        }
    }

    #[test]
    fn whoever_binds_an_address_of_a_guest_has_nothing_of_what_comes_there() {
        assert_eq!(whose(&[bound("10.9.0.2", 443, BOB)], "10.9.0.2", 443), None);
        assert_eq!(whose(&[bound("fd00::2", 443, BOB)], "fd00::2", 443), None);
        assert_eq!(whose(&[bound("224.0.0.251", 443, BOB)], "224.0.0.251", 443), Some(BOB));
    }

    #[test]
    fn a_port_of_several_is_nobodys() {
        let shared = [bound("10.0.0.1", 53, ANN), bound("10.0.0.1", 53, BOB)];
        assert_eq!(whose(&shared, "10.0.0.1", 53), Some(ClassId::NONE));
        let same = [bound("10.0.0.1", 53, ANN), bound("10.0.0.1", 53, ANN)];
        assert_eq!(whose(&same, "10.0.0.1", 53), Some(ANN));
        let nobodys = [bound("10.0.0.1", 53, ClassId::NONE), bound("0.0.0.0", 53, ANN)];
        assert_eq!(whose(&nobodys, "10.0.0.1", 53), Some(ClassId::NONE), "not ann's");
    }

    #[test]
    fn whoever_binds_all_ports_pushes_nobody_out() {
        let mut sockets: Vec<Bound> = (1..=u16::MAX).map(|port| bound("::", port, ANN)).collect();
        sockets.push(bound("10.0.0.1", 53, BOB));
        let addresses = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let servers = servers(&sockets, &addresses);
        assert_eq!(servers.len(), MOST);
        assert!(servers.values().any(|class| *class == BOB));
        assert!(servers.contains_key(&ServerKey::new("10.0.0.1".parse().unwrap(), 0, 0)));
    }
}
