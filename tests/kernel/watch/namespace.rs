//! A network namespace that the command line names, and that ends.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::policy;

tests!(
    On::HostAndUml => the_next_namespace_of_a_name_is_shaped_when_one_has_ended,
        a_process_that_ends_ends_the_daemon_of_its_namespace;
);

const PATIENCE: Duration = Duration::from_secs(10);

const POLICY: &str = "
version: 1
links: {e0: {rate: 50mbit}}
users: {label: {ceil: 10mbit, uids: [4001]}}
";

/// Whether it succeeds.
fn does(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    run_with(command, "").status == Some(0)
}

fn the_next_namespace_of_a_name_is_shaped_when_one_has_ended() {
    let shaped =
        || run("nsenter --net=/run/netns/box tc qdisc show dev e0").contains("htb 1: root");
    let start = || {
        run("ip netns add box");
        run("ip link add far9 type veth peer name e0 netns box");
    };
    start();
    let daemon = Daemon::start(&["--netns", "box", "watch", &policy(POLICY)]);
    assert!(shaped());
    for round in 0..2 {
        run("ip netns del box");
        soon("the namespace is let go, and its link with it", PATIENCE, || {
            !does("ip link show far9")
        });
        soon("it is said", PATIENCE, || {
            daemon.log().matches("namespace box is gone").count() == round + 1
        });
        // Longer than a look takes.
        sleep(Duration::from_millis(700));
        start();
        soon("the next of that name is shaped", PATIENCE, shaped);
    }
    // Another one in its place at once.
    run("ip netns del box");
    start_when_free(&start);
    soon("the one in its place", PATIENCE, shaped);
    assert!(daemon.end().success());
    run("ip netns del box");
    soon("nobody holds it", PATIENCE, || !does("ip link show far9"));
}

/// The name of the link's far end is free once the old namespace is let go.
fn start_when_free(start: &dyn Fn()) {
    soon("the old one is let go", PATIENCE, || !does("ip link show far9"));
    start();
}

fn a_process_that_ends_ends_the_daemon_of_its_namespace() {
    let mut owner = Command::new("unshare")
        .args(["-n", "sleep", "600"])
        .stdin(Stdio::null())
        .spawn()
        .expect("start unshare");
    let pid = owner.id().to_string();
    let own = run("readlink /proc/self/ns/net");
    soon("it is in a namespace of its own", PATIENCE, || {
        run(&format!("readlink /proc/{pid}/ns/net")) != own
    });
    run(&format!("ip link add far9 type veth peer name e0 netns {pid}"));
    let mut daemon = Daemon::start(&["--netns", &pid, "watch", &policy(POLICY)]);
    owner.kill().expect("end it");
    owner.wait().expect("bury it");
    let status = daemon.ends_within(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("has ended or left"), "{}", daemon.log());
    soon("the link is gone", PATIENCE, || !does("ip link show far9"));
}
