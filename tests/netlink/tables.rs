//! Rule sets that are hash tables, with real packets on the loopback of the namespace.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shaper::classify::{hash, interpret};
use shaper::netlink::request::{dump, filter};
use shaper::netlink::{ETH_P_IP, decode};
use shaper::plan::{LeftTables, Paths, Place, Step, Tc, Whole};
use shaper::sys::Netlink;
use shaper::tree::{Family, Filter, FoundFilter, LinkName, Parent, Pref, U32Rule, U32Rules};
use shaper::units::{ClassId, Minor, Psched};

use super::filters::{packets, udp};
use super::*;

/// Rules by address, by port, by both in turns, and some that are asked before or between.
fn many(count: u16) -> Vec<U32Rule> {
    let lines = (0..count).flat_map(|n| {
        let host = Ipv4Addr::from(0x7f00_0000 + 2 + u32::from(n % 700)).to_string() + "/32";
        let minor = 0x10 + n % 3;
        let net = format!("127.0.{}.0/28", n % 3);
        let matching = match n % 7 {
            0 | 1 => matching(Some(&host), None, None, None),
            2 | 3 => matching(None, Some(&host), None, None),
            4 => matching(None, None, None, Some(5_000 + n % 97)),
            5 => matching(None, None, Some(5_000 + n % 31), Some(n)),
            _ => matching(Some(&host), Some(&net), None, None),
        };
        let line = NonZeroU32::new(u32::from(n));
        rules(Family::V4, &[matching], minor).into_iter().map(move |it| U32Rule { line, ..it })
    });
    lines.collect()
}

fn v4(rules: &U32Rules) -> Filter {
    Filter::U32 { protocol: Family::V4.into(), rules: rules.clone() }
}

/// Waits until the kernel has freed the keys that led to them, as `execute` does.
fn delete_tables(netlink: &mut Netlink, through: Pref, tables: Vec<u16>) {
    for table in tables {
        let begun = Instant::now();
        let request = filter::delete_table(LO, through, ETH_P_IP, table);
        while let Err(error) = netlink.change(&request).unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(10), "table {table:x}: {error}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn needs_root_tables_read_back_as_they_were_written() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let ports: Vec<_> =
            (0..10_000).map(|port| matching(None, None, None, Some(port))).collect();
        for set in [many(60), many(2_000), rules(Family::V4, &ports, 0x10)] {
            let tables = hash::arrange(Family::V4, set);
            assert!(!tables.tables.is_empty());
            done(netlink, &add_tables(Pref(101), Family::V4, &tables));
            let filters = read_filters(netlink);
            assert!(filters == BTreeMap::from([(Pref(101), v4(&tables))]));
            done(netlink, &[filter::delete(LO, ClassId::ROOT, Pref(101), ETH_P_IP)]);
        }
        // The last pref has taken the tables along.
        run("tc", "class del dev lo classid 1:10");
    });
}

#[test]
fn needs_root_real_packets_agree_with_the_first_rule_that_matches() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        // Somebody listens, so that nothing comes back.
        let listens = |port| UdpSocket::bind(("0.0.0.0", port)).ok();
        let _listeners: Vec<_> = (5_040..5_097).chain(20..60).map(listens).collect();
        for count in [40_u16, 333, 1_000, 3_000] {
            let set = many(count);
            let tables = hash::arrange(Family::V4, set.clone());
            done(netlink, &add_tables(Pref(100), Family::V4, &tables));
            let before = packets(netlink);
            let mut wanted: BTreeMap<ClassId, u64> = BTreeMap::new();
            for n in 0..400_u32 {
                // Numbers that repeat late: every kind of rule is met, alone and with others.
                let host = |n: u32| Ipv4Addr::from(0x7f00_0001 + n * 37 % 800);
                let from = SocketAddrV4::new(host(n), 5_000 + (n * 13 % 40) as u16);
                let port = if n.is_multiple_of(3) { 20 + n % 40 } else { 5_040 + n * 7 % 57 };
                let to = SocketAddrV4::new(host(n / 7 + 3), port as u16);
                UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
                let class = interpret::first_match(&set, &udp(from.into(), to.into()));
                *wanted.entry(class.unwrap_or(ClassId::ours(Minor::DEFAULT))).or_default() += 1;
            }
            std::thread::sleep(Duration::from_millis(50));
            let after = packets(netlink);
            let sent = after.into_iter().map(|(class, count)| (class, count - before[&class]));
            let sent: BTreeMap<_, _> = sent.filter(|(_, count)| *count > 0).collect();
            assert_eq!(sent, wanted, "{count} rules");
            assert!(wanted.len() >= 3, "{wanted:?}");
            done(netlink, &[filter::delete(LO, ClassId::ROOT, Pref(100), ETH_P_IP)]);
        }
    });
}

