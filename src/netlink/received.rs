//! How much has come by a link.

use netlink_packet_route::link::LinkHeader;

use super::decode::{Decoded, Undecodable};
use super::{Message, RTM_NEWLINK, attr};

/// What has come by a link since it exists (`struct rtnl_link_stats64`, linux/if_link.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// `rx_packets`.
    pub packets: u64,
    /// `rx_bytes`.
    pub bytes: u64,
    /// `rx_dropped`: what the driver or the queue behind it has dropped.
    pub dropped: u64,
}

/// Reads an answer to [`super::request::dump::counters`]; nothing where the link counts nothing.
pub fn received(message: Message<'_>) -> Decoded<Received> {
    const IFLA_STATS64: u16 = 23;
    const HEADER: usize = 16;
    const RX_PACKETS: usize = 0;
    const RX_BYTES: usize = 16;
    const RX_DROPPED: usize = 48;

    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    LinkHeader::parse(message.payload).map_err(|_| Undecodable::new("link", "it is too short"))?;
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let Some(counters) = attr::find(attributes, IFLA_STATS64) else { return Ok(None) };
    let number = |at| attr::u64_at(counters, at);
    let dropped = number(RX_DROPPED).unwrap_or(0);
    let read = number(RX_PACKETS).zip(number(RX_BYTES));
    Ok(read.map(|(packets, bytes)| Received { packets, bytes, dropped }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_bytes_are_read_and_a_short_answer_is_none() {
        let mut payload = vec![0_u8; 16];
        let counters = [3_u64, 9, 400, 8, 1, 1, 2];
        let counters: Vec<u8> = counters.into_iter().flat_map(u64::to_ne_bytes).collect();
        payload.extend([60, 0, 23, 0]);
        payload.extend(&counters);
        let read = |payload: &[u8]| received(Message { kind: RTM_NEWLINK, payload });
        assert_eq!(read(&payload), Ok(Some(Received { packets: 3, bytes: 400, dropped: 2 })));
        assert_eq!(read(&payload[..30]), Ok(None));
        assert!(read(&payload[..8]).is_err());
    }
}
