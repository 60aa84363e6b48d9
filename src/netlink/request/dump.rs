//! Requests for lists. The kernel hardly narrows a list down (by `TCA_KIND` not at all, qdiscs not
//! even by link), so the caller drops the records that it does not want.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::tc_message;
use crate::netlink::Request;
use crate::tree::{Family, LinkName};
use crate::units::ClassId;

/// All links of the namespace.
pub fn links() -> Request {
    Request::dump(RouteNetlinkMessage::GetLink(brief()))
}

/// One link.
pub fn link(ifindex: u32) -> Request {
    let mut message = brief();
    message.header.index = ifindex;
    Request::question(RouteNetlinkMessage::GetLink(message))
}

/// The link that has this name, or this alternative name.
pub fn link_named(name: &str) -> Request {
    const IFLA_ALT_IFNAME: u16 = 53;
    let mut message = brief();
    message.attributes.push(match LinkName::new(name) {
        Some(_) => LinkAttribute::IfName(name.to_string()),
        None => {
            let name = [name.as_bytes(), &[0]].concat();
            LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, name))
        }
    });
    Request::question(RouteNetlinkMessage::GetLink(message))
}

/// One link, with its counters.
pub fn counters(ifindex: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    Request::question(RouteNetlinkMessage::GetLink(message))
}

/// A link's description without counters, which are half of it.
fn brief() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    message
}

/// All qdiscs of the namespace, of every link.
pub fn qdiscs() -> Request {
    Request::dump(RouteNetlinkMessage::GetQueueDiscipline(tc_message(0, 0, ClassId::NONE)))
}

/// The classes of one link, of every qdisc on it. Without an ifindex the kernel lists nothing and
/// says nothing.
pub fn classes(ifindex: u32) -> Request {
    classes_of(ifindex, ClassId::NONE)
}

/// The classes of one qdisc of a link, by its handle. Asked for the classes of every qdisc, the
/// kernel walks all qdiscs from the first one for each datagram of the answer
/// (`tc_dump_tclass_root`, net/sched/sch_api.c): where 10,000 leaves are among them, that takes a
/// third of the list's time.
pub fn classes_of(ifindex: u32, qdisc: ClassId) -> Request {
    Request::dump(RouteNetlinkMessage::GetTrafficClass(tc_message(ifindex, qdisc.0, ClassId::NONE)))
}

/// The filters at one parent (a qdisc or a class) of one link.
pub fn filters(ifindex: u32, parent: ClassId) -> Request {
    let message = tc_message(ifindex, parent.0, ClassId::NONE);
    Request::dump(RouteNetlinkMessage::GetTrafficFilter(message))
}

/// The routes of one family, of every table.
pub fn routes(family: Family) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        },
        table: RouteHeader::RT_TABLE_MAIN,
        ..RouteHeader::default()
    };
    Request::dump(RouteNetlinkMessage::GetRoute(message))
}
