//! The rules of both families as one filter that finds the IP header behind VLAN tags. Pure.
//!
//! The kernel asks a filter of protocol ip only about packets without a VLAN tag, so the rules of
//! an Ethernet link are a filter of protocol all. (A tag is a VLAN tag in this file, of 802.1Q or
//! 802.1ad.) A packet has a tag in one of two forms:
//! - *Offloaded*, in `skb->vlan_tci`: what VLAN devices send, and the outermost tag of what a
//!   bridge passes on. The packet's bytes do not have the tag.
//! - *In band*, in the packet's bytes: the inner one of two tags, and every tag that a packet
//!   socket sends as bytes. The network header is then at the IP header (VLAN devices; packet
//!   sockets since Linux 6.0) or at the first tag (a bridge; older packet sockets).
//!
//! In every case the two bytes before the network header are the ethertype of what begins there. So
//! the word at -4 says whether the IP header or a tag begins there; the last two bytes of a tag are
//! the ethertype of what follows. A frame without an IP ethertype is no IP packet, whatever its
//! bytes look like: it is ARP, MPLS, or encrypted by MACsec.

use std::collections::BTreeMap;

use crate::tree::{Family, Pref, U32Key, U32Link, U32Node, U32Rules, U32Table};

/// How many u32 links a packet follows before it meets a family's rules: to the table for tags, and
/// on from there.
pub(super) const LINKS: u8 = 2;
/// Tables beside those of the families' rules: the root list of each family, and the table for
/// tags.
const TABLES: u16 = 3;

/// How many tables each family's rules may have.
pub fn tables_of_a_family() -> u16 {
    (Pref::RULES_V4[0].most_tables() - TABLES) / 2
}

/// 802.1Q and 802.1ad (linux/if_ether.h).
pub(super) const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Of a tag in the packet's bytes, with the ethertype of what follows.
pub(super) const TAG_BYTES: u16 = 4;
/// How many tags in band are looked behind: two are the most that are usual, offloaded tags aside.
pub(super) const MOST_TAGS: u16 = 2;

/// The rules of both families as one filter of protocol all; empty where there are none.
pub fn both(v4: U32Rules, v6: U32Rules) -> U32Rules {
    let mut all = U32Rules::default();
    let families: Vec<(Family, u16)> = [(Family::V4, v4), (Family::V6, v6)]
        .into_iter()
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(family, rules)| (family, take_in(&mut all.tables, rules)))
        .collect();
    if families.is_empty() {
        return all;
    }
    let mut behind = Vec::new();
    for tags in 1..=MOST_TAGS {
        let between = (1..tags).flat_map(|tag| TAGS.map(|tpid| (tag, tpid)));
        let paths: Vec<Vec<U32Key>> = match tags {
            1 => vec![Vec::new()],
            _ => between.map(|(tag, tpid)| vec![ethertype(tpid, word(tag - 1))]).collect(),
        };
        for path in paths {
            behind.extend(families.iter().map(|(family, table)| {
                let mut keys = path.clone();
                keys.push(ethertype(family.ethertype(), word(tags - 1)));
                link(keys, *table, tags * TAG_BYTES)
            }));
        }
    }
    let tag_table = add(&mut all.tables, behind);
    let here = |(family, table): &(Family, u16)| {
        link(vec![ethertype(family.ethertype(), BEFORE)], *table, 0)
    };
    all.root = families.iter().map(here).collect();
    all.root.extend(TAGS.map(|tpid| link(vec![ethertype(tpid, BEFORE)], tag_table, 0)));
    all
}

/// The word that ends where the network header begins.
const BEFORE: i32 = -4;

/// The offset of the word of the `nth` tag in band: two bytes of the tag and two bytes of the
/// ethertype of what follows.
fn word(nth: u16) -> i32 {
    i32::from(nth * TAG_BYTES)
}

fn ethertype(value: u16, offset: i32) -> U32Key {
    U32Key { value: value.into(), mask: 0xffff, offset }
}

fn link(keys: Vec<U32Key>, table: u16, advance: u16) -> U32Node {
    U32Node::Link(U32Link { keys, table, hash: None, advance })
}

