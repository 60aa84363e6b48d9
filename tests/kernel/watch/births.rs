//! Processes that are born outside their user's class, and what keeps processes from being seen.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::ANN;
use crate::support::cell::myself;
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, binary, members, policy, shaper};
use crate::support::stranger::{Birth, Maker};
use crate::support::world::World;

tests!(
    On::HostEvents => who_is_born_outside_is_placed_at_once;
    On::Host => an_apply_places_who_is_born_outside_meanwhile, what_cannot_be_seen_is_an_error;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit}
";

const BIRTHS: [Birth; 4] =
    [Birth::Sibling, Birth::Twice, Birth::Chain(2_000), Birth::Siblings(2_000)];

fn who_is_born_outside_is_placed_at_once() {
    let _world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    for birth in BIRTHS {
        for _ in 0..5 {
            let mut maker = Maker::start(ANN, birth);
            let pid = maker.born();
            // The next look at all processes is ten minutes away.
            let took = soon(&format!("{birth:?} is placed"), Duration::from_secs(5), || {
                members("user/ann").contains(&pid)
            });
            println!("{birth:?}: {took:?} after its birth");
        }
    }
    assert!(!daemon.log().contains("lost"), "{}", daemon.log());
}

fn an_apply_places_who_is_born_outside_meanwhile() {
    let _world = World::new();
    apply(POLICY);
    for birth in [BIRTHS; 4].concat() {
        let mut maker = Maker::start(ANN, birth);
        sleep(Duration::from_millis(50));
        let done = apply(POLICY);
        let pid = maker.born();
        assert!(members("user/ann").contains(&pid), "{birth:?}: {}", done.stderr);
    }
}

/// With few descriptors, or where processes are hidden, an apply places all or fails.
fn what_cannot_be_seen_is_an_error() {
    let world = World::new();
    let ann = world.actor(ANN);
    let file = policy(POLICY);
    let (mut failed, mut placed) = (0, 0);
    for limit in 4..32 {
        shaper(&["clear"]).exits(0);
        let line = format!("ulimit -n {limit} && exec {} apply {file}", binary().display());
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        let done = run_with(command, "");
        if done.status == Some(0) {
            assert!(members("user/ann").contains(&ann.pid()), "{limit}: {}", done.stdout);
            placed += 1;
        } else {
            failed += 1;
        }
    }
    println!("{failed} failed, {placed} placed");
    assert!(failed > 0 && placed > 0);
    shaper(&["clear"]).exits(0);
    run("mount -o remount,hidepid=ptraceable /proc");
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF: all but CAP_SYS_PTRACE.
    let mut command = myself(&["--with-capabilities", "1,12,21,39"]);
    command.arg(binary()).args(["apply", &file]);
    let done = run_with(command, "");
    run("mount -o remount,hidepid=off /proc");
    assert_eq!(done.status, Some(1), "{} {}", done.stdout, done.stderr);
    assert!(done.stderr.contains("hidepid"), "{}", done.stderr);
}
