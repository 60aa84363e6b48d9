//! Rules and the tag, with real packets on the loopback of the namespace.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use shaper::classify::interpret;
use shaper::netlink::request::{dump, filter};
use shaper::netlink::{ETH_P_IP, decode};
use shaper::sys::{Netlink, probe};
use shaper::tree::{Classifier, Family, Filter, FoundFilter, Pref, Tag};
use shaper::units::{ClassId, Minor};

use super::*;

#[test]
fn needs_root_filters_read_back_in_the_order_of_the_file_at_two_prefs() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let v4 = |minor| {
            let matches: Vec<_> = (1..=300_u16)
                .map(|port| matching(Some("10.0.0.0/8"), None, None, Some(port)))
                .collect();
            Filter::U32 {
                protocol: Family::V4.into(),
                rules: rules(Family::V4, &matches, minor).into(),
            }
        };
        let net = "fd00:1::/64";
        let six = [
            matching(None, Some(net), None, Some(111)),
            matching(Some("fd00::1/128"), Some(net), Some(1), Some(2)),
            matching(None, None, None, None),
        ];
        let v6 = Filter::U32 {
            protocol: Family::V6.into(),
            rules: rules(Family::V6, &six, 0x10).into(),
        };
        let bpf = Deciding::load();
        let add = |netlink: &mut Netlink, pref: Pref, filter: &Filter| match filter {
            Filter::U32 { protocol, rules } => done(netlink, &add_tables(pref, *protocol, rules)),
            Filter::Tag(Tag::Cgroup) => {
                done(netlink, &[filter::add_cgroup(LO, ClassId::ROOT, pref)]);
            }
            _ => done(netlink, &[bpf.add(pref)]),
        };
        let mut wanted = BTreeMap::from([
            (Pref::RULES_V4[0], v4(0x10)),
            (Pref::RULES_V6[1], v6),
            (Pref::TAG[1], Filter::Tag(Tag::Bpf(PROGRAM))),
        ]);
        if probe::features().expect("features").classifiers.contains(&Classifier::Cgroup) {
            wanted.insert(Pref::TAG[0], Filter::Tag(Tag::Cgroup));
        }
        for (pref, filter) in &wanted {
            add(netlink, *pref, filter);
        }
        assert_eq!(read_filters(netlink), wanted);

        // Swapped to the other pref and back, several times: the tables' numbers go round.
        for round in 0..4_usize {
            let (old, new) = (Pref::RULES_V4[round % 2], Pref::RULES_V4[(round + 1) % 2]);
            let next = v4(0x11 + round as u16 % 2);
            add(netlink, new, &next);
            wanted.insert(new, next);
            assert_eq!(read_filters(netlink), wanted);
            let gone = wanted.remove(&old).unwrap();
            done(netlink, &[filter::delete(LO, ClassId::ROOT, old, gone.protocol())]);
            assert_eq!(read_filters(netlink), wanted);
        }
        for (pref, filter) in wanted {
            done(netlink, &[filter::delete(LO, ClassId::ROOT, pref, filter.protocol())]);
        }
        assert_eq!(read_filters(netlink), BTreeMap::new());
    });
}

#[test]
fn needs_root_what_we_would_not_write_is_read_as_unknown() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let foreign = [
            "100 u32 match ip dst 10.0.0.1 action drop",
            "101 u32 ht 800:: match ip dst 10.0.0.1 at nexthdr+0 flowid 1:10",
            "102 u32 divisor 4",
            "103 bpf bytecode 1,6 0 0 0 classid 1:10",
        ];
        let mut tried = 0;
        for line in foreign {
            let line = format!("filter add dev lo parent 1: protocol ip pref {line}");
            tried += usize::from(
                Command::new("tc").args(line.split(' ')).output().unwrap().status.success(),
            );
        }
        let found = find_filters(netlink);
        assert!(tried >= 2 && found.len() >= 2, "{found:?}");
        assert!(found.values().all(|f| matches!(f, FoundFilter::Strange(_))), "{found:?}");
    });
}

