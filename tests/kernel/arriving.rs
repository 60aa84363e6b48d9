//! What arrives: the same tree on an ifb, whose classes hold a user's downloads.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::faults::{apply_gated, every_step_fails, populated};
use crate::host::CROWD;
use crate::support::accounts::{ANN, BOB, ROOT};
use crate::support::actor::Actor;
use crate::support::clock::{Micros, soon};
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, binary, classid, policy, shaper};
use crate::support::rates::{self, Interval, MBIT};
use crate::support::world::{Family, World};

tests!(
    On::Every => what_arrives_is_in_its_users_class_whatever_it_is;
    On::HostAndUml => a_download_is_held_to_its_users_down,
        a_daemon_repairs_an_ifb_that_is_gone_or_down_at_once;
    On::HostAndNight => a_rule_holds_for_the_answers_too,
        a_rule_that_asks_who_sends_holds_for_the_answers_too,
        a_run_that_is_killed_never_cuts_the_host_off;
    On::Host => what_is_changed_by_hand_never_cuts_the_host_off_and_is_repaired,
        a_link_whose_firewall_would_see_nothing_of_what_arrives_is_refused,
        a_step_that_fails_leaves_all_as_it_was,
        a_down_comes_to_a_link_that_has_shards;
);

const IFB: &str = "ifb-up0";

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}}
users:
  ann: {ceil: 20mbit, down: 10mbit}
  bob: 20mbit
";

pub fn a_download_is_held_to_its_users_down() {
    let mut world = World::new();
    let mut ann = world.downloading(ANN, Family::V4);
    let first = apply(POLICY);
    assert!(first.stdout.contains("+ ann 20mbit, down 10mbit\n"), "{}", first.stdout);
    assert!(run("ip link show").contains(IFB));
    let again = apply(POLICY);
    assert!(!again.stdout.contains('+'), "{}", again.stdout);
    let of_ann = classid("user/ann");
    sleep(Duration::from_secs(1));
    let began = Micros::now();
    let over = rates::expect(IFB, Duration::from_secs(3), &[(&[&of_ann], 10 * MBIT, 2)]);
    over.others_stay_below(10_000, &[&of_ann]);
    let payload = ann.seen().rate(began, Micros::now());
    rates::between("what ann has received", payload, 9 * MBIT, 10 * MBIT);
    // Another has what is left.
    let mut bob = world.downloading(BOB, Family::V6);
    sleep(Duration::from_secs(1));
    let of_bob = classid("user/bob");
    rates::expect(
        IFB,
        Duration::from_secs(3),
        &[(&[&of_ann], 10 * MBIT, 2), (&["1:1"], 50 * MBIT, 2), (&[&of_bob], 40 * MBIT, 3)],
    );
    assert!(bob.seen().bytes > 0);
    shaper(&["clear"]).exits(0);
    assert!(!run("ip link show").contains(IFB));
    let left = run("tc filter show dev up0 ingress") + &run("tc filter show dev up0 egress");
    assert_eq!(left, "", "no filter of ours is left");
}

pub fn what_arrives_is_in_its_users_class_whatever_it_is() {
    let mut world = World::new();
    apply(POLICY);
    let of_ann = classid("user/ann");
    let mut ann = world.actor(ANN);
    let before = classes(IFB);
    for family in [Family::V4, Family::V6] {
        world.ping_from(&mut ann, family, 20, 56);
        // In fragments.
        world.ping_from(&mut ann, family, 20, 4_000);
        let rtts = world.probe(&mut ann, 20, 5);
        assert_eq!(rtts.len(), 20);
    }
    let after = Interval::since(before, IFB);
    assert!(after.bytes(&of_ann) > 160_000, "{after:?}");
    after.others_stay_below(1_000, &[&of_ann]);
}

/// Nothing is left to do, and packets arrive.
#[track_caller]
fn assert_well(world: &World, ann: &mut Actor, what: &str) {
    let plan = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(plan.status, Some(0), "{what}: {}", plan.stdout);
    let before = classes(IFB);
    world.ping_from(ann, Family::V4, 3, 56);
    let after = Interval::since(before, IFB);
    assert!(after.bytes(&classid("user/ann")) >= 3 * 98, "{what}: {after:?}");
}

