//! Bytes as `tc` (iproute2 6.1) sent and received them on Linux 6.18, taken with
//! `strace -e trace=sendmsg,recvmsg -e write=3 -e read=3 tc …` in a network namespace of its own,
//! `v0` being link 3. What we send is held against what tc sent, and what the kernel answered is
//! read. From the classes, tc's rate tables (RTAB, CTAB, 1,028 bytes each) are cut out.

use std::os::fd::AsFd;

use super::request::filter::{self, Loaded};
use super::request::{class, leaf, root};
use super::{Message, Request, assemble, attr, decode};
use crate::classify::u32 as compile;
use crate::facts::RootQdisc;
use crate::tree::*;
use crate::units::*;

const V0: u32 = 3;

/// `tc qdisc add dev v0 root handle 1: htb default fffe r2q 1397232641`
const ROOT: &str = "\
    48000000240005060c10046b00000000000000000300000000000100ffffffff0000000008000100\
    687462001c000200180002000300000001144853feff00000000000000000000";

/// `tc class add dev v0 parent 1: classid 1:1 htb rate 1gbit quantum 60000`
const LINK: &str = "\
    60000000280005060c10046b00000000000000000300000001000100000001000000000008000100\
    68746200340002003000010003010000ffff00004059730703010000ffff000040597307bb000000\
    bb00000060ea00000000000000000000";

/// `tc class add dev v0 parent 1:1 classid 1:11 htb rate 40gbit ceil 100gbit burst 1mb cburst
/// 1mb quantum 60000 prio 3`
const FAST: &str = "\
    78000000280005060c10046b00000000000000000300000011000100010001000000000008000100\
    687462004c0002000c00060000f2052a010000000c00070000dd0ee9020000003000010003010000\
    ffff0000ffffffff03010000ffff0000ffffffffc10c00001005000060ea00000000000003000000";

/// `tc qdisc add dev v0 parent 1:11 handle 11: bfifo limit 62500`
const BFIFO: &str = "\
    38000000240005060c10046b0000000000000000030000000000110011000100000000000a000100\
    626669666f0000000800020024f40000";

/// `tc qdisc change dev v0 parent 1:11 handle 11: bfifo limit 70000`
const BFIFO_CHANGE: &str = "\
    38000000240005000c10046b0000000000000000030000000000110011000100000000000a000100\
    626669666f0000000800020070110100";

/// `tc qdisc del dev v0 parent 1:11 handle 11:`
const LEAF_DELETE: &str = "\
    24000000250005000c10046b000000000000000003000000000011001100010000000000";

/// `tc qdisc add dev v0 parent 1:11 handle 11: pfifo limit 50`
const PFIFO: &str = "\
    38000000240005060c10046b0000000000000000030000000000110011000100000000000a000100\
    706669666f0000000800020032000000";

/// `tc qdisc add dev v0 parent 1:11 handle 11: fq_codel flows 32`
const FQ_CODEL: &str = "\
    40000000240005060c10046b0000000000000000030000000000110011000100000000000d000100\
    66715f636f64656c000000000c0002000800050020000000";

/// `tc filter add dev v0 parent 1: protocol ip pref 100 handle ::1 u32 match u32 0x05000000
/// 0x0f000000 at 0 match u32 0 0x1fff at 4 match ip protocol 6 0xff match ip src 1.2.3.4/32
/// match ip dport 80 0xffff flowid 1:11`
const RULE_V4: &str = "\
    9c0000002c0005060d10046b00000000000000000300000001000000000001000800640008000100\
    7533320070000200080001001100010064000500010005000000000000000000000000000f000000\
    05000000000000000000000000001fff00000000040000000000000000ff00000006000008000000\
    00000000ffffffff010203040c000000000000000000ffff000000501400000000000000";

/// `tc filter add dev v0 parent 1: protocol ipv6 pref 102 handle ::1 u32 match ip6 dst
/// fd00:1::/64 flowid 1:11`
const RULE_V6: &str = "\
    6c0000002c0005060d10046b000000000000000003000000010000000000010086dd660008000100\
    753332004000020008000100110001003400050001000200000000000000000000000000ffffffff\
    fd0000011800000000000000ffffffff000000001c00000000000000";

