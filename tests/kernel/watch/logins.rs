//! From becoming a user to being in the user's class.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::beside;
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE, ERIN, ROOT, own_etc};
use crate::support::cell::{MACHINE, SCRATCH, myself};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Place, tests};
use crate::support::logins::{Storm, Times};
use crate::support::orders::{Answer, Order};
use crate::support::program::{apply, binary, classid, directory, members, policy};
use crate::support::sshd::Sshd;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Events => a_login_under_a_storm_is_placed_at_once, a_login_is_the_users_from_its_first_bytes,
        lost_events_are_made_up_for;
    // Storms on an emulated processor take minutes; the real sshd, the peer; and what is the same
    // on every kernel.
    On::HostEvents => newcomers_get_a_class_and_give_it_back, what_the_daemon_does_is_in_the_metrics, no_storm_keeps_others_waiting, no_login_waits_until_flows_are_known, a_login_is_placed_no_later_than_by_the_peer, what_a_real_sshd_sends_is_the_users;
    On::Host => pam_places_a_session_without_a_daemon;
    On::HostAndUml => without_events_processes_are_found_all_the_same;
);

pub const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 30mbit}
";

/// Forks a second, by others, and how many log in meanwhile: an emulated machine is slower.
fn storm_and_logins() -> (u32, u32) {
    if Place::current() == Place::Host { (2_000, 1_000) } else { (200, 100) }
}

