//! Ethernet frames with VLAN tags in their bytes.

use crate::interpreter::Packet;

/// Where the ethertype is in an Ethernet header, and where that ends.
const TYPE: usize = 12;
const END: usize = 14;

/// A frame with these tags (their ethertypes, the outermost first) and then this one. The network
/// header is at what follows them, or (`at_tag`) at the first tag.
pub fn frame(tags: &[u16], protocol: u16, body: &[u8], at_tag: bool) -> Packet {
    let mut bytes = vec![2; TYPE];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 10]);
    }
    bytes.extend(protocol.to_be_bytes());
    let network_header = if at_tag { END } else { bytes.len() };
    bytes.extend(body);
    Packet { bytes, network_header }
}

/// `skb->protocol`, in network byte order.
pub fn protocol(packet: &Packet) -> [u8; 2] {
    packet.bytes.get(TYPE..END).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}