/// Appends the tables of a set, and its root list as a table; returns the number of the latter.
fn take_in(tables: &mut BTreeMap<u16, U32Table>, rules: U32Rules) -> u16 {
    let first = next(tables);
    let moved = |node: U32Node| match node {
        U32Node::Link(link) => U32Node::Link(U32Link { table: first + link.table, ..link }),
        rule @ U32Node::Rule(_) => rule,
    };
    for (number, table) in rules.tables {
        let buckets = table.buckets.into_iter();
        let buckets =
            buckets.map(|(bucket, nodes)| (bucket, nodes.into_iter().map(moved).collect()));
        let table = U32Table { divisor: table.divisor, buckets: buckets.collect() };
        tables.insert(first + number, table);
    }
    let root = rules.root.into_iter().map(moved).collect();
    add(tables, root)
}

fn add(tables: &mut BTreeMap<u16, U32Table>, nodes: Vec<U32Node>) -> u16 {
    let number = next(tables);
    tables.insert(number, U32Table { divisor: 1, buckets: BTreeMap::from([(0, nodes)]) });
    number
}

fn next(tables: &BTreeMap<u16, U32Table>) -> u16 {
    tables.last_key_value().map_or(0, |(last, _)| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{hash, interpret, u32::compile};
    use crate::tree::Match;
    use crate::units::{ClassId, Minor};

    fn class(minor: u16) -> ClassId {
        ClassId::ours(Minor(minor))
    }

    /// One rule for each family, behind so many that no packet here matches.
    fn rules(others: u16) -> U32Rules {
        let of = |family, net: &str, minor| {
            let other = |port: u16| Match {
                dport: Some(port.into()),
                proto: Some(132_u8.into()),
                ..Match::default()
            };
            let wanted = Match { dst: Some(net.parse().unwrap()), ..Match::default() };
            let matches: Vec<Match> = (0..others).map(other).chain([wanted]).collect();
            hash::arrange(family, compile(family, &matches, class(minor)))
        };
        both(of(Family::V4, "10.0.0.2/32", 0x10), of(Family::V6, "fd00::2/128", 0x11))
    }

    /// A frame with these tags in band, and where its IP header is.
    fn frame(tags: &[[u8; 4]], ethertype: u16, packet: &[u8]) -> (Vec<u8>, usize) {
        let mut frame = vec![2; 12];
        frame.extend(tags.concat());
        frame.extend(ethertype.to_be_bytes());
        let ip = frame.len();
        frame.extend(packet);
        (frame, ip)
    }

    fn v4() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0x08, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1];
        packet.extend([10, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0]);
        packet
    }

    fn v6() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        for host in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        packet.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn rules_hold_wherever_the_tags_are() {
        const Q: [u8; 4] = [0x81, 0, 0x40, 22];
        const AD: [u8; 4] = [0x88, 0xa8, 0x65, 0];
        for others in [0, 300] {
            let rules = rules(others);
            let says = |frame: &[u8], network| interpret::classify_frame(&rules, frame, network).0;
            for (ethertype, packet, to) in
                [(0x0800, v4(), class(0x10)), (0x86dd, v6(), class(0x11))]
            {
                for tags in [&[][..], &[Q], &[AD], &[Q, Q], &[AD, Q], &[AD, AD]] {
                    let (frame, ip) = frame(tags, ethertype, &packet);
                    // The network header is the IP header's, or the first tag's.
                    assert_eq!(says(&frame, ip), Some(to), "{tags:?}");
                    assert_eq!(says(&frame, 14), Some(to), "{tags:?} from the first tag");
                }
                let (three, _) = frame(&[Q, Q, Q], ethertype, &packet);
                assert_eq!(says(&three, 14), None, "more tags in band than there are");
            }
        }
    }

    #[test]
    fn what_is_no_ip_by_its_ethertype_matches_nothing() {
        let rules = rules(0);
        for ethertype in [0x0806, 0x8847, 0x88e5, 0x86dd] {
            let (frame, ip) = frame(&[], ethertype, &v4());
            assert_eq!(interpret::classify_frame(&rules, &frame, ip).0, None, "{ethertype:x}");
        }
    }

    #[test]
    fn one_family_alone_has_no_table_of_the_other() {
        let one = compile(Family::V6, &[Match::default()], class(0x10));
        let rules = both(U32Rules::default(), one.into());
        assert_eq!((rules.tables.len(), rules.root.len()), (2, 3));
        assert!(both(U32Rules::default(), U32Rules::default()).is_empty());
        let (frame, ip) = frame(&[], 0x0800, &v4());
        assert_eq!(interpret::classify_frame(&rules, &frame, ip).0, None);
    }
}