/// `tc filter add dev v0 parent 1: protocol all pref 200 handle 1 cgroup`
const CGROUP: &str = "\
    340000002c0005060d10046b00000000000000000300000001000000000001000003c8000b000100\
    6367726f7570000004000200";

/// `tc filter del dev v0 parent 1: protocol ip pref 100`
const FILTER_DELETE: &str = "\
    240000002d0005000d10046b000000000000000003000000000000000000010008006400";

/// `tc class del dev v0 classid 1:11`
const CLASS_DELETE: &str = "\
    24000000290005000d10046b000000000000000003000000110001000000000000000000";

/// `tc qdisc del dev v0 root handle 1:`
const ROOT_DELETE: &str = "\
    24000000250005000d10046b00000000000000000300000000000100ffffffff00000000";

/// `tc -s class show dev v0`
const CLASSES: &str = "\
    04010000280002007510046bfa030000000000000300000011000100010001000000110008000100\
    687462004c000200300001000001000000000000ffffffff0001000000000000ffffffffc10c0000\
    1005000060ea000000000000030000000c00060000f2052a010000000c00070000dd0ee902000000\
    48000700140001000000000000000000000000000000000018000300000000000000000000000000\
    000000000000000018000400000000000000000000000000c10c0000100500002c00030000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000018000400\
    000000000000000000000000c10c000010050000ec000000280002007510046bfa03000000000000\
    03000000feff01000100010000000000080001006874620034000200300001000001000000000000\
    6889090000010000000000004059730700d00700f209000048ee0000000000000000000048000700\
    14000100780100000000000004000000000000001800030000000000000000000000000000000000\
    00000000180004000400000000000000000000002ac90700e90900002c0003007801000000000000\
    04000000000000000000000000000000000000000000000000000000000000001800040004000000\
    00000000000000002ac90700e9090000ec000000280002007510046bfa0300000000000003000000\
    01000100ffffffff0000000008000100687462003400020030000100000100000000000040597307\
    000100000000000040597307bb000000bb00000060ea000007000000000000004800070014000100\
    78010000000000000400000000000000180003000000000000000000000000000000000000000000\
    18000400000000000000000000000000b2000000b20000002c000300780100000000000004000000\
    00000000000000000000000000000000000000000000000000000000180004000000000000000000\
    00000000b2000000b2000000";

/// `tc -s qdisc show dev v0`
const QDISCS: &str = "\
    94000000240002007510046b03040000000000000100000000000000ffffffff020000000c000100\
    6e6f71756575650005000c0000000000300007001400010000000000000000000000000000000000\
    1800030000000000000000000000000000000000000000002c000300000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000094000000240002007510046b\
    03040000000000000200000000000000ffffffff020000000c0001006e6f71756575650005000c00\
    00000000300007001400010000000000000000000000000000000000180003000000000000000000\
    0000000000000000000000002c000300000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000b4000000240002007510046b030400000000000003000000\
    00000100ffffffff03000000080001006874620024000200180002001100030001144853feff0000\
    000000000000000008000500e803000005000c000000000030000700140001007801000000000000\
    04000000000000001800030000000000000000000000000000000000000000002c00030078010000\
    0000000004000000000000000000000000000000000000000000000000000000000000009c000000\
    240002007510046b0304000000000000030000000000110011000100010000000a00010062666966\
    6f0000000800020024f4000005000c00000000003000070014000100000000000000000000000000\
    000000001800030000000000000000000000000000000000000000002c0003000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000";

/// `tc filter show dev v0 parent 1:`
const FILTERS: &str = "\
    340000002c0002007510046b08040000000000000300000000000000000001000800640008000100\
    7533320008000b0000000000400000002c0002007510046b08040000000000000300000000000080\
    0000010008006400080001007533320008000b00000000000c000200080004000100000084000000\
    2c0002007510046b0804000000000000030000000100008000000100080064000800010075333200\
    08000b0000000000500002003400050001000200000000000000000000000000ffffffff01020304\
    0c0000000000000000ff000000060000080000000000000008000200000000800800010011000100\
    08000b0008000000740000002c0002007510046b0804000000000000030000000200008000000100\
    08006400080001007533320008000b00000000004000020024000500010001000000000000000000\
    000000000000ffff000000501400000000000000080002000000008008000100feff010008000b00\
    08000000";

