//! From becoming a user to being in the user's class.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::{beside, soon};
use crate::support::accounts::{ANN, BOB, CAROL, DAVE, ERIN, ROOT};
use crate::support::cell::myself;
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Answer, Order};
use crate::support::program::{classid, directory, members, policy};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Events => a_login_under_a_storm_is_placed_at_once, a_login_is_the_users_from_its_first_bytes,
        newcomers_get_a_class_and_give_it_back, lost_events_are_made_up_for;
    On::Every => without_events_processes_are_found_all_the_same;
);

pub const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 30mbit}
";

/// Forks a second, by others.
const STORM: u32 = 2_000;

pub fn storm(seconds: u64) -> Child {
    myself(&["--storm", &STORM.to_string(), &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a storm")
}

/// The median and the 99th of 100, in microseconds, and how many were missed.
fn logins(uid: u32, count: u32, place: &str) -> (u64, u64, usize) {
    let mut tool = myself(&["--logins", &uid.to_string(), &count.to_string(), place]);
    let output = tool.stderr(Stdio::inherit()).output().expect("let them log in");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut times: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    times.sort_unstable();
    let missed = count as usize - times.len();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(u64::MAX);
    (at(50), at(99), missed)
}

fn a_login_under_a_storm_is_placed_at_once() {
    let _world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let mut others = storm(12);
    let before = daemon.cpu();
    let (p50, p99, missed) = logins(ANN.uid, 1_000, "/shaper/user/ann");
    println!("shaper watch: p50 {p50} µs, p99 {p99} µs, missed {missed}");
    let _ = others.wait();
    println!("it used {:?} of processor in 12 s of storm", daemon.cpu().saturating_sub(before));
    assert_eq!(missed, 0);
    // Far more than it takes, on a machine that others use too.
    assert!(p50 < 20_000 && p99 < 100_000, "p50 {p50} µs, p99 {p99} µs");
    assert!(!daemon.log().contains("lost"), "{}", daemon.log());
    assert!(daemon.end().success());
    // What was made stays.
    assert!(counters::classes(UPLINK).by_id.contains_key(&classid("user/ann")));
}

/// A server accepts as root, and its child becomes the user and sends at once.
fn a_login_is_the_users_from_its_first_bytes() {
    let mut world = World::new();
    let _daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let mut sshd = world.actor(ROOT);
    let listener = sshd.socket(&Order::Listen(world.host_at(Family::V4, 2222)));
    let from_afar = world.far.connect(world.host_at(Family::V4, 2222));
    world.far.tell(&Order::Drain { socket: from_afar, port: 2222 });
    let socket = sshd.socket(&Order::Accept(listener));
    let before = counters::classes(UPLINK);
    let child = match sshd.tell(&Order::Hand { socket, to: ANN }) {
        Answer::Child(pid) => pid,
        other => panic!("{other:?}"),
    };
    sleep(Duration::from_secs(3));
    assert!(members("user/ann").contains(&child));
    let after = counters::classes(UPLINK);
    let sent = |class: &str| after.class(class).bytes - before.class(class).bytes;
    let (ann, default) = (sent(&classid("user/ann")), sent("1:fffe"));
    println!("ann {ann} bytes, default {default} bytes");
    assert!(ann > 5_000_000, "{ann}");
    // What was queued before the child was moved, a millisecond or two after it became ann: it pours
    // without a pause, so at most what the default class's queue holds.
    assert!(default < 400_000, "{default} of {ann} bytes went through the default class");
}

fn newcomers_get_a_class_and_give_it_back() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 10mbit}
groups: {students: {gid: students, ceil: 60mbit, each: {ceil: 20mbit}}}
everyone: 25mbit
";
    let daemon = Daemon::with_events(&["watch", "--grace", "2", &policy(text)]);
    let place = |account| format!("uid/{account}");
    assert!(!directory(&place(CAROL.uid)).exists());
    let patience = Duration::from_secs(5);
    {
        let [carol, dave, erin] = [CAROL, DAVE, ERIN].map(|account| world.actor(account));
        for (actor, uid) in [(&carol, CAROL.uid), (&dave, DAVE.uid), (&erin, ERIN.uid)] {
            let took = soon("a class for a newcomer", patience, || {
                directory(&place(uid)).exists() && members(&place(uid)).contains(&actor.pid())
            });
            println!("{uid}: placed after {took:?}");
        }
        let classes = counters::classes(UPLINK);
        let group = classid("group/students");
        for uid in [DAVE.uid, ERIN.uid] {
            let class = classes.class(&classid(&place(uid)));
            assert_eq!(class.parent.as_ref(), Some(&group), "{}", daemon.log());
        }
        assert_eq!(classes.class(&classid(&place(CAROL.uid))).ceil, 25_000_000);
        let status = beside(&["status", "carol"]).exits(0);
        assert!(status.stdout.contains("carol"), "{}", status.stdout);
    }
    let class = classid(&place(CAROL.uid));
    soon("the classes are given back", Duration::from_secs(20), || {
        [CAROL, DAVE, ERIN].iter().all(|account| !directory(&place(account.uid)).exists())
            && !counters::classes(UPLINK).by_id.contains_key(&class)
    });
    // No repair, no change of the policy: nothing that an administrator must read.
    beside(&["plan", "--exit-code", &policy(text)]).exits(0);
}

/// Stopped while others fork, the daemon loses events; a login among them is found all the same.
fn lost_events_are_made_up_for() {
    use nix::sys::signal::Signal;
    let world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    daemon.signal(Signal::SIGSTOP);
    let bob = world.actor(BOB);
    // Enough to fill any buffer: the kernel tells of each fork, program and end.
    let mut others = myself(&["--storm", "20000", "5"]).stdout(Stdio::null()).spawn().unwrap();
    let _ = others.wait();
    let ann = world.actor(ANN);
    assert!(!members("user/ann").contains(&ann.pid()));
    daemon.signal(Signal::SIGCONT);
    let took = soon("both are placed", Duration::from_secs(5), || {
        members("user/ann").contains(&ann.pid()) && members("user/bob").contains(&bob.pid())
    });
    println!("placed {took:?} after it went on; events lost: {}", daemon.log().contains("lost"));
}

/// A process namespace of its own, as in a container: there are no events.
fn without_events_processes_are_found_all_the_same() {
    let world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    assert!(daemon.log().contains("no process events"), "{}", daemon.log());
    let ann = world.actor(ANN);
    soon("ann is placed", Duration::from_secs(20), || members("user/ann").contains(&ann.pid()));
    assert!(daemon.end().success());
}
