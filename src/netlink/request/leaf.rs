//! The qdisc below a leaf class, a shard's too. The qdisc's handle is the class's minor as a major.

use netlink_packet_route::RouteNetlinkMessage;

use super::{ADD, CHANGE, kind, tc_message};
use crate::netlink::{Request, leaf};
use crate::tree::LeafQdisc;
use crate::units::ClassId;

/// `tc qdisc add dev … parent 1:M handle M: KIND …`. Replaces the fifo without a handle that the
/// kernel gives to a new class; packets in that fifo are dropped.
pub fn add(ifindex: u32, parent: ClassId, qdisc: &LeafQdisc) -> Request {
    let mut message = message(ifindex, parent);
    message.attributes.push(kind(qdisc.kind()));
    message.attributes.extend(leaf::options(qdisc));
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), ADD)
}

/// `tc qdisc change …`: a fifo's limit; no packet is dropped. The kind cannot be changed (`Invalid
/// qdisc name`, EINVAL): a leaf of another kind is deleted and added, which drops the packets in
/// that leaf.
pub fn change(ifindex: u32, parent: ClassId, qdisc: &LeafQdisc) -> Request {
    let mut message = message(ifindex, parent);
    message.attributes.push(kind(qdisc.kind()));
    message.attributes.extend(leaf::changeable(qdisc));
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), CHANGE)
}

/// `tc qdisc del dev … parent 1:M handle M:`: the class gets a fifo again. `handle` is the one that
/// was read, because a foreign leaf may have any.
pub fn delete(ifindex: u32, parent: ClassId, handle: ClassId) -> Request {
    let message = tc_message(ifindex, parent.0, handle);
    Request::change(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// The question for the qdisc with this handle, wherever on the link it is.
pub fn get(ifindex: u32, handle: ClassId) -> Request {
    Request::question(RouteNetlinkMessage::GetQueueDiscipline(tc_message(ifindex, 0, handle)))
}

fn message(ifindex: u32, parent: ClassId) -> netlink_packet_route::tc::TcMessage {
    tc_message(ifindex, parent.0, ClassId::qdisc(parent.minor().0))
}
