//! The numbers that a network namespace has given to others (`rtnl_net_getid`,
//! net/core/net_namespace.c). Asking gives none: a namespace has one as soon as a link of ours has
//! its peer there, since the list of links gives it.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::decode::{Decoded, Undecodable};
use super::{Message, Request, attr};
use crate::facts::NamespaceId;

const RTM_NEWNSID: u16 = 88;
const NETNSA_NSID: u16 = 1;
/// `struct rtgenmsg`, padded.
const RTGENMSG: usize = 4;

/// The number of the network namespace that an open file is.
pub fn of_file(fd: i32) -> Request {
    question(NsidAttribute::Fd(fd.cast_unsigned()))
}

/// The number of a process's network namespace.
pub fn of_process(pid: u32) -> Request {
    question(NsidAttribute::Pid(pid))
}

fn question(about: NsidAttribute) -> Request {
    let mut message = NsidMessage::default();
    message.attributes.push(about);
    Request::question(RouteNetlinkMessage::GetNsId(message))
}

/// Reads an answer; `None`: the namespace has no number here, or is ours.
pub fn decode(message: Message<'_>) -> Decoded<NamespaceId> {
    if message.kind != RTM_NEWNSID {
        return Ok(None);
    }
    let attributes = message.payload.get(RTGENMSG..).unwrap_or(&[]);
    let id = attr::find(attributes, NETNSA_NSID).and_then(|value| attr::u32_at(value, 0));
    let id = id.ok_or(Undecodable::new("network namespace", "it has no number"))?;
    let id = id.cast_signed();
    Ok((id >= 0).then_some(NamespaceId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: i32) -> Vec<u8> {
        // struct rtgenmsg, padded; NETNSA_NSID.
        [&[0, 0, 0, 0, 8, 0, 1, 0][..], &id.to_ne_bytes()].concat()
    }

    #[test]
    fn a_namespace_has_a_number_or_none() {
        let read = |payload: &[u8]| decode(Message { kind: RTM_NEWNSID, payload }).unwrap();
        assert_eq!(read(&answer(3)), Some(NamespaceId(3)));
        assert_eq!(read(&answer(-1)), None);
        let short = Message { kind: RTM_NEWNSID, payload: &[0, 0, 0, 0] };
        assert!(decode(short).is_err());
    }

    #[test]
    fn the_question_has_the_file_or_the_process() {
        let bytes = |request: Request| {
            let mut bytes = Vec::new();
            request.write_to(1, &mut bytes);
            assert!(!request.changes());
            bytes[20..].to_vec()
        };
        assert_eq!(bytes(of_file(7)), [8, 0, 3, 0, 7, 0, 0, 0]);
        assert_eq!(bytes(of_process(7)), [8, 0, 2, 0, 7, 0, 0, 0]);
    }
}
