//! A descriptor that is passed on (SCM_RIGHTS), and a process that becomes another user with a
//! socket in its hands: the kernel gives the socket the receiver's tag, or the tag of where its
//! process moves. The owner stays, so neither side's class changes hands. With the tag alone, a
//! connection passed to the D-Bus daemon had the whole link.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, Account, BOB, ROOT};
use crate::support::actor::Actor;
use crate::support::guest::tells_sockets_apart;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, SocketId};
use crate::support::program::{apply, classid, members};
use crate::support::rates;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => a_passed_connection_stays_its_owners,
        so_does_one_that_root_accepted_and_handed_on,
        who_becomes_another_with_a_connection_does_not_pay_for_it;
    On::Carriers => what_is_passed_on_beside_drivers_of_guests_is_its_owners_or_the_tags;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, default: {rate: 50mbit}}}
users: {ann: 10mbit, bob: 10mbit}
";

/// An actor that takes what is passed to it.
fn receiver(world: &World, account: Account, name: &str) -> Actor {
    let mut actor = world.actor(account);
    actor.tell(&Order::Mailbox(name.to_string()));
    actor
}

fn pass(from: &mut Actor, socket: SocketId, to: &mut Actor, name: &str) -> SocketId {
    from.tell(&Order::Give { socket, to: name.to_string() });
    to.socket(&Order::Take)
}

/// What pours now is all ann's.
#[track_caller]
fn all_is_anns() {
    all_is("user/ann");
}

#[track_caller]
fn all_is(claim: &str) {
    let class = classid(claim);
    let interval = rates::over(UPLINK, Duration::from_secs(1));
    assert!(interval.bytes(&class) > 300_000, "{:?}", interval.leaves());
    interval.others_stay_below(100_000, &[&class]);
}

pub fn a_passed_connection_stays_its_owners() {
    let mut world = World::new();
    let mut ann = world.stream(ANN, Family::V4);
    let (mut bob, mut daemon) = (receiver(&world, BOB, "bob"), receiver(&world, ROOT, "daemon"));
    apply(POLICY);
    let at_daemon = pass(&mut ann.actor, ann.socket, &mut daemon, "daemon");
    daemon.pour(at_daemon);
    all_is_anns();
    daemon.stop(at_daemon);
    let at_bob = pass(&mut ann.actor, ann.socket, &mut bob, "bob");
    bob.pour(at_bob);
    all_is_anns();
}

pub fn so_does_one_that_root_accepted_and_handed_on() {
    let mut world = World::new();
    let mut server = world.actor(ROOT);
    let at = world.host_at(Family::V4, 2_225);
    let listener = server.socket(&Order::Listen(at));
    let far = world.far.connect(at);
    world.far.tell(&Order::Drain { socket: far, port: 2_225 });
    let connection = server.socket(&Order::Accept(listener));
    let mut daemon = receiver(&world, ROOT, "daemon");
    server.become_account(ANN);
    apply(POLICY);
    assert!(members("user/ann").contains(&server.pid()));
    let socket = pass(&mut server, connection, &mut daemon, "daemon");
    daemon.pour(socket);
    all_is_anns();
}

/// `at` and its like are set-uid programs that change the real uid too.
pub fn who_becomes_another_with_a_connection_does_not_pay_for_it() {
    let mut world = World::new();
    let mut ann = world.stream(ANN, Family::V4);
    let mut other = receiver(&world, ROOT, "program");
    let socket = pass(&mut ann.actor, ann.socket, &mut other, "program");
    other.become_account(BOB);
    apply(POLICY);
    assert!(members("user/bob").contains(&other.pid()));
    other.pour(socket);
    all_is_anns();
}

/// Drivers bring guests' sockets. Where the kernel cannot tell these from ours, the tag goes first;
/// who has none is his owner's all the same.
fn what_is_passed_on_beside_drivers_of_guests_is_its_owners_or_the_tags() {
    let mut world = World::new();
    let mut bob = receiver(&world, BOB, "bob");
    apply(POLICY);
    // Nobody has placed her.
    let mut ann = world.stream(ANN, Family::V4);
    let own = ann.actor.connect(world.far_at(Family::V4, ann.port));
    ann.actor.pour(own);
    all_is_anns();
    ann.actor.stop(own);
    let at_bob = pass(&mut ann.actor, ann.socket, &mut bob, "bob");
    bob.pour(at_bob);
    // What she had queued leaves first.
    sleep(Duration::from_millis(300));
    all_is(if tells_sockets_apart() { "user/ann" } else { "user/bob" });
}