/// `tc -s class show dev v0, which asks for the link first`
const LINK_V0: &str = "\
    d0050000100002007410046bfa030000000001000300000043100100000000000700030076300000\
    08000d00e803000005001000060000000500110000000000050043000000000008000400dc050000\
    080032004400000008003300ffff000008001b000000000008001e000000000008003d0000000000\
    08001f000200000008002800ffff0000080029000000010008003a000000010008003f0000000100\
    080040000000010008003b00f8ff070008003c00ffff000008004200000000000800200002000000\
    0500210001000000080023000200000008002f000100000008003000010000000600440000000000\
    060045000000000005002700000000000a000100b668ecad98d300000a000200ffffffffffff0000\
    cc0017000e0000000000000011000000000000003404000000000000660500000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000640007000e00000011000000340400006605000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000c002b00050002000000000010001200\
    0900010076657468000000000800050002000000080006006874620030031a008c00020088000100\
    00000000000000000000000001000000010000000100000001000000000000000100000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000010270000e80300000000000000000000\
    000000000000000001000000a0020a00080001001000008014000500ffff0000de7d0100b49f0000\
    e8030000f40002000000000040000000dc05000001000000010000000100000001000000ffffffff\
    a00f0000e803000000000000803a0900805101000300000058020000100000000000000001000000\
    010000000100000060ea000000000000000000000000000000000000000000000000000001000000\
    000000000000000010270000e8030000010000000000000000000000010000000000000000000000\
    010000000000000000000000000000000000000080ee360000000000000000000100000000000000\
    000000000000000000000000000000000004000000000000ffff0000ffffffff0100000000000000\
    00000000000000003401030026000000000000000e00000000000000700300000000000000000000\
    000000000e0000000000000000000000000000000000000000000000000000000000000011000000\
    00000000110000000000000078040000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000000000000e000000\
    00000000110000000000000000000000000000000000000000000000700300000000000078040000\
    0000000000000000000000000000000000000000000000000000000000000000000000003c000600\
    07000000000000000000000000000000000000000000000011000000000000000000000000000000\
    00000000000000000000000000000000140007000000000000000000000000000000000005000800\
    0000000024000e000000000000000000000000000000000000000000000000000000000000000000\
    04003e8004004180";

/// `tc filter show dev v0 parent 1:` on Linux 6.1 with `cls_cgroup` at pref 200 `protocol all
/// handle 1`
const CGROUP_FILTER: &str = "\
    380000002c0002004910046b16030000000000000300000000000000000001000003c8000b000100\
    6367726f7570000008000b00000000004c0000002c0002004910046b160300000000000003000000\
    01000000000001000003c8000b0001006367726f7570000008000b00000000001400020010000300\
    080001000000000004000200";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Our message, with the captured one's sequence number.
fn sent(request: &Request, captured: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    request.write_to(attr::u32_at(captured, 8).unwrap(), &mut bytes);
    bytes
}

fn assert_equal_bytes(request: &Request, captured: &str) {
    let captured = bytes(captured);
    assert_eq!(sent(request, &captured), captured);
}

/// The messages of one answer.
fn answers(captured: &[u8]) -> Vec<Message<'_>> {
    let mut rest = captured;
    let mut messages = vec![];
    while !rest.is_empty() {
        let length = attr::u32_at(rest, 0).unwrap() as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        messages.push(Message { kind, payload: &rest[16..length] });
        rest = &rest[length.next_multiple_of(4)..];
    }
    messages
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn mark() -> Mark {
    Mark(1_397_232_641)
}

#[test]
fn root_leaves_and_deletions_are_sent_byte_for_byte_as_tc_does() {
    let minor = ClassId::ours(Minor(0x11));
    assert_equal_bytes(&root::add(V0, mark()), ROOT);
    assert_equal_bytes(&root::delete(V0, ClassId::ROOT), ROOT_DELETE);
    let bfifo = |limit| LeafQdisc::Bfifo { limit: Bytes(limit) };
    assert_equal_bytes(&leaf::add(V0, minor, &bfifo(62_500)), BFIFO);
    assert_equal_bytes(&leaf::change(V0, minor, &bfifo(70_000)), BFIFO_CHANGE);
    assert_equal_bytes(&leaf::add(V0, minor, &LeafQdisc::Pfifo { limit: 50 }), PFIFO);
    assert_equal_bytes(&leaf::add(V0, minor, &LeafQdisc::FqCodel), FQ_CODEL);
    assert_equal_bytes(&leaf::delete(V0, minor, ClassId::qdisc(0x11)), LEAF_DELETE);
    assert_equal_bytes(&class::delete(V0, minor), CLASS_DELETE);
    assert_equal_bytes(
        &filter::delete(V0, ClassId::ROOT, Pref(100), super::ETH_P_IP),
        FILTER_DELETE,
    );
}

