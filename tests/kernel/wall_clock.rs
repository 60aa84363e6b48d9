//! A wall clock that jumps, forth and back, at each look: everything that waits goes by the clock
//! that cannot be set.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, CAROL};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, classid, directory, members, policy, shaper};
use crate::support::world::{UPLINK, World};

tests!(On::Host => a_wall_clock_that_jumps_changes_nothing);

const PATIENCE: Duration = Duration::from_secs(10);

/// `shaper` with such a clock.
fn with_jumps(words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).env("LD_PRELOAD", format!("{SCRATCH}/wall_clock.so"));
    command
}

fn text(ann: u64) -> String {
    format!("version: 1\nlinks: {{up0: 100mbit}}\nusers: {{ann: {ann}mbit}}\neveryone: 5mbit\n")
}

fn ceil() -> u64 {
    counters::classes(UPLINK).class(&classid("user/ann")).ceil / 1_000_000
}

fn a_wall_clock_that_jumps_changes_nothing() {
    let world = World::new();
    let source = format!("{SCRATCH}/wall_clock.c");
    fs::write(&source, include_str!("wall_clock.c")).expect("write the clock");
    run(&format!("gcc -Wall -Werror -shared -fPIC -o {SCRATCH}/wall_clock.so {source} -ldl"));
    // It does jump.
    let mut date = Command::new("date");
    date.arg("+%Y").env("LD_PRELOAD", format!("{SCRATCH}/wall_clock.so"));
    let years: std::collections::BTreeSet<String> = (0..2)
        .map(|_| run_with(Command::new("date"), "").exits(0).stdout)
        .chain([run_with(date, "").exits(0).stdout])
        .collect();
    assert!(years.len() > 1, "{years:?}");

    // What is not confirmed is taken back when its time is over, and not before.
    run_with(with_jumps(&["apply", &policy(&text(10))]), "").exits(0);
    run_with(with_jumps(&["apply", "--confirm", "2", &policy(&text(20))]), "").exits(0);
    sleep(Duration::from_millis(1_000));
    assert_eq!(ceil(), 20, "its time is not over");
    soon("it is taken back", PATIENCE, || ceil() == 10);
    soon("the guard ends", PATIENCE, || !directory("confirm").exists());

    // The daemon places, repairs, follows its file, lets accounts go, and sleeps meanwhile.
    let file = policy(&text(10));
    let daemon = Daemon::run(with_jumps(&["watch", "--grace", "2", &file]));
    let carol = world.actor(CAROL);
    let hers = format!("uid/{}", CAROL.uid);
    soon("carol is placed", PATIENCE, || {
        directory(&hers).exists() && members(&hers).contains(&carol.pid())
    });
    let ann = world.actor(ANN);
    soon("ann is placed", PATIENCE, || members("user/ann").contains(&ann.pid()));
    run("tc qdisc del dev up0 root");
    soon("a repair", PATIENCE, || shaper(&["plan", "-q", "--exit-code", &file]).status == Some(0));
    policy(&text(30));
    soon("the new policy", PATIENCE, || ceil() == 30);
    drop(carol);
    sleep(Duration::from_millis(500));
    assert!(directory(&hers).exists(), "her time of grace is not over");
    soon("her class goes", PATIENCE, || !directory(&hers).exists());
    let before = daemon.cpu();
    sleep(Duration::from_secs(2));
    let used = daemon.cpu() - before;
    assert!(used < Duration::from_millis(1_000), "{used:?} of 2 s for nothing");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    assert!(daemon.end().success());
}
