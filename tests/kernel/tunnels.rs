//! Which link to name where packets leave in other packets: users' limits hold on the tunnel, and
//! on the link below only while the packets are still the users'. And the loopback, on which
//! proxies fetch what users' servers send.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, ROOT};
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid, shaper};
use crate::support::rates::{self, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_tunnel_of_the_kernels_is_shaped_by_either_name,
        a_tunnel_of_a_programs_is_shaped_by_its_own_name_alone,
        what_a_user_sends_to_a_proxy_is_capped_on_the_loopback;
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
