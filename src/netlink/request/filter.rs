//! Filters below our root, `parent 1:`: explicit rules and the tag.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::{ADD, kind, tc_message};
use crate::netlink::{BPF_NAME, ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, Request, cls_u32};
use crate::state::{Family, Filter, Pref, U32Rule};
use crate::units::ClassId;

/// The rules cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} u32 rules for one family on one link; the kernel numbers at most {max} in one table", max = cls_u32::MAX_RULES)]
pub struct TooManyRules(pub usize);

/// The protocol that a filter is for, as an ethertype: what [`delete`] needs beside the pref.
pub fn protocol(filter: &Filter) -> u16 {
    match filter {
        Filter::U32 { family: Family::V4, .. } => ETH_P_IP,
        Filter::U32 { family: Family::V6, .. } => ETH_P_IPV6,
        Filter::Tag(_) => ETH_P_ALL,
        Filter::Unknown { protocol, .. } => *protocol,
    }
}

/// `tc filter add dev … parent 1: protocol ip pref P handle ::N u32 match … flowid 1:M` for each
/// rule, in order. The pref must be empty before. Sent first to last, for then a half-written set
/// answers a packet as the whole set does, or not at all (the old set at the other pref, or the tag,
/// still does).
pub fn add_rules(
    ifindex: u32,
    pref: Pref,
    family: Family,
    rules: &[U32Rule],
) -> Result<Vec<Request>, TooManyRules> {
    let protocol = match family {
        Family::V4 => ETH_P_IP,
        Family::V6 => ETH_P_IPV6,
    };
    let too_many = || TooManyRules(rules.len());
    if rules.len() > cls_u32::MAX_RULES {
        return Err(too_many());
    }
    let one = |(place, rule): (usize, &U32Rule)| {
        let node = u32::try_from(place + 1).map_err(|_| too_many())?;
        let mut message = message(ifindex, pref, protocol, node);
        let options = TcAttribute::Options(cls_u32::options(rule));
        message.attributes = vec![kind(cls_u32::KIND), options];
        Ok(Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD))
    };
    rules.iter().enumerate().map(one).collect()
}

/// `tc filter add dev … parent 1: protocol all pref P handle 1 cgroup`. With `protocol ip`, IPv6
/// would escape it; handle 0 is refused.
pub fn add_cgroup(ifindex: u32, pref: Pref) -> Request {
    let mut message = message(ifindex, pref, ETH_P_ALL, 1);
    message.attributes = vec![kind("cgroup"), TcAttribute::Options(vec![])];
    Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
}

/// `tc filter add dev … parent 1: protocol all pref P handle 1 bpf classid 1: …` without direct
/// action: what the program returns is the classid, and 0 means no match (`cls_bpf_classify`,
/// net/sched/cls_bpf.c). The kernel takes a reference of its own when the message is sent; `program`
/// must be open until then.
pub fn add_bpf(ifindex: u32, pref: Pref, program: BorrowedFd<'_>) -> Request {
    let options = [
        // An open descriptor is never negative.
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(BPF_NAME.to_string()),
        TcFilterBpfOption::ClassId(TcHandle::from(ClassId::ROOT.0)),
    ];
    let mut message = message(ifindex, pref, ETH_P_ALL, 1);
    let options = TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect());
    message.attributes = vec![kind(TcFilterBpf::KIND), options];
    Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
}

/// `tc filter del dev … parent 1: protocol X pref P`: all that stands at the pref, at once: the
/// kernel unlinks it as a whole before it takes it apart.
pub fn delete(ifindex: u32, pref: Pref, protocol: u16) -> Request {
    let message = message(ifindex, pref, protocol, 0);
    Request::change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}

fn message(ifindex: u32, pref: Pref, protocol: u16, handle: u32) -> TcMessage {
    let mut message = tc_message(ifindex, ClassId::ROOT.0, ClassId(handle));
    // `TC_H_MAKE(prio << 16, htons(protocol))`.
    message.header.info = u32::from(pref.0) << 16 | u32::from(protocol.to_be());
    message
}