fn what_is_changed_by_hand_never_cuts_the_host_off_and_is_repaired() {
    let world = World::new();
    apply(POLICY);
    let mut ann = world.actor(ANN);
    assert_well(&world, &mut ann, "at first");
    for line in [
        "ip link del ifb-up0",
        "tc qdisc del dev ifb-up0 root",
        "tc filter del dev up0 ingress",
        "tc filter del dev up0 egress",
        "tc filter del dev ifb-up0 parent 1:",
        "tc filter del dev ifb-up0 parent 1: pref 50",
        "tc qdisc del dev up0 clsact",
        "tc qdisc del dev up0 root",
        "tc class change dev ifb-up0 classid 1:1 htb rate 9mbit quantum 60000",
        "ip link set ifb-up0 name other",
    ] {
        run(line);
        world.ping_from(&mut ann, Family::V4, 2, 56);
        let repair = apply(POLICY);
        assert!(repair.stdout.contains("ifb-up0") || repair.stdout.contains("up0"), "{line}");
        assert_well(&world, &mut ann, line);
        assert!(!run("ip link show").contains("other"), "{line}");
    }
    // A policy without a `down` makes nothing, and takes what there was away.
    let up_only = POLICY.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    apply(&up_only);
    world.ping_from(&mut ann, Family::V4, 2, 56);
    let left = run("ip link show") + &run("tc filter show dev up0 ingress");
    assert!(!left.contains("ifb") && !left.contains("shaper"), "{left}");
    assert!(!run("tc filter show dev up0 egress").contains("shaper-learn"));
    let plan = shaper(&["plan", "--exit-code", &policy(&up_only)]);
    assert_eq!(plan.status, Some(0), "{}", plan.stdout);
}

fn a_rule_holds_for_the_answers_too() {
    let mut world = World::new();
    // The far side's own addresses are the destination of what is sent, and so the source of what
    // comes back.
    apply(&format!(
        "{POLICY}classes: {{bulk: {{ceil: 10mbit, down: 4mbit}}}}\n\
         rules: [{{dst: fd77::2, proto: tcp, to: bulk}}]\n"
    ));
    let (bulk, of_ann) = (classid("class/bulk"), classid("user/ann"));
    let mut ann = world.downloading(ANN, Family::V6);
    sleep(Duration::from_secs(1));
    let over = rates::expect(IFB, Duration::from_secs(3), &[(&[&bulk], 4 * MBIT, 3)]);
    over.others_stay_below(10_000, &[&bulk]);
    assert!(ann.seen().bytes > 0);
    world.ping_from(&mut ann.actor, Family::V6, 3, 56);
    assert!(classes(IFB).class(&of_ann).packets >= 3);
}

