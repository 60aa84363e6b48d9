//! The addresses of the host as rtnetlink lists them (linux/if_addr.h, net/ipv4/devinet.c).

use std::net::IpAddr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::{Decoded, Undecodable};
use super::{Message, Request, attr};

/// The kind of message that answers (linux/rtnetlink.h).
const RTM_NEWADDR: u16 = 20;
/// Bytes of `struct ifaddrmsg`.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

/// All addresses of the namespace.
pub fn addresses() -> Request {
    Request::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
}

/// The addresses to which packets for the host go, of one entry of the list: its own, and the
/// subnet's broadcast address.
pub fn local(message: Message<'_>) -> Decoded<Vec<IpAddr>> {
    if message.kind != RTM_NEWADDR {
        return Ok(None);
    }
    let short = Undecodable::new("address", "it is too short");
    let attributes = message.payload.get(HEADER..).ok_or(short)?;
    let read = |kind| -> Option<IpAddr> {
        let bytes = attr::find(attributes, kind)?;
        if message.payload[0] == u8::from(AddressFamily::Inet) {
            return Some(<[u8; 4]>::try_from(bytes).ok()?.into());
        }
        Some(<[u8; 16]>::try_from(bytes).ok()?.into())
    };
    // Of a point-to-point link IFA_ADDRESS is the peer's.
    let own = read(IFA_LOCAL).or_else(|| read(IFA_ADDRESS));
    Ok(Some(own.into_iter().chain(read(IFA_BROADCAST)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addresss_own_and_its_broadcast_are_read() {
        let head = [2, 24, 128, 0, 3, 0, 0, 0];
        let attribute = |kind: u8, last: u8| [8, 0, kind, 0, 10, 0, 0, last];
        let read = |parts: &[&[u8]]| {
            let payload = parts.concat();
            local(Message { kind: RTM_NEWADDR, payload: &payload })
        };
        let at = |last| IpAddr::from([10, 0, 0, last]);
        let peer = read(&[&head, &attribute(1, 9), &attribute(2, 1), &attribute(4, 255)]);
        assert_eq!(peer, Ok(Some(vec![at(1), at(255)])));
        assert_eq!(read(&[&head, &attribute(1, 9)]), Ok(Some(vec![at(9)])));
        let v6 = [&[10, 64, 0, 0, 3, 0, 0, 0, 20, 0, 1, 0, 0xfd][..], &[0; 15]].concat();
        assert_eq!(read(&[&v6]), Ok(Some(vec!["fd00::".parse().unwrap()])));
        assert!(read(&[&[2, 24]]).is_err());
    }
}
