//! More users than one HTB qdisc is given: guarantees, caps, borrowing and a group's ceil hold
//! across the shards, and growing past the limit harms nobody.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL, DAVE};
use crate::support::cell::{SCRATCH, number};
use crate::support::command::{run, run_with};
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{
    NET_CLS, apply, binary, classid, kernel_has_cls_cgroup, policy, raw_classid, shaper,
};
use crate::support::rates::{self, MBIT, between, within};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => guarantees_caps_and_borrowing_hold_across_shards;
    On::Host => a_groups_ceil_holds_for_its_members_in_shards, what_is_left_over_is_shared_by_shards,
        growing_past_the_limit_loses_and_misclassifies_nothing,
        status_and_why_show_users_in_shards_like_others,
        a_tag_whose_class_is_gone_falls_to_a_default_class,
        where_only_cls_cgroup_is_wanted_all_stay_in_one_qdisc,
        where_no_thread_may_be_started_a_crowd_is_looked_at_all_the_same;
);

/// Lines for so many users that nobody is.
fn crowd(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "  c{n}: {{ceil: 50mbit, uids: [{}]}}", 100_000 + n);
        text
    })
}

/// The qdisc that a user's class is in, as `tc` writes it.
fn major(claim: &str) -> String {
    classid(claim).split(':').next().unwrap_or("").to_string()
}

/// Packets that went past every class. Between a new root and its default class some may: that is
/// the first build, and they are not held against what comes later.
fn direct() -> u64 {
    let root = run("tc -s qdisc show dev up0 root");
    let mut words = root.split_whitespace().skip_while(|word| *word != "direct_packets_stat");
    words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{root}"))
}

pub fn guarantees_caps_and_borrowing_hold_across_shards() {
    let mut world = World::new();
    let (mut ann, mut bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V6));
    let mut carol = world.pouring(CAROL, Family::V4);
    let text = format!(
        "
version: 1
links: {{up0: {{rate: 60mbit, default: {{rate: 2mbit}}}}}}
users:
  ann: {{rate: 30mbit, ceil: 60mbit}}
  bob: {{rate: 15mbit, ceil: 60mbit}}
  carol: {{rate: 2mbit, ceil: 8mbit}}
{}",
        crowd(1_050)
    );
    apply(&text);
    let [of_ann, of_bob, of_carol] = ["user/ann", "user/bob", "user/carol"].map(classid);
    assert_eq!([&of_ann, &of_bob, &of_carol].map(|id| &id[..4]), ["e000", "e001", "e000"]);
    sleep(Duration::from_secs(2));
    let all: &[&str] = &[&of_ann, &of_bob, &of_carol];
    let three = rates::expect(UPLINK, Duration::from_secs(4), &[(all, 60 * MBIT, 2)]);
    between("ann, guaranteed 30", three.rate(&of_ann), 294 * MBIT / 10, 44 * MBIT);
    between("bob, guaranteed 15", three.rate(&of_bob), 147 * MBIT / 10, 29 * MBIT);
    between("carol, capped at 8", three.rate(&of_carol), 196 * MBIT / 100, 8 * MBIT * 102 / 100);
    ann.actor.stop(ann.socket);
    sleep(Duration::from_secs(1));
    let two: &[&str] = &[&of_bob, &of_carol];
    let borrowing = rates::expect(UPLINK, Duration::from_secs(3), &[(two, 60 * MBIT, 2)]);
    between("carol, capped at 8", borrowing.rate(&of_carol), 2 * MBIT, 8 * MBIT * 102 / 100);
    carol.actor.stop(carol.socket);
    sleep(Duration::from_secs(1));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_bob], 60 * MBIT, 2)]);
    bob.actor.stop(bob.socket);
    let mut carol = world.pouring(CAROL, Family::V6);
    shaper(&["apply", &policy(&text)]).exits(0);
    sleep(Duration::from_secs(1));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_carol], 8 * MBIT, 2)]);
    carol.actor.stop(carol.socket);
    // An fq_codel lists its busy flows as classes.
    let count = || run("tc class show dev up0").matches("class htb").count();
    let classes = count();
    let again = shaper(&["apply", &policy(&text)]).exits(0);
    assert_eq!(again.stdout, "in sync\n");
    assert_eq!(count(), classes);
    shaper(&["clear"]).exits(0);
    assert!(!run("tc qdisc show dev up0").contains("htb"));
    assert!(!Path::new(NET_CLS).exists());
}