/// In file order at both ends, also where an earlier rule does not ask.
fn a_rule_that_asks_who_sends_holds_for_the_answers_too() {
    let mut world = World::new();
    let rules = |first: &str| {
        format!(
            "{POLICY}classes:\n  bulk: {{ceil: 10mbit, down: 4mbit}}\n  \
             rest: {{ceil: 10mbit, down: 6mbit}}\n\
             rules:\n{first}  - {{from: ann, dst: fd77::2, to: bulk}}\n  - {{dst: fd77::2, to: rest}}\n"
        )
    };
    apply(&rules(""));
    let (bulk, rest) = (classid("class/bulk"), classid("class/rest"));
    let of_ann = classid("user/ann");
    let mut ann = world.downloading(ANN, Family::V6);
    let mut bob = world.downloading(BOB, Family::V6);
    sleep(Duration::from_secs(1));
    let wanted: [rates::Expected<'_>; 2] = [(&[&bulk], 4 * MBIT, 3), (&[&rest], 6 * MBIT, 3)];
    let over = rates::expect(IFB, Duration::from_secs(3), &wanted);
    over.others_stay_below(10_000, &[&bulk, &rest]);
    assert!(ann.seen().bytes > 0 && bob.seen().bytes > 0);
    // In her own class without the rule's other keys.
    world.ping_from(&mut ann.actor, Family::V4, 3, 56);
    assert!(classes(IFB).class(&of_ann).packets >= 3);
    // Whoever asks for it otherwise, is before her rule.
    apply(&rules("  - {dst: fd77::2, proto: icmpv6, to: rest}\n"));
    drop(bob);
    sleep(Duration::from_secs(1));
    let before = classes(IFB);
    world.ping_from(&mut ann.actor, Family::V6, 10, 1_000);
    let after = Interval::since(before, IFB);
    assert!(after.bytes(&rest) >= 10 * 1_000, "{after:?}");
    // And without rules all is as before.
    apply(POLICY);
    assert_well(&world, &mut ann.actor, "without rules");
    let left = run("tc filter show dev ifb-up0 parent 1:");
    assert!(!left.contains("rules=1") && left.contains("shaper-find"), "{left}");
}

fn a_daemon_repairs_an_ifb_that_is_gone_or_down_at_once() {
    let world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let mut ann = world.actor(ANN);
    let in_sync = || shaper(&["plan", "-q", "--exit-code", &policy(POLICY)]).status == Some(0);
    soon("all stands", Duration::from_secs(10), in_sync);
    for line in ["ip link set ifb-up0 down", "ip link del ifb-up0", "tc qdisc del dev up0 clsact"] {
        run(line);
        let is_up = || {
            let links = run("ip -o link show type ifb");
            links.contains("ifb-up0") && links.contains("UP")
        };
        let took = soon(line, Duration::from_secs(10), is_up);
        println!("{line}: repaired {took:?} later");
        soon(line, Duration::from_secs(10), in_sync);
        world.ping_from(&mut ann, Family::V4, 2, 56);
        sleep(Duration::from_millis(500));
    }
    assert!(daemon.end().success());
}

/// Both ways: what is made for a `down`, and what goes with it.
fn a_step_that_fails_leaves_all_as_it_was() {
    let mut host = populated();
    let up_only = POLICY.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    host.go_to_text(&up_only);
    for (text, least) in [(POLICY, 10), (up_only.as_str(), 4)] {
        host.take_up(text).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let steps = every_step_fails(&mut host, apply_gated);
        assert!(steps >= least, "{steps} steps");
        host.is_in_sync();
    }
}

/// What finds flows in a shard needs the map of what notes them, as the root's does.
fn a_down_comes_to_a_link_that_has_shards() {
    let mut host = populated();
    host.request.intent.options.sharding = CROWD;
    let up_only = POLICY.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    host.go_to_text(&up_only);
    assert!(run("tc qdisc show dev up0").contains(" e00"), "shards");
    host.take_up(POLICY).unwrap_or_else(|e| panic!("{}", e.text(false)));
    every_step_fails(&mut host, apply_gated);
    host.is_in_sync();
    assert!(run("tc qdisc show dev ifb-up0").contains(" e00"), "shards of what arrives");
    // One more of them.
    let more = POLICY.replace("bob: 20mbit", "bob: 20mbit\n  carol: 20mbit\n  dave: 20mbit");
    host.go_to_text(&more);
    host.is_in_sync();
}

/// Gives nftables the link's ingress hook, in a chain `guard in`.
fn guard_ingress(link: &str) {
    const NETDEV: u8 = 5;
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]| {
        let length = u32::try_from(20 + attributes.len()).expect("short");
        let head = [kind.to_ne_bytes(), flags.to_ne_bytes()].concat();
        let id = [&[family, 0][..], &resource.to_be_bytes()].concat();
        [&length.to_ne_bytes()[..], &head, &[1, 0, 0, 0], &[0; 4], &id, attributes].concat()
    };
    let (nested, nftables, request, make) = (0x8000, 10, 1, 0x405);
    let name = |kind, text: &str| attribute(kind, format!("{text}\0").as_bytes());
    let hook = [attribute(1, &[0; 4]), attribute(2, &[0; 4]), name(3, link)].concat();
    let chain =
        [name(1, "guard"), name(3, "in"), attribute(4 | nested, &hook), name(7, "filter")].concat();
    let batch = [
        message(0x10, request, 0, nftables, &[]),
        message(nftables << 8, make, NETDEV, 0, &name(1, "guard")),
        message(nftables << 8 | 3, make, NETDEV, 0, &chain),
        message(0x11, request, 0, nftables, &[]),
    ];
    let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER).expect("nft");
    socket.connect(&netlink_sys::SocketAddr::new(0, 0)).expect("connect");
    socket.send(&batch.concat(), 0).expect("send");
    for _ in 0..2 {
        let (answer, _) = socket.recv_from_full().expect("an answer");
        assert_eq!(answer.get(16..20), Some(&[0; 4][..]), "nftables refuses the chain");
    }
}

