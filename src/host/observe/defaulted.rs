//! Connections whose packets are in no class of ours, and so in the default one: root's services,
//! what the kernel itself keeps (NFS), accounts that nobody claims.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ObserveError;
use super::servers::{Classes, LOOPBACK, addresses, bound, list};
use crate::classify::decision::decide;
use crate::host::Kernel;
use crate::netlink::inet_diag::{self, BoundSocket, Connection, Transport};
use crate::tree::{Direction, Family, Headers, Port, Tree};
use crate::units::ClassId;

/// Protocol numbers of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Whose connections, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The sockets' owner.
    pub uid: u32,
    /// UDP, else TCP.
    pub is_udp: bool,
    /// This host serves at the port; otherwise it is the other end's.
    pub is_server: bool,
    /// The server's port.
    pub port: u16,
}

/// What the connections of one service are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many there are now.
    pub connections: usize,
    /// What they have sent since they were opened, retransmissions too, without headers; `None`:
    /// of UDP, and before Linux 4.19, the kernel does not count it.
    pub sent_bytes: Option<u64>,
}

/// The connections with other hosts whose packets leave in the default class of one of these trees
/// at least: those in no class of ours, of which no rule there says another one.
///
/// A list goes on by position ([`crate::sys::route::Netlink::dump`]), so a connection may be missing
/// where others come and go.
///
/// # Errors
/// A list or a map cannot be read.
pub fn defaulted(
    kernel: &mut Kernel,
    trees: &BTreeMap<Port, Tree>,
) -> Result<BTreeMap<Service, Counted>, ObserveError> {
    let leaves = |(port, _): &(&Port, &Tree)| port.direction == Direction::Egress;
    let trees: Vec<&Tree> = trees.iter().filter(leaves).map(|(_, tree)| tree).collect();
    let is_in_default = |headers: &Headers| {
        let class = |tree: &&Tree| decide(tree, headers, None).class;
        trees.iter().any(|tree| class(tree) == ClassId::DEFAULT)
    };
    let own = addresses(&mut kernel.netlink)?;
    let mut services: BTreeMap<Service, Counted> = BTreeMap::new();
    let mut classes = Classes::default();
    for transport in [Transport::Tcp, Transport::Mptcp, Transport::Udp] {
        // A TCP socket of IPv6 may serve IPv4, too.
        let mut served = BTreeSet::new();
        if transport != Transport::Udp {
            for family in [Family::V4, Family::V6] {
                served.extend(bound(kernel, family, transport)?.iter().map(|socket| socket.port));
            }
        }
        for family in [Family::V4, Family::V6] {
            let question = inet_diag::connections(family, transport);
            for connection in list(kernel, family, transport, &question, inet_diag::connection)? {
                let Connection { local, peer, peer_port, sent_bytes } = connection;
                let BoundSocket { address, port, device, uid, .. } = local;
                let peer = peer.to_canonical();
                let is_inside = device == LOOPBACK || peer.is_loopback() || own.contains(&peer);
                if is_inside || address.is_loopback() {
                    continue;
                }
                if classes.of(kernel, &local)? != ClassId::NONE {
                    continue;
                }
                let headers = Headers {
                    vlan: 0,
                    proto: Some(if transport == Transport::Udp { UDP } else { TCP }),
                    addresses: Some((address.to_canonical(), peer)),
                    ports: Some((port, peer_port)),
                };
                if !is_in_default(&headers) {
                    continue;
                }
                let is_server = served.contains(&port);
                let port = if is_server { port } else { peer_port };
                let is_udp = transport == Transport::Udp;
                let counted = services.entry(Service { uid, is_udp, is_server, port }).or_default();
                counted.connections += 1;
                if let Some(bytes) = sent_bytes {
                    *counted.sent_bytes.get_or_insert(0) += bytes;
                }
            }
        }
    }
    Ok(services)
}
