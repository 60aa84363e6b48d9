//! What is counted while something is in the way: a change that waits to be confirmed, a writer who
//! hangs with the file's lock, a period that ends while no daemon runs.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use shaper::ledger;

use super::{MB, ann, apply, class, command, gets, kept, send, shaper, silence, state};
use crate::support::accounts::ANN;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::policy;
use crate::support::rates::MBIT;
use crate::support::world::{Family, World};

tests!(
    On::Host => what_is_taken_back_was_counted_all_the_while,
        a_step_holds_in_time_while_a_writer_hangs_and_is_over_without_a_daemon;
);

fn what_is_taken_back_was_counted_all_the_while() {
    let mut world = World::new();
    let quota = "version: 1\nlinks: {up0: 200mbit}\nusers: {ann: {ceil: 100mbit, quota: {12h: 1GB, then: 16mbit, counts: sent}}}\n";
    let none = "version: 1\nlinks: {up0: 200mbit}\nusers: {ann: {ceil: 90mbit}}\n";
    apply(quota);
    send(&mut world, MB);
    shaper(&["apply", "--confirm", "5", &policy(none)]).exits(0);
    assert_eq!(class("user/ann").ceil, 90 * MBIT);
    send(&mut world, 2 * MB);
    soon("it is taken back", Duration::from_secs(40), || class("user/ann").ceil == 100 * MBIT);
    silence();
    apply(quota);
    assert_eq!(kept(&ann()).sent, class("user/ann").bytes);

    // What is confirmed is no quota's any more.
    let used = kept(&ann());
    let none = none.replace("90mbit", "91mbit");
    shaper(&["apply", "--confirm", "60", &policy(&none)]).exits(0);
    shaper(&["confirm"]).exits(0);
    send(&mut world, 2 * MB);
    silence();
    apply(quota);
    assert_eq!(kept(&ann()), used);
}

/// What a writer has who hangs in the middle of a record: the lock, and half of a frame.
fn hanging_writer() -> File {
    let path = ledger::path(Path::new(&state()), "shaper");
    let mut file = File::options().append(true).open(path).expect("the file of use");
    file.lock().expect("the lock");
    file.write_all(b"\xffuse\x40\0\0\0").expect("half of a frame");
    file
}

fn a_step_holds_in_time_while_a_writer_hangs_and_is_over_without_a_daemon() {
    let mut world = World::new();
    let file = policy(
        "
version: 1
links: {up0: 200mbit}
users: {ann: {ceil: 80mbit, quota: {12s: 20MB, then: 2mbit, counts: sent}}}
",
    );
    let daemon = Daemon::run(command(&["watch", &file]));
    let writer = hanging_writer();
    let stream = world.pouring(ANN, Family::V4);
    // After two seconds; whoever waits for the lock has five more for each look at the file.
    println!("the step: {:?}", gets(2 * MBIT, Duration::from_secs(8)));
    let log = daemon.log();
    assert!(!log.contains("cannot be kept"), "{log}");
    drop(stream);
    drop(writer);
    // Its end is cut off, and what waited is written.
    assert!(daemon.end().success());
    silence();
    assert!(kept(&ann()).sent >= 20 * MB, "{:?}", kept(&ann()));
    // Nobody was there when the period ended.
    sleep(Duration::from_secs(13));
    assert_eq!(class("user/ann").ceil, 2 * MBIT);
    shaper(&["apply", &file]).exits(0);
    assert_eq!(class("user/ann").ceil, 80 * MBIT);
}
