//! The set-up of every textbook: two users, a class each, two u32 rules, and a default for the
//! rest.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL, ROOT};
use crate::support::counters;
use crate::support::harness::{On, Place, tests};
use crate::support::program::{apply, classid, raw_classid, shaper};
use crate::support::rates::{self, Interval, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => classes_send_at_their_rates, tcp_udp_and_icmp_of_both_families_carry_the_tag;
    On::HostAndUml => a_streams_bytes_are_counted_in_its_class_alone, rules_come_before_the_tag;
);

const POLICY: &str = r#"
version: 1
links:
  up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 10mbit}}
users:
  ann: {rate: 40mbit, classid: "1:10"}
  bob: {rate: 20mbit, classid: "1:11"}
rules:
  - {src: 1.2.3.4, proto: tcp, dport: 80, to: ann}
  - {src: 1.2.3.4, to: bob}
"#;

/// What may pass through a class that nobody sends through: neighbour discovery, a late SYN.
const NOISE: u64 = 3_000;

fn classes_send_at_their_rates() {
    let mut world = World::new();
    // The lab's machines are emulated: what is measured there should be the class, not their CPU.
    let (a, b) = if Place::current() == Place::Host { (40, 20) } else { (8, 4) };
    let policy = POLICY.replace("40mbit", &format!("{a}mbit"));
    let policy = policy.replace("20mbit", &format!("{b}mbit"));
    let emulated = matches!(Place::current(), Place::Qemu | Place::Newest);
    if emulated {
        // Two streams that nothing shapes would leave no processor there to the apply.
        apply(&policy);
    }
    // Both streams are open, and running, before anything shapes them.
    let (ann, bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V6));
    apply(&policy);
    assert_eq!(raw_classid("user/ann"), 0x0001_0010);
    assert_eq!(raw_classid("user/bob"), 0x0001_0011);
    let status = shaper(&["status", "--json"]).exits(0).json();
    assert_eq!(status["links"][0]["classifier"], "bpf", "every kernel here takes eBPF");
    sleep(Duration::from_secs(2));
    let expected: &[rates::Expected<'_>] = &[(&["1:10"], a * MBIT, 2), (&["1:11"], b * MBIT, 2)];
    let low = if emulated { 83 } else { 93 };
    let streams = [("ann", &ann, a * MBIT), ("bob", &bob, b * MBIT)];
    for last in [false, false, true] {
        let interval = rates::expect(UPLINK, Duration::from_secs(5), expected);
        interval.others_stay_below(NOISE, &["1:10", "1:11"]);
        let (from, to) = (interval.before.at, interval.after.at);
        let mut goodput = |stream| world.seen(stream).rate(from, to);
        // As with rates: one that is too low is measured again, one that is too high never is.
        if !last && streams.iter().any(|(_, stream, rate)| goodput(stream) < rate * low / 100) {
            continue;
        }
        for (who, stream, rate) in streams {
            let what = format!("goodput of {who}");
            between(&what, goodput(stream), rate * low / 100, rate * 98 / 100);
        }
        break;
    }
}

fn a_streams_bytes_are_counted_in_its_class_alone() {
    let mut world = World::new();
    apply(POLICY);
    for family in [Family::V4, Family::V6] {
        let mut stream = world.stream(ANN, family);
        apply(POLICY);
        let before = counters::classes(UPLINK);
        stream.actor.pour(stream.socket);
        sleep(Duration::from_secs(2));
        let sent = world.finish(&mut stream);
        let interval = Interval::since(before, UPLINK);
        let counted = interval.bytes("1:10");
        println!("{family:?}: {sent} bytes of payload, {counted} counted");
        assert!(
            counted >= sent,
            "{} bytes went elsewhere: {:?}",
            sent - counted,
            interval.leaves()
        );
        assert!(counted <= sent * 108 / 100, "more than headers and a few repeats");
        interval.others_stay_below(NOISE, &["1:10"]);
    }
}

pub fn tcp_udp_and_icmp_of_both_families_carry_the_tag() {
    let mut world = World::new();
    let streams = [Family::V4, Family::V6].map(|family| world.stream(ANN, family));
    let mut actors = [Family::V4, Family::V6].map(|family| (family, world.actor(ANN)));
    apply(POLICY);
    let sent_by_ann = |what: &str, before: counters::Classes, at_least: u64| {
        let interval = Interval::since(before, UPLINK);
        assert!(interval.bytes("1:10") >= at_least, "{what}: {:?}", interval.leaves());
        interval.others_stay_below(NOISE, &["1:10"]);
    };
    for mut stream in streams {
        let before = counters::classes(UPLINK);
        stream.actor.pour(stream.socket);
        sleep(Duration::from_millis(300));
        let sent = world.finish(&mut stream);
        sent_by_ann("tcp", before, sent);
    }
    for (family, actor) in &mut actors {
        let before = counters::classes(UPLINK);
        world.udp(actor, *family, 1_000_000, Duration::from_millis(500));
        sent_by_ann("udp", before, 50_000);
        let before = counters::classes(UPLINK);
        world.ping_from(actor, *family, 20, 1_000);
        sent_by_ann("icmp", before, 20_000);
    }
}

fn rules_come_before_the_tag() {
    let mut world = World::new();
    // Carol has no line: but for the rules she would be in the default.
    let mut to_ann = world.stream_from_1_2_3_4(CAROL, 80);
    let mut to_bob = world.stream_from_1_2_3_4(ANN, 81);
    let mut to_default = world.stream(ROOT, Family::V4);
    apply(POLICY);
    assert_eq!(classid("user/ann"), "1:10");
    for (stream, class) in
        [(&mut to_ann, "1:10"), (&mut to_bob, "1:11"), (&mut to_default, "1:fffe")]
    {
        let before = counters::classes(UPLINK);
        stream.actor.pour(stream.socket);
        sleep(Duration::from_millis(500));
        let sent = world.finish(stream);
        let interval = Interval::since(before, UPLINK);
        assert!(interval.bytes(class) >= sent, "{class}: {sent} sent, {:?}", interval.leaves());
        interval.others_stay_below(NOISE, &[class]);
    }
}
