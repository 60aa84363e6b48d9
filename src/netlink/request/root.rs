//! The root qdisc: HTB with handle `1:`, default `0xfffe` and our mark in r2q.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcAttribute;

use super::{ADD, kind, tc_message};
use crate::netlink::{Request, TC_H_ROOT, htb};
use crate::tree::Mark;
use crate::units::ClassId;

/// `tc qdisc add dev … root handle 1: htb default fffe r2q MARK`. Replaces a root qdisc that the
/// kernel put there itself, whatever its kind: `tc_modify_qdisc` (net/sched/sch_api.c) looks
/// through a root with handle 0. With any other root the request is refused (`Exclusivity flag on,
/// cannot modify` or `NLM_F_REPLACE needed to override`, EEXIST), so nobody's tree is replaced by
/// accident.
pub fn add(ifindex: u32, mark: Mark) -> Request {
    new(ifindex, mark, ADD)
}

/// `tc qdisc replace …`: replaces a foreign root in one step. Refused where that root has handle
/// `1:` itself, for HTB cannot be changed (and another kind would be `Invalid qdisc name`); then
/// [`delete`] first.
pub fn replace(ifindex: u32, mark: Mark) -> Request {
    new(ifindex, mark, NLM_F_CREATE | NLM_F_REPLACE)
}

/// The question for the link's root qdisc. `tc_get_qdisc` (net/sched/sch_api.c) refuses qdiscs that
/// are built in (`noop`): EINVAL.
pub fn get(ifindex: u32) -> Request {
    let message = tc_message(ifindex, TC_H_ROOT, ClassId::NONE);
    Request::question(RouteNetlinkMessage::GetQueueDiscipline(message))
}

/// Makes a root qdisc with the options that were dumped. A classless qdisc is then as it was; a
/// classful one lacks its classes and filters.
pub fn restore(ifindex: u32, name: &str, handle: ClassId, options: &[u8]) -> Request {
    const TCA_OPTIONS: u16 = 2;
    let mut message = tc_message(ifindex, TC_H_ROOT, handle);
    message.attributes = vec![kind(name)];
    if !options.is_empty() {
        let options = DefaultNla::new(TCA_OPTIONS, options.to_vec());
        message.attributes.push(TcAttribute::Other(options));
    }
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), ADD)
}

fn new(ifindex: u32, mark: Mark, flags: u16) -> Request {
    let mut message = tc_message(ifindex, TC_H_ROOT, ClassId::ROOT);
    message.attributes = vec![kind(htb::KIND), TcAttribute::Options(htb::init(mark))];
    Request::change(RouteNetlinkMessage::NewQueueDiscipline(message), flags)
}

/// `tc qdisc del dev … root handle H`: everything below the root goes too, and the kernel puts its
/// default qdisc there. The request is refused (`Invalid handle`, EINVAL) where the root has
/// another handle than the one that was read.
pub fn delete(ifindex: u32, handle: ClassId) -> Request {
    let message = tc_message(ifindex, TC_H_ROOT, handle);
    Request::change(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}
