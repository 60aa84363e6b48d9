//! Which link to name where packets leave in other packets: users' limits hold on the tunnel, and
//! on the link below only while the packets are still the users'. And the loopback, on which
//! proxies fetch what users' servers send.

use std::net::SocketAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, ROOT};
use crate::support::cell::SCRATCH;
use crate::support::command::run_with;
use crate::support::counters::classes;
use crate::support::exchange::Parcel;
use crate::support::harness::{On, Place, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid, shaper};
use crate::support::rates::{self, Interval, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_tunnel_of_the_kernels_is_shaped_by_either_name,
        a_tunnel_of_a_programs_is_shaped_by_its_own_name_alone,
        what_a_user_sends_to_a_proxy_is_capped_on_the_loopback;
    On::Every => the_packets_around_a_users_are_the_users;
);

const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(2);

fn shape(link: &str) {
    apply(&format!("version: 1\nlinks: {{{link}: {{rate: 500mbit}}}}\nusers: {{ann: 10mbit}}\n"));
    sleep(WARM_UP);
}

/// Ann pours through a tunnel that stands, to an address at its far end.
fn pour(world: &mut World, to: &str) -> crate::support::actor::Actor {
    let port = world.sink(Proto::Tcp);
    let mut ann = world.actor(ANN);
    let to: SocketAddr = format!("{to}:{port}").parse().expect("an address");
    let socket = ann.connect(to);
    ann.pour(socket);
    ann
}

fn a_tunnel_of_the_kernels_is_shaped_by_either_name() {
    let mut world = World::new();
    let vxlan = "link add vx0 type vxlan id 5 dstport 4789";
    world.on_host(&format!("ip {vxlan} local 10.77.0.1 remote 10.77.0.2")).exits(0);
    world.on_host("ip addr add 10.78.0.1/24 dev vx0").exits(0);
    world.on_host("ip link set vx0 up").exits(0);
    world.on_far(&format!("ip {vxlan} local 10.77.0.2 remote 10.77.0.1"));
    world.on_far("ip addr add 10.78.0.2/24 dev vx0");
    world.on_far("ip link set vx0 up");
    let _ann = pour(&mut world, "10.78.0.2");
    for link in [UPLINK, "vx0"] {
        shape(link);
        rates::expect(link, TIME, &[(&[&classid("user/ann")], 10 * MBIT, 5)]);
        shaper(&["clear", "-q"]).exits(0);
    }
}

/// The kernel's kinds of tunnels that are to be here.
fn kinds() -> &'static [&'static str] {
    match Place::current() {
        Place::Host => &["vxlan"],
        Place::Uml => &["vxlan", "gre", "ipip", "sit"],
        Place::Qemu => &["wireguard"],
        Place::Newest => &["vxlan", "gre", "ipip", "sit", "wireguard"],
    }
}

/// Lines that make a tunnel of this kind, `t0`, from here to there.
fn tunnel(kind: &str, [here, there]: [&str; 2]) -> String {
    let how = if kind == "vxlan" { "id 5 dstport 4789 " } else { "" };
    format!("ip link add t0 type {kind} {how}local {here} remote {there}")
}

/// One end of a tunnel of WireGuard's: its key is made, and its public key is the answer.
fn key(end: &str) -> String {
    let line = format!("umask 77; wg genkey | tee {SCRATCH}/{end} | wg pubkey");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]);
    run_with(shell, "").exits(0).stdout.trim().to_string()
}

