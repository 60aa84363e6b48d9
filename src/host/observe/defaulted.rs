//! Connections whose packets are in no class of ours, and so in the default one: root's services,
//! what the kernel itself keeps (NFS), accounts that nobody claims.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::classes::Classes;
use super::error::ObserveError;
use super::servers::{LOOPBACK, addresses, bound, list};
use crate::classify::decision::decide;
use crate::facts::LinkFacts;
use crate::host::Kernel;
use crate::model::Under;
use crate::netlink::inet_diag::{self, BoundSocket, Connection, Transport};
use crate::netlink::way;
use crate::sys::route::SocketError;
use crate::tree::{Direction, Family, Headers, LinkName, Port, Tree};
use crate::units::ClassId;

/// Protocol numbers of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// How many routes are asked for; connections beyond that may leave by any link.
const MOST_ROUTES: usize = 256;

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

/// The connections with other hosts whose packets leave in the default class of one at least of
/// these trees to which they may come: those in no class of ours, of which no rule there says
/// another one. `links`: the kernel's.
///
/// By which link a connection leaves the kernel says, as of packets without a mark (`SO_MARK`).
/// A list goes on by position ([`crate::sys::route::Netlink::dump`]), so a connection may be
/// missing where others come and go.
///
/// # Errors
/// A list or a map cannot be read.
pub fn defaulted(
    kernel: &mut Kernel,
    trees: &BTreeMap<Port, Tree>,
    links: &BTreeMap<LinkName, LinkFacts>,
) -> Result<BTreeMap<Service, Counted>, ObserveError> {
    let mut ways = Ways::new(trees, links);
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
                let ends = (address.to_canonical(), peer.to_canonical());
                let is_inside = device == LOOPBACK || own.contains(&ends.1);
                if is_inside || ends.0.is_loopback() || ends.1.is_loopback() {
                    continue;
                }
                if classes.of(kernel, &local)? != ClassId::NONE {
                    continue;
                }
                let headers = Headers {
                    vlan: 0,
                    proto: Some(if transport == Transport::Udp { UDP } else { TCP }),
                    addresses: Some(ends),
                    ports: Some((port, peer_port)),
                };
                let class = |tree: &&Tree| decide(tree, &headers, None).class;
                let mut trees = ways.trees(kernel, device, ends)?.iter();
                if trees.all(|tree| class(tree) != ClassId::DEFAULT) {
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

/// By which links connections leave, and to which trees they may come there.
struct Ways<'a> {
    /// Those of packets that leave.
    trees: BTreeMap<&'a LinkName, &'a Tree>,
    links: &'a BTreeMap<LinkName, LinkFacts>,
    /// The links by which packets leave from one address to another; `None`: the kernel does not
    /// say.
    answers: BTreeMap<(IpAddr, IpAddr), Option<u32>>,
    /// The trees of the packets that go to one link first; 0: it is not known to which.
    met: BTreeMap<u32, Vec<&'a Tree>>,
}

impl<'a> Ways<'a> {
    fn new(trees: &'a BTreeMap<Port, Tree>, links: &'a BTreeMap<LinkName, LinkFacts>) -> Ways<'a> {
        let leaves = |(port, _): &(&Port, &Tree)| port.direction == Direction::Egress;
        let trees = trees.iter().filter(leaves).map(|(port, tree)| (&port.link, tree)).collect();
        Ways { trees, links, answers: BTreeMap::new(), met: BTreeMap::new() }
    }

    /// The trees to which the packets of a connection may come. `device`: the one that its socket
    /// is bound to; 0: to none.
    fn trees(
        &mut self,
        kernel: &mut Kernel,
        device: u32,
        ends: (IpAddr, IpAddr),
    ) -> Result<&[&'a Tree], ObserveError> {
        let first = match device {
            0 => self.first_link(kernel, ends)?.unwrap_or(0),
            device => device,
        };
        let Ways { trees, links, met, .. } = self;
        let trees = met.entry(first).or_insert_with(|| {
            let link = links.iter().find(|(_, facts)| facts.ifindex == first);
            let under = link.map_or(Under::Any, |(name, _)| Under::of(name, links));
            trees.iter().filter(|(link, _)| under.holds(link)).map(|(_, tree)| *tree).collect()
        });
        Ok(trees.as_slice())
    }

    /// The link to which packets go first that leave from one address to another.
    fn first_link(
        &mut self,
        kernel: &mut Kernel,
        (own, peer): (IpAddr, IpAddr),
    ) -> Result<Option<u32>, SocketError> {
        if let Some(answer) = self.answers.get(&(own, peer)) {
            return Ok(*answer);
        }
        if self.answers.len() == MOST_ROUTES || own.is_ipv4() != peer.is_ipv4() {
            return Ok(None);
        }
        let answer = kernel.netlink.get(&way::between(own, peer), way::link)?.ok().flatten();
        self.answers.insert((own, peer), answer);
        Ok(answer)
    }
}
