//! The qdisc below a leaf class; its handle is the class's minor as a major, also where it is a
//! shard.

use netlink_packet_route::RouteNetlinkMessage;

use super::{ADD, CHANGE, kind, tc_message};
use crate::netlink::{Request, leaf};
use crate::tree::LeafQdisc;
use crate::units::ClassId;

/// `tc qdisc add dev … parent 1:M handle M: KIND …`. Takes the place of the fifo that a new class
/// has by itself (no handle); what that holds is dropped.
pub fn add(ifindex: u32, parent: ClassId, qdisc: &LeafQdisc) -> Request {
    let mut message = message(ifindex, parent);
    message.attributes.push(kind(qdisc.kind()));
    message.attributes.extend(leaf::options(qdisc));
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), ADD)
}

/// `tc qdisc change …`: a fifo's limit; flushes nothing. The kind cannot be changed (`Invalid qdisc
/// name`, EINVAL): delete and add, which drops what that one leaf holds.
pub fn change(ifindex: u32, parent: ClassId, qdisc: &LeafQdisc) -> Request {
    let mut message = message(ifindex, parent);
    message.attributes.push(kind(qdisc.kind()));
    message.attributes.extend(leaf::changeable(qdisc));
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), CHANGE)
}

/// `tc qdisc del dev … parent 1:M handle M:`: the class gets a fifo again. `handle`: as it was
/// read, for a foreign leaf may have any.
pub fn delete(ifindex: u32, parent: ClassId, handle: ClassId) -> Request {
    let message = tc_message(ifindex, parent.0, handle);
    Request::change(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// The qdisc of this handle, wherever on the link it is.
pub fn get(ifindex: u32, handle: ClassId) -> Request {
    Request::question(RouteNetlinkMessage::GetQueueDiscipline(tc_message(ifindex, 0, handle)))
}

fn message(ifindex: u32, parent: ClassId) -> netlink_packet_route::tc::TcMessage {
    tc_message(ifindex, parent.0, ClassId::qdisc(parent.minor().0))
}
