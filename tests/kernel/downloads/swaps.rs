//! The programs that tell whose a download is are exchanged while downloads run.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::IFB;
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE};
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::counters::{Classes, classes};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, confined_shaper, policy, shaper};
use crate::support::rates::Interval;
use crate::support::world::{Download, Family, UPLINK, World};

tests!(
    On::Host => downloads_stay_in_their_classes_while_programs_are_exchanged,
        downloads_that_run_are_known_before_they_are_shaped,
        downloads_that_run_are_known_to_who_has_not_the_map,
        downloads_stay_known_while_a_plan_is_made_again;
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
rules:
  # What links say to each other.
  - {dst: fe80::/10, to: unshaped}
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
    let users = users.iter().map(String::as_str).chain(["1:fffd"]);
    since.others_stay_below(MISATTRIBUTED, &users.collect::<Vec<_>>());
}

fn downloads_stay_in_their_classes_while_programs_are_exchanged() {
    let mut world = World::new();
    run("ip link add vc1 type veth peer name vc2");
    apply(POLICY);
    let downloads = eight_downloads(&mut world);
    sleep(Duration::from_millis(500));
    let rule = "  - {from: ann, dst: 203.0.113.0/24, to: bob}\n";
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
        let done = shaper(&["apply", "-v", &policy(text)]).exits(0).stdout;
        assert!(done.contains("filter"), "{what}: {done}");
        all_was_somebodys(what, before);
    }
    drop(downloads);
}

fn downloads_that_run_are_known_before_they_are_shaped() {
    let mut world = World::new();
    let up_only =
        POLICY.replace("down: 400mbit", "default: {rate: 1mbit}").replace(", down: 40mbit", "");
    let downloads = eight_downloads(&mut world);
    sleep(Duration::from_millis(300));
    for before in [None, Some(&up_only)] {
        before.map(|text| apply(text));
        let commands = shaper(&["plan", "--tc", &policy(POLICY)]).stdout;
        let order = ["shaper-learn.o", "sleep 1 # whose", "shaper-redirect.o"];
        assert!(order.map(|word| commands.find(word).expect(word)).is_sorted(), "{commands}");
        let nothing = Classes { by_id: BTreeMap::new(), ..classes(UPLINK) };
        apply(POLICY);
        all_was_somebodys("a first build", nothing);
    }
    drop(downloads);
}

/// Somebody takes the redirect's place while flows are learnt, so that the plan is made again: by
/// then they are known, so whether it waits once more is for the clock to say.
fn downloads_stay_known_while_a_plan_is_made_again() {
    let mut world = World::new();
    let downloads = eight_downloads(&mut world);
    sleep(Duration::from_millis(300));
    let nothing = Classes { by_id: BTreeMap::new(), ..classes(UPLINK) };
    let path = policy(POLICY);
    let done = std::thread::scope(|scope| {
        let applying = scope.spawn(|| shaper(&["apply", "-v", &path]));
        let learns = || {
            let mut tc = Command::new("tc");
            tc.args(["filter", "show", "dev", "up0", "egress"]);
            run_with(tc, "").stdout.contains("shaper-learn")
        };
        soon("flows are learnt", Duration::from_secs(20), learns);
        run(
            "tc filter add dev up0 ingress pref 65000 protocol ip u32 match ip src 255.255.255.255 flowid 1:1",
        );
        applying.join().expect("it ends")
    });
    let done = done.exits(0);
    assert!(done.stderr.contains("sleep 1 # whose"), "{}", done.stderr);
    assert!(done.stderr.matches("shaper-redirect.o").count() > 1, "{}", done.stderr);
    all_was_somebodys("a plan that was made again", nothing);
    drop(downloads);
}

/// As the daemon is confined: it cannot open the map that another process has made.
fn downloads_that_run_are_known_to_who_has_not_the_map() {
    let mut world = World::new();
    apply(POLICY);
    let downloads = eight_downloads(&mut world);
    sleep(Duration::from_millis(300));
    for _ in 0..2 {
        let before = classes(IFB);
        let done = confined_shaper(&["apply", "-v", &policy(POLICY)]).exits(0).stdout;
        assert!(
            done.contains("~ wait 1 s: whose the flows are that run on up0 is learnt"),
            "{done}"
        );
        all_was_somebodys("an exchange with another map", before);
    }
    drop(downloads);
}
