//! Changes that are taken back unless somebody confirms them, and foreign roots that come back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::program::{CLAIMS, directory, members, policy, shaper};
use crate::support::world::{UPLINK, World};

tests!(
    On::Host => a_confirmed_change_stays, an_unconfirmed_change_is_taken_back,
        processes_go_back_to_where_they_were, a_root_that_was_taken_over_comes_back,
        a_change_is_confirmed_whatever_cannot_be_seen_of_a_daemon;
);

const OLD: &str = "version: 1\nlinks: {up0: 1gbit}\nusers: {ann: {rate: 10mbit}}\n";
const NEW: &str = "version: 1\nlinks: {up0: 1gbit}\nusers: {ann: {rate: 20mbit}}\n";

fn ann_rate() -> String {
    let text = run(&format!("tc class show dev {UPLINK}"));
    let line = text.lines().find(|line| line.contains(" 1:10 ")).expect("ann's class");
    line.split("rate ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a rate").to_string()
}

/// Nobody confirms the change: the guard takes it back, and ends.
fn is_taken_back() {
    soon("the guard ends", Duration::from_secs(20), || !directory("confirm").exists());
}

fn a_confirmed_change_stays() {
    let _world = World::new();
    shaper(&["apply", &policy(OLD)]).exits(0);
    shaper(&["confirm"]).exits(2);
    let told = shaper(&["apply", "--confirm", "30", &policy(NEW)]).exits(0);
    assert!(told.stderr.contains("shaper confirm"), "{told:?}");
    assert_eq!(ann_rate(), "20Mbit", "in force while it waits");
    let other = shaper(&["apply", &policy(OLD)]).exits(4);
    assert!(other.stderr.contains("waits to be confirmed"), "{other:?}");
    shaper(&["clear"]).exits(4);
    shaper(&["plan", "--exit-code", &policy(OLD)]).exits(3);
    shaper(&["confirm"]).exits(0);
    shaper(&["apply", &policy(NEW)]).exits(0);
    assert_eq!(ann_rate(), "20Mbit");
    shaper(&["clear"]).exits(0);
}

fn a_change_is_confirmed_whatever_cannot_be_seen_of_a_daemon() {
    let _world = World::new();
    let untagged = |text: &str| text.replace("1gbit", "{rate: 1gbit, classifier: uid}");
    shaper(&["apply", &policy(&untagged(OLD))]).exits(0);
    shaper(&["apply", "--confirm", "600", &policy(&untagged(NEW))]).exits(0);
    // What a daemon locks cannot be opened: a link to itself.
    let locked = Path::new(CLAIMS).join("shaper/watch");
    symlink("watch", &locked).expect("a link");
    let done = shaper(&["confirm"]).exits(0);
    assert_eq!(done.stdout, "confirmed\n");
    assert!(done.stderr.contains("whether a daemon runs cannot be seen"), "{done:?}");
    fs::remove_file(&locked).expect("take it away");
    shaper(&["apply", &policy(&untagged(NEW))]).exits(0);
    assert_eq!(ann_rate(), "20Mbit");
    shaper(&["clear"]).exits(0);
}

fn an_unconfirmed_change_is_taken_back() {
    let _world = World::new();
    shaper(&["apply", &policy(OLD)]).exits(0);
    shaper(&["apply", "--confirm", "2", &policy(NEW)]).exits(0);
    assert_eq!(ann_rate(), "20Mbit");
    is_taken_back();
    assert_eq!(ann_rate(), "10Mbit");
    // With --force, which makes its policy the one that is kept.
    shaper(&["apply", "--force", &policy(OLD)]).exits(0);
    shaper(&["apply", "--confirm", "1", &policy(NEW)]).exits(0);
    is_taken_back();
    let refused = shaper(&["apply", &policy(NEW)]).exits(2);
    assert!(refused.stderr.contains("taken back"), "{refused:?}");
    shaper(&["apply", &policy(OLD)]).exits(0);
    shaper(&["apply", &policy(NEW)]).exits(0);
    assert_eq!(ann_rate(), "20Mbit", "another policy in between forgets it");
}

fn processes_go_back_to_where_they_were() {
    let world = World::new();
    let ann = world.actor(ANN);
    let pid = ann.pid();
    let pinned = world.actor(BOB);
    shaper(&["apply", &policy(OLD)]).exits(0);
    shaper(&["attach", "ann", &pinned.pid().to_string()]).exits(0);
    assert!(members("user/ann").contains(&pid));
    let without = "version: 1\nlinks: {up0: 1gbit}\neveryone: 50mbit\n";
    shaper(&["apply", "--confirm", "2", &policy(without)]).exits(0);
    assert!(!directory("user/ann").exists(), "nobody has that line now");
    is_taken_back();
    assert!(members("user/ann").contains(&pid));
    assert!(members("user/ann/pinned").contains(&pinned.pid()), "also what was put there by hand");
}

fn a_root_that_was_taken_over_comes_back() {
    let _world = World::new();
    run(&format!(
        "tc qdisc add dev {UPLINK} root handle 7: tbf rate 80mbit burst 100kb latency 20ms"
    ));
    let root = || run(&format!("tc qdisc show dev {UPLINK} root"));
    let before = root();
    let refused = shaper(&["apply", &policy(OLD)]).exits(2);
    assert!(
        refused.stderr.contains("tbf 7:") && refused.stderr.contains("--takeover"),
        "{refused:?}"
    );
    assert_eq!(root(), before);
    shaper(&["apply", "--takeover", "--confirm", "2", &policy(OLD)]).exits(0);
    assert!(root().contains("htb 1:"), "{}", root());
    is_taken_back();
    assert_eq!(root(), before);
    assert!(counters::classes(UPLINK).by_id.is_empty());
}
