//! NSS modules that start threads, or hang. A process that forks keeps the locks of such threads,
//! held for ever, and one that asks a module that hangs hangs itself: so a child asks, and is
//! killed when its time is up.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::accounts::{Account, BOB, CAROL, own_etc};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{Done, run};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Test};
use crate::support::program::{directory, members, policy, shaper};
use crate::support::settings::setting;
use crate::support::world::World;

pub const TESTS: &[Test] = &[
    Test {
        name: "nss::a_module_that_starts_threads_stops_neither_guard_nor_daemon",
        on: On::Host,
        budget: Duration::from_secs(600),
        body: a_module_that_starts_threads_stops_neither_guard_nor_daemon,
    },
    Test {
        name: "nss::a_name_service_that_hangs_stops_no_command",
        on: On::Host,
        budget: Duration::from_secs(300),
        body: a_name_service_that_hangs_stops_no_command,
    },
];

/// The module's own account.
const TESS: Account = Account { uid: 4100, gid: 4100, also: None };

/// After which a guard or a daemon that still waits waits for ever.
const PATIENCE: Duration = Duration::from_secs(10);

const MODULE: &str = "libnss_threads.so.2";

/// Builds a module from its source.
fn build(name: &str, source: &str) {
    let (folder, file) = (format!("{SCRATCH}/nss"), format!("{SCRATCH}/{name}.c"));
    fs::create_dir(&folder).expect("a folder for the module");
    fs::write(&file, source).expect("write the module");
    let library = format!("{folder}/libnss_{name}.so.2");
    run(&format!("gcc -Wall -Werror -shared -fPIC -pthread -o {library} {file}"));
    fs::write(format!("/etc/ld.so.conf.d/{name}.conf"), folder).expect("name the folder");
    run("ldconfig");
}

/// Has NSS ask these, in this order: modules, and `files`.
fn ask(sources: &str) {
    fs::write("/etc/nsswitch.conf", format!("passwd: {sources}\ngroup: {sources}\n"))
        .expect("name the sources");
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
    own_etc();
    build("threads", include_str!("threads.c"));
    ask("threads files");
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

/// After which a command that still runs hangs: it may wait 12 s for an answer of many,
/// and an apply looks several times.
const HANGS: Duration = Duration::from_secs(100);

/// How long Prometheus waits for metrics, unless it is told otherwise (`scrape_timeout`).
const SCRAPE: Duration = Duration::from_secs(10);

fn a_name_service_that_hangs_stops_no_command() {
    own_etc();
    build("hangs", include_str!("hangs.c"));
    let world = World::new();
    let bob = world.actor(BOB);
    let file = policy(
        "version: 1\ntimes: {first: \"00:00-12:00\", then: \"12:00-24:00\"}\n\
         links: {up0: 1gbit}\nusers: {ann: 10mbit}\n\
         everyone: {each: {ceil: 5mbit, when: {first: 6mbit, then: 7mbit}}}\n",
    );
    shaper(&["apply", &file]).exits(0);
    shaper(&["status", "bob"]).exits(0);
    ask("hangs files");
    let timed = |words: &[&str]| {
        let start = Instant::now();
        let done = shaper(words);
        assert!(start.elapsed() < HANGS, "{words:?} took {:?}", start.elapsed());
        done
    };
    let silent = |why: &str, done: &Done| {
        assert!(done.stderr.contains(why), "{}", done.stderr);
    };
    let cases: [(&[&str], i32, &str); 9] = [
        (&["status"], 0, "note: NSS: no answer within 3 s; accounts have their numbers"),
        (&["status", "--json"], 0, "note: NSS: no answer"),
        (&["status", "ann"], 0, "note: NSS: no answer"),
        (&["status", "bob"], 1, "cannot find out who bob is: no answer within 10 s"),
        (&["why", "ann", "--file", &file], 0, ""),
        (&["why", "bob", "--file", &file], 1, "cannot find out who bob is"),
        (&["apply", &file], 2, "the account `ann` could not be looked up: no answer within 12 s"),
        (&["check", "--skip-unknown", &file], 0, "no answer within 12 s"),
        (&["init"], 0, ""),
    ];
    // Everybody who is asked after it is left out too, so all of that takes little more.
    let mut tries = 0..3;
    let done = loop {
        let start = Instant::now();
        let done = timed(&["doctor", &file]).exits(1);
        // Of a machine that is busy with other things, too.
        if start.elapsed() < Duration::from_secs(2) {
            break done;
        }
        assert!(tries.next().is_some(), "the fastest took {:?}", start.elapsed());
    };
    let said = "error    NSS does not say who accounts are: no answer within 1 s\n";
    assert!(done.stdout.contains(said), "{}", done.stdout);
    // Metrics come in the time that Prometheus has, and say which window holds.
    let start = Instant::now();
    let metrics = shaper(&["status", "--metrics"]).exits(0).stdout;
    assert!(start.elapsed() < SCRAPE, "metrics took {:?}", start.elapsed());
    let info =
        "shaper_class_limit_info{link=\"up0\",direction=\"egress\",user=\"2002\",by=\"when\"";
    assert!(metrics.contains(info), "{metrics}");
    thread::scope(|scope| {
        let run = |(words, status, why): (_, i32, _)| {
            scope.spawn(move || silent(why, &timed(words).exits(status)))
        };
        for case in cases.map(run) {
            case.join().expect("it ends as it should");
        }
    });
    timed(&["run", "ann", "--", "true"]).exits(0);
    silent("cannot find out who bob is", &timed(&["run", "bob", "--", "true"]).exits(125));
    // What stands there stays.
    let done = timed(&["apply", "--skip-unknown", &file]).exits(0);
    assert!(done.stdout.contains("in sync"), "{}", done.stdout);
    assert!(members("uid/2002").contains(&bob.pid()), "he has his class still");
    // Only the directory knows the new line's account; the file knows carol.
    ask("files hangs");
    let carol = world.actor(CAROL);
    let more = "version: 1\nlinks: {up0: 1gbit}\nusers: {ann: 10mbit, carol: 7mbit, far: 3mbit}\n";
    let done = timed(&["apply", "--skip-unknown", &policy(&format!("{more}everyone: 5mbit\n"))]);
    silent("`far` could not be looked up: no answer within 12 s", &done.exits(0));
    assert!(members("user/carol").contains(&carol.pid()), "who is in the file is known");
}