#[test]
fn needs_root_while_tables_are_swapped_every_packet_sees_the_old_answer_or_the_new() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        // Lists and tables in turns. One rule counts; it is the last, and all before it send
        // elsewhere.
        let set = |round: u16| {
            let others = if round.is_multiple_of(3) { 5 } else { 300 };
            let others = (6_000..6_000 + others)
                .map(|port| matching(Some("127.9.9.9/32"), None, Some(port), Some(port)));
            let mut set = rules(Family::V4, &others.collect::<Vec<_>>(), 0x12);
            let counts = matching(None, None, None, Some(5_001));
            set.extend(rules(
                Family::V4,
                &[counts],
                if round.is_multiple_of(2) { 0x10 } else { 0x11 },
            ));
            hash::arrange(Family::V4, set)
        };
        let mut old = set(0);
        done(netlink, &add_tables(Pref::RULES_V4[0], Family::V4, &old));
        let before = packets(netlink);
        let sent = packets_sent_during(|| {
            for round in 1..40 {
                let nth = usize::from(round % 2);
                let (there, here) = (Pref::RULES_V4[nth], Pref::RULES_V4[1 - nth]);
                let next = set(round);
                done(netlink, &add_tables(there, Family::V4, &next));
                done(netlink, &[filter::delete(LO, ClassId::ROOT, here, ETH_P_IP)]);
                delete_tables(netlink, there, v4(&old).tables(here));
                assert!(read_filters(netlink) == BTreeMap::from([(there, v4(&next))]));
                old = next;
            }
        });
        let after = packets(netlink);
        let moved = |minor| after[&ClassId::ours(minor)] - before[&ClassId::ours(minor)];
        println!("{sent} packets during 39 swaps");
        assert_eq!((moved(Minor::DEFAULT), moved(Minor(0x12))), (0, 0));
        assert_eq!(moved(Minor(0x10)) + moved(Minor(0x11)), sent);
        assert!(moved(Minor(0x10)) > 0 && moved(Minor(0x11)) > 0);
    });
}

/// Runs what `shaper plan --tc` prints.
fn shell(step: &Step) {
    let paths = Paths {
        mount: PathBuf::new(),
        instance: PathBuf::new(),
        mark: mark(),
        psched: Psched::default(),
        place: Place::Here,
    };
    let commands = format!("set -e\n{}", Tc(step, &paths));
    let mut sh = Command::new("sh").stdin(Stdio::piped()).spawn().unwrap();
    sh.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(sh.wait().unwrap().success(), "{commands}");
}

#[test]
fn needs_root_the_printed_commands_make_and_delete_the_same_tables() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let port = LinkName::new("lo").unwrap().egress();
        let (old, new) = (hash::arrange(Family::V4, many(70)), hash::arrange(Family::V4, many(90)));
        let [a, b] = Pref::RULES_V4;
        shell(&Step::Filter(port.clone(), Parent::Root.at(a), Whole::Add(v4(&old))));
        assert_eq!(read_filters(netlink), BTreeMap::from([(a, v4(&old))]));
        shell(&Step::Filter(port.clone(), Parent::Root.at(b), Whole::Add(v4(&new))));
        shell(&Step::Filter(
            port.clone(),
            Parent::Root.at(a),
            Whole::Remove(FoundFilter::Ours(v4(&old))),
        ));
        let tables = v4(&old).tables(a);
        let is_there = |netlink: &mut Netlink, table: &u16| {
            netlink.change(&filter::has_table(LO, b, ETH_P_IP, *table)).unwrap().is_ok()
        };
        assert!(tables.len() > 1 && tables.iter().all(|table| is_there(netlink, table)));
        let protocol = ETH_P_IP;
        shell(&Step::Tables(port, LeftTables { tables: tables.clone(), through: b, protocol }));
        assert!(!tables.iter().any(|table| is_there(netlink, table)));
        assert_eq!(read_filters(netlink), BTreeMap::from([(b, v4(&new))]));
        let left = netlink.dump(&dump::filters(LO, ClassId::ROOT), decode::filter).unwrap();
        assert!(left.iter().all(|record| record.pref == b));
    });
}
