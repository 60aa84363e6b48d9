//! What qdiscs have dropped, and nothing else of them: for who reads thousands of them each second.

use netlink_packet_route::tc::TcHeader;

use super::decode::{Decoded, TCA_KIND, TCA_OPTIONS, TCA_STATS_QUEUE, TCA_STATS2, Undecodable};
use super::{Message, RTM_NEWQDISC, TC_H_ROOT, attr, htb};
use crate::units::ClassId;

/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;

/// A link's root qdisc, or another one that has dropped something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The link's number (`tcm_ifindex`).
    pub ifindex: u32,
    /// Whether it is the link's root.
    pub is_root: bool,
    /// Its handle (`tcm_handle`).
    pub handle: ClassId,
    /// How many packets it has dropped: a root those of all qdiscs below it, too
    /// (`qdisc_tree_reduce_backlog`, net/sched/sch_api.c).
    pub packets: u64,
    /// Of a root that is HTB: how many packets passed no class.
    pub direct_packets: Option<u32>,
}

/// Reads a message of [`super::request::dump::qdiscs`]; nothing of a qdisc that is no root and has
/// dropped nothing.
pub fn dropped(message: Message<'_>) -> Decoded<Dropped> {
    if message.kind != RTM_NEWQDISC {
        return Ok(None);
    }
    let bad = |why| Undecodable::new("qdisc", why);
    let header = TcHeader::parse(message.payload).map_err(|_| bad("it is too short"))?;
    let is_root = u32::from(header.parent) == TC_H_ROOT;
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let queue = attr::find(attributes, TCA_STATS2).and_then(|it| attr::find(it, TCA_STATS_QUEUE));
    let packets = queue.and_then(|queue| attr::u32_at(queue, 8)).unwrap_or(0).into();
    if packets == 0 && !is_root {
        return Ok(None);
    }
    let ifindex = u32::try_from(header.index).map_err(|_| bad("its ifindex is negative"))?;
    let handle = ClassId(header.handle.into());
    let globals = || {
        let kind = attr::find(attributes, TCA_KIND).map(attr::borrowed)?;
        htb::globals(attr::find(attributes, TCA_OPTIONS).filter(|_| kind == htb::KIND)?)
    };
    let direct_packets = if is_root { globals().map(|it| it.direct_packets) } else { None };
    Ok(Some(Dropped { ifindex, is_root, handle, packets, direct_packets }))
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;

    /// `struct tcmsg` of a qdisc with `struct gnet_stats_queue` in its counters.
    fn qdisc(parent: u32, handle: u32, drops: u32) -> Vec<u8> {
        let words = [0, 7, handle, parent, 0].map(u32::to_ne_bytes);
        let queue = [1, 2, drops, 3, 4].map(u32::to_ne_bytes).concat();
        let stats = attribute(TCA_STATS2, &attribute(TCA_STATS_QUEUE, &queue));
        [words.concat(), attribute(1, b"fq_codel\0"), stats].concat()
    }

    #[test]
    fn a_root_is_read_always_and_a_leaf_where_it_has_dropped() {
        let read = |payload: &[u8]| dropped(Message { kind: RTM_NEWQDISC, payload });
        let of = |is_root, handle, packets| {
            let (handle, direct_packets) = (ClassId(handle), None);
            Ok(Some(Dropped { ifindex: 7, is_root, handle, packets, direct_packets }))
        };
        assert_eq!(read(&qdisc(TC_H_ROOT, 0x1_0000, 0)), of(true, 0x1_0000, 0));
        assert_eq!(read(&qdisc(0x1_0010, 0x10_0000, 9)), of(false, 0x10_0000, 9));
        assert_eq!(read(&qdisc(0x1_0010, 0x10_0000, 0)), Ok(None));
        let whole = qdisc(TC_H_ROOT, 0x1_0000, 9);
        assert_eq!(read(&whole[..20]), of(true, 0x1_0000, 0), "a qdisc that counts nothing");
        assert!(read(&whole[..19]).is_err());
    }

    #[test]
    fn what_passed_no_class_is_read_of_a_root_that_is_htb() {
        let glob = [0x3_0011_u32, 10, 0xfffe, 0, 5].map(u32::to_ne_bytes).concat();
        let options = attribute(TCA_OPTIONS, &attribute(2, &glob));
        let direct = |parent: u32, kind: &[u8]| {
            let header = [0, 7, 0x1_0000, parent, 0].map(u32::to_ne_bytes).concat();
            let payload = [header, attribute(TCA_KIND, kind), options.clone()].concat();
            dropped(Message { kind: RTM_NEWQDISC, payload: &payload }).unwrap()
        };
        assert_eq!(direct(TC_H_ROOT, b"htb\0").unwrap().direct_packets, Some(5));
        assert_eq!(direct(TC_H_ROOT, b"hfsc\0").unwrap().direct_packets, None);
        assert_eq!(direct(0x1_0010, b"htb\0"), None);
    }
}
