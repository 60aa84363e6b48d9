//! Guarantees, caps and borrowing on a full link, and what a full class does to latency.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::clock::soon;
use crate::support::harness::{On, Place, tests};
use crate::support::orders::Proto;
use crate::support::program::{apply, classid};
use crate::support::rates::{self, MBIT, between, percentile};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => users_get_their_rates_on_a_full_link_and_borrow_up_to_their_ceil,
        a_backup_is_served_when_nobody_else_wants,
        a_groups_ceil_holds_for_its_members_together,
        unshaped_traffic_passes_a_slow_link_at_the_devices_speed,
        latency_stays_low_in_a_users_own_full_class;
);

fn users_get_their_rates_on_a_full_link_and_borrow_up_to_their_ceil() {
    let mut world = World::new();
    let (_ann, mut bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V4));
    apply(
        "
version: 1
links: {up0: {rate: 60mbit, default: {rate: 5mbit}}}
users:
  ann: {rate: 30mbit, ceil: 50mbit}
  bob: {rate: 15mbit, ceil: 60mbit}
",
    );
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    sleep(Duration::from_secs(2));
    let both = rates::expect(UPLINK, Duration::from_secs(4), &[(&["1:1"], 60 * MBIT, 2)]);
    between("ann on the full link", both.rate(&of_ann), 30 * MBIT * 98 / 100, 50 * MBIT);
    between("bob on the full link", both.rate(&of_bob), 15 * MBIT * 98 / 100, 30 * MBIT);
    bob.actor.stop(bob.socket);
    sleep(Duration::from_secs(1));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_ann], 50 * MBIT, 2)]);
}

fn a_backup_is_served_when_nobody_else_wants() {
    let mut world = World::new();
    let (mut ann, _bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V4));
    for backup in ["ceil: 80%, background: true", "ceil: 80%, prio: 7"] {
        apply(&format!(
            "
version: 1
links: {{up0: {{rate: 50mbit, default: {{rate: 5mbit}}}}}}
users:
  ann: 100%
  bob: {{{backup}}}
"
        ));
        sleep(Duration::from_secs(2));
        let all = rates::expect(UPLINK, Duration::from_secs(3), &[(&["1:1"], 50 * MBIT, 2)]);
        between(backup, all.rate(&classid("user/bob")), 0, 2 * MBIT);
    }
    ann.actor.stop(ann.socket);
    // TCP that was given next to nothing for seconds tries again only after its own pause.
    let of_bob = classid("user/bob");
    soon("bob is served", Duration::from_secs(30), || {
        rates::over(UPLINK, Duration::from_millis(500)).rate(&of_bob) > 20 * MBIT
    });
    sleep(Duration::from_secs(1));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_bob], 40 * MBIT, 2)]);
}

fn a_groups_ceil_holds_for_its_members_together() {
    let mut world = World::new();
    let _streams = [ANN, BOB, CAROL].map(|account| world.pouring(account, Family::V4));
    apply(
        "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
groups: {team: {users: [ann, bob], rate: 20mbit, ceil: 40mbit}}
users:
  ann: {ceil: 40mbit}
  bob: {ceil: 40mbit}
  carol: {ceil: 30mbit}
",
    );
    sleep(Duration::from_secs(2));
    let [ann, bob, carol, team] = ["user/ann", "user/bob", "user/carol", "group/team"].map(classid);
    let expected: &[rates::Expected<'_>] =
        &[(&[&ann, &bob], 40 * MBIT, 2), (&[&team], 40 * MBIT, 2), (&[&carol], 30 * MBIT, 2)];
    let interval = rates::expect(UPLINK, Duration::from_secs(4), expected);
    assert!(interval.bytes(&ann) > 0 && interval.bytes(&bob) > 0);
}

fn unshaped_traffic_passes_a_slow_link_at_the_devices_speed() {
    let mut world = World::new();
    let (free, ann) = (world.pouring(BOB, Family::V4), world.pouring(ANN, Family::V4));
    apply(&format!(
        "
version: 1
links: {{up0: {{rate: 20mbit, default: {{rate: 2mbit}}}}}}
users: {{ann: {{rate: 10mbit}}}}
rules: [{{proto: tcp, dport: {}, to: unshaped}}]
",
        free.port
    ));
    sleep(Duration::from_secs(1));
    let ann_class = classid("user/ann");
    let expected: &[rates::Expected<'_>] = &[(&[&ann_class], 10 * MBIT, 5)];
    let interval = rates::expect(UPLINK, Duration::from_secs(3), expected);
    let device = if Place::current() == Place::Host { 400 } else { 100 };
    between("unshaped", interval.rate("1:fffd"), device * MBIT, 40_000 * MBIT);
    assert!(world.seen(&ann).bytes > 0);
}

fn latency_stays_low_in_a_users_own_full_class() {
    let mut world = World::new();
    let mut prober = world.actor(ANN);
    let stream = world.pouring(ANN, Family::V4);
    apply(
        "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 10mbit}
",
    );
    sleep(Duration::from_secs(2));
    let rtts = world.probe(&mut prober, 100, 30);
    let (p50, p99) = (percentile(&rtts, 50), percentile(&rtts, 99));
    println!("{} of 100 came back; p50 {p50} us, p99 {p99} us", rtts.len());
    // fq_codel serves a sparse flow first. Without it and sfq the leaf is a bfifo: one GSO packet
    // of 64 kB more than 50 ms. A pfifo would hold ann's probes for 600 ms.
    let limit = if Place::current() == Place::Host { 150_000 } else { 40_000 };
    assert!(rtts.len() >= 90, "{} probes were lost", 100 - rtts.len());
    assert!(p99 < limit, "p99 {p99} us");
    assert!(world.far.seen(Proto::Tcp, stream.port).bytes > 0);
}