#[test]
fn needs_root_packets_go_where_the_interpreter_says() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let first = matching(Some("127.0.0.2/32"), None, None, Some(5001));
        let second = matching(None, Some("127.0.0.0/24"), Some(5005), None);
        let mut set = rules(Family::V4, &[first], 0x10);
        set.extend(rules(Family::V4, &[second], 0x11));
        set.extend(rules(Family::V4, &[matching(Some("127.0.0.2/31"), None, None, None)], 0x12));
        done(netlink, &add_rules(Pref(100), Family::V4, &set));
        let six = rules(Family::V6, &[matching(None, Some("::1/128"), None, Some(7000))], 0x10);
        done(netlink, &add_rules(Pref(102), Family::V6, &six));
        for (from, to) in [
            ("127.0.0.2:4000", "127.0.0.1:5001"),
            ("127.0.0.2:4000", "127.0.0.1:5002"),
            ("127.0.0.3:5005", "127.0.0.9:5001"),
            ("127.0.0.3:5004", "127.0.0.9:5001"),
            ("127.0.0.4:5005", "127.0.1.9:5001"),
            ("[::1]:4000", "[::1]:7000"),
            ("[::1]:7000", "[::1]:4000"),
        ] {
            let packet = udp(from.parse().unwrap(), to.parse().unwrap());
            let set = if from.starts_with('[') { &six } else { &set };
            let expected = interpret::first_match(set, &packet).unwrap_or(ClassId::DEFAULT);
            let before = packets(netlink);
            UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let after = packets(netlink);
            let moved: Vec<_> =
                after.iter().filter(|(id, n)| before[id] != **n).map(|(id, _)| *id).collect();
            // Nobody listens: the answer (ICMP port unreachable) goes where its own bytes say.
            assert!(moved.contains(&expected), "{from} > {to}: {moved:?}, not {expected}");
        }
    });
}