/// Packets that the kernel itself puts around a user's keep the user's socket, so they are in the
/// class of the user also on the link below. So are the answers around his, where these have the
/// same ports.
fn the_packets_around_a_users_are_the_users() {
    let mut world = World::new();
    apply(
        "version: 1\nlinks: {up0: {rate: 200mbit, down: 200mbit}}\n\
         users: {ann: {ceil: 100mbit, down: 100mbit}}\n",
    );
    let class = classid("user/ann");
    for (port, kind) in (9_000..).zip(kinds()) {
        let ends = ["10.77.0.1", "10.77.0.2"];
        if *kind == "wireguard" {
            let keys = ["here", "there"].map(key);
            let set = |end: &str, peer: &str, to: &str| {
                format!(
                    "wg set t0 private-key {SCRATCH}/{end} listen-port 51820 peer {peer} \
                     allowed-ips 0.0.0.0/0,::/0 endpoint {to}:51820"
                )
            };
            world.on_host("ip link add t0 type wireguard").exits(0);
            world.on_far("ip link add t0 type wireguard");
            world.on_host(&set("here", &keys[1], ends[1])).exits(0);
            world.on_far(&set("there", &keys[0], ends[0]));
        } else {
            world.on_host(&tunnel(kind, ends)).exits(0);
            world.on_far(&tunnel(kind, [ends[1], ends[0]]));
        }
        for (host, line) in [(true, "1"), (false, "2")] {
            let addresses = format!("10.78.0.{line}/24 fd78::{line}/64");
            for address in addresses.split(' ') {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                let line = format!("ip addr add {address} dev t0{nodad}");
                if host { drop(world.on_host(&line).exits(0)) } else { world.on_far(&line) }
            }
        }
        world.on_host("ip link set t0 up").exits(0);
        world.on_far("ip link set t0 up");
        // What is in a tunnel of `sit` is IPv6.
        let to = if *kind == "sit" { "[fd78::2]" } else { "10.78.0.2" };
        let at: SocketAddr = format!("{to}:{port}").parse().expect("an address");
        let parcel = Parcel { sent: 1_000_000, received: 1_000_000 };
        world.far.tell(&Order::Serve { at, parcel });
        let mut ann = world.actor(ANN);
        // Neighbours, and keys, are found first.
        ann.tell(&Order::Ping { to: at, count: 1, payload: 56 });
        let before = [UPLINK, "ifb-up0"].map(|link| (link, classes(link)));
        ann.tell(&Order::Exchange { to: at, times: 1, parcel });
        for (link, before) in before {
            // A vxlan's packets have ports by what is in them, so none answers another.
            let nobodys = *kind == "vxlan" && link != UPLINK;
            let class = if nobodys { "1:fffe" } else { &class };
            let interval = Interval::since(before, link);
            interval.has_share(&format!("around {kind}, {link}"), class, 99.9);
        }
        world.on_host("ip link del t0").exits(0);
        world.on_far("ip link del t0");
    }
}

fn a_tunnel_of_a_programs_is_shaped_by_its_own_name_alone() {
    let mut world = World::new();
    let mut program = world.actor(ROOT);
    let port = 4_700;
    let (here, there) = (world.host_at(Family::V4, port), world.far_at(Family::V4, port));
    program.tell(&Order::Tunnel { device: "tun0".to_string(), from: here, to: there });
    world.far_tunnel("tun0", there, here);
    world.on_host("ip addr add 10.78.0.1/24 dev tun0").exits(0);
    world.on_host("ip link set tun0 up mtu 1400").exits(0);
    world.on_far("ip addr add 10.78.0.2/24 dev tun0");
    world.on_far("ip link set tun0 up mtu 1400");
    let _ann = pour(&mut world, "10.78.0.2");
    shape("tun0");
    rates::expect("tun0", TIME, &[(&[&classid("user/ann")], 10 * MBIT, 5)]);
    shaper(&["clear", "-q"]).exits(0);
    shape(UPLINK);
    let below = rates::over(UPLINK, TIME);
    assert_eq!(below.bytes(&classid("user/ann")), 0, "the packets are the program's there");
    between("the default class", below.rate("1:fffe"), 12 * MBIT, 600 * MBIT);
}

fn what_a_user_sends_to_a_proxy_is_capped_on_the_loopback() {
    let world = World::new();
    let mut proxy = world.actor(ROOT);
    proxy.sink(Proto::Tcp, 8_000);
    let mut ann = world.actor(ANN);
    let socket = ann.connect("127.0.0.1:8000".parse().expect("an address"));
    ann.pour(socket);
    apply("version: 1\nlinks: {up0: {rate: 1gbit}, lo: {rate: 10gbit}}\nusers: {ann: 10mbit}\n");
    // What the socket holds already was taken before.
    sleep(WARM_UP);
    let lo = rates::over("lo", 2 * TIME);
    between("ann's server to the proxy", lo.rate(&classid("user/ann")), 7 * MBIT, 13 * MBIT);
}
