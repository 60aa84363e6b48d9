//! Accounts that the daemon has not met: whose they are, and how soon it knows.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::accounts::{ANN, Account, CAROL, DAVE, STUDENTS, own_etc};
use crate::support::clock::soon;
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{classid, directory, members, policy};
use crate::support::rates::{self, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostEvents => subordinate_uids_have_no_classes_of_their_own,
        members_of_a_group_are_placed_whenever_they_come,
        who_comes_back_finds_the_class_that_still_drains;
);

const PATIENCE: Duration = Duration::from_secs(5);

fn person(uid: u32) -> Account {
    Account { uid, gid: uid, also: None }
}

fn append(path: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("open a file");
    file.write_all(text.as_bytes()).expect("append to it");
}

/// LXD's range of root's, a user's own, and accounts of a directory in both.
fn subordinate_uids_have_no_classes_of_their_own() {
    own_etc();
    let mut world = World::new();
    append("/etc/passwd", "adam:x:120000:120000::/:/bin/sh\nbroker:x:1000000042:7::/:/bin/sh\n");
    fs::write("/etc/subuid", "root:1000000:1000000000\n").expect("write the ranges");
    let text = "
version: 1
links: {up0: {rate: 200mbit, default: {rate: 5mbit, ceil: 200mbit}}}
users: {ann: 20mbit}
everyone: 10mbit
";
    let daemon = Daemon::with_events(&["watch", &policy(text)]);
    let shared = "subuid/1000000-1000999999";
    let many: Vec<_> =
        (1_000_100..1_000_112).map(|uid| world.pouring(person(uid), Family::V4)).collect();
    for stream in &many {
        soon("a subordinate uid of nobody's is in the range's class", PATIENCE, || {
            members(shared).contains(&stream.actor.pid())
        });
    }
    // A range that was given since.
    append("/etc/subuid", "ann:100000:65536\n");
    let places = [
        (100_007, "user/ann".to_string()),
        (120_000, "uid/120000".to_string()),
        (1_000_000_042, "uid/1000000042".to_string()),
    ];
    for (uid, place) in places {
        let actor = world.actor(person(uid));
        let took = soon("a place by account or owner", PATIENCE, || {
            directory(&place).exists() && members(&place).contains(&actor.pid())
        });
        println!("{uid}: in {place} after {took:?}");
    }
    for uid in 1_000_100..1_000_112 {
        assert!(!directory(&format!("uid/{uid}")).exists());
    }
    sleep(Duration::from_secs(1));
    let class = classid(shared);
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&class], 10 * MBIT, 3)]);
    let before = counters::classes(UPLINK).class("1:fffe").bytes;
    sleep(Duration::from_secs(1));
    let default = counters::classes(UPLINK).class("1:fffe").bytes - before;
    between("the default class", default * 8, 0, MBIT);
    let log = daemon.log();
    assert!(log.contains("among the subordinate ones of `root`"), "{log}");
    assert!(daemon.end().success());
}

/// No `everyone`: only NSS can say whose a newcomer is.
fn members_of_a_group_are_placed_whenever_they_come() {
    own_etc();
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 10mbit}
groups: {students: {gid: students, ceil: 60mbit, each: {ceil: 20mbit}}}
";
    let daemon = Daemon::with_events(&["watch", &policy(text)]);
    let placed = |account: Account, what: &str| {
        let actor = world.actor(account);
        let place = format!("uid/{}", account.uid);
        let took = soon(what, PATIENCE, || {
            directory(&place).exists() && members(&place).contains(&actor.pid())
        });
        println!("{what}: after {took:?}");
    };
    placed(DAVE, "a member who was not here when the daemon began");
    let student = |uid| Account { uid, gid: STUDENTS, also: None };
    append("/etc/passwd", &format!("frank:x:2100:{STUDENTS}::/:/bin/sh\n"));
    placed(student(2100), "an account that was made since");
    append("/etc/passwd", &format!("grid:x:990:{STUDENTS}::/:/bin/sh\n"));
    placed(student(990), "a service account of the group");
    let (ann, stranger) = (world.actor(ANN), world.actor(person(3500)));
    soon("ann is placed", PATIENCE, || members("user/ann").contains(&ann.pid()));
    sleep(Duration::from_millis(500));
    assert!(!directory(&format!("uid/{}", 3500)).exists(), "nobody's {}", stranger.pid());
    assert!(daemon.end().success());
}

/// Megabytes queued at each logout, and a new login once the time of grace is over.
fn who_comes_back_finds_the_class_that_still_drains() {
    let mut world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
everyone: 1mbit
";
    let daemon = Daemon::with_events(&["watch", "--grace", "1", &policy(text)]);
    let place = format!("uid/{}", CAROL.uid);
    let mut class: Option<String> = None;
    let (start, before) = (Instant::now(), counters::classes(UPLINK).class("1:1").bytes);
    for login in 0..3 {
        let mut carol = world.actor(CAROL);
        soon("carol is placed", PATIENCE, || {
            directory(&place).exists() && members(&place).contains(&carol.pid())
        });
        // All connections first: half a second of her class is in each packet that they queue.
        let sockets = [(); 8].map(|()| {
            let port = world.sink(Proto::Tcp);
            carol.connect(world.far_at(Family::V4, port))
        });
        for socket in sockets {
            carol.tell(&Order::Flood { socket, bytes: 65_536 });
        }
        let now = classid(&place);
        assert_eq!(*class.get_or_insert_with(|| now.clone()), now, "at login {login}");
        sleep(Duration::from_millis(500));
        // She ends with all that she has queued.
        drop(carol);
        // Without anybody for longer than the time of grace.
        sleep(Duration::from_millis(2_500));
    }
    assert!(directory(&place).exists(), "it has not drained yet");
    let bits = (counters::classes(UPLINK).class("1:1").bytes - before) * 8;
    between(
        "what she sent",
        bits * 1_000 / (start.elapsed().as_millis() as u64),
        0,
        MBIT * 115 / 100,
    );
    let left = fs::read_dir(directory("retired"))
        .map_or(0, |found| found.flatten().filter(|entry| entry.path().is_dir()).count());
    assert_eq!(left, 0, "no class of hers is retired");
    assert!(daemon.end().success());
}
