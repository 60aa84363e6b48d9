//! The programs that tell whose a download is are exchanged while downloads run.

use std::thread::sleep;
use std::time::Duration;

use super::IFB;
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE};
use crate::support::command::run;
use crate::support::counters::{Classes, classes};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::{Download, Family, World};

tests!(
    On::Host => downloads_stay_in_their_classes_while_programs_are_exchanged;
);

const PEOPLE: [(&str, Account); 4] = [("ann", ANN), ("bob", BOB), ("carol", CAROL), ("dave", DAVE)];
const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit, down: 400mbit}}
users:
  ann: {ceil: 400mbit, down: 40mbit}
  bob: {ceil: 400mbit, down: 40mbit}
  carol: {ceil: 400mbit, down: 40mbit}
  dave: {ceil: 400mbit, down: 40mbit}
";

/// Bytes of downloads that may come to nobody's class.
const MISATTRIBUTED: u64 = 200;

/// Eight, of four users, over IPv4 and IPv6.
fn eight_downloads(world: &mut World) -> Vec<Download> {
    let each = PEOPLE.into_iter().flat_map(|(_, who)| [(who, Family::V4), (who, Family::V6)]);
    each.map(|(who, family)| world.downloading(who, family)).collect()
}

/// Since then all that came was somebody's.
#[track_caller]
fn all_was_somebodys(what: &str, before: Classes) {
    // What waits in a queue is counted as it leaves.
    sleep(Duration::from_millis(200));
    let users = PEOPLE.map(|(name, _)| classid(&format!("user/{name}")));
    let since = Interval::since(before, IFB);
    let of_users: u64 = users.iter().map(|id| since.bytes(id)).sum();
    println!("{what}: {} B of {of_users} misattributed", since.bytes("1:fffe"));
    assert!(of_users > 500_000, "{what}: downloads run");
    let users = users.each_ref().map(String::as_str);
    since.others_stay_below(MISATTRIBUTED, &users);
}

fn downloads_stay_in_their_classes_while_programs_are_exchanged() {
    let mut world = World::new();
    run("ip link add vc1 type veth peer name vc2");
    apply(POLICY);
    let downloads = eight_downloads(&mut world);
    sleep(Duration::from_millis(500));
    let rule = "rules: [{from: ann, dst: 203.0.113.0/24, to: bob}]\n";
    let guest =
        POLICY.replace("40mbit}\n  bob", "40mbit, accounts: [ann], interfaces: [vc1]}\n  bob");
    assert_ne!(guest, POLICY);
    let edits = [
        ("a rule that asks who sends comes", format!("{POLICY}{rule}")),
        ("guests come", format!("{guest}{rule}")),
        ("the rule goes", guest),
        ("guests go", POLICY.to_string()),
    ];
    for (what, text) in edits.iter().cycle().take(3 * edits.len()) {
        let before = classes(IFB);
        let done = apply(text).stdout;
        assert!(done.contains("filter"), "{what}: {done}");
        all_was_somebodys(what, before);
    }
    drop(downloads);
}
