//! How much of what a user receives, and of what he sends for it, is in his class: bytes that the
//! classes count, of all bytes, from before the first packet until after the last.

use std::fs;
use std::os::unix::fs::chown;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, own_etc};
use crate::support::actor::Actor;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::exchange::Parcel;
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{apply, classid, policy};
use crate::support::rates::Interval;
use crate::support::sshd::Sshd;
use crate::support::world::{Family, World};

tests!(
    On::HostAndUml => files_that_a_user_fetches, a_thousand_short_connections_of_a_user,
        a_thousand_short_connections_to_a_users_server, datagrams_both_ways;
    On::Host => under_a_daemon_short_connections_are_the_users_from_the_first_packet_on;
    On::HostEvents => a_file_that_a_user_receives_from_a_login;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 200mbit, down: 200mbit}}
users: {ann: {ceil: 100mbit, down: 100mbit}}
";

/// A world that is shaped, and a process of ann's.
fn shaped() -> (World, Actor) {
    let world = World::new();
    apply(POLICY);
    let ann = world.actor(ANN);
    (world, ann)
}

/// How much of it is ann's.
#[track_caller]
fn measured(what: &str, least: [f64; 2], go_on: impl FnOnce()) {
    super::measured(what, &classid("user/ann"), least, go_on);
}

/// The last acknowledgement of a connection that its user has closed is of no socket of his any
/// more.
const ACKNOWLEDGED: f64 = 99.0;

fn files_that_a_user_fetches() {
    let (mut world, mut ann) = shaped();
    let parcel = Parcel { sent: 100, received: 20_000_000 };
    for family in [Family::V4, Family::V6] {
        let at = world.far_at(family, 8_080);
        world.far.tell(&Order::Serve { at, parcel });
        measured(&format!("20 MB, {family:?}"), [99.99, ACKNOWLEDGED], || {
            ann.tell(&Order::Exchange { to: at, times: 1, parcel });
        });
    }
}

fn a_thousand_short_connections_of_a_user() {
    let (mut world, mut ann) = shaped();
    let parcel = Parcel { sent: 100, received: 10_000 };
    let at = world.far_at(Family::V4, 8_080);
    world.far.tell(&Order::Serve { at, parcel });
    measured("1,000 x 10 kB, client", [99.99, ACKNOWLEDGED], || {
        ann.tell(&Order::Exchange { to: at, times: 1_000, parcel });
    });
}

/// The first packet of each comes from somebody unknown.
fn a_thousand_short_connections_to_a_users_server() {
    let (mut world, mut ann) = shaped();
    let parcel = Parcel { sent: 10_000, received: 1 };
    let at = world.host_at(Family::V4, 8_080);
    ann.tell(&Order::Serve { at, parcel });
    measured("1,000 x 10 kB, server", [99.3, ACKNOWLEDGED], || {
        world.far.tell(&Order::Exchange { to: at, times: 1_000, parcel });
    });
}

/// The daemon has heard of the server by then, and so the first packets are its user's as well.
fn under_a_daemon_short_connections_are_the_users_from_the_first_packet_on() {
    const TIMES: u32 = 1_000;
    let mut world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let mut ann = world.actor(ANN);
    let fetched = Parcel { sent: 100, received: 10_000 };
    let at = world.far_at(Family::V4, 8_080);
    world.far.tell(&Order::Serve { at, parcel: fetched });
    measured("1,000 x 10 kB, client", [99.99, ACKNOWLEDGED], || {
        ann.tell(&Order::Exchange { to: at, times: TIMES, parcel: fetched });
    });
    // By far the most of what comes in is acknowledgements where the server sends.
    for (port, parcel) in [
        (8_081, Parcel { sent: 10_000, received: 1 }),
        (8_082, Parcel { sent: 1, received: 10_000 }),
    ] {
        let at = world.host_at(Family::V4, port);
        ann.tell(&Order::Serve { at, parcel });
        soon("the daemon knows her server", Duration::from_secs(10), || {
            let before = classes(super::IFB);
            world.far.tell(&Order::Exchange { to: at, times: 1, parcel });
            Interval::since(before, super::IFB).bytes("1:fffe") == 0
        });
        measured(&format!("1,000 x {parcel:?}, server"), [99.99, ACKNOWLEDGED], || {
            world.far.tell(&Order::Exchange { to: at, times: TIMES, parcel });
        });
    }
    assert!(daemon.end().success());
}

fn datagrams_both_ways() {
    let (mut world, mut ann) = shaped();
    for (family, port) in [(Family::V4, 7_004), (Family::V6, 7_006)] {
        world.far.tell(&Order::Echo(port));
        measured(&format!("datagrams, {family:?}"), [99.9, 99.9], || {
            let socket = ann.socket(&Order::Datagram(world.far_at(family, port)));
            ann.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 20_000_000 });
            sleep(Duration::from_secs(1));
            let (sent, _) = ann.stop(socket);
            assert!(sent > 2_000_000, "{sent} bytes");
        });
    }
}

fn a_file_that_a_user_receives_from_a_login() {
    const FILE: usize = 20_000_000;
    own_etc();
    let world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let sshd = Sshd::start("UsePAM no");
    fs::write(format!("{SCRATCH}/file"), vec![7; FILE]).expect("a file to send");
    let home = format!("{SCRATCH}/home");
    fs::create_dir(&home).expect("a folder of ann's");
    chown(&home, Some(ANN.uid), Some(ANN.gid)).expect("her own");
    let copy = format!("{home}/copy");
    measured("20 MB to a login", [99.95, 90.0], || {
        sshd.put(&world, &format!("{SCRATCH}/file"), "ann", &copy);
        soon("all of it is written", Duration::from_secs(5), || {
            fs::metadata(&copy).is_ok_and(|copy| copy.len() == FILE as u64)
        });
    });
    assert!(daemon.end().success());
}
