//! Whose a packet is when processes change hands: logins, moves, inherited sockets, accounts that
//! no line names, and what `run` and `attach` put in a class.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL, DAVE, ERIN, ROOT};
use crate::support::actor::Actor;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::orders::{Answer, Order, Proto};
use crate::support::program::{apply, binary, classid, confined_shaper, members, policy, shaper};
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};
use shaper::sys::probe;
use shaper::tree::Classifier;

tests!(
    On::Every => a_login_accepted_by_root_is_the_users, a_child_inherits_the_class_of_its_socket,
        run_puts_a_command_in_a_users_class;
    On::HostAndUml => a_stream_follows_its_process, everyone_covers_accounts_without_a_line,
        a_passed_socket_stays_its_owners, with_cls_cgroup_a_passed_socket_is_whosoever_moved_last;
    // Placement alone, which is the same on every kernel.
    On::Host => members_of_a_unix_group_are_its_own, attach_outlives_an_apply, nobodys_process_leaves_our_directories;
);

const ANN_AND_BOB: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 30mbit}
";

const BOB_ALONE: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {bob: 30mbit}
";

const NOISE: u64 = 3_000;

/// For half a second, everything must go through this class.
#[track_caller]
pub fn all_passes_through(class: &str) {
    // What was queued in another class leaves first: 131 kB of the socket's at 5 Mbit or more.
    sleep(Duration::from_millis(500));
    let interval = rates::over(UPLINK, Duration::from_millis(500));
    assert!(interval.rate(class) > 10 * MBIT, "{class}: {:?}", interval.leaves());
    interval.others_stay_below(NOISE, &[class]);
}

pub fn a_login_accepted_by_root_is_the_users() {
    let mut world = World::new();
    apply(ANN_AND_BOB);
    let mut sshd = world.actor(ROOT);
    let listener = sshd.socket(&Order::Listen(world.host_at(Family::V4, 2222)));
    let from_afar = world.far.connect(world.host_at(Family::V4, 2222));
    world.far.tell(&Order::Drain { socket: from_afar, port: 2222 });
    let socket = sshd.socket(&Order::Accept(listener));
    let child = match sshd.tell(&Order::Hand { socket, to: ANN }) {
        Answer::Child(pid) => pid,
        other => panic!("{other:?}"),
    };
    all_passes_through("1:fffe");
    apply(ANN_AND_BOB);
    assert!(members("user/ann").contains(&child));
    assert!(!members("user/ann").contains(&sshd.pid()), "root's own process is nobody's");
    all_passes_through(&classid("user/ann"));
    assert!(world.far.seen(Proto::Tcp, 2222).bytes > 1_000_000);
}

pub fn a_stream_follows_its_process() {
    let mut world = World::new();
    let stream = world.pouring(ANN, Family::V6);
    apply(BOB_ALONE);
    all_passes_through("1:fffe");
    let arrived = world.seen(&stream).bytes;
    apply(ANN_AND_BOB);
    let class = classid("user/ann");
    all_passes_through(&class);
    rates::expect(UPLINK, Duration::from_secs(1), &[(&[&class], 30 * MBIT, 4)]);
    assert!(world.seen(&stream).bytes > arrived, "the stream itself goes on");
}

pub fn a_child_inherits_the_class_of_its_socket() {
    let mut world = World::new();
    let mut stream = world.stream(BOB, Family::V4);
    apply(ANN_AND_BOB);
    // The child is made after the apply: it inherits the directory, and nobody need move it.
    stream.actor.tell(&Order::Hand { socket: stream.socket, to: BOB });
    all_passes_through(&classid("user/bob"));
}

const ANN_BOB_AND_CAROL: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 30mbit, carol: 30mbit}
";

/// The kernel gives a socket the receiver's tag, and so nobody could keep his class from being
/// spent by somebody who passes him a connection. Its owner does not change.
fn a_passed_socket_stays_its_owners() {
    let mut world = World::new();
    let mut carol = world.stream(CAROL, Family::V4);
    let mut bob = world.actor(BOB);
    apply(ANN_BOB_AND_CAROL);
    bob.tell(&Order::Mailbox("bob".to_string()));
    carol.actor.tell(&Order::Give { socket: carol.socket, to: "bob".to_string() });
    let socket = bob.socket(&Order::Take);
    bob.pour(socket);
    all_passes_through(&classid("user/carol"));
    // His being moved writes his tag once more.
    shaper(&["attach", "ann", &bob.pid().to_string()]).exits(0);
    all_passes_through(&classid("user/carol"));
    // Hers is on purpose: a class that her process was put into has what it sends.
    shaper(&["attach", "ann", &carol.pid().to_string()]).exits(0);
    all_passes_through(&classid("user/ann"));
    apply(ANN_BOB_AND_CAROL);
    all_passes_through(&classid("user/ann"));
}