#[test]
fn needs_root_options_and_later_fragments_are_not_taken_for_ports() {
    in_a_namespace(|netlink| {
        run("ip", "link set lo mtu 1500");
        done(netlink, &small_tree());
        let port = [matching(None, None, None, Some(5001))];
        done(netlink, &add_rules(Pref(100), Family::V4, &rules(Family::V4, &port, 0x10)));
        done(netlink, &add_rules(Pref(102), Family::V6, &rules(Family::V6, &port, 0x11)));
        let (ten, eleven) = (ClassId::ours(Minor(0x10)), ClassId::ours(Minor(0x11)));
        let default = ClassId::DEFAULT;
        let v4 = ("127.0.0.1:4000", "127.0.0.1:5001");
        let v6 = ("[::1]:4000", "[::1]:5001");
        let mut sent = |pair, length, option| sent_with(netlink, pair, length, option);
        assert_eq!(sent(v4, 10, None), BTreeMap::from([(ten, 1)]));
        assert_eq!(sent(v6, 10, None), BTreeMap::from([(eleven, 1)]));
        // The first fragment has the ports; the two later ones hold payload there.
        assert_eq!(sent(v4, 4_000, None), BTreeMap::from([(ten, 1), (default, 2)]));
        // All of them have a fragment header between.
        assert_eq!(sent(v6, 4_000, None), BTreeMap::from([(default, 3)]));
        // Seven NOPs and the end: where ports would be, if nobody looked at the header's length.
        let nops = (libc::IPPROTO_IP, libc::IP_OPTIONS, [1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(sent(v4, 10, Some(nops)), BTreeMap::from([(default, 1)]));
        // A destination option of six bytes of padding.
        let padding = (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, [0, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(sent(v6, 10, Some(padding)), BTreeMap::from([(default, 1)]));
    });
}

#[test]
fn needs_root_the_tag_sends_packets_to_the_classid_of_their_process() {
    in_a_namespace(|netlink| {
        // Without a net_cls mount no process has a classid: nothing matches, all is default.
        done(netlink, &small_tree());
        let bpf = Deciding::load();
        done(netlink, &[bpf.add(Pref(200))]);
        drop(bpf);
        let before = packets(netlink);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        let after = packets(netlink);
        let default = ClassId::DEFAULT;
        assert!(after[&default] > before[&default]);
        assert_eq!(read_filters(netlink)[&Pref(200)], Filter::Tag(Tag::Bpf(PROGRAM)));
    });
}

#[test]
fn needs_root_while_rules_are_swapped_every_packet_sees_the_old_answer_or_the_new() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        // The rule that counts is the last of thirty; those before it do not match.
        let set = |minor: u16| {
            let others = (6000..6029).map(|port| matching(None, None, Some(port), Some(port)));
            let matches: Vec<_> = others.chain([matching(None, None, None, Some(5001))]).collect();
            rules(Family::V4, &matches, minor)
        };
        let mut old = 0;
        done(netlink, &add_rules(Pref::RULES_V4[old], Family::V4, &set(0x10)));
        let before = packets(netlink);
        let sent = packets_sent_during(|| {
            for round in 0..100 {
                let new = 1 - old;
                let next = set(if round % 2 == 0 { 0x11 } else { 0x10 });
                done(netlink, &add_rules(Pref::RULES_V4[new], Family::V4, &next));
                done(netlink, &[filter::delete(LO, ClassId::ROOT, Pref::RULES_V4[old], ETH_P_IP)]);
                old = new;
            }
        });
        let after = packets(netlink);
        let moved = |minor| after[&ClassId::ours(minor)] - before[&ClassId::ours(minor)];
        println!("{sent} packets during 100 swaps");
        assert_eq!(moved(Minor::DEFAULT), 0);
        assert_eq!(moved(Minor(0x10)) + moved(Minor(0x11)), sent);
        assert!(moved(Minor(0x10)) > 0 && moved(Minor(0x11)) > 0);
    });
}

/// Sends one datagram with these options on its socket, and says how many packets each class took.
fn sent_with(
    netlink: &mut Netlink,
    (from, to): (&str, &str),
    length: usize,
    option: Option<(i32, i32, [u8; 8])>,
) -> BTreeMap<ClassId, u64> {
    let socket = UdpSocket::bind(from).unwrap();
    if let Some((level, name, value)) = option {
        let (fd, value) = (socket.as_raw_fd(), value.as_ptr().cast());
        // SAFETY: eight bytes, alive until the call returns, which copies them.
        assert_eq!(unsafe { libc::setsockopt(fd, level, name, value, 8) }, 0);
    }
    let before = packets(netlink);
    // Somebody listens, so that nothing comes back.
    let _listener = UdpSocket::bind(to).unwrap();
    socket.send_to(&vec![0; length], to).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let after = packets(netlink);
    let moved = after.into_iter().map(|(class, count)| (class, count - before[&class]));
    moved.filter(|(_, count)| *count > 0).collect()
}

/// Packets sent by each leaf class.
pub fn packets(netlink: &mut Netlink) -> BTreeMap<ClassId, u64> {
    let records = netlink.dump(&dump::classes(LO), decode::class).unwrap();
    let leaves = records.into_iter().filter(|record| record.parms.level == 0);
    leaves.map(|record| (record.classid, record.counters.sent_packets)).collect()
}

/// An IP packet with a UDP header, as far as rules look.
pub fn udp(from: std::net::SocketAddr, to: std::net::SocketAddr) -> Vec<u8> {
    use std::net::IpAddr::{V4, V6};
    let mut packet = match (from.ip(), to.ip()) {
        (V4(src), V4(dst)) => {
            let mut header = vec![0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        (V6(src), V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 9, 17, 64];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        _ => panic!("two families"),
    };
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 9, 0, 0, b'x']);
    packet
}
