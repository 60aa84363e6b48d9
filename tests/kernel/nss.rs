//! NSS modules that start threads. A process that forks keeps the locks of such threads, held for
//! ever, so no process that forks may have asked NSS itself.

use std::fs;
use std::time::Duration;

use crate::support::accounts::{Account, own_etc};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Test};
use crate::support::program::{directory, members, policy, shaper};
use crate::support::settings::setting;
use crate::support::world::World;

pub const TESTS: &[Test] = &[Test {
    name: "nss::a_module_that_starts_threads_stops_neither_guard_nor_daemon",
    on: On::Host,
    budget: Duration::from_secs(600),
    body: a_module_that_starts_threads_stops_neither_guard_nor_daemon,
}];

/// The module's own account.
const TESS: Account = Account { uid: 4100, gid: 4100, also: None };

/// After which a guard or a daemon that still waits waits for ever.
const PATIENCE: Duration = Duration::from_secs(10);

const MODULE: &str = "libnss_threads.so.2";

/// Builds the module, and has NSS ask it first.
fn install() {
    own_etc();
    let (folder, source) = (format!("{SCRATCH}/nss"), format!("{SCRATCH}/threads.c"));
    fs::create_dir(&folder).expect("a folder for the module");
    fs::write(&source, include_str!("threads.c")).expect("write the module");
    run(&format!("gcc -Wall -Werror -shared -fPIC -pthread -o {folder}/{MODULE} {source}"));
    fs::write("/etc/ld.so.conf.d/threads.conf", folder).expect("name the folder");
    run("ldconfig");
    fs::write("/etc/nsswitch.conf", "passwd: threads files\ngroup: threads files\n")
        .expect("name the module");
}

fn has_module(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(MODULE))
}

fn text(ceil: u64) -> String {
    format!(
        "version: 1\nlinks: {{up0: 1gbit}}\nusers: {{ann: 10mbit, tess: {ceil}mbit}}\neveryone: 5mbit\n"
    )
}

fn a_module_that_starts_threads_stops_neither_guard_nor_daemon() {
    let turns = setting("SHAPER_NSS_TURNS").unwrap_or(6);
    install();
    let world = World::new();
    let tess = world.actor(TESS);
    for turn in 0..turns {
        shaper(&["apply", &policy(&text(20))]).exits(0);
        assert!(members("user/tess").contains(&tess.pid()), "NSS was asked");
        // Confirmed: its guard ends.
        shaper(&["apply", "--confirm", "30", &policy(&text(30))]).exits(0);
        let guards = fs::read_to_string(directory("confirm").join("cgroup.procs"));
        for pid in guards.expect("a guard").lines() {
            assert!(!has_module(pid.parse().expect("a pid")), "the guard has asked NSS");
        }
        shaper(&["confirm"]).exits(0);
        // Not confirmed: it takes the change back, and ends.
        shaper(&["apply", "--confirm", "1", &policy(&text(40 + turn))]).exits(0);
        soon(&format!("the guard ends, in turn {turn}"), PATIENCE, || {
            !directory("confirm").exists()
        });
        shaper(&["plan", "--exit-code", &policy(&text(30))]).exits(0);
        let daemon = Daemon::start(&["watch", &policy(&text(30))]);
        let late = world.actor(TESS);
        soon(&format!("tess is placed, in turn {turn}"), PATIENCE, || {
            members("user/tess").contains(&late.pid())
        });
        assert!(!has_module(daemon.pid()), "the daemon has asked NSS itself");
        assert!(daemon.end().success());
    }
}