/// Where the tag alone decides it is whosoever was moved, or was passed the socket, last.
fn with_cls_cgroup_a_passed_socket_is_whosoever_moved_last() {
    if !probe::features().expect("features").classifiers.contains(&Classifier::Cgroup) {
        return println!("not tried: this kernel has no cls_cgroup; the lab's have");
    }
    let text = ANN_BOB_AND_CAROL.replace("{rate: 100mbit,", "{rate: 100mbit, classifier: cgroup,");
    let mut world = World::new();
    let mut carol = world.stream(CAROL, Family::V4);
    let mut bob = world.actor(BOB);
    apply(&text);
    bob.tell(&Order::Mailbox("bob".to_string()));
    carol.actor.tell(&Order::Give { socket: carol.socket, to: "bob".to_string() });
    let socket = bob.socket(&Order::Take);
    bob.pour(socket);
    all_passes_through(&classid("user/bob"));
    // Carol holds a copy still: with her process, bob's stream changes class.
    shaper(&["attach", "ann", &carol.pid().to_string()]).exits(0);
    all_passes_through(&classid("user/ann"));
    // Nothing moves, so nothing is tagged.
    apply(&text);
    all_passes_through(&classid("user/ann"));
    shaper(&["attach", "carol", &bob.pid().to_string()]).exits(0);
    all_passes_through(&classid("user/carol"));
}

pub fn everyone_covers_accounts_without_a_line() {
    let mut world = World::new();
    let _carol = world.pouring(CAROL, Family::V4);
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 10mbit}
everyone: 25mbit
";
    apply(text);
    let class = classid(&format!("uid/{}", CAROL.uid));
    all_passes_through(&class);
    rates::expect(UPLINK, Duration::from_secs(1), &[(&[&class], 25 * MBIT, 4)]);
    let why = shaper(&["why", "--file", &policy(text), "carol"]).exits(0);
    assert!(why.stdout.contains("everyone") && why.stdout.contains(&class), "{}", why.stdout);
}

pub fn members_of_a_unix_group_are_its_own() {
    let mut world = World::new();
    let _streams = [world.pouring(DAVE, Family::V4), world.pouring(ERIN, Family::V4)];
    apply(
        "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
groups: {students: {gid: students, rate: 30mbit, ceil: 60mbit, each: {ceil: 20mbit}}}
everyone: 5mbit
",
    );
    sleep(Duration::from_secs(1));
    let [dave, erin] = [DAVE, ERIN].map(|student| classid(&format!("uid/{}", student.uid)));
    let expected: &[rates::Expected<'_>] = &[(&[&dave], 20 * MBIT, 2), (&[&erin], 20 * MBIT, 2)];
    rates::expect(UPLINK, Duration::from_secs(3), expected);
}

fn run_puts_a_command_in_a_users_class() {
    let mut world = World::new();
    apply(ANN_AND_BOB);
    let myself = std::env::current_exe().expect("this binary's path");
    let mut command = Command::new(binary());
    command.args(["run", "ann", "--"]).arg(myself).arg("--actor");
    let mut actor = Actor::start(command);
    let port = world.sink(Proto::Tcp);
    let socket = actor.connect(world.far_at(Family::V4, port));
    actor.pour(socket);
    let class = classid("user/ann");
    all_passes_through(&class);
    apply(ANN_AND_BOB);
    all_passes_through(&class);
    assert_eq!(shaper(&["run", "ann", "--", "sh", "-c", "exit 7"]).status, Some(7));
    assert_eq!(shaper(&["run", "ann", "--", "/no/such/program"]).status, Some(127));
}

fn attach_outlives_an_apply() {
    let mut world = World::new();
    apply(ANN_AND_BOB);
    let stream = world.pouring(CAROL, Family::V4);
    all_passes_through("1:fffe");
    shaper(&["attach", "bob", &stream.pid().to_string()]).exits(0);
    all_passes_through(&classid("user/bob"));
    apply(ANN_AND_BOB);
    assert!(members("user/bob/pinned").contains(&stream.pid()));
    let bob = classid("user/bob");
    all_passes_through(&bob);
    // As the daemon begins, with maps of its own.
    let before = counters::classes(UPLINK);
    let done = confined_shaper(&["apply", "-v", &policy(ANN_AND_BOB)]).exits(0).stdout;
    assert!(done.contains("+ owners: "), "{done}");
    rates::Interval::since(before, UPLINK).others_stay_below(NOISE, &[&bob]);
}

fn nobodys_process_leaves_our_directories() {
    let mut world = World::new();
    let (ann, bob) = (world.pouring(ANN, Family::V4), world.actor(BOB));
    apply(ANN_AND_BOB);
    assert!(members("user/ann").contains(&ann.pid()) && members("user/bob").contains(&bob.pid()));
    apply(BOB_ALONE);
    all_passes_through("1:fffe");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", ann.pid())).expect("ann's cgroup");
    let net_cls = cgroup.lines().find(|line| line.contains("net_cls")).unwrap_or("");
    assert!(net_cls.ends_with(":/"), "{net_cls}");
    let classes = counters::classes(UPLINK);
    assert!(classes.by_id.contains_key(&classid("user/bob")));
}