#[test]
fn filters_are_sent_byte_for_byte_as_tc_does() {
    let to = ClassId::ours(Minor(0x11));
    let one = |family, matching: Match, pref| {
        let rules = compile::compile(family, &[matching], to);
        filter::add_rules(V0, Pref(pref), family, &rules.into()).unwrap().root.remove(0)
    };
    let net = |text: &str| Some(text.parse().unwrap());
    let web = Match {
        src: net("1.2.3.4/32"),
        dport: Some(80_u16.into()),
        proto: Some(6_u8.into()),
        ..Match::default()
    };
    assert_equal_bytes(&one(Family::V4, web, 100), RULE_V4);
    let lan = Match { dst: net("fd00:1::/64"), ..Match::default() };
    assert_equal_bytes(&one(Family::V6, lan, 102), RULE_V6);
    assert_equal_bytes(&filter::add_cgroup(V0, ClassId::ROOT, Pref(200)), CGROUP);
}

/// tc sends a cell_log of 3 and a cell_align of -1, which describe the rate tables that we do not
/// send, and RATE64 and CEIL64 before PARMS; the kernel asks for attributes by name.
#[test]
fn classes_say_the_same_as_those_of_tc() {
    let with_parms = |captured: &[u8]| {
        let options = attr::find(&captured[36..], 2).unwrap().to_vec();
        let mut parms = attr::find(&options, 1).unwrap().to_vec();
        for cells in [0, 4, 5, 12, 16, 17] {
            parms[cells] = 0;
        }
        let wide = [6, 7].map(|kind| attr::find(&options, kind).map(<[u8]>::to_vec));
        (captured[4..36].to_vec(), parms, wide)
    };
    let link = Class {
        parent: None,
        rate: rate("1gbit"),
        ceil: rate("1gbit"),
        burst: Ticks(187),
        cburst: Ticks(187),
        role: Role::Inner,
    };
    let fast = Class {
        parent: Some(ClassId::LINK),
        rate: rate("40gbit"),
        ceil: rate("100gbit"),
        burst: Ticks(3265),
        cburst: Ticks(1296),
        role: Role::Leaf { prio: 3, quantum: Quantum(60_000) },
    };
    for (minor, class, captured) in
        [(ClassId::LINK, link, LINK), (ClassId::ours(Minor(0x11)), fast, FAST)]
    {
        let captured = bytes(captured);
        let ours = sent(&class::add(V0, minor, &class), &captured);
        assert_eq!(with_parms(&ours), with_parms(&captured));
    }
}

#[test]
fn the_bpf_filter_names_itself_and_has_no_direct_action() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let (tag, sockets) = (Some(TagHelper::Socket), Sockets::Cookie(17));
    let program =
        Program { shards: true, tag, cgroups: false, sockets, mptcp: None, labels: false };
    let maps = MapIds([7, 8, 9, 10]);
    let request = filter::add_bpf(
        V0,
        ClassId::ROOT,
        Pref(200),
        Loaded::deciding(program, maps, file.as_fd()),
    );
    let captured = sent(&request, &[0; 12]);
    let messages = answers(&captured);
    // What is sent decodes to the same filter as what a dump would answer.
    let record = decode::filter(messages[0]).unwrap().unwrap();
    assert_eq!(assemble::programs(std::slice::from_ref(&record))[&Pref(200)].1, maps);
    let tag = Filter::Tag(Tag::Bpf(program));
    assert_eq!(assemble::filters([record])[&Pref(200)].ours(), Some(&tag));
}

