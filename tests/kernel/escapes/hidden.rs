//! Sockets that retagging does not find, and processes that nobody has placed yet. Each trick is
//! tried twice: as the deciding program has it, all of it is his; with the tag alone it leaves
//! through the default class, up to the link's rate.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::tag_only;
use crate::support::accounts::{ANN, Account, STUDENTS};
use crate::support::clock::soon;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::fugitive::{CONNECTIONS, Fugitive, Trick};
use crate::support::harness::{On, Place, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid, directory, policy, shaper};
use crate::support::rates::{self, Interval, MBIT};
use crate::support::world::{Family, UPLINK, World};

tests!(
    // User-mode Linux and the emulated machine have no io_uring.
    On::Host => a_rings_registered_file_is_its_owners;
    On::HostAndUml => a_threads_own_descriptor_is_its_owners,
        a_process_whose_main_thread_has_ended_is_its_owners, what_is_in_flight_is_its_owners,
        what_is_left_queued_is_its_owners, what_a_set_uid_program_takes_along_is_its_owners,
        what_he_chowns_to_a_subordinate_uid_is_his,
        who_is_born_beside_his_parent_is_in_his_class_at_once;
    On::Events => an_account_that_is_new_has_its_subordinate_uids, a_range_that_is_new_counts_at_once;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
users: {ann: 10mbit}
";
const SUBORDINATE: u32 = 100_000;
const DEFAULT: &str = "1:fffe";

/// Beside what is measured: ARP, neighbour discovery, acknowledgements.
const NOISE: u64 = 60_000;

fn a_rings_registered_file_is_its_owners() {
    hold(Trick::Ring);
}

fn a_threads_own_descriptor_is_its_owners() {
    hold(Trick::OwnTable);
}

fn a_process_whose_main_thread_has_ended_is_its_owners() {
    hold(Trick::EndedMain);
}

fn what_is_in_flight_is_its_owners() {
    hold(Trick::InFlight);
}

fn what_is_left_queued_is_its_owners() {
    hold(Trick::LeftQueued);
}

fn what_a_set_uid_program_takes_along_is_its_owners() {
    hold(Trick::RealUid);
}

/// No process has run in the range. His tag would hold him, but the owner goes first: so the range
/// has to be in the table before anybody uses it.
pub fn what_he_chowns_to_a_subordinate_uid_is_his() {
    let mut world = World::new();
    let attempt = |world: &mut World, ranges: &str| {
        fs::write("/etc/subuid", ranges).expect("write the ranges");
        let sent = attempt(world, Trick::Subordinate, true);
        println!("{ranges:?}: {:?}", sent.leaves());
        sent
    };
    let his = attempt(&mut world, &format!("ann:{SUBORDINATE}:65536\n"));
    let ann = classid("user/ann");
    assert!(his.rate(&ann) > 5 * MBIT, "{:?}", his.leaves());
    his.others_stay_below(NOISE, &[&ann]);
    let nobodys = attempt(&mut world, "");
    assert!(nobodys.rate(DEFAULT) > 20 * MBIT, "it should escape: {:?}", nobodys.leaves());
}

/// The daemon has read the ranges before there was one of his.
pub fn an_account_that_is_new_has_its_subordinate_uids() {
    let mut world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
groups: {students: {gid: students, each: {ceil: 10mbit}}}
";
    let daemon = Daemon::with_events(&["watch", &policy(text)]);
    let zoe = Account { uid: 2_100, gid: STUDENTS, also: None };
    let append = |path: &str, line: String| {
        let text = fs::read_to_string(path).expect("a file of accounts");
        fs::write(path, text + &line).expect("add an account");
    };
    append("/etc/passwd", format!("zoe:x:{}:{}::/:/bin/sh\n", zoe.uid, zoe.gid));
    append("/etc/subuid", format!("zoe:{SUBORDINATE}:65536\n"));
    let port = world.sink(Proto::Tcp);
    let mut fugitive = Fugitive::start(zoe, Trick::Subordinate, world.far_at(Family::V4, port));
    fugitive.map(zoe, SUBORDINATE);
    fugitive.go();
    let claim = format!("uid/{}", zoe.uid);
    soon("zoe has a class", Duration::from_secs(5), || directory(&claim).exists());
    sleep(Duration::from_secs(1));
    let (class, sent) = (classid(&claim), rates::over(UPLINK, Duration::from_secs(1)));
    println!("{:?}", sent.leaves());
    assert!(sent.rate(&class) > 5 * MBIT, "{:?}", sent.leaves());
    sent.others_stay_below(NOISE, &[&class]);
    assert!(daemon.end().success());
}

/// Of an account that the daemon has long known.
pub fn a_range_that_is_new_counts_at_once() {
    let mut world = World::new();
    fs::write("/etc/subuid", "").expect("no ranges");
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    fs::write("/etc/subuid", format!("ann:{SUBORDINATE}:65536\n")).expect("write a range");
    sleep(Duration::from_millis(500));
    let port = world.sink(Proto::Tcp);
    let mut ann = Fugitive::start(ANN, Trick::Subordinate, world.far_at(Family::V4, port));
    ann.map(ANN, SUBORDINATE);
    ann.go();
    sleep(Duration::from_millis(500));
    let (class, sent) = (classid("user/ann"), rates::over(UPLINK, Duration::from_secs(1)));
    assert!(sent.rate(&class) > 5 * MBIT, "{:?}", sent.leaves());
    sent.others_stay_below(NOISE, &[&class]);
    assert!(daemon.end().success());
}

fn who_is_born_beside_his_parent_is_in_his_class_at_once() {
    hold(Trick::Sibling);
}

/// All of them one after the other, without the second try: where there are no tags, no guard can
/// be taken away.
pub fn none_leaves_the_class() {
    let mut world = World::new();
    let has_rings = Place::current() == Place::Host;
    // What goes to a subordinate uid has a test of its own.
    let is_tried = |it: &Trick| match it {
        Trick::Ring => has_rings,
        Trick::Subordinate => false,
        _ => true,
    };
    for trick in Trick::ALL.into_iter().filter(is_tried) {
        is_held(&mut world, trick);
        shaper(&["clear"]).exits(0);
    }
}

fn is_held(world: &mut World, trick: Trick) {
    let guarded = attempt(world, trick, true);
    let ann = classid("user/ann");
    println!("{trick:?}, decided by the owner: {:?}", guarded.leaves());
    assert!(guarded.bytes(&ann) > 300_000, "{trick:?}: {:?}", guarded.leaves());
    assert!(guarded.rate(&ann) < 12 * MBIT, "{trick:?}: {:?}", guarded.leaves());
    guarded.others_stay_below(NOISE, &[&ann]);
}

fn hold(trick: Trick) {
    let mut world = World::new();
    is_held(&mut world, trick);
    if Place::current() != Place::Host && matches!(trick, Trick::OwnTable | Trick::EndedMain) {
        // In Linux 6.1 the tag is that of the task that sends, which has his.
        return println!("{trick:?} does not escape from this kernel's tag");
    }
    // He starts the second time as he did the first time.
    shaper(&["clear"]).exits(0);
    let open = attempt(&mut world, trick, false);
    println!("{trick:?}, decided by the tag: {:?}", open.leaves());
    let enough = if trick.only_leaves() { 300_000 } else { 20 * MBIT / 8 };
    assert!(open.bytes(DEFAULT) > enough, "it should escape: {:?}", open.leaves());
    open.others_stay_below(NOISE, &[DEFAULT]);
}

/// What leaves in a second, once he has gone.
fn attempt(world: &mut World, trick: Trick, guarded: bool) -> Interval {
    // Nobody reads from those that are to stay full.
    let (at, listener) = if trick.only_leaves() {
        let at = world.far_at(Family::V4, 4_001 + 2 * trick as u16 + u16::from(!guarded));
        (at, Some(world.far.socket(&Order::Listen(at))))
    } else {
        let port = world.sink(Proto::Tcp);
        (world.far_at(Family::V4, port), None)
    };
    if trick == Trick::Sibling {
        apply(POLICY);
    }
    let mut ann = Fugitive::start(ANN, trick, at);
    if trick == Trick::Subordinate {
        ann.map(ANN, SUBORDINATE);
    }
    if trick == Trick::LeftQueued {
        ann.go();
    }
    if trick != Trick::Sibling {
        apply(POLICY);
    }
    if trick == Trick::RealUid {
        ann.go();
        // Nobody claims what he is now: he leaves ann's directory.
        apply(POLICY);
    }
    if !guarded {
        tag_only::decides();
    }
    if !matches!(trick, Trick::LeftQueued | Trick::RealUid) {
        ann.go();
    }
    if !trick.only_leaves() {
        // What another class had queued leaves first.
        sleep(Duration::from_millis(400));
    }
    let before = classes(UPLINK);
    if let Some(listener) = listener {
        for _ in 0..CONNECTIONS {
            let socket = world.far.socket(&Order::Accept(listener));
            world.far.tell(&Order::Drain { socket, port: at.port() });
        }
    }
    sleep(Duration::from_secs(1));
    Interval::since(before, UPLINK)
}
