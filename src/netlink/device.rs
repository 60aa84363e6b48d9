//! What a device makes of packets.

use netlink_packet_route::link::LinkHeader;

use super::decode::{Decoded, Undecodable};
use super::{Message, RTM_NEWLINK, attr};

/// A device's queues, and the largest packets that it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Queues for sending (`IFLA_NUM_TX_QUEUES`); it may use fewer.
    pub queues: Option<u32>,
    /// Bytes of the largest packet that it is given in one piece, of either family
    /// (`IFLA_GSO_MAX_SIZE`, `IFLA_GSO_IPV4_MAX_SIZE`): 65,536, or more with BIG TCP.
    pub largest: Option<u32>,
}

/// Reads an answer to [`super::request::dump::link`].
pub fn device(message: Message<'_>) -> Decoded<Device> {
    const IFLA_NUM_TX_QUEUES: u16 = 31;
    const IFLA_GSO_MAX_SIZE: u16 = 41;
    const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
    const HEADER: usize = 16;

    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    LinkHeader::parse(message.payload).map_err(|_| Undecodable::new("link", "it is too short"))?;
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let number = |kind| attr::find(attributes, kind).and_then(|value| attr::u32_at(value, 0));
    Ok(Some(Device {
        queues: number(IFLA_NUM_TX_QUEUES),
        largest: number(IFLA_GSO_MAX_SIZE).max(number(IFLA_GSO_IPV4_MAX_SIZE)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_the_larger_of_both_families_are_read_where_they_are() {
        let mut payload = vec![0_u8; 16];
        let read = |payload: &[u8]| device(Message { kind: RTM_NEWLINK, payload });
        assert_eq!(read(&payload), Ok(Some(Device::default())));
        for (kind, value) in [(31_u8, 8_u32), (41, 65_536), (63, 200_000)] {
            payload.extend([8, 0, kind, 0]);
            payload.extend(value.to_ne_bytes());
        }
        assert_eq!(read(&payload), Ok(Some(Device { queues: Some(8), largest: Some(200_000) })));
        assert!(read(&payload[..8]).is_err());
    }
}
