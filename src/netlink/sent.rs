//! What classes have sent, and nothing else of them: for who reads thousands of them each second.

use netlink_packet_route::tc::TcHeader;

use super::attr;
use super::decode::{Decoded, Undecodable};
use super::{Message, RTM_NEWTCLASS, htb};
use crate::units::ClassId;

/// linux/rtnetlink.h, linux/gen_stats.h
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;

/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;

/// Reads a message of [`super::request::dump::classes_of`]: the class, and the bytes that have
/// passed it.
pub fn sent(message: Message<'_>) -> Decoded<(ClassId, u64)> {
    if message.kind != RTM_NEWTCLASS {
        return Ok(None);
    }
    let too_short = |_| Undecodable::new("class", "it is too short");
    let header = TcHeader::parse(message.payload).map_err(too_short)?;
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let kind = attr::find(attributes, TCA_KIND).and_then(|kind| kind.strip_suffix(b"\0"));
    if kind != Some(htb::KIND.as_bytes()) {
        return Ok(None);
    }
    let basic = attr::find(attributes, TCA_STATS2).and_then(|it| attr::find(it, TCA_STATS_BASIC));
    let bytes = basic.and_then(|basic| attr::u64_at(basic, 0)).unwrap_or(0);
    Ok(Some((ClassId(header.handle.into()), bytes)))
}
