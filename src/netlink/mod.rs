//! Bytes ↔ values: what is asked of rtnetlink ([`request`]), what its dumps say ([`decode`],
//! [`assemble`]) and the kernel's own sentences ([`extack`]). Touches bytes only; the socket is in
//! `sys`.
//!
//! The crate netlink-packet-route has headers, framing and the kinds that it knows; what the crate
//! lacks (HTB, the cgroup classifier, fifo limits, 64-bit packet counters, extended ACKs) is
//! written here on its extension points, one file for each kind, both directions side by side.

pub mod address;
pub mod assemble;
mod attr;
pub mod bpf_name;
#[cfg(test)]
mod captured;
pub mod cls_u32;
pub mod decode;
pub mod device;
pub mod dropped;
pub mod extack;
pub mod flow_name;
pub mod hooks;
pub mod htb;
pub mod inet_diag;
pub mod label_name;
mod leaf;
mod mirred;
pub mod namespace_id;
pub mod nftables;
pub mod notice;
pub mod proc_event;
pub mod received;
pub mod redirected;
pub mod request;
pub mod sent;
pub mod socket_filter;
pub mod way;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;

use crate::units::Minor;

/// `TC_H_ROOT`: the parent of a root qdisc, and of an HTB class directly below its qdisc.
pub(crate) const TC_H_ROOT: u32 = 0xffff_ffff;

/// Minor of the class that packets without a class go to; `default` in `tc qdisc add … htb`.
pub const DEFCLS: u32 = Minor::DEFAULT.0 as u32;

/// Ethertypes, in host order, as in the low half of `tcm_info` once swapped.
pub const ETH_P_ALL: u16 = 0x0003;
/// IPv4 in an Ethernet header (linux/if_ether.h), host byte order.
pub const ETH_P_IP: u16 = 0x0800;
/// IPv6 in an Ethernet header.
pub const ETH_P_IPV6: u16 = 0x86dd;

/// The kinds of message that answer a dump (`linux/rtnetlink.h`).
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_NEWQDISC: u16 = 36;
pub(crate) const RTM_NEWTCLASS: u16 = 40;
pub(crate) const RTM_NEWTFILTER: u16 = 44;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One message to the kernel, without its sequence number, which the socket gives.
#[derive(Clone, Debug)]
pub struct Request {
    body: Body,
    changes: bool,
}

#[derive(Clone, Debug)]
enum Body {
    Route(NetlinkMessage<RouteNetlinkMessage>),
    /// A message of a protocol that the crate does not know; the payload's length is a multiple of
    /// 4.
    Raw {
        kind: u16,
        flags: u16,
        payload: Vec<u8>,
    },
}

impl Request {
    /// Asks for a list; answered by many messages.
    fn dump(message: RouteNetlinkMessage) -> Request {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        Request { body: Body::Route(message), changes: false }
    }

    /// Asks for a list in another protocol than rtnetlink.
    fn raw_dump(kind: u16, payload: Vec<u8>) -> Request {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        Request { body: Body::Raw { kind, flags, payload }, changes: false }
    }

    /// Asks for one object; answered by its description and an ACK, or by a refusal. Without
    /// NLM_F_ECHO the kernel sends the description of a qdisc to everybody who listens, and not to
    /// the asking socket (`qdisc_notify`, net/sched/sch_api.c).
    fn question(message: RouteNetlinkMessage) -> Request {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO;
        Request { body: Body::Route(message), changes: false }
    }

    /// Changes something; answered by one ACK. `flags`: the `NLM_F_CREATE…` that say how.
    fn change(message: RouteNetlinkMessage, flags: u16) -> Request {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        Request { body: Body::Route(message), changes: true }
    }

    /// Whether the request may change the kernel's state: false for dumps and questions.
    pub fn changes(&self) -> bool {
        self.changes
    }

    /// Appends the message's bytes, with this sequence number, to `buffer`. A message's length is
    /// a multiple of 4 (`NLMSG_ALIGN`), so that messages follow each other in one send.
    pub fn write_to(&self, sequence: u32, buffer: &mut Vec<u8>) {
        match &self.body {
            Body::Route(message) => {
                let mut message = message.clone();
                message.header.sequence_number = sequence;
                message.finalize();
                let start = buffer.len();
                buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
                message.serialize(&mut buffer[start..]);
            }
            // struct nlmsghdr; port 0 is the kernel.
            Body::Raw { kind, flags, payload } => {
                let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
                buffer.extend(length.to_ne_bytes());
                buffer.extend(kind.to_ne_bytes());
                buffer.extend(flags.to_ne_bytes());
                buffer.extend(sequence.to_ne_bytes());
                buffer.extend(0_u32.to_ne_bytes());
                buffer.extend(payload);
            }
        }
    }
}

/// One message of the kernel's answer: its type (`RTM_NEW…`) and what follows the netlink header.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows `struct nlmsghdr`.
    pub payload: &'a [u8],
}