#[test]
fn classes_are_read_with_their_counters() {
    let captured = bytes(CLASSES);
    let classes: Vec<_> =
        answers(&captured).into_iter().map(|m| decode::class(m).unwrap().unwrap()).collect();
    let alone = answers(&captured).into_iter().map(|m| super::sent::sent(m).unwrap().unwrap());
    assert!(alone.eq(classes.iter().map(|it| (it.classid, it.counters.sent_bytes))));
    let [fast, default, link] = &classes[..] else { panic!("{classes:#?}") };
    assert_eq!(fast.classid, ClassId::ours(Minor(0x11)));
    assert_eq!(fast.parent, Some(ClassId::LINK));
    assert_eq!(fast.class.rate, rate("40gbit"));
    assert_eq!(fast.class.ceil, rate("100gbit"));
    assert_eq!((fast.class.burst, fast.class.cburst), (Ticks(3265), Ticks(1296)));
    assert_eq!(fast.class.role, Role::Leaf { prio: 3, quantum: Quantum(60_000) });
    assert_eq!(fast.leaf, ClassId::qdisc(0x11));
    assert_eq!(fast.counters, Counters::default());
    assert_eq!(default.leaf, ClassId::NONE);
    assert_eq!(default.class.rate, rate("5mbit"));
    // tc printed: Sent 376 bytes 4 pkt, lended: 4.
    let counters = Counters { sent_bytes: 376, sent_packets: 4, lends: 4, ..Counters::default() };
    assert_eq!(default.counters, counters);
    assert_eq!((link.parent, link.class.role, link.parms.level), (None, Role::Inner, 7));
}

#[test]
fn qdiscs_are_read_with_globals_and_leaf() {
    let captured = bytes(QDISCS);
    let all: Vec<_> =
        answers(&captured).into_iter().map(|m| decode::qdisc(m).unwrap().unwrap()).collect();
    let ours: Vec<_> = all.into_iter().filter(|qdisc| qdisc.ifindex == V0).collect();
    assert_eq!(decode::root(&ours, None, mark()), RootQdisc::Ours);
    let foreign = decode::root(&ours, None, Mark(7));
    assert!(matches!(foreign, RootQdisc::Foreign { r2q: Some(r2q), .. } if r2q == mark().0));
    assert_eq!(ours[0].htb.unwrap().defcls, super::DEFCLS);
    assert_eq!(ours[1].parent, Some(ClassId::ours(Minor(0x11))));
    assert_eq!(ours[1].leaf, Some(LeafQdisc::Bfifo { limit: Bytes(62_500) }));
}

#[test]
fn three_records_of_a_u32_filter_become_its_rules_in_order() {
    let captured = bytes(FILTERS);
    let mut records: Vec<_> =
        answers(&captured).into_iter().map(|m| decode::filter(m).unwrap().unwrap()).collect();
    let key = |value, mask, offset| U32Key { value, mask, offset };
    let rules = vec![
        U32Rule {
            // In the order in which tc sends the keys; ours is another.
            keys: vec![key(0x0102_0304, u32::MAX, 12), key(6 << 16, 0xff << 16, 8)],
            to: ClassId::ours(Minor(0x11)),
            line: None,
        },
        U32Rule { keys: vec![key(80, 0xffff, 20)], to: ClassId::DEFAULT, line: None },
    ];
    let wanted = Filter::U32 { protocol: Family::V4.into(), rules: rules.into() };
    assert_eq!(assemble::filters(records.clone())[&Pref(100)].ours(), Some(&wanted));
    records.reverse();
    assert_eq!(assemble::filters(records)[&Pref(100)].ours(), Some(&wanted));
}

#[test]
fn the_cgroup_filter_is_read_although_its_empty_ematch_tree_is_dumped() {
    let captured = bytes(CGROUP_FILTER);
    let records = answers(&captured).into_iter().map(|m| decode::filter(m).unwrap().unwrap());
    assert_eq!(assemble::filters(records)[&Pref(200)].ours(), Some(&Filter::Tag(Tag::Cgroup)));
}

#[test]
fn a_veth_is_read_without_a_link_below_it() {
    let captured = bytes(LINK_V0);
    let link = decode::link(answers(&captured)[0]).unwrap().unwrap();
    assert_eq!((link.name.as_str(), link.ifindex, link.mtu), ("v0", V0, 1500));
    assert_eq!((link.kind.as_deref(), link.lower, link.master), (Some("veth"), None, None));
    assert!(link.up && !link.loopback);
    assert_eq!(link.qdisc.as_deref(), Some("htb"));
}

