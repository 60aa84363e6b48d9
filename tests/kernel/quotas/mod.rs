//! Quotas of some megabytes, for periods of seconds and hours, and users who use them up: when a
//! step holds and when it is over, that nobody loses a packet by it, and that what is counted is
//! what the kernel has counted, whatever becomes of classes and of the daemon.

pub mod hindered;
pub mod renamed;
pub mod steps;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shaper::ledger;
use shaper::quota::Traffic;
use shaper::times::Timestamp;
use shaper::tree::{Key, Owner};

use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{Done, run, run_with};
use crate::support::counters::{self, Class, classes};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Test, tests};
use crate::support::orders::Order;
use crate::support::program::{binary, classid, policy};
use crate::support::rates::{MBIT, expect};
use crate::support::world::{Family, UPLINK, World};

tests!(
    // What is counted, and when a step holds, does not depend on the kernel.
    On::Host => a_step_holds_within_a_second_of_its_byte_and_is_over_with_its_period,
        without_a_daemon_the_next_apply_counts_whatever_becomes_of_the_classes,
        what_is_cleared_was_counted_and_a_file_that_can_only_be_read_holds,
        a_killed_daemon_counts_nothing_twice_and_forgets_nothing,
        a_groups_quota_holds_all_members_and_those_who_promise_too_much,
        a_grant_and_a_reset_are_in_force_at_once;
);

pub const COST: &[Test] = &[Test {
    name: "quotas::two_thousand_quotas_cost_an_idle_daemon_little",
    on: On::Nightly,
    budget: Duration::from_secs(400),
    body: two_thousand_quotas_cost_an_idle_daemon_little,
}];

const MB: u64 = 1_000_000;

/// Where use is kept in these tests.
fn state() -> String {
    format!("{SCRATCH}/state")
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).env("SHAPER_STATE", state());
    command
}

fn shaper(words: &[&str]) -> Done {
    run_with(command(words), "")
}

/// Applies a policy.
#[track_caller]
fn apply(text: &str) -> Done {
    shaper(&["apply", &policy(text)]).exits(0)
}

fn ann() -> Owner {
    Owner::User(Key::new("ann").expect("a name"))
}

/// What an owner has used, as the file has it.
fn kept(owner: &Owner) -> Traffic {
    let path = ledger::path(Path::new(&state()), "shaper");
    let book = ledger::read(&path).expect("it is read");
    let buckets = book.accounts.get(owner).map(|account| account.buckets().to_vec());
    let traffic = buckets.unwrap_or_default().into_iter().map(|bucket| bucket.traffic);
    traffic.fold(Traffic::default(), Traffic::plus)
}

fn class(claim: &str) -> Class {
    classes(UPLINK).class(&classid(claim)).clone()
}

/// A user sends so much over a new connection, and all of it arrives.
fn send(world: &mut World, bytes: u64) {
    let mut stream = world.stream(ANN, Family::V4);
    stream.actor.tell(&Order::Send { socket: stream.socket, bytes });
    world.until("all of it has arrived", |world| world.seen(&stream).bytes >= bytes);
}

/// Nothing more of ann's is sent: a connection that ends sends a last packet.
fn silence() {
    let mut before = 0;
    soon("nothing more is sent", Duration::from_secs(10), || {
        sleep(Duration::from_millis(300));
        let now = class("user/ann").bytes;
        std::mem::replace(&mut before, now) == now
    });
}

