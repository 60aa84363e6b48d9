//! Whatever a foreign hand does to what leads packets in, the host stays within reach: with a
//! daemon, and without one.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::ROOT;
use crate::support::actor::Actor;
use crate::support::clock::soon;
use crate::support::command::run_with;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Place, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, policy, shaper};
use crate::support::world::{Family, World};

tests!(
    On::HostAndNight => no_hand_cuts_the_host_off_without_a_daemon, nor_with_one,
        what_is_switched_off_again_and_again_cuts_nobody_off;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}}
users: {ann: {ceil: 20mbit, down: 10mbit}}
";

/// How long the host may be out of reach.
const LONGEST: Duration = Duration::from_millis(100);

/// Packets that come from outside, one a millisecond.
struct Knocking {
    host: Actor,
    port: u16,
}

impl Knocking {
    fn new(world: &World) -> Knocking {
        Knocking { host: world.actor(ROOT), port: 7_000 }
    }

    /// The longest time without a packet while `hand` is at work and for so long afterwards.
    fn silence(
        &mut self,
        world: &mut World,
        time: Duration,
        hand: impl FnOnce(&World),
    ) -> Duration {
        self.port += 1;
        self.host.sink(Proto::Udp, self.port);
        let to = world.host_at(Family::V4, self.port);
        let socket = world.far.socket(&Order::Datagram(to));
        world.far.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 800_000 });
        sleep(Duration::from_millis(100));
        hand(world);
        sleep(time);
        let (_, sent) = world.far.stop(socket);
        let seen = self.host.seen(Proto::Udp, self.port);
        println!("{} of {sent} packets came", seen.packets);
        assert!(seen.packets > 100);
        Duration::from_micros(seen.longest_silence)
    }
}

/// What somebody does: `tc` and `ip` commands, of which `PID` stands for a process of another
/// network namespace.
const HANDS: [&str; 13] = [
    "true",
    "ip link set ifb-up0 down",
    "ip link del ifb-up0",
    "ip link set ifb-up0 name other",
    "ip link set ifb-up0 netns PID",
    "tc qdisc del dev ifb-up0 root",
    "tc qdisc replace dev ifb-up0 root handle 7: pfifo limit 0",
    "tc qdisc replace dev ifb-up0 root handle 7: tbf rate 8kbit burst 100b limit 100b",
    "tc qdisc replace dev ifb-up0 root handle 7: htb default 1",
    "tc filter del dev ifb-up0 parent 1:",
    "tc filter del dev up0 egress",
    "tc qdisc del dev up0 clsact",
    "tc qdisc del dev up0 root",
];

/// What this kernel lets anybody do: older ones refuse another name to a link that is up.
fn hands() -> impl Iterator<Item = &'static str> {
    let may = |hand: &&str| Place::current() == Place::Host || !hand.contains(" name ");
    HANDS.into_iter().filter(may)
}

fn by_hand(world: &World, hand: &str) {
    let line = hand.replace("PID", &world.far.pid().to_string());
    let words: Vec<&str> = line.split_whitespace().collect();
    run_with(world.command(&words), "").exits(0);
}

fn in_sync() -> bool {
    shaper(&["plan", "-q", "--exit-code", &policy(POLICY)]).status == Some(0)
}

/// Whether a packet that arrives passes the ifb.
fn is_shaped(world: &World, root: &mut Actor) -> bool {
    let before = classes("ifb-up0").class("1:1").packets;
    world.ping_from(root, Family::V4, 3, 56);
    classes("ifb-up0").class("1:1").packets >= before + 3
}

fn no_hand_cuts_the_host_off_without_a_daemon() {
    let mut world = World::new();
    apply(POLICY);
    let mut knocking = Knocking::new(&world);
    let mut root = world.actor(ROOT);
    for hand in hands() {
        let silence = knocking.silence(&mut world, Duration::from_millis(700), |world| {
            by_hand(world, hand);
        });
        println!("{hand}: no packet for {silence:?}");
        assert!(silence < LONGEST, "{hand}");
        apply(POLICY);
        assert!(in_sync(), "{hand}");
        soon(hand, Duration::from_secs(5), || is_shaped(&world, &mut root));
        run_with(world.far_command(&["ip", "link", "del", "ifb-up0"]), "");
    }
    // Also packets that come one by one: only the first asks, and is lost. Once the ifb is back
    // they go through it again without anybody's doing.
    by_hand(&world, "ip link set ifb-up0 down");
    let to = world.far_at(Family::V4, 0);
    root.tell(&Order::Ping { to, count: 1, payload: 56 });
    for _ in 0..4 {
        sleep(Duration::from_millis(300));
        world.ping_from(&mut root, Family::V4, 1, 56);
    }
    by_hand(&world, "ip link set ifb-up0 up");
    soon("packets are shaped again", Duration::from_secs(5), || is_shaped(&world, &mut root));
}

fn nor_with_one() {
    let mut world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    soon("all stands", Duration::from_secs(10), in_sync);
    let mut knocking = Knocking::new(&world);
    let mut root = world.actor(ROOT);
    for hand in hands().chain(["tc filter del dev up0 ingress"]) {
        let silence = knocking.silence(&mut world, Duration::from_millis(300), |world| {
            by_hand(world, hand);
        });
        println!("{hand}: no packet for {silence:?}");
        assert!(silence < LONGEST, "{hand}");
        soon(hand, Duration::from_secs(20), || in_sync() && is_shaped(&world, &mut root));
        run_with(world.far_command(&["ip", "link", "del", "ifb-up0"]), "");
    }
    assert!(daemon.end().success());
}

/// Somebody fights the daemon, which then leaves the link alone for a while.
fn what_is_switched_off_again_and_again_cuts_nobody_off() {
    let mut world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    soon("all stands", Duration::from_secs(10), in_sync);
    let silence = Knocking::new(&world).silence(&mut world, Duration::ZERO, |world| {
        for _ in 0..40 {
            by_hand(world, "ip link set ifb-up0 down");
            sleep(Duration::from_millis(50));
        }
    });
    println!("no packet for {silence:?}");
    assert!(silence < LONGEST);
    assert!(daemon.end().success());
}
