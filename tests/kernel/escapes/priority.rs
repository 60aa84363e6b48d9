//! HTB obeys `skb->priority` before any filter. Nobody on the host can set one that names a class
//! without a capability; whoever is root in a guest of a macvlan or ipvlan can.

use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::guest::{COUNT, Sender};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, shaper};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_macvlans_guest_cannot_name_a_class, what_others_have_at_clsact_stays,
        an_ingress_qdisc_has_the_place_of_clsact;
    On::Carriers => an_ipvlans_guest_cannot_name_a_class;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 50mbit}}}
users: {ann: 10mbit}
";

/// `1:0`, the root qdisc itself: past every class. And `1:fffd`.
const DIRECT: i32 = 0x0001_0000;
const UNSHAPED: i32 = 0x0001_fffd;

/// Packets that went past all limits.
fn unlimited() -> u64 {
    let text = run(&format!("tc -s -d qdisc show dev {UPLINK} root"));
    let (_, rest) = text.split_once("direct_packets_stat ").expect("HTB's counter");
    let direct: u64 = rest.split(' ').next().unwrap_or_default().parse().expect("a number");
    direct + classes(UPLINK).class("1:fffd").packets
}

/// How many of those that it sends with each priority go past all limits.
fn escape(sender: &mut Sender, world: &World) -> [u64; 2] {
    let to = world.far_at(Family::V4, 9);
    [DIRECT, UNSHAPED].map(|priority| {
        let before = unlimited();
        sender.send(priority, to);
        unlimited() - before
    })
}

fn is_guarded(how: &str) {
    let world = World::new();
    let mut guest = Sender::guest();
    run(&format!("ip link add link {UPLINK} name guest0 type {how}"));
    guest.give("guest0", "10.77.0.9/24");
    let mut host = Sender::host();
    apply(POLICY);
    assert_eq!(escape(&mut guest, &world), [0, 0]);
    assert!(classes(UPLINK).class("1:fffe").packets >= 2 * COUNT, "they are in the default class");
    // What root on the host asks for is not touched, where the kernel can tell.
    let filter = run(&format!("tc filter show dev {UPLINK} egress"));
    let tells = ["sockets=own:", "sockets=inode:"].iter().any(|word| filter.contains(word));
    let wanted = if tells { [COUNT; 2] } else { [0; 2] };
    assert_eq!(escape(&mut host, &world), wanted, "{filter}");

    run(&format!("tc filter del dev {UPLINK} egress"));
    assert_eq!(escape(&mut guest, &world), [COUNT; 2], "nothing else stops them");
    let repaired = apply(POLICY).stdout;
    assert!(repaired.contains("~ up0 (programs at clsact)"), "{repaired}");
    assert_eq!(escape(&mut guest, &world), [0, 0]);
    let again = apply(POLICY).stdout;
    assert!(again.starts_with("in sync"), "{again}");

    // Also where it goes with its qdisc, and where the root goes without it.
    run(&format!("tc qdisc del dev {UPLINK} clsact"));
    apply(POLICY);
    run(&format!("tc qdisc del dev {UPLINK} root"));
    apply(POLICY);
    assert_eq!(escape(&mut guest, &world), [0, 0]);
    run(&format!("tc qdisc del dev {UPLINK} root"));
    shaper(&["clear"]).exits(0);
    assert!(!run(&format!("tc qdisc show dev {UPLINK}")).contains("clsact"));
}

pub fn a_macvlans_guest_cannot_name_a_class() {
    is_guarded("macvlan mode bridge");
}

fn an_ipvlans_guest_cannot_name_a_class() {
    is_guarded("ipvlan mode l2");
}

fn what_others_have_at_clsact_stays() {
    let _world = World::new();
    let tc = |line: &str| run(&format!("tc {line}"));
    tc(&format!("qdisc add dev {UPLINK} clsact"));
    let theirs = "u32 match u32 0 0 flowid 1:1";
    tc(&format!("filter add dev {UPLINK} egress protocol all pref 1 {theirs}"));
    apply(POLICY);
    let shown = tc(&format!("filter show dev {UPLINK} egress"));
    assert!(shown.contains("pref 1 u32") && shown.contains("pref 2 bpf"), "{shown}");
    shaper(&["clear"]).exits(0);
    let shown = tc(&format!("filter show dev {UPLINK} egress"));
    assert!(shown.contains("pref 1 u32") && !shown.contains("bpf"), "{shown}");
    // No place at all.
    tc(&format!("filter add dev {UPLINK} egress protocol all pref 2 {theirs}"));
    let said = apply(POLICY);
    assert!(said.stderr.contains("past every limit"), "{}", said.stderr);
    assert!(!tc(&format!("filter show dev {UPLINK} egress")).contains("bpf"));
    // One filter at ingress keeps the qdisc as well.
    for pref in [1, 2] {
        tc(&format!("filter del dev {UPLINK} egress pref {pref}"));
    }
    tc(&format!("filter add dev {UPLINK} ingress protocol all pref 7 {theirs}"));
    apply(POLICY);
    assert!(tc(&format!("filter show dev {UPLINK} egress")).contains("pref 1 bpf"));
    shaper(&["clear"]).exits(0);
    assert!(tc(&format!("filter show dev {UPLINK} ingress")).contains("pref 7 u32"));
}

fn an_ingress_qdisc_has_the_place_of_clsact() {
    let _world = World::new();
    run(&format!("tc qdisc add dev {UPLINK} ingress"));
    let said = apply(POLICY);
    assert!(said.stderr.contains("an `ingress` qdisc stands in the place"), "{}", said.stderr);
    shaper(&["clear"]).exits(0);
    assert!(run(&format!("tc qdisc show dev {UPLINK}")).contains("ingress"));
}