fn a_step_holds_within_a_second_of_its_byte_and_is_over_with_its_period() {
    let mut world = World::new();
    let file = policy(
        "
version: 1
links: {up0: {rate: 200mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users:
  ann: {rate: 20mbit, ceil: 80mbit, quota: {16s: 30MB, then: {50%: 40mbit, 100%: 2mbit}, counts: sent}}
  bob: 30mbit
",
    );
    let daemon = Daemon::run(command(&["watch", &file]));
    let mut bob = world.beating(BOB, Family::V4, 2 * MBIT);
    let _ann = world.pouring(ANN, Family::V4);
    let mut at_step = Vec::new();
    for (ceil, of_volume) in [(40 * MBIT, 15 * MB), (2 * MBIT, 30 * MB)] {
        let (mut before, mut after) = (0, 0);
        soon("the step holds", Duration::from_secs(20), || {
            let now = class("user/ann");
            after = now.bytes;
            if now.ceil != ceil {
                before = now.bytes;
            }
            now.ceil == ceil
        });
        println!("{ceil} bit/s between {before} and {after} bytes, {of_volume} were the volume");
        assert!(after >= of_volume, "not before the volume is used: {after}");
        at_step.push(before);
    }
    // At 80 Mbit/s a second has 10 MB, at 40 Mbit/s 5 MB.
    assert!(at_step[0] <= 15 * MB + 15 * MB, "{at_step:?}");
    assert!(at_step[1] <= 30 * MB + 15 * MB / 2, "{at_step:?}");
    assert!(class("user/ann").rate <= 2 * MBIT, "a guarantee never exceeds the cap");

    let status = shaper(&["status", "ann", "--json"]).exits(0).json();
    let limit = &status["links"][0]["users"][0]["limit"];
    let why = "30MB in the last 16s is sent";
    assert_eq!((&limit["by"], &limit["why"]), (&"quota".into(), &why.into()), "{status}");
    assert!(limit["until"].is_string(), "{status}");
    let quota = &status["quotas"][0];
    assert_eq!(quota["user"], "ann");
    assert_eq!(quota["limit_bytes"], 30 * MB);
    assert!(quota["used_bytes"].as_u64().is_some_and(|used| used >= 30 * MB), "{status}");
    assert_eq!(quota["ceil_bit"], 2 * MBIT);
    let said = shaper(&["why", "ann", "--file", &file]).exits(0).stdout;
    assert!(
        said.contains("ceil 2mbit (of the quota (30MB in the last 16s is sent), until "),
        "{said}"
    );
    assert!(said.contains("  quota: "), "{said}");
    let metrics = shaper(&["status", "--metrics"]).exits(0).stdout;
    let labels = "{user=\"ann\",period=\"16s\",counts=\"sent\"}";
    assert!(
        metrics.contains(&format!("shaper_quota_limit_bytes{labels} {}\n", 30 * MB)),
        "{metrics}"
    );
    assert!(metrics.contains(&format!("shaper_quota_used_bytes{labels} ")), "{metrics}");
    let table = shaper(&["status"]).exits(0).stdout;
    assert!(table.contains("the quota (30MB in the last 16s is sent) holds until "), "{table}");
    assert!(table.contains("quota of ann: "), "{table}");
    expect(UPLINK, Duration::from_millis(1_500), &[(&[&classid("user/ann")], 2 * MBIT, 10)]);

    // What was sent before is older than the period: not all of it is used any more.
    soon("it is over", Duration::from_secs(40), || class("user/ann").ceil >= 40 * MBIT);

    // The classes were changed where they stand.
    assert!(world.finish_beating(&mut bob).packets > 1_000);
    assert_eq!(class("user/bob").drops, 0);
    assert!(!daemon.log().contains("changed what stands"), "{}", daemon.log());
    assert!(daemon.end().success());
    assert!(kept(&ann()).sent >= 30 * MB, "it is written down at the end");
}

const ALONE: &str = "
version: 1
links: {up0: {rate: 200mbit, down: 200mbit}}
users: {ann: {ceil: 100mbit, down: 100mbit, quota: {12h: 6MB, then: 16mbit}}}
";

/// HTB cannot move a class: she gets another one, and the old one is retired.
const IN_A_GROUP: &str = "
version: 1
links: {up0: {rate: 200mbit, down: 200mbit}}
users: {ann: {ceil: 100mbit, down: 100mbit, group: team, quota: {12h: 6MB, then: 16mbit}}}
groups: {team: {ceil: 150mbit, down: 150mbit}}
";

fn without_a_daemon_the_next_apply_counts_whatever_becomes_of_the_classes() {
    let mut world = World::new();
    apply(
        "version: 1\nlinks: {up0: {rate: 200mbit, down: 200mbit}}\nusers: {ann: {ceil: 100mbit, down: 100mbit}}\n",
    );
    send(&mut world, MB);
    silence();
    assert!(!Path::new(&state()).exists(), "without a quota nothing is kept");
    apply(ALONE);
    assert_eq!(kept(&ann()), Traffic::default(), "what was sent before there was a quota");
    let before = class("user/ann").bytes;
    send(&mut world, 3 * MB);
    silence();
    let first = class("user/ann").bytes - before;
    shaper(&["apply", &policy(ALONE)]).exits(0);
    assert_eq!(kept(&ann()).sent, first);
    shaper(&["apply", &policy(ALONE)]).exits(0);
    assert_eq!(kept(&ann()).sent, first, "counted once");
    assert_eq!(class("user/ann").ceil, 100 * MBIT);

    // Her connection is in the class that is retired, and goes on.
    let mut stream = world.stream(ANN, Family::V4);
    stream.actor.tell(&Order::Send { socket: stream.socket, bytes: MB });
    world.until("the first part has arrived", |world| world.seen(&stream).bytes >= MB);
    let old = classid("user/ann");
    apply(IN_A_GROUP);
    assert_ne!(classid("user/ann"), old);
    let moved = kept(&ann());
    assert!(
        (first + MB..first + MB * 115 / 100).contains(&moved.sent),
        "{moved:?}, {first} before"
    );
    stream.actor.tell(&Order::Send { socket: stream.socket, bytes: MB });
    world.until("the rest has arrived", |world| world.seen(&stream).bytes >= 2 * MB);
    drop(stream);
    send(&mut world, 2 * MB);
    silence();
    // A plan counts too, and keeps nothing.
    let file = policy(IN_A_GROUP);
    shaper(&["plan", &file, "--exit-code", "-q"]).exits(3);
    assert_eq!(kept(&ann()), moved);
    let said = shaper(&["apply", &file]).exits(0).stdout;
    assert!(said.contains("~ ann") && said.contains("100mbit → 16mbit"), "{said}");
    assert_eq!(class("user/ann").ceil, 16 * MBIT);
    let used = kept(&ann());
    assert!((first + 4 * MB..first + 4 * MB * 115 / 100).contains(&used.sent), "{used:?}");
    shaper(&["plan", &file, "--exit-code", "-q"]).exits(0);

    // Made again by somebody's mistake, with the same number.
    run("tc qdisc del dev up0 root");
    apply(IN_A_GROUP);
    assert_eq!(class("user/ann").ceil, 16 * MBIT, "the quota holds the class that is made again");
    let before = kept(&ann()).sent;
    send(&mut world, MB / 2);
    silence();
    apply(IN_A_GROUP);
    assert_eq!(kept(&ann()).sent - before, class("user/ann").bytes, "from 0 on");

    let mut download = world.downloading(ANN, Family::V4);
    world.until("something arrives", |_| download.seen().bytes > 2 * MB);
    drop(download);
    apply(IN_A_GROUP);
    assert!(kept(&ann()).received >= 2 * MB, "{:?}", kept(&ann()));

    // A file of a later version is left as it is, and what is in force is said.
    let path = ledger::path(Path::new(&state()), "shaper");
    std::fs::write(&path, "shaper use 99\nsomething").expect("write it");
    let said = shaper(&["apply", &policy(IN_A_GROUP)]).exits(0).stderr;
    assert!(
        said.contains("quotas are taken as unused") && said.contains("of version 99"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "shaper use 99\nsomething");
    assert_eq!(class("user/ann").ceil, 100 * MBIT);
}

fn what_is_cleared_was_counted_and_a_file_that_can_only_be_read_holds() {
    let mut world = World::new();
    let text = "version: 1\nlinks: {up0: 200mbit}\nusers: {ann: {ceil: 100mbit, quota: {12h: 3MB, then: 16mbit, counts: sent}}}\n";
    apply(text);
    send(&mut world, 2 * MB);
    silence();
    let first = class("user/ann").bytes;
    shaper(&["clear"]).exits(0);
    assert_eq!(kept(&ann()).sent, first, "counted before the classes went");
    apply(text);
    assert_eq!(class("user/ann").ceil, 100 * MBIT);
    send(&mut world, 2 * MB);
    silence();
    apply(text);
    assert_eq!(class("user/ann").ceil, 16 * MBIT);
    let used = kept(&ann());

    // As of a disk with errors, or one that a backup holds.
    let state = state();
    run(&format!("mount --bind {state} {state}"));
    run(&format!("mount -o remount,bind,ro {state}"));
    send(&mut world, MB / 2);
    let said = apply(text).stderr;
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(class("user/ann").ceil, 16 * MBIT, "no cap is lifted for that");
    assert_eq!(kept(&ann()), used);
    run(&format!("umount {state}"));
    silence();
    apply(text);
    assert!(kept(&ann()).sent >= used.sent + MB / 2, "what was sent meanwhile");
}

fn a_killed_daemon_counts_nothing_twice_and_forgets_nothing() {
    let mut world = World::new();
    let file = policy(
        "version: 1\nlinks: {up0: 200mbit}\nusers: {ann: {ceil: 100mbit, quota: {day: 1GB, then: 1mbit}}}\n",
    );
    for round in 1..=3 {
        let daemon = Daemon::run(command(&["watch", &file]));
        send(&mut world, 2 * MB);
        // It counts every 30 s where so much is left, and when something is applied.
        daemon.signal(Signal::SIGHUP);
        send(&mut world, MB);
        println!("round {round}: {:?} of {}", kept(&ann()), class("user/ann").bytes);
        // Killed.
        drop(daemon);
    }
    let daemon = Daemon::run(command(&["watch", &file]));
    // So far below the step that nothing has the daemon read counters, but for its end.
    send(&mut world, MB);
    silence();
    assert!(daemon.end().success());
    let sent = counters::classes(UPLINK).class(&classid("user/ann")).bytes;
    assert_eq!(kept(&ann()).sent, sent, "counted at its end");
    shaper(&["apply", &file]).exits(0);
    assert_eq!(kept(&ann()).sent, sent);
    assert!(sent > 9 * MB, "{sent}");
}

fn a_groups_quota_holds_all_members_and_those_who_promise_too_much() {
    let mut world = World::new();
    let text = "
version: 1
links: {up0: 200mbit}
groups: {team: {ceil: 100mbit, quota: {1h: 4MB, then: 10mbit, counts: sent}}}
users:
  ann: {rate: 30mbit, ceil: 100mbit, group: team}
  bob: {rate: 20mbit, ceil: 60mbit, group: team}
";
    apply(text);
    send(&mut world, 5 * MB);
    silence();
    apply(text);
    let group = class("group/team");
    assert_eq!(group.ceil, 10 * MBIT);
    for user in ["user/ann", "user/bob"] {
        let class = class(user);
        assert_eq!(class.ceil, 10 * MBIT, "{user}");
        assert!(class.rate < 10 * MBIT, "{user}: {}", class.rate);
    }
    let of_team = Owner::Group(shaper::tree::Group::Line(Key::new("team").expect("a name")));
    assert_eq!(kept(&of_team).sent, group.bytes);
    assert!(group.bytes >= class("user/ann").bytes);
    let (_ann, _bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V4));
    let [one, other] = ["user/ann", "user/bob"].map(classid);
    soon("both send", Duration::from_secs(8), || class("user/bob").bytes > 0);
    sleep(Duration::from_secs(1));
    // 30 + 20 Mbit of guarantees would go through the group's 10.
    expect(UPLINK, Duration::from_secs(3), &[(&[&one, &other], 10 * MBIT, 8)]);
    let said = shaper(&["why", "bob", "--file", &policy(text)]).exits(0).stdout;
    assert!(said.contains("of the quota (4MB in the last 1h is sent) of group team"), "{said}");
}

/// A class gets a ceil; how long it took.
#[track_caller]
fn gets(ceil: u64, within: Duration) -> Duration {
    let start = Instant::now();
    soon("the class has the ceil", within, || class("user/ann").ceil == ceil);
    start.elapsed()
}

fn a_grant_and_a_reset_are_in_force_at_once() {
    let mut world = World::new();
    let file = policy(
        "
version: 1
links: {up0: 200mbit}
users: {ann: {ceil: 80mbit, quota: {12h: 30MB, then: 2mbit, counts: sent}}}
",
    );
    let (cap, held) = (80 * MBIT, 2 * MBIT);
    // The daemon looks each 30 s where nothing more can follow, so these are not its own looks.
    let (at_once, used_up) = (Duration::from_secs(8), Duration::from_secs(40));
    let daemon = Daemon::run(command(&["watch", &file]));
    let stream = world.pouring(ANN, Family::V4);
    gets(held, used_up);
    expect(UPLINK, Duration::from_millis(1_500), &[(&[&classid("user/ann")], held, 10)]);

    let said = shaper(&["grant", "ann", "60MB"]).exits(0);
    println!("a grant: {:?}", gets(cap, at_once));
    assert!(said.stdout.starts_with("ann has 60MB more\n  ") && said.stderr.is_empty());
    let (before, start) = (class("user/ann").bytes, Instant::now());
    soon("it is more than the cap was", at_once, || class("user/ann").bytes > before + 5 * MB);
    println!("5 MB in {:?}", start.elapsed());
    gets(held, used_up);
    assert!(class("user/ann").bytes >= 90 * MB, "not before the grant is used, too");

    let said = shaper(&["quota", "reset", "ann"]).exits(0).stdout;
    println!("a reset: {:?}", gets(cap, at_once));
    assert!(said.starts_with("what ann uses is counted anew from now on\n"), "{said}");
    let anew = class("user/ann").bytes;
    gets(held, used_up);
    let more = class("user/ann").bytes - anew;
    // What was sent before it was in force is a second's at most, and a step holds within another.
    assert!((75 * MB..115 * MB).contains(&more), "{more} of 90 MB");

    let until = Timestamp::now() + Duration::from_secs(6);
    shaper(&["grant", "ann", "1TB", "--until", &until.to_string()]).exits(0);
    println!("a grant until {until}: {:?}", gets(cap, at_once));
    let usage = shaper(&["usage", "ann", "--json"]).exits(0).json();
    let granted = &usage["quotas"][0]["granted_bytes"];
    assert_eq!(granted.as_u64(), Some(1_000_060 * MB), "{usage}");
    gets(held, at_once);
    assert!(Timestamp::now().as_second() >= until.as_second(), "not before its end");
    let table = shaper(&["usage"]).exits(0).stdout;
    assert!(table.lines().nth(1).is_some_and(|line| line.ends_with("100%: 2mbit")), "{table}");
    drop(stream);
    assert!(daemon.end().success());

    // Without a daemon the next apply does.
    let said = shaper(&["quota", "reset", "ann"]).exits(0);
    assert!(said.stderr.contains("the next `shaper apply`"), "{}", said.stderr);
    assert_eq!(class("user/ann").ceil, held);
    silence();
    shaper(&["apply", &file]).exits(0);
    assert_eq!(class("user/ann").ceil, cap);
    assert!(kept(&ann()).sent < 5 * MB, "{:?}", kept(&ann()));
}

/// Two thousand users, of whom nobody sends.
fn idle(quota: &str) -> (f64, u64) {
    let users: String = (0..2_000)
        .map(|n| format!("  u{n}: {{ceil: 20mbit, uids: {}, quota: {quota}}}\n", 20_000 + n))
        .collect();
    let file = policy(&format!(
        "version: 1\nlinks: {{up0: {{rate: 1gbit, down: 1gbit}}}}\nusers:\n{users}"
    ));
    let daemon = Daemon::run(command(&["watch", "-q", &file]));
    sleep(Duration::from_secs(3));
    let (start, before) = (Instant::now(), daemon.cpu());
    sleep(Duration::from_secs(70));
    let used = daemon.cpu().saturating_sub(before).as_secs_f64();
    let idle = used / start.elapsed().as_secs_f64() * 100.0;
    let (now, most) = daemon.memory();
    println!("{quota}: {idle:.2} % of a processor; {now} kB of its own, {most} kB at most");
    assert!(daemon.end().success());
    (idle, now)
}

fn two_thousand_quotas_cost_an_idle_daemon_little() {
    let _world = World::new();
    // There are no process events in a cell, so a look at all processes each second is in it, too.
    let [most_far, most_near] = if cfg!(debug_assertions) { [1.0, 2.0] } else { [0.6, 0.9] };
    let (far, memory) = idle("{month: 1TB, then: 1mbit}");
    assert!(memory < 25_000, "{memory} kB of its own memory");
    assert!(far < most_far, "{far} % while nothing happens");
    let (near, memory) = idle("{month: 2kB, then: 1mbit}");
    assert!(memory < 25_000, "{memory} kB of its own memory");
    // Nothing passes the root qdiscs, so the classes are not read although all are near a step.
    assert!(near < most_near, "{near} % while everybody is near a step");
}
