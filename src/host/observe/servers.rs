//! The sockets that are bound to a port, with their owners' classes, and the map that has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use log::debug;

use super::classes::Classes;
use super::error::ObserveError;
use super::privilege::lack;
use crate::classify::servers::{self, Bound, Protocol, Servers};
use crate::host::Kernel;
use crate::netlink::decode::Decoded;
use crate::netlink::inet_diag::{self, BoundSocket, Transport};
use crate::netlink::{Message, Request, address};
use crate::sys::bpf::ServerMap;
use crate::sys::route::{Netlink, SocketError};
use crate::tree::Family;

/// The map that filters read, of these that their names say: the one that is open, else the newest,
/// which is opened. `None`: there is none, or it may not be opened: this process will have filters
/// read another one. Whoever may change nothing plans for somebody who may open it.
pub(super) fn in_force(kernel: &mut Kernel, named: &BTreeSet<u32>) -> Option<u32> {
    let open = kernel.servers.as_ref().map(ServerMap::id);
    if let Some(id) = open.filter(|id| named.contains(id)) {
        return Some(id);
    }
    let id = *named.last()?;
    match ServerMap::open(id) {
        Ok(map) => {
            kernel.servers = Some(map);
            Some(id)
        }
        Err(error) => {
            debug!("BPF map {id}: {error}");
            lack(&kernel.proc_root).ok().flatten().map(|_| id)
        }
    }
}

/// What the map is to have now.
///
/// A list goes on by position ([`Netlink::dump`]), so a socket may be missing where others come and
/// go: until the next look its packets are nobody's.
///
/// # Errors
/// A list or a map that cannot be read.
pub fn servers(kernel: &mut Kernel) -> Result<Servers, ObserveError> {
    let mut sockets = Vec::new();
    let mut classes = Classes::default();
    // The listener of MPTCP is listed as TCP's too, with the kernel as its owner.
    let mut of_mptcp = BTreeSet::new();
    for transport in [Transport::Mptcp, Transport::Tcp, Transport::Udp] {
        for family in [Family::V4, Family::V6] {
            for socket in bound(kernel, family, transport)? {
                let BoundSocket { address, port, device, v6_only, .. } = socket;
                if device == LOOPBACK || address.to_canonical().is_loopback() {
                    continue;
                }
                match transport {
                    Transport::Mptcp => drop(of_mptcp.insert((address, port))),
                    Transport::Tcp if of_mptcp.contains(&(address, port)) => continue,
                    _ => {}
                }
                let protocol = match transport {
                    Transport::Udp => Protocol::Udp,
                    _ => Protocol::Tcp,
                };
                let class = classes.of(kernel, &socket)?;
                sockets.push(Bound { protocol, address, port, both: !v6_only, class });
            }
        }
    }
    Ok(servers::servers(&sockets, &addresses(&mut kernel.netlink)?))
}

/// The ifindex of a namespace's own `lo`.
pub(super) const LOOPBACK: u32 = 1;

pub(super) fn bound(
    kernel: &mut Kernel,
    family: Family,
    transport: Transport,
) -> Result<Vec<BoundSocket>, SocketError> {
    let question = inet_diag::bound(family, transport);
    list(kernel, family, transport, &question, inet_diag::bound_socket)
}

/// A list of sockets; none where this kernel lists none of the kind.
pub(super) fn list<T>(
    kernel: &mut Kernel,
    family: Family,
    transport: Transport,
    question: &Request,
    decode: impl FnMut(Message<'_>) -> Decoded<T>,
) -> Result<Vec<T>, SocketError> {
    if kernel.unlisted.contains(&(family, transport)) {
        return Ok(Vec::new());
    }
    let mut netlink = match kernel.of_sockets.take() {
        Some(netlink) => netlink,
        None => Netlink::for_sockets()?,
    };
    match netlink.dump(question, decode) {
        // A refused list must not take the next along, so that has another socket.
        Ok(listed) => {
            kernel.of_sockets = Some(netlink);
            Ok(listed)
        }
        Err(error) if error.is_not_supported() => {
            debug!("the {family:?} {transport:?} sockets: {error}");
            kernel.unlisted.insert((family, transport));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The host's addresses.
pub(super) fn addresses(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>, SocketError> {
    let listed = netlink.dump(&address::addresses(), address::local)?;
    let all = listed.into_iter().flatten().chain([IpAddr::from([255; 4])]);
    Ok(all.filter(|address| !address.is_loopback()).collect())
}
