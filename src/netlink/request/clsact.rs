//! The qdisc `clsact`, beside the root: where filters see each packet before the root qdisc does.

use netlink_packet_route::RouteNetlinkMessage;

use super::{ADD, kind, tc_message};
use crate::netlink::Request;
use crate::units::ClassId;

/// clsact's `TCA_KIND`; its handle is `ffff:`.
pub const KIND: &str = "clsact";
const HANDLE: ClassId = ClassId::qdisc(0xffff);

/// `tc qdisc add dev … clsact`. Refused (EEXIST) where a clsact stands, or an `ingress` qdisc,
/// which has the same handle.
pub fn add(ifindex: u32) -> Request {
    let mut message = tc_message(ifindex, ClassId::CLSACT.0, HANDLE);
    message.attributes = vec![kind(KIND)];
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), ADD)
}

/// `tc qdisc del dev … clsact`: the filters at both sides go with it.
pub fn delete(ifindex: u32) -> Request {
    let message = tc_message(ifindex, ClassId::CLSACT.0, HANDLE);
    Request::change(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// The question for the qdisc with handle `ffff:`, be it clsact or `ingress`.
pub fn get(ifindex: u32) -> Request {
    let message = tc_message(ifindex, ClassId::CLSACT.0, ClassId::NONE);
    Request::question(RouteNetlinkMessage::GetQueueDiscipline(message))
}
