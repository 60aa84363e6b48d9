//! The measuring itself, against trees that `tc` made: if these fail, no other number here means
//! anything.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, DAVE};
use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::orders::Proto;
use crate::support::program;
use crate::support::rates::{self, Interval, MBIT, percentile, within};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_hand_made_tree_measures_at_its_rates, numbered_datagrams_show_what_was_lost, every_byte_is_counted_where_it_belongs, an_actor_is_its_user, classes_parse, the_probe_sees_a_queue;
);

/// 1:10 at 40 Mbit, 1:11 at 20, the default at 1, on a link of 100. A GSO packet of 64 kB is 26 ms
/// of 20 Mbit: what one more or less changes in five seconds is half a percent.
fn hand_made(ports: [u16; 2]) {
    run("tc qdisc add dev up0 root handle 1: htb default fffe");
    run(
        "tc class add dev up0 parent 1: classid 1:1 htb rate 100mbit burst 100k cburst 100k quantum 60000",
    );
    for (class, rate) in [("10", 40), ("11", 20), ("fffe", 1)] {
        run(&format!(
            "tc class add dev up0 parent 1:1 classid 1:{class} htb rate {rate}mbit burst 10k quantum 60000"
        ));
        // Room for two GSO packets of 64 kB: with less, TCP over veth starves, because a packet
        // larger than the limit never fits, and is cut no smaller when it is tried again.
        let limit = if class == "fffe" { 6_250 } else { 150_000 };
        run(&format!("tc qdisc add dev up0 parent 1:{class} handle {class}: bfifo limit {limit}"));
    }
    for (port, class) in ports.iter().zip(["10", "11"]) {
        for (family, word, pref) in [("ip", "ip", 100), ("ipv6", "ip6", 102)] {
            run(&format!(
                "tc filter add dev up0 parent 1: protocol {family} pref {pref} u32 \
                 match {word} dport {port} 0xffff flowid 1:{class}"
            ));
        }
    }
}

fn a_hand_made_tree_measures_at_its_rates() {
    let mut world = World::new();
    let (mut ann, mut bob) = (world.stream(ANN, Family::V4), world.stream(BOB, Family::V6));
    hand_made([ann.port, bob.port]);
    ann.actor.pour(ann.socket);
    bob.actor.pour(bob.socket);
    sleep(Duration::from_secs(1));
    let expected: &[rates::Expected<'_>] = &[(&["1:10"], 40 * MBIT, 2), (&["1:11"], 20 * MBIT, 2)];
    let interval = rates::expect(UPLINK, Duration::from_secs(5), expected);
    let (from, to) = (interval.before.at, interval.after.at);
    // TCP's payload in 1514 bytes: 1448 over IPv4, 1428 over IPv6.
    within("ann's goodput", world.seen(&ann).rate(from, to), 40 * MBIT * 1448 / 1514, 2);
    within("bob's goodput", world.seen(&bob).rate(from, to), 20 * MBIT * 1428 / 1514, 2);
    interval.others_stay_below(2_000, &["1:10", "1:11"]);
}

fn every_byte_is_counted_where_it_belongs() {
    let mut world = World::new();
    let mut ann = world.stream(ANN, Family::V4);
    hand_made([ann.port, 1]);
    let before = counters::classes(UPLINK);
    ann.actor.pour(ann.socket);
    sleep(Duration::from_secs(2));
    let sent = world.finish(&mut ann);
    let interval = Interval::since(before, UPLINK);
    let counted = interval.bytes("1:10");
    assert!(counted > sent, "{counted} bytes with headers, {sent} without");
    assert!(counted < sent * 1514 / 1448 * 102 / 100, "{counted} bytes counted for {sent}");
    interval.others_stay_below(2_000, &["1:10"]);
}

fn numbered_datagrams_show_what_was_lost() {
    let mut world = World::new();
    hand_made([1, 2]);
    // Twice what the default class carries: about half must be missing, none may come twice.
    let mut dave = world.beating(DAVE, Family::V6, 2 * MBIT);
    sleep(Duration::from_secs(3));
    let (_, packets) = dave.actor.stop(dave.socket);
    sleep(Duration::from_millis(300));
    let seen = world.far.seen(Proto::Udp, dave.port);
    let sender = &seen.senders[&DAVE.uid];
    println!("{packets} sent, {} came, {} missing", sender.packets, sender.gaps());
    assert_eq!(sender.duplicates, 0);
    assert!((packets * 3 / 10..packets * 7 / 10).contains(&sender.gaps()));
    within("the default", seen.middle_rate(), MBIT * 1_000 / 1_062, 5);
    assert!(seen.longest_silence < 200_000, "{} us of silence", seen.longest_silence);
}

fn an_actor_is_its_user() {
    let world = World::new();
    let mut dave = world.actor(DAVE);
    let status = fs::read_to_string(format!("/proc/{}/status", dave.pid())).unwrap();
    assert!(status.contains("Uid:\t2004\t2004\t2004\t2004"), "{status}");
    assert!(status.contains("Groups:\t2004 3000"), "{status}");
    world.ping_from(&mut dave, Family::V4, 3, 100);
    world.ping_from(&mut dave, Family::V6, 3, 100);
    // What the cell promises: nothing of the machine's own is in sight.
    let links = run("ip -o link");
    assert_eq!(links.lines().count(), 2, "{links}");
    assert!(!Path::new(program::NET_CLS).exists());
    assert!(fs::read_to_string("/proc/self/cgroup").unwrap().contains("net_cls"));
}

fn the_probe_sees_a_queue() {
    let mut world = World::new();
    let mut bob = world.actor(BOB);
    let idle = world.probe(&mut bob, 50, 5);
    hand_made([1, 2]);
    // The default at 1 Mbit with 6,250 bytes of queue: 50 ms when it is full.
    let _dave = world.beating(DAVE, Family::V4, 3 * MBIT);
    sleep(Duration::from_millis(500));
    let full = world.probe(&mut bob, 30, 20);
    println!("idle p50 {} us, full p50 {} us", percentile(&idle, 50), percentile(&full, 50));
    assert!(percentile(&idle, 50) < 5_000);
    assert!((20_000..80_000).contains(&percentile(&full, 50)));
}

fn classes_parse() {
    let text = "class htb 1:10 parent 1:1 leaf 10: prio 2 quantum 60000 rate 5Mbit ceil 1500Kbit \
                linklayer ethernet burst 1600b/1 mpu 0b cburst 1600b/1 mpu 0b level 0 \n \
                Sent 90 bytes 1 pkt (dropped 3, overlimits 4 requeues 0) \n backlog 12Kb 2p requeues 0\n \
                lended: 5 borrowed: 6 giants: 0\n tokens: 40000 ctokens: 20000\n";
    let classes = counters::parse(text);
    let class = &classes["1:10"];
    assert_eq!(class.parent.as_deref(), Some("1:1"));
    assert_eq!((class.prio, class.quantum), (Some(2), Some(60_000)));
    assert_eq!((class.rate, class.ceil, class.burst.as_str()), (5 * MBIT, 1_500_000, "1600b"));
    assert_eq!((class.bytes, class.packets, class.drops, class.overlimits), (90, 1, 3, 4));
    assert_eq!((class.backlog_bytes, class.lends, class.borrows), (12_288, 5, 6));
}
