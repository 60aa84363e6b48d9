//! Our filters at a link's clsact.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcOption};

use super::filter::{Loaded, message};
use super::{ADD, kind};
use crate::netlink::{ETH_P_ALL, Request, mirred};
use crate::tree::Pref;
use crate::units::ClassId;

/// The handle of our filters there. Other programs, whose handles are 1 or given by the kernel, may
/// use the same pref.
pub const HANDLE: u32 = 0x5348;

/// `tc filter add dev … egress protocol all pref P handle 0x5348 bpf direct-action …`: a program
/// that lets every packet go on.
pub fn add_egress(ifindex: u32, pref: Pref, program: Loaded<'_>) -> Request {
    add_direct(ifindex, ClassId::EGRESS, pref, program)
}

/// The same at the ingress side.
pub fn add_ingress(ifindex: u32, pref: Pref, program: Loaded<'_>) -> Request {
    add_direct(ifindex, ClassId::INGRESS, pref, program)
}

fn add_direct(ifindex: u32, side: ClassId, pref: Pref, program: Loaded<'_>) -> Request {
    let flags = TcFilterBpfOption::Flags(TcBpfFlags::DirectAction);
    add(ifindex, side, pref, (program, flags))
}

/// `tc filter add dev … ingress protocol all pref P handle 0x5348 bpf … action mirred egress
/// redirect dev IFB`: what the program chooses goes to the root qdisc of that device. The kernel
/// drops it where the device is gone or switched off.
pub fn add_redirect(ifindex: u32, pref: Pref, program: Loaded<'_>, ifb: u32) -> Request {
    let action = TcFilterBpfOption::Other(mirred::redirect(ifb));
    add(ifindex, ClassId::INGRESS, pref, (program, action))
}

fn add(
    ifindex: u32,
    side: ClassId,
    pref: Pref,
    (program, option): (Loaded<'_>, TcFilterBpfOption),
) -> Request {
    let mut options = program.options();
    options.push(option);
    let mut message = message(ifindex, side, pref, ETH_P_ALL, HANDLE);
    let options = TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect());
    message.attributes = vec![kind(TcFilterBpf::KIND), options];
    Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
}

/// `tc filter del dev … egress protocol X pref P handle 0x5348 bpf`, or `ingress`: our filter
/// alone, whatever others have at the pref.
pub fn delete(ifindex: u32, side: ClassId, pref: Pref, protocol: u16) -> Request {
    let mut message = message(ifindex, side, pref, protocol, HANDLE);
    message.attributes = vec![kind(TcFilterBpf::KIND)];
    Request::change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}