fn a_link_whose_firewall_would_see_nothing_of_what_arrives_is_refused() {
    let world = World::new();
    apply(POLICY);
    shaper(&["clear"]).exits(0);
    guard_ingress("up0");
    let refused = shaper(&["apply", &policy(POLICY)]).exits(1);
    assert!(refused.stderr.contains("nftables chain guard in"), "{}", refused.stderr);
    assert!(!run("ip link show").contains(IFB));
    let up_only = POLICY.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    apply(&up_only);
    world.ping_from(&mut world.actor(ANN), Family::V4, 2, 56);
    run("nft delete table netdev guard");
    // One that comes later: the kernel tells nobody who hears of links.
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let is_idle = || shaper(&["plan", "-q", "--exit-code", &policy(POLICY)]).status == Some(0);
    soon("all stands", Duration::from_secs(10), is_idle);
    guard_ingress("up0");
    let condition = || shaper(&["status"]).exits(0);
    let refuses = || daemon.log().contains("nftables chain guard in");
    soon("the daemon says so", Duration::from_secs(10), refuses);
    let said = condition();
    assert!(said.stdout.contains("! the nftables chain guard in"), "{}", said.stdout);
    assert!((said.stdout.clone() + &said.stderr).contains("is partial"), "{said:?}");
    // What is in force stays.
    let before = classes(IFB);
    world.ping_from(&mut world.actor(ANN), Family::V4, 3, 56);
    assert!(Interval::since(before, IFB).bytes("1:1") >= 3 * 98);
    run("nft delete table netdev guard");
    let is_well = || {
        let said = condition();
        !(said.stdout + &said.stderr).contains("is partial") && is_idle()
    };
    soon("it is over", Duration::from_secs(10), is_well);
    assert!(daemon.end().success());
    // Nor does it keep other links from being shaped, as at a boot.
    shaper(&["clear"]).exits(0);
    world.on_host("ip link add other0 type veth peer name pother0").exits(0);
    guard_ingress("up0");
    let both = POLICY.replace("links: {", "links: {other0: {rate: 100mbit}, ");
    let daemon = Daemon::start(&["watch", &policy(&both)]);
    assert!(run("tc qdisc show dev other0").contains("htb 1: root"), "{}", daemon.log());
    assert!(!run("tc qdisc show dev up0").contains("htb 1: root"), "{}", daemon.log());
    assert!(daemon.end().success());
}

/// Killed at any moment the run leaves a host that can be reached, and the next one ends it.
fn a_run_that_is_killed_never_cuts_the_host_off() {
    let world = World::new();
    let mut root = world.actor(ROOT);
    let up_only = POLICY.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    for (from, to) in [(up_only.as_str(), POLICY), (POLICY, up_only.as_str())] {
        for milliseconds in [2, 6, 10, 15, 20, 30, 45] {
            apply(from);
            let file = policy(to);
            let mut command = Command::new(binary());
            command.args(["apply", "-q", &file]).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("start an apply");
            sleep(Duration::from_millis(milliseconds));
            child.kill().expect("kill it");
            child.wait().expect("it ends");
            world.ping_from(&mut root, Family::V4, 1, 56);
            world.ping_from(&mut root, Family::V6, 1, 56);
            apply(to);
            let plan = shaper(&["plan", "--exit-code", &policy(to)]);
            assert_eq!(plan.status, Some(0), "{}", plan.stdout);
        }
    }
}
