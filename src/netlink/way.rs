//! By which link a packet would leave: the kernel's own answer, one route (rtnetlink(7)).

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::Decoded;
use super::{Message, RTM_NEWROUTE, Request, attr};

/// Where the attributes of a route begin, and the one that names its link (linux/rtnetlink.h).
const HEADER: usize = 12;
const RTA_OIF: u16 = 4;

/// The way from one of this host's addresses to another host. (With a source the kernel also goes
/// by the rules of policy routing that ask for it.)
pub fn between(own: IpAddr, peer: IpAddr) -> Request {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (128, RouteAddress::Inet6(ip)),
    };
    let ((own_bits, own), (peer_bits, peer)) = (address(own), address(peer));
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match own_bits {
            32 => AddressFamily::Inet,
            _ => AddressFamily::Inet6,
        },
        source_prefix_length: own_bits,
        destination_prefix_length: peer_bits,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Source(own), RouteAttribute::Destination(peer)];
    Request::question(RouteNetlinkMessage::GetRoute(message))
}

/// The link of the answer, by its ifindex.
pub fn link(message: Message<'_>) -> Decoded<u32> {
    let attributes = message.payload.get(HEADER..).filter(|_| message.kind == RTM_NEWROUTE);
    let link = attributes.and_then(|it| attr::find(it, RTA_OIF));
    Ok(link.and_then(|value| attr::u32_at(value, 0)))
}