/// How many the team and the others are: two shards, and one.
const TEAM: u32 = 1_100;
const EVERYBODY: u32 = 1_400;

/// A team with 30 Mbit for all, most of whom are nobody.
fn team() -> String {
    let members: Vec<String> = (2..TEAM).map(|n| format!("c{n}")).collect();
    format!(
        "
version: 1
links: {{up0: {{rate: 80mbit, default: {{rate: 2mbit}}}}}}
groups: {{team: {{users: [ann, bob, {}], rate: 20mbit, ceil: 30mbit}}}}
users:
  ann: {{rate: 12mbit, ceil: 30mbit}}
  bob: {{rate: 4mbit, ceil: 30mbit}}
  carol: {{ceil: 40mbit}}
{}",
        members.join(", "),
        crowd(EVERYBODY).replace("50mbit", "30mbit")
    )
}

fn a_groups_ceil_holds_for_its_members_in_shards() {
    let mut world = World::new();
    let _streams = [ANN, BOB, CAROL].map(|account| world.pouring(account, Family::V4));
    apply(&team());
    let [ann, bob, carol, team] = ["user/ann", "user/bob", "user/carol", "group/team"].map(classid);
    assert!(ann[..4] != bob[..4] && ann.starts_with("e0") && bob.starts_with("e0"), "{ann} {bob}");
    assert!(carol.starts_with("e0") && ![&ann[..4], &bob[..4]].contains(&&carol[..4]), "{carol}");
    sleep(Duration::from_secs(2));
    let expected: &[rates::Expected<'_>] =
        &[(&[&ann, &bob], 30 * MBIT, 2), (&[&team], 30 * MBIT, 2), (&[&carol], 40 * MBIT, 2)];
    let interval = rates::expect(UPLINK, Duration::from_secs(4), expected);
    between("ann, guaranteed 12", interval.rate(&ann), 117 * MBIT / 10, 26 * MBIT);
    between("bob, guaranteed 4", interval.rate(&bob), 39 * MBIT / 10, 18 * MBIT);
}

/// What docs/scale.md says: a shard's users share what their shard gets.
fn what_is_left_over_is_shared_by_shards() {
    let mut world = World::new();
    let _streams = [ANN, BOB, CAROL, DAVE].map(|account| world.pouring(account, Family::V4));
    // 1,053 users are two shards, filled in turn: ann, bob and carol are in the first.
    let mut lines: Vec<String> = crowd(1_049).lines().map(str::to_string).collect();
    for (at, name) in [(0, "ann"), (2, "bob"), (4, "carol"), (7, "dave")] {
        lines.insert(at, format!("  {name}: {{rate: 4mbit, ceil: 60mbit}}"));
    }
    apply(&format!(
        "version: 1\nlinks: {{up0: {{rate: 60mbit, default: {{rate: 2mbit}}}}}}\nusers:\n{}\n",
        lines.join("\n")
    ));
    let [ann, bob, carol, dave] = ["user/ann", "user/bob", "user/carol", "user/dave"].map(classid);
    assert!([&bob, &carol].iter().all(|id| id[..4] == ann[..4]) && dave[..4] != ann[..4]);
    sleep(Duration::from_secs(2));
    let all: &[&str] = &[&ann, &bob, &carol, &dave];
    let interval = rates::expect(UPLINK, Duration::from_secs(4), &[(all, 60 * MBIT, 2)]);
    for id in [&ann, &bob, &carol] {
        between("one of three in a shard", interval.rate(id), 39 * MBIT / 10, 18 * MBIT);
    }
    between("one alone in another", interval.rate(&dave), 15 * MBIT, 45 * MBIT);
    let most = [&ann, &bob, &carol].map(|id| interval.rate(id)).into_iter().max();
    assert!(Some(interval.rate(&dave)) > most, "one alone has more than each of three");
}

fn growing_past_the_limit_loses_and_misclassifies_nothing() {
    let mut world = World::new();
    let text = |count: u32, more: &str| {
        format!(
            "version: 1\nlinks: {{up0: {{rate: 300mbit}}}}\nusers:\n  ann: {{ceil: 20mbit}}\n{}{more}",
            crowd(count)
        )
    };
    let few = text(900, "");
    apply(&few);
    let past_all = direct();
    let of_ann = classid("user/ann");
    assert_eq!(major("user/ann"), "1");
    let mut ann = world.beating(ANN, Family::V4, 3 * MBIT);
    shaper(&["apply", &policy(&few)]).exits(0);
    // ann has a class already; bob and carol come with the others.
    let many = text(1_200, "  bob: {ceil: 20mbit}\n  carol: {ceil: 20mbit}\n");
    let grown = shaper(&["apply", "-v", &policy(&many)]).exits(0);
    assert!(grown.stdout.contains("filter pref 201: bpf"), "the root's filter was replaced");
    assert_eq!((classid("user/ann"), major("user/bob").len()), (of_ann.clone(), 4));
    let mut bob = world.beating(BOB, Family::V4, 3 * MBIT);
    apply(&many);
    // Back below the limit: bob stays where he is.
    let few_with_bob = text(300, "  bob: {ceil: 20mbit}\n");
    let of_bob = classid("user/bob");
    apply(&few_with_bob);
    assert_eq!(classid("user/bob"), of_bob);
    sleep(Duration::from_millis(500));
    let interval = rates::over(UPLINK, Duration::from_secs(2));
    // 1,042 bytes on the wire for 1,000 of payload.
    within("ann", interval.rate(&of_ann), 3 * MBIT * 1_042 / 1_000, 3);
    within("bob", interval.rate(&of_bob), 3 * MBIT * 1_042 / 1_000, 3);
    // The last shard goes, and with it the way there.
    apply(&text(300, ""));
    assert!(!run("tc qdisc show dev up0").contains(" e00"), "a shard is left");
    assert!(!run("tc filter show dev up0").contains("shaper-shards"));
    for (who, stream) in [("ann", &mut ann), ("bob", &mut bob)] {
        let (_, sent) = stream.actor.stop(stream.socket);
        sleep(Duration::from_millis(300));
        let seen = world.far.seen(Proto::Udp, stream.port);
        let numbers = seen.senders.values().next().expect("a sender");
        let arrived = numbers.packets - numbers.duplicates;
        println!("{who}: {sent} sent, longest silence {} ms", seen.longest_silence / 1_000);
        assert_eq!((sent - arrived, numbers.duplicates), (0, 0), "{who}");
    }
    assert_eq!(direct(), past_all);
}

fn status_and_why_show_users_in_shards_like_others() {
    let mut world = World::new();
    let mut ann = world.stream(ANN, Family::V4);
    apply(&team());
    let id = classid("user/ann");
    ann.actor.tell(&Order::Send { socket: ann.socket, bytes: 1_000_000 });
    world.until("all of it has arrived", |world| world.seen(&ann).bytes >= 1_000_000);
    let status = shaper(&["status", "ann"]).exits(0).stdout;
    let row = status.lines().find(|line| line.contains("ann")).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(&words[..4], ["ann", id.as_str(), "12mbit", "30mbit"]);
    assert!(words[4].ends_with("MiB"), "what was sent: {row}");
    assert_eq!(words[7], "1", "{row}");
    let whole = shaper(&["status"]).exits(0).stdout;
    let rows = whole.lines().filter(|line| line.contains(" e0")).count();
    assert_eq!(rows, EVERYBODY as usize + 3, "only users");
    assert!(!whole.contains("not ours"), "{whole}");
    let why = shaper(&["why", "ann", "--file", &policy(&team())]).exits(0).stdout;
    assert!(why.contains(&format!("class {id}")) && why.contains("rate 12mbit"), "{why}");
    let echo = "cat /proc/self/cgroup";
    let inside = shaper(&["run", "ann", "--", "sh", "-c", echo]).exits(0).stdout;
    assert!(inside.contains("user/ann/pinned"), "{inside}");
    assert_eq!(raw_classid("user/ann/pinned"), raw_classid("user/ann"));
}

/// As when somebody deletes it by hand: inside the shard and without a guarantee, not past every
/// limit.
fn a_tag_whose_class_is_gone_falls_to_a_default_class() {
    let mut world = World::new();
    let stream = world.pouring(ANN, Family::V4);
    apply(&format!(
        "version: 1\nlinks: {{up0: {{rate: 60mbit, default: {{rate: 5mbit, ceil: 20mbit}}}}}}\nusers:\n  ann: 40mbit\n{}",
        crowd(1_050)
    ));
    let (id, shard) = (classid("user/ann"), major("user/ann"));
    let past_all = direct();
    sleep(Duration::from_secs(1));
    run(&format!("tc class del dev up0 classid {id}"));
    let default = format!("{shard}:fffe");
    sleep(Duration::from_secs(1));
    let interval = rates::over(UPLINK, Duration::from_secs(2));
    // As the link's own default: at most its ceil. Which class it is counts here, not the last
    // percent.
    between("the shard's default", interval.rate(&default), 5 * MBIT, 24 * MBIT);
    // With the whole shard gone: to the link's default.
    run(&format!("tc qdisc del dev up0 parent 1:{shard} handle {shard}:"));
    run(&format!("tc class del dev up0 classid 1:{shard}"));
    sleep(Duration::from_secs(1));
    let interval = rates::over(UPLINK, Duration::from_secs(2));
    between("the link's default", interval.rate("1:fffe"), 5 * MBIT, 24 * MBIT);
    assert!(world.seen(&stream).bytes > 0);
    assert_eq!(direct(), past_all);
    // The next apply makes all of it again.
    shaper(&["apply", &format!("{SCRATCH}/policies.yaml")]).exits(0);
    assert_eq!(classid("user/ann"), id);
    sleep(Duration::from_secs(1));
    let interval = rates::over(UPLINK, Duration::from_secs(2));
    between("ann", interval.rate(&id), 25 * MBIT, 48 * MBIT);
    interval.others_stay_below(10_000, &[&id, &format!("1:{shard}")]);
}

fn where_only_cls_cgroup_is_wanted_all_stay_in_one_qdisc() {
    let _world = World::new();
    let text = format!(
        "version: 1\nlinks: {{up0: {{rate: 300mbit, classifier: cgroup}}}}\nusers:\n{}",
        crowd(1_001)
    );
    let tried = shaper(&["apply", &policy(&text)]);
    if kernel_has_cls_cgroup() {
        assert!(tried.stderr.contains("stay in one HTB qdisc"), "{}", tried.stderr);
        assert_eq!(major("user/c1000"), "1");
    } else {
        assert!(tried.stderr.contains("no `cls_cgroup` classifier"), "{}", tried.stderr);
    }
}

/// A service manager may allow few (`TasksMax`), and what is many is shared out between threads.
fn where_no_thread_may_be_started_a_crowd_is_looked_at_all_the_same() {
    let _world = World::new();
    let text = format!("version: 1\nlinks: {{up0: {{rate: 60mbit}}}}\nusers:\n{}", crowd(1_050));
    apply(&text);
    let pids = format!("{SCRATCH}/pids");
    let group = format!("{pids}/shaper-test-{}", number());
    fs::create_dir(&pids).expect("mkdir");
    run(&format!("mount -t cgroup -o pids none {pids}"));
    // Of a run that was killed.
    let _ = fs::remove_dir(&group);
    fs::create_dir(&group).expect("a pids cgroup");
    let mut alone = Command::new("sh");
    alone.args(["-c", "echo $$ >$0/cgroup.procs && echo 1 >$0/pids.max && exec $1 apply $2"]);
    alone.args([group.as_ref(), binary().as_os_str(), policy(&text).as_ref()]);
    let done = run_with(alone, "");
    let refused = fs::read_to_string(format!("{group}/pids.events"));
    fs::remove_dir(&group).expect("the cgroup is empty");
    assert_eq!(done.exits(0).stdout, "in sync\n");
    assert!(refused.is_ok_and(|events| events != "max 0\n"), "a thread was wanted");
}