#[test]
fn packets_beyond_32_bits_come_from_pkt64() {
    let mut captured = bytes(CLASSES);
    let length = attr::u32_at(&captured, 0).unwrap() as usize;
    captured.truncate(length);
    // TCA_STATS2 { BASIC: 7 bytes in 1 packet; PKT64: 2^32 + 1 }
    captured.extend([36, 0, 7, 0, 20, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    captured.extend([12, 0, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    // The first TCA_STATS2 is the one that counts: make it another attribute.
    let at = captured.windows(4).position(|bytes| bytes == [0x48, 0, 7, 0]).unwrap();
    captured[at + 2] = 0x7f;
    let length = u32::try_from(captured.len()).unwrap();
    captured[..4].copy_from_slice(&length.to_ne_bytes());
    let class = decode::class(answers(&captured)[0]).unwrap().unwrap();
    assert_eq!(class.counters.sent_packets, (1 << 32) + 1);
    assert_eq!(class.counters.sent_bytes, 7);
}

#[test]
fn a_vlan_names_the_link_below_it_unless_that_is_in_another_namespace() {
    // A header, IFLA_IFNAME `vl1`, IFLA_MTU 1500, IFLA_LINK 3, IFLA_LINKINFO { INFO_KIND `vlan` }.
    let mut link = vec![0, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    link.extend(*b"\x08\x00\x03\x00vl1\x00\x08\x00\x04\x00\xdc\x05\x00\x00");
    link.extend(
        *b"\x08\x00\x05\x00\x03\x00\x00\x00\x10\x00\x12\x00\x09\x00\x01\x00vlan\x00\x00\x00\x00",
    );
    let read = |payload: &[u8]| decode::link(Message { kind: 16, payload }).unwrap().unwrap();
    assert_eq!((read(&link).lower, read(&link).up), (Some(3), false));
    link.extend([8, 0, 37, 0, 0, 0, 0, 0]);
    assert_eq!(read(&link).lower, None);
}

#[test]
fn what_is_sent_reads_back_as_itself() {
    let classes = [
        (ClassId::ours(Minor(0xf001)), Role::Inner, None),
        (
            ClassId::ours(Minor(0x20)),
            Role::Leaf { prio: 7, quantum: Quantum(200_000) },
            Some(ClassId::ours(Minor(0xf001))),
        ),
    ];
    for (minor, role, parent) in classes {
        for bytes_per_second in [1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let rate = Rate::from_bytes_per_second(bytes_per_second).unwrap();
            let class =
                Class { parent, rate, ceil: rate, burst: Ticks(1), cburst: Ticks(u32::MAX), role };
            let bytes = sent(&class::add(V0, minor, &class), &[0; 12]);
            let record = decode::class(answers(&bytes)[0]).unwrap().unwrap();
            // A root class is asked for with the qdisc as its parent, and answered with none.
            let parent = record.class.parent.filter(|id| id.minor().0 != 0);
            assert_eq!(Class { parent, ..record.class }, class);
        }
    }
}

#[test]
fn truncated_and_changed_answers_never_panic() {
    let read = |kind: u16, payload: &[u8]| {
        let message = Message { kind, payload };
        let _ = (decode::qdisc(message), decode::class(message), decode::link(message));
        let _ = (decode::default_route(message), super::sent::sent(message));
        if let Ok(Some(record)) = decode::filter(message) {
            let _ = assemble::filters([record]);
        }
    };
    for captured in [CLASSES, QDISCS, FILTERS, LINK_V0, CGROUP_FILTER] {
        let captured = bytes(captured);
        for message in answers(&captured) {
            for length in 0..message.payload.len() {
                read(message.kind, &message.payload[..length]);
                let mut changed = message.payload.to_vec();
                for value in [0, 1, 3, 0x7f, 0xff] {
                    changed[length] = value;
                    read(message.kind, &changed);
                }
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in proptest::sample::select(vec![16_u16, 24, 36, 40, 44]),
        payload: Vec<u8>,
    ) {
        let message = Message { kind, payload: &payload };
        let _ = (decode::qdisc(message), decode::class(message), decode::link(message));
        let _ = (decode::default_route(message), decode::filter(message));
        let _ = (super::extack::outcome(kind, &payload), super::extack::done(kind, &payload));
    }
}
