//! HTB classes of our tree.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcAttribute;

use super::{ADD, CHANGE, kind, tc_message};
use crate::netlink::{Request, htb};
use crate::tree::Class;
use crate::units::ClassId;

/// `tc class add dev … parent 1:P classid 1:M htb …`, in the root qdisc or a shard's. An absent
/// parent is no error to the kernel: the class becomes a root class.
pub fn add(ifindex: u32, classid: ClassId, class: &Class) -> Request {
    new(ifindex, classid, class, ADD)
}

/// `tc class change …`: keeps the queue and loses no packet. The kernel silently keeps the old
/// parent when another is given.
pub fn change(ifindex: u32, classid: ClassId, class: &Class) -> Request {
    new(ifindex, classid, class, CHANGE)
}

fn new(ifindex: u32, classid: ClassId, class: &Class, flags: u16) -> Request {
    let parent = class.parent.unwrap_or(ClassId::qdisc(classid.major()));
    let mut message = tc_message(ifindex, parent.0, classid);
    message.attributes = vec![kind(htb::KIND), TcAttribute::Options(htb::parms(class))];
    Request::change(RouteNetlinkMessage::NewTrafficClass(message), flags)
}

/// `tc class del dev … classid 1:M`: drops the packets in the class's queue. Refused (`HTB class in
/// use.`, EBUSY) while the class has children or a u32 rule sends to it; tags that name the class
/// do not count.
pub fn delete(ifindex: u32, classid: ClassId) -> Request {
    let message = tc_message(ifindex, 0, classid);
    Request::change(RouteNetlinkMessage::DelTrafficClass(message), 0)
}
