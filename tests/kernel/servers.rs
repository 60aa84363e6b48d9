//! What arrives before anybody has answered it: the owner of the socket that is bound to the port
//! has it.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::fchown;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::rates::{Interval, MBIT};
use crate::support::world::{Family, World};

tests!(
    On::HostAndUml => udp_that_nobody_answers_is_its_receivers;
    On::HostAndNight => a_server_has_the_first_packets_of_connections,
        the_daemon_hears_of_a_server_within_seconds,
        a_map_that_somebody_has_changed_is_mended,
        a_server_whose_user_is_in_a_shard_is_found_as_well,
        whoever_makes_more_flows_than_there_is_room_for_pushes_no_busy_one_out;
);

const IFB: &str = "ifb-up0";

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 90mbit}}
users:
  ann: {ceil: 20mbit, down: 80mbit}
  bob: 20mbit
";

/// What arrives on the ifb while the far side sends datagrams to this port of the host.
pub fn sent_to(world: &mut World, family: Family, port: u16) -> Interval {
    let before = classes(IFB);
    let socket = world.far.socket(&Order::Datagram(world.host_at(family, port)));
    world.far.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 4 * MBIT });
    sleep(Duration::from_millis(500));
    let (_, packets) = world.far.stop(socket);
    assert!(packets > 100, "{packets} packets");
    sleep(Duration::from_millis(50));
    Interval::since(before, IFB)
}

#[track_caller]
pub fn has_all(seen: &Interval, class: &str) {
    // In the root qdisc a shard's class has what all its users have.
    let leaves = seen.leaves().into_iter().filter(|(id, _)| !id.starts_with("1:e0"));
    let share = seen.bytes(class) as f64 / leaves.map(|(_, bytes)| bytes).sum::<u64>() as f64;
    println!("{class} has {:.4} % of it", share * 100.0);
    assert!(share >= 0.999, "{class} has {share}");
}

pub fn udp_that_nobody_answers_is_its_receivers() {
    let mut world = World::new();
    apply(POLICY);
    let mut ann = world.actor(ANN);
    ann.sink(Proto::Udp, 7_000);
    has_all(&sent_to(&mut world, Family::V4, 7_000), "1:fffe");
    apply(POLICY);
    let of_ann = classid("user/ann");
    for family in [Family::V4, Family::V6] {
        has_all(&sent_to(&mut world, family, 7_000), &of_ann);
        has_all(&sent_to(&mut world, family, 7_001), "1:fffe");
    }
    // What goes on to somebody else, with the same port, is no business of hers.
    run("ip route add blackhole 10.99.0.0/24");
    world.on_far("ip route add 10.99.0.0/24 via 10.77.0.1");
    let elsewhere = "10.99.0.7:7000".parse().expect("an address");
    let before = classes(IFB);
    let socket = world.far.socket(&Order::Datagram(elsewhere));
    world.far.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 4 * MBIT });
    sleep(Duration::from_millis(200));
    world.far.stop(socket);
    has_all(&Interval::since(before, IFB), "1:fffe");
    // The port is another's.
    drop(ann);
    let mut bob = world.actor(BOB);
    bob.sink(Proto::Udp, 7_000);
    let plan = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(plan.status, Some(0), "who listens is no change: {}", plan.stdout);
    apply(POLICY);
    has_all(&sent_to(&mut world, Family::V6, 7_000), &classid("user/bob"));
}

/// Connects so often to a port of the host, and sends 16 kB over each connection.
fn connections(world: &mut World, port: u16, count: u32) -> Interval {
    let before = classes(IFB);
    for _ in 0..count {
        let socket = world.far.connect(world.host_at(Family::V4, port));
        world.far.tell(&Order::Send { socket, bytes: 16_000 });
        // Less than the class's ceil.
        sleep(Duration::from_millis(3));
    }
    sleep(Duration::from_millis(500));
    Interval::since(before, IFB)
}

fn a_server_has_the_first_packets_of_connections() {
    let mut world = World::new();
    apply(POLICY);
    let mut ann = world.actor(ANN);
    ann.sink(Proto::Tcp, 8_000);
    let of_ann = classid("user/ann");
    let blind = connections(&mut world, 8_000, 100);
    let of_all: u64 = blind.leaves().values().sum();
    let share = blind.bytes(&of_ann) as f64 / of_all as f64;
    println!("before the look: {:.4} %", share * 100.0);
    assert!((0.993..0.9999).contains(&share), "{share}");
    apply(POLICY);
    let seeing = connections(&mut world, 8_000, 300);
    seeing.others_stay_below(500, &[&of_ann]);
    assert!(seeing.bytes(&of_ann) > 300 * 16_000);
    // At one of the host's addresses bob listens.
    let mut bob = world.actor(BOB);
    bob.socket(&Order::Listen("1.2.3.4:8001".parse().expect("an address")));
    ann.sink(Proto::Tcp, 8_002);
    apply(POLICY);
    let before = classes(IFB);
    let socket = world.far.connect("1.2.3.4:8001".parse().expect("an address"));
    world.far.tell(&Order::Send { socket, bytes: 16_000 });
    sleep(Duration::from_millis(200));
    let of_bob = classid("user/bob");
    Interval::since(before, IFB).others_stay_below(500, &[&of_bob]);
}

