//! A user who enters a network namespace of his own, and keeps his connection, stays in his class.

use std::fs;
use std::time::Duration;

use crate::escapes::tag_only;
use crate::support::accounts::{ANN, BOB};
use crate::support::cell::{myself, number};
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::Proto;
use crate::support::program::{apply, classid, members, policy, shaper};
use crate::support::rates::{self, MBIT};
use crate::support::stranger::{Stranger, Way};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => whoever_enters_a_namespace_stays_in_his_class, whoever_was_not_placed_before_is_placed_there,
        a_process_namespace_hides_nobody, a_guest_is_nobodys;
    On::Events => the_daemon_keeps_whoever_enters_a_namespace;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit}}
users: {ann: 10mbit}
";

/// All that leaves is ann's, at her rate.
#[track_caller]
fn is_held(what: &str) {
    let class = classid("user/ann");
    // What the default class had queued leaves first.
    std::thread::sleep(Duration::from_millis(200));
    let sent = rates::over(UPLINK, Duration::from_millis(600));
    assert!(sent.rate(&class) > 5 * MBIT, "{what}: {:?}", sent.leaves());
    sent.others_stay_below(50_000, &[&class]);
}

pub fn whoever_enters_a_namespace_stays_in_his_class() {
    let mut world = World::new();
    for way in Way::ALL.into_iter().filter(|way| *way != Way::Server) {
        let port = world.sink(Proto::Tcp);
        let mut ann = Stranger::start(ANN, way, world.far_at(Family::V4, port));
        apply(POLICY);
        let pid = ann.leave();
        apply(POLICY);
        assert!(members("user/ann").contains(&pid), "{way:?}");
        is_held(&format!("{way:?}"));
        let why = shaper(&["why", "--file", &policy(POLICY), &pid.to_string()]).exits(0).stdout;
        assert!(why.contains("users.ann"), "{why}");
        // Of the last, what lives is not in the namespace.
        assert!(
            why.contains("another network namespace") || way == Way::EndedThread,
            "{way:?}: {why}"
        );
    }
}

fn whoever_was_not_placed_before_is_placed_there() {
    let mut world = World::new();
    for way in Way::ALL {
        let port = world.sink(Proto::Tcp);
        let mut ann = Stranger::start(ANN, way, world.far_at(Family::V4, port));
        let pid = ann.leave();
        apply(POLICY);
        assert!(members("user/ann").contains(&pid), "{way:?}");
        is_held(&format!("{way:?}"));
    }
    // An account whose only process is in such a namespace has a class all the same.
    let port = world.sink(Proto::Tcp);
    let mut bob = Stranger::start(BOB, Way::Sender, world.far_at(Family::V4, port));
    let pid = bob.leave();
    apply(&format!("{POLICY}everyone: 5mbit\n"));
    assert!(members(&format!("uid/{}", BOB.uid)).contains(&pid));
}

fn the_daemon_keeps_whoever_enters_a_namespace() {
    let mut world = World::new();
    let file = policy(POLICY);
    let _daemon = Daemon::with_events(&["watch", &file]);
    for (turn, way) in Way::ALL.into_iter().enumerate() {
        let port = world.sink(Proto::Tcp);
        let mut ann = Stranger::start(ANN, way, world.far_at(Family::V4, port));
        let pid = ann.leave();
        soon("ann is placed", Duration::from_secs(5), || members("user/ann").contains(&pid));
        // All processes are looked at anew with a new policy.
        policy(&format!("{POLICY}everyone: {}mbit\n", 5 + turn));
        let everyone = format!("{}000000", 5 + turn);
        soon("the policy is in force", Duration::from_secs(5), || {
            let plan = shaper(&["--cgroup", "shaper", "plan", "--exit-code", &file]);
            plan.status == Some(0) || plan.stdout.contains(&everyone)
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(members("user/ann").contains(&pid), "{way:?}");
        is_held(&format!("{way:?}"));
    }
}

/// His processes have other pids in there, and root's here. Nothing but where they are is needed:
/// the tag alone holds them too.
fn a_process_namespace_hides_nobody() {
    let mut world = World::new();
    let port = world.sink(Proto::Tcp);
    let pour = format!("exec cat /dev/zero >/dev/tcp/10.77.0.2/{port}");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=ann", "--regid=ann", "--clear-groups", "unshare", "-U", "-r", "-p"]);
    command.args(["--kill-child", "-f", "bash", "-c", &pour]);
    let mut ann = command.spawn().expect("start ann's process");
    let is_first_there = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        line.split_whitespace().count() > 1 && line.ends_with("\t1")
    };
    soon("she is placed", Duration::from_secs(5), || {
        apply(POLICY);
        members("user/ann").iter().any(is_first_there)
    });
    is_held("a process namespace");
    tag_only::decides();
    is_held("a process namespace, by the tag");
    let _ = ann.kill();
    let _ = ann.wait();
}

/// What a container engine starts has cgroups that no user can make, and a namespace of its own.
/// The engine's own name below a user's would be the user's: that is tested where paths are read.
fn a_guest_is_nobodys() {
    let _world = World::new();
    apply(POLICY);
    let hierarchy = "/run/cell/cpu";
    fs::create_dir_all(hierarchy).expect("a mount point");
    super::support::command::run(&format!("mount -t cgroup2 none {hierarchy}"));
    let group = format!("{hierarchy}/docker/{}", number());
    fs::create_dir_all(&group).expect("a guest's cgroup");
    let mut guest = myself(&["--guest", &ANN.uid.to_string(), &group]).spawn().expect("a guest");
    let pid = guest.id();
    soon("the guest is there", Duration::from_secs(5), || {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.contains(&format!("Uid:\t{}", ANN.uid)))
    });
    apply(POLICY);
    assert!(!members("user/ann").contains(&pid));
    let why = shaper(&["why", "--file", &policy(POLICY), &pid.to_string()]).exits(0).stdout;
    assert!(why.contains("guest"), "{why}");
    let _ = guest.kill();
    let _ = guest.wait();
    soon("the cgroup is empty", Duration::from_secs(5), || fs::remove_dir(&group).is_ok());
    let _ = fs::remove_dir(format!("{hierarchy}/docker"));
}