pub fn storm(seconds: u64) -> Child {
    let (rate, _) = storm_and_logins();
    myself(&["--storm", &rate.to_string(), &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a storm")
}

/// What 99 of 100 logins must keep, in microseconds.
const PROMISED: u64 = 5_000;

#[track_caller]
fn are_prompt(times: &Times, limit: u64) {
    assert_eq!(times.missed, 0);
    // Of a machine that is busy with other things, too: the figures are for people to read.
    let patience = if Place::current() == Place::Host { 10 } else { 100 } * limit;
    assert!(times.p99 < patience, "p50 {} µs, p99 {} µs", times.p50, times.p99);
}

/// A thousand logins of ann's while others fork.
fn logins_under_a_storm(who: &str, place: &str) -> Times {
    let (_, count) = storm_and_logins();
    let mut others = storm(60);
    sleep(Duration::from_millis(200));
    let times = Times::of(ANN, count, place);
    println!("{who}: {count} logins, {times}");
    // Its children end by themselves.
    let _ = others.kill();
    let _ = others.wait();
    times
}

fn a_login_under_a_storm_is_placed_at_once() {
    let _world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let times = logins_under_a_storm("shaper watch", "/shaper/user/ann");
    are_prompt(&times, PROMISED);
    assert!(!daemon.log().contains("lost"), "{}", daemon.log());
    assert!(daemon.end().success());
    // What was made stays.
    assert!(counters::classes(UPLINK).by_id.contains_key(&classid("user/ann")));
}

/// Whatever one account does in a loop, the logins of others wait for none of it. How prompt they
/// are on a machine that does nothing else: `cargo bench --bench apply logins`.
fn no_storm_keeps_others_waiting() {
    let _world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    for kind in Storm::ALL {
        for processes in [1, 4] {
            let storm = kind.by(BOB, processes);
            sleep(Duration::from_millis(300));
            let cpu = daemon.cpu();
            let began = Instant::now();
            let times = Times::of(ANN, 100, "/shaper/user/ann");
            let share = (daemon.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
            drop(storm);
            println!(
                "{kind:?} by {processes}: {times}; the daemon took {:.0} % of a processor",
                share * 100.0
            );
            assert_eq!(times.missed, 0, "{kind:?} by {processes}");
            assert!(times.p50 < 20_000, "{kind:?} by {processes}: {times}");
        }
    }
}

/// A `down` comes to a link in use: what arrives is led to the ifb once what leaves has said for a
/// second whose the flows are.
fn no_login_waits_until_flows_are_known() {
    let mut world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let _bob = world.downloading(BOB, Family::V4);
    let received = || run(&format!("cat /sys/class/net/{UPLINK}/statistics/rx_bytes"));
    soon("the link is in use", Duration::from_secs(20), || {
        received().trim().parse::<u64>().expect("a number") > 1_000_000
    });
    let logins = std::thread::spawn(|| Times::of(ANN, 1_000, "/shaper/user/ann"));
    sleep(Duration::from_millis(300));
    policy(&POLICY.replace("rate: 100mbit,", "rate: 100mbit, down: 100mbit,"));
    let times = logins.join().expect("the logins");
    println!("while a `down` comes: {times}");
    let filters = run(&format!("tc filter show dev {UPLINK} ingress"));
    assert!(filters.contains("shaper-redirect"), "meanwhile it has come: {filters}");
    let log = daemon.log();
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("{what}: {log}"));
    assert!(
        at("shaper-learn.o") < at("is in force") && at("is in force") < at("shaper-redirect.o")
    );
    assert!(!log.contains("changed what stands"), "{log}");
    assert_eq!(times.missed, 0);
    assert!(times.most < 900_000, "{times}");
    let class = classid("user/bob");
    let bytes = || counters::classes("ifb-up0").class(&class).bytes;
    let before = bytes();
    soon("his download is in his class", Duration::from_secs(10), || bytes() > before + 100_000);
    assert!(daemon.end().success());
}

/// The same logins under the same storm, beside the peer's in the same minute: cgrulesengd
/// (libcgroup) moves processes by the same events, and does nothing else.
fn a_login_is_placed_no_later_than_by_the_peer() {
    own_etc();
    let _world = World::new();
    // It gives up where a mounted hierarchy cannot be reached, and the cell's own sysfs hides some.
    run("umount /sys");
    let (hierarchy, group) = ("/run/cell/peer", "/run/cell/peer/peer");
    fs::create_dir(hierarchy).expect("a mount point");
    run(&format!("mount -t cgroup -o net_cls peer {hierarchy}"));
    fs::create_dir(group).expect("the peer's cgroup");
    fs::write("/etc/cgconfig.conf", "").expect("the peer's files");
    fs::create_dir_all("/etc/cgconfig.d").expect("the peer's files");
    fs::write("/etc/cgrules.conf", "ann net_cls peer\n").expect("the peer's files");
    let mut command = myself(&["--enter", MACHINE, "cgrulesengd", "-n", "--nolog"]);
    let mut engine = command.stdout(Stdio::null()).spawn().expect("start cgrulesengd");
    sleep(Duration::from_secs(1));
    let peers = logins_under_a_storm("cgrulesengd", "/peer");
    engine.kill().expect("end cgrulesengd");
    let _ = engine.wait();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let ours = logins_under_a_storm("shaper watch", "/shaper/user/ann");
    drop(daemon);
    // A machine that others use delays both.
    are_prompt(&ours, PROMISED.max(peers.p99));
}

/// A server accepts as root, and its child becomes the user and sends at once.
pub fn a_login_is_the_users_from_its_first_bytes() {
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
    let took = soon("its place", Duration::from_secs(1), || members("user/ann").contains(&child));
    let placed = counters::classes(UPLINK);
    sleep(Duration::from_secs(3));
    let after = counters::classes(UPLINK);
    let sent = |class: &str| after.class(class).bytes - before.class(class).bytes;
    let (ann, default) = (sent(&classid("user/ann")), sent("1:fffe"));
    println!("placed after {took:?}: ann {ann} bytes, default {default} bytes");
    assert!(ann > 5_000_000, "{ann}");
    // What was queued before the child was moved, a millisecond or two after it became ann: it
    // pours without a pause, so at most what the default class's queue holds. An emulated machine
    // takes tens of milliseconds, and a bound in bytes would be one on its processor.
    let late = after.class("1:fffe").bytes - placed.class("1:fffe").bytes;
    let strange = if Place::current() == Place::Host { default } else { late };
    assert!(strange < 400_000, "{default} of {ann} bytes, {late} of them late, were in default");
}

/// No process of theirs is on this machine: the last test's may still be about to end.
fn are_gone(accounts: &[Account]) {
    soon("nobody runs as them", Duration::from_secs(60), || {
        let processes = fs::read_dir("/proc").expect("the processes");
        let mut uids = processes.filter_map(|entry| {
            let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            uid.split_whitespace().next()?.parse::<u32>().ok()
        });
        !uids.any(|uid| accounts.iter().any(|account| account.uid == uid))
    });
}

pub fn newcomers_get_a_class_and_give_it_back() {
    let world = World::new();
    are_gone(&[CAROL, DAVE, ERIN]);
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
    let took = soon("both are placed", Duration::from_secs(10), || {
        members("user/ann").contains(&ann.pid()) && members("user/bob").contains(&bob.pid())
    });
    println!("placed {took:?} after it went on");
    if Place::current() == Place::Host {
        assert!(daemon.log().contains("events were lost"), "{}", daemon.log());
        soon("that is counted", Duration::from_secs(10), || {
            metric("shaper_events_lost_total") >= 1.0
        });
    }
}

fn metric(name: &str) -> f64 {
    let page = beside(&["status", "--metrics"]).exits(0).stdout;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Also once another daemon has taken over.
fn what_the_daemon_does_is_in_the_metrics() {
    let _world = World::new();
    let file = policy(POLICY);
    let daemon = Daemon::with_events(&["watch", &file]);
    assert_eq!(metric("shaper_repairs_total{link=\"up0\"}"), 0.0, "nobody has changed it");
    let times = Times::of(ANN, 20, "/shaper/user/ann");
    assert_eq!(times.missed, 0);
    run("tc qdisc del dev up0 root");
    let patience = Duration::from_secs(10);
    soon("the repair is counted", patience, || metric("shaper_repairs_total{link=\"up0\"}") >= 1.0);
    let repairs = metric("shaper_repairs_total{link=\"up0\"}");
    let report = beside(&["status", "--json"]).exits(0).json();
    let repaired = &report["repairs"][0];
    assert_eq!(
        (repaired["dev"].as_str(), repaired["repairs"].as_f64()),
        (Some("up0"), Some(repairs))
    );
    let at = repaired["at"].as_u64().expect("when");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now).contains(&at), "{at} at {now}");
    let by = repaired["by"].as_str().expect("by whom");
    let said = beside(&["status"]).exits(0).stdout;
    let line = format!("{by} changed up0, and it was made again ");
    assert!(said.contains(&line), "{said}");
    soon("the logins are counted", patience, || metric("shaper_placement_seconds_count") >= 20.0);
    let placed = metric("shaper_placement_seconds_count");
    let mean = metric("shaper_placement_seconds_sum") / placed * 1e6;
    println!("{placed} placements, {mean:.0} µs each; who logged in: {times}");
    // Who logs in looks every 100 µs.
    assert!(mean > 0.0 && mean < times.most as f64 + 100.0, "{mean} µs; {times}");
    assert!(daemon.end().success());
    let _next = Daemon::with_events(&["watch", &file]);
    assert_eq!(Times::of(ANN, 1, "/shaper/user/ann").missed, 0);
    soon("the next daemon goes on", patience, || metric("shaper_placement_seconds_count") > placed);
}

/// A process namespace of its own, as in a container: there are no events.
pub fn without_events_processes_are_found_all_the_same() {
    let world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    assert!(daemon.log().contains("no process events"), "{}", daemon.log());
    let ann = world.actor(ANN);
    soon("ann is placed", Duration::from_secs(20), || members("user/ann").contains(&ann.pid()));
    assert!(daemon.end().success());
}

/// A login with a key, and a file of 20 MB: the handshake is root's, all else is the user's.
fn fetched_as(world: &World, account: &str, sshd: &str, class: impl Fn() -> String) {
    const FILE: u64 = 20_000_000;
    let sshd = Sshd::start(sshd);
    fs::write(format!("{SCRATCH}/file"), vec![7; FILE as usize]).expect("a file to fetch");
    let before = counters::classes(UPLINK).by_id;
    sshd.fetch(world, account, &format!("{SCRATCH}/file"), &format!("{SCRATCH}/copy"));
    let after = counters::classes(UPLINK);
    let copy = fs::metadata(format!("{SCRATCH}/copy")).expect("the copy").len();
    assert_eq!(copy, FILE);
    let sent =
        |class: &str| after.class(class).bytes - before.get(class).map_or(0, |class| class.bytes);
    let (users, default) = (sent(&class()), sent("1:fffe"));
    println!("{account} {users} bytes, default {default} bytes");
    assert!(users > FILE);
    assert!(default * 100 < users, "{default} bytes beside {users} were the default class's");
}

pub fn what_a_real_sshd_sends_is_the_users() {
    own_etc();
    let world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    fetched_as(&world, "ann", "UsePAM no", || classid("user/ann"));
    assert!(daemon.end().success());
}

/// Carol has no class before her login.
pub fn pam_places_a_session_without_a_daemon() {
    own_etc();
    let world = World::new();
    let text = format!("{POLICY}everyone: 25mbit\n");
    apply(&text);
    let place = format!("uid/{}", CAROL.uid);
    assert!(!directory(&place).exists());
    let (shaper, file) = (binary(), policy(&text));
    let pam = format!(
        "auth required pam_permit.so\naccount required pam_permit.so\n\
         session optional pam_exec.so log={SCRATCH}/pam.log type=open_session {} login {file}\n",
        shaper.display()
    );
    fs::write("/etc/pam.d/sshd", pam).expect("a PAM configuration");
    fetched_as(&world, "carol", "UsePAM yes", || classid(&place));
    let log = fs::read_to_string(format!("{SCRATCH}/pam.log")).unwrap_or_default();
    assert!(!log.contains("error"), "{log}");
    // The session is over: the next apply takes its class back.
    apply(&text);
    assert!(!directory(&place).exists());
}