fn the_daemon_hears_of_a_server_within_seconds() {
    let mut world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let mut ann = world.actor(ANN);
    let claimed = || run("tc class show dev ifb-up0").contains(&classid("user/ann"));
    soon("ann's class", Duration::from_secs(10), claimed);
    sleep(Duration::from_millis(1_500));
    let socket = world.far.socket(&Order::Datagram(world.host_at(Family::V6, 7_000)));
    world.far.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 4 * MBIT });
    sleep(Duration::from_millis(200));
    let of_ann = classid("user/ann");
    assert_eq!(classes(IFB).class(&of_ann).bytes, 0, "nobody has bound the port");
    ann.sink(Proto::Udp, 7_000);
    let took =
        soon("they are ann's", Duration::from_secs(5), || classes(IFB).class(&of_ann).bytes > 0);
    println!("{took:?} after the bind");
    world.far.stop(socket);
    has_all(&sent_to(&mut world, Family::V4, 7_000), &of_ann);
    let plan = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(plan.status, Some(0), "{}", plan.stdout);
    assert!(daemon.end().success());
}

fn a_map_that_somebody_has_changed_is_mended() {
    let mut world = World::new();
    apply(POLICY);
    let mut ann = world.actor(ANN);
    ann.sink(Proto::Udp, 7_000);
    apply(POLICY);
    let of_ann = classid("user/ann");
    has_all(&sent_to(&mut world, Family::V4, 7_000), &of_ann);
    let name = run("tc filter show dev ifb-up0 parent 1:");
    let id = name.split_whitespace().find_map(|word| word.strip_prefix("servers="));
    let id: u32 = id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{name}"));
    let mut map = shaper::sys::bpf::ServerMap::open(id).expect("the map");
    map.fill(&std::collections::BTreeMap::new()).expect("emptied");
    has_all(&sent_to(&mut world, Family::V4, 7_000), "1:fffe");
    apply(POLICY);
    has_all(&sent_to(&mut world, Family::V4, 7_000), &of_ann);
}

pub fn a_server_whose_user_is_in_a_shard_is_found_as_well() {
    let mut world = World::new();
    let crowd: String = (0..1_050)
        .map(|n| format!("  c{n}: {{ceil: 50mbit, down: 50mbit, uids: [{}]}}\n", 100_000 + n))
        .collect();
    let text =
        format!("{POLICY}{crowd}").replace("bob: 20mbit", "bob: {ceil: 20mbit, down: 20mbit}");
    apply(&text);
    let (mut ann, mut bob) = (world.actor(ANN), world.actor(BOB));
    ann.sink(Proto::Udp, 7_000);
    bob.sink(Proto::Udp, 7_001);
    apply(&text);
    let [of_ann, of_bob] = ["user/ann", "user/bob"].map(classid);
    assert!(of_ann[..2] == *"e0" && of_bob[..2] == *"e0" && of_ann[..4] != of_bob[..4], "{of_bob}");
    for family in [Family::V4, Family::V6] {
        has_all(&sent_to(&mut world, family, 7_000), &of_ann);
        has_all(&sent_to(&mut world, family, 7_001), &of_bob);
    }
    // And what answers, which is found by its flow.
    for (actor, class) in [(&mut ann, &of_ann), (&mut bob, &of_bob)] {
        let before = classes(IFB);
        assert!(world.probe(actor, 50, 2).len() >= 49);
        has_all(&Interval::since(before, IFB), class);
    }
}

/// Datagrams of an account's to so many ports of so many hosts.
fn spray(uid: u32, hosts: u8, ports: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    fchown(&socket, Some(uid), None).expect("it is the account's");
    for host in 1..=hosts {
        for port in 1..=ports {
            // What the class has no room for is dropped, after its flow was noted.
            let _ = socket.send_to(&[0], (Ipv4Addr::new(10, 88, 0, host), port));
        }
    }
}

/// A flow is kept for as long as it is asked for, before all that are not.
fn whoever_makes_more_flows_than_there_is_room_for_pushes_no_busy_one_out() {
    const PARCEL: u64 = 400_000;
    let mut world = World::new();
    run("ip route add 10.88.0.0/24 via 10.77.0.2");
    world.on_far("ip route add blackhole 10.88.0.0/24");
    apply(POLICY);
    let (of_ann, download) = (classid("user/ann"), world.downloading(ANN, Family::V4));
    // A connection over which nothing comes meanwhile.
    let at = world.far_at(Family::V4, 9_000);
    let listener = world.far.socket(&Order::Listen(at));
    let mut ann = world.actor(ANN);
    let socket = ann.connect(at);
    let idle = world.far.socket(&Order::Accept(listener));
    ann.tell(&Order::Drain { socket, port: 9_000 });
    sleep(Duration::from_millis(500));
    let before = classes(IFB);
    spray(BOB.uid, 3, 60_000);
    let beside = Interval::since(before, IFB);
    assert!(beside.bytes(&of_ann) > 1_000_000, "{beside:?}");
    beside.has_share("beside 180,000 flows", &of_ann, 99.9);
    drop(download.actor);
    sleep(Duration::from_millis(500));
    // The idle one's flow is forgotten until ann's side has answered: the first window at most.
    let before = classes(IFB);
    world.far.tell(&Order::Send { socket: idle, bytes: PARCEL });
    soon("all of it has come", Duration::from_secs(10), || {
        ann.seen(Proto::Tcp, 9_000).bytes >= PARCEL
    });
    Interval::since(before, IFB).others_stay_below(20_000, &[&of_ann]);
}
