//! The ifb of a link: `ip link add ifb-eth0 type ifb`, its mark, on and off.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use crate::netlink::Request;
use crate::tree::{LinkName, Mark};

/// How the alias of an ifb of ours begins, which `ip link` shows.
const ALIAS: &str = "shaper mark=";

/// The alias of this instance's ifbs.
pub fn alias(mark: Mark) -> String {
    format!("{ALIAS}{:08x}", mark.0)
}

/// `ip link add NAME type ifb`, switched off. The kernel's module, where it has one, is loaded by
/// this.
pub fn add(name: &LinkName) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.as_str().to_string()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    Request::change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// `ip link set dev NAME alias …`: from then on it is known as ours.
pub fn mark(ifindex: u32, mark: Mark) -> Request {
    let mut message = about(ifindex);
    message.attributes = vec![LinkAttribute::IfAlias(alias(mark))];
    Request::change(RouteNetlinkMessage::SetLink(message), 0)
}

/// `ip link set dev NAME addrgenmode none`: it needs no address, and would send what finds
/// neighbours. Refused on a kernel without IPv6.
pub fn without_address(ifindex: u32) -> Request {
    let mut message = about(ifindex);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
    Request::change(RouteNetlinkMessage::SetLink(message), 0)
}

/// `ip link set dev NAME up`
pub fn up(ifindex: u32) -> Request {
    let mut message = about(ifindex);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::change(RouteNetlinkMessage::SetLink(message), 0)
}

/// `ip link del dev NAME`: with its qdiscs and what waits in them.
pub fn delete(ifindex: u32) -> Request {
    Request::change(RouteNetlinkMessage::DelLink(about(ifindex)), 0)
}

fn about(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message
}
