//! Tunnels that programs carry: a WireGuard of root's, and a tun device that a user's own program
//! serves.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Keeper, Place};
use crate::support::accounts::{ANN, BOB};
use crate::support::actor::Actor;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{classid, members};
use crate::support::rates::{self, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostEvents => on_a_wireguard_of_roots_packets_are_their_users, what_a_users_tunnel_carries_is_his;
);

/// wireguard-go in the foreground; dropped, it ends and its device goes.
struct Wireguard(Child);

impl Drop for Wireguard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A device with a key of its own; its public key. The control socket is a file: the cell has one
/// place for both ends.
fn device(mut serve: Command, name: &str) -> (Wireguard, String) {
    serve.env("WG_PROCESS_FOREGROUND", "1").stdin(Stdio::null()).stdout(Stdio::null());
    let socket = format!("/run/wireguard/{name}.sock");
    // One that was killed leaves its socket, which nobody serves.
    let _ = fs::remove_file(&socket);
    let serving = Wireguard(serve.stderr(Stdio::null()).spawn().expect("start wireguard-go"));
    soon("it serves", Duration::from_secs(10), || UnixStream::connect(&socket).is_ok());
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        run_with(command, "").exits(0).stdout.trim().to_string()
    };
    let key = shell(&format!("umask 77 && wg genkey | tee {SCRATCH}/{name}.key | wg pubkey"));
    (serving, key)
}

fn join(name: &str, port: u16, peer: &str, endpoint: SocketAddr) {
    let mut command = Command::new("wg");
    command.args(["set", name, "private-key", &format!("{SCRATCH}/{name}.key")]);
    command.args(["listen-port", &port.to_string(), "peer", peer, "allowed-ips", "10.78.0.0/24"]);
    run_with(
        {
            command.args(["endpoint", &endpoint.to_string()]);
            command
        },
        "",
    )
    .exits(0);
}

/// A user's process that pours to an address.
fn pour(world: &mut World, to: &str) -> Actor {
    let port = world.sink(Proto::Tcp);
    let mut ann = world.actor(ANN);
    let socket = ann.connect(format!("{to}:{port}").parse().expect("an address"));
    ann.pour(socket);
    ann
}

fn on_a_wireguard_of_roots_packets_are_their_users() {
    let text = "
version: 1
links: {wg0: {rate: 500mbit, optional: true}, up0: {rate: 500mbit, default: {rate: 100mbit}}}
users: {ann: 10mbit}
";
    Place::under_both(text, |place| {
        let world = &mut place.world;
        let (here, there) = (world.host_at(Family::V4, 4_800), world.far_at(Family::V4, 4_801));
        let (_near, near) = device(world.command(&["wireguard-go", "wg0"]), "wg0");
        let (_far, far) = device(world.far_command(&["wireguard-go", "wg1"]), "wg1");
        join("wg0", 4_800, &far, there);
        join("wg1", 4_801, &near, here);
        world.on_host("ip addr add 10.78.0.1/24 dev wg0").exits(0);
        world.on_host("ip link set wg0 up").exits(0);
        world.on_far("ip addr add 10.78.0.2/24 dev wg1");
        world.on_far("ip link set wg1 up");
        let ann = pour(world, "10.78.0.2");
        place.passes();
        assert!(members("user/ann").contains(&ann.pid()));
        std::thread::sleep(Duration::from_secs(1));
        let class = classid("user/ann");
        let below = crate::support::counters::classes(UPLINK);
        let sent = rates::over("wg0", Duration::from_secs(1));
        between("ann on the tunnel", sent.rate(&class), 8 * MBIT, 11 * MBIT);
        let below = rates::Interval::since(below, UPLINK);
        assert_eq!(below.bytes(&class), 0, "there the packets are the program's");
        assert!(below.rate(super::DEFAULT) > 8 * MBIT, "{:?}", below.leaves());
    });
}

fn what_a_users_tunnel_carries_is_his() {
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
users: {ann: 30mbit, bob: 15mbit}
";
    Place::under_both(text, |place| {
        if place.keeper == Keeper::Cron {
            for line in [
                format!("mknod -m 666 {SCRATCH}/tun c 10 200"),
                // Anybody may open it where udev has made it.
                format!("mount --bind {SCRATCH}/tun /dev/net/tun"),
            ] {
                run(&line);
            }
        }
        let world = &mut place.world;
        // As NetworkManager and `ip tuntap` do for a user.
        world.on_host("ip tuntap add dev tun0 mode tun user bob").exits(0);
        let port = 4_700;
        let (here, there) = (world.host_at(Family::V4, port), world.far_at(Family::V4, port));
        let mut bob = world.actor(BOB);
        bob.tell(&Order::Tunnel { device: "tun0".to_string(), from: here, to: there });
        world.on_host("ip addr add 10.78.0.1/24 dev tun0").exits(0);
        world.on_host("ip link set tun0 up mtu 1400").exits(0);
        let mut far = Actor::start(world.far_command(&["--actor"]));
        far.tell(&Order::Tunnel { device: "tun0".to_string(), from: there, to: here });
        world.on_far("ip addr add 10.78.0.2/24 dev tun0");
        world.on_far("ip link set tun0 up mtu 1400");
        let _ann = pour(world, "10.78.0.2");
        let class = classid("user/bob");
        place.all_is("what bob's tunnel carries", &[&class]);
        place.passes();
        assert!(members("user/bob").contains(&bob.pid()));
        place.all_is("what bob's tunnel carries, placed", &[&class]);
        let sent = rates::over(UPLINK, Duration::from_secs(1));
        between("bob", sent.rate(&class), 10 * MBIT, 16 * MBIT);
        drop(bob);
        place.world.on_host("ip link del tun0").exits(0);
    });
}
