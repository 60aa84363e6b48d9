//! Guests: processes in network namespaces of their own, behind links of the host.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use super::actor::Actor;
use super::cell::{SCRATCH, myself};
use super::command::{Done, run, run_with};
use super::harness::Place;
use super::orders::{Answer, Order, Proto, SocketId};
use super::world::{Family, World};

/// A guest, whose only link is `eth0`.
pub struct Guest {
    pub actor: Actor,
    /// Its addresses' last part.
    number: u8,
    port: u16,
    /// The host's end of its wire.
    process: Option<Actor>,
}

/// The host's bridge for guests, `br0`: IPv4 behind NAT, IPv6 routed.
pub fn bridge(world: &World) {
    run("ip link add br0 type bridge");
    run("ip addr add 10.99.0.1/24 dev br0");
    run("ip addr add fd99::1/64 dev br0 nodad");
    run("ip link set br0 up");
    route(world);
    nat("-A POSTROUTING -o up0 -j MASQUERADE");
}

/// A rule of the host's table `nat`.
pub fn nat(rule: &str) {
    run(&format!("{} -t nat {rule}", iptables()));
}

/// The kernels of the lab have the older table of iptables, and not all that the newer one needs.
pub fn iptables() -> &'static str {
    match Place::current() {
        Place::Host => "iptables",
        Place::Uml | Place::Qemu | Place::Newest => "iptables-legacy",
    }
}

/// Has the host forward, and the far side know the way back to fd99::/64.
pub fn route(world: &World) {
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{path}"), "1").expect("the host forwards");
    }
    world.on_far("ip -6 route add fd99::/64 via fd77::1");
}

impl Guest {
    /// One behind a veth, whose end on the host is a port of `br0`. The number is of one digit.
    pub fn in_bridge(link: &str, number: u8) -> Guest {
        let guest = Guest::without_link(number);
        guest.connect(link);
        guest
    }

    /// One that has no link yet.
    pub fn without_link(number: u8) -> Guest {
        let actor = Actor::start(myself(&["--isolated-actor"]));
        Guest { actor, number, port: 6_000 + 100 * u16::from(number), process: None }
    }

    /// Gives it a veth in `br0`.
    pub fn connect(&self, link: &str) {
        run(&format!("ip link add {link} type veth peer name eth0 netns {}", self.actor.pid()));
        run(&format!("ip link set {link} master br0 up"));
        self.furnish();
    }

    /// Gives it a tunnel that ends in a tun device of the host's, whose daemon is root.
    pub fn tunnel(&mut self, world: &World, device: &str) {
        self.wire(world, |device, from, to| Order::Tunnel { device, from, to }, device);
        self.behind(world, device);
    }

    /// Gives it a tunnel of the kernel's WireGuard, which ends in a device of the host's.
    pub fn wireguard(&mut self, world: &World, device: &str) {
        let [host, own] = self.wired();
        run(&format!("ip link add {device} type wireguard"));
        self.run(&["ip", "link", "add", "eth0", "type", "wireguard"]).exits(0);
        let key = |side: &str| {
            let line = format!("umask 77; wg genkey | tee {SCRATCH}/{side} | wg pubkey");
            let mut shell = Command::new("sh");
            shell.args(["-c", &line]);
            run_with(shell, "").exits(0).stdout.trim().to_string()
        };
        let [of_host, of_guest] = ["host", "guest"].map(key);
        let join =
            |device: &str, side: &str, peer: &str, [from, to]: [SocketAddr; 2], all: &str| {
                let port = from.port();
                format!(
                    "wg set {device} private-key {SCRATCH}/{side} listen-port {port} \
                 peer {peer} allowed-ips {all} endpoint {to}"
                )
            };
        run(&join(device, "host", &of_guest, [host, own], "10.99.0.0/24,fd99::/64"));
        let guests = join("eth0", "guest", &of_host, [own, host], "0.0.0.0/0,::/0");
        self.run(&guests.split_whitespace().collect::<Vec<_>>()).exits(0);
        self.behind(world, device);
    }

    /// It is behind a device of the host's without neighbours.
    fn behind(&self, world: &World, device: &str) {
        run(&format!("ip addr add 10.99.0.1/24 dev {device}"));
        run(&format!("ip addr add fd99::1/64 dev {device} nodad"));
        run(&format!("ip link set {device} up"));
        world.on_far("ip route add 10.99.0.0/24 via 10.77.0.1");
        self.furnish();
    }

    /// Makes it a machine, whose network device a process of root's has as a tap in `br0`.
    pub fn machine(&mut self, world: &World, tap: &str) {
        self.wire(world, |device, from, to| Order::Tap { device, from, to }, tap);
        run(&format!("ip link set {tap} master br0 up"));
        self.furnish();
    }

    /// The guest's `eth0` and the host's device, whose packets go between two processes.
    fn wire(
        &mut self,
        world: &World,
        order: impl Fn(String, SocketAddr, SocketAddr) -> Order,
        device: &str,
    ) {
        let [host, own] = self.wired();
        let mut process = world.actor(super::accounts::ROOT);
        process.tell(&order(device.to_string(), host, own));
        self.actor.tell(&order("eth0".to_string(), own, host));
        self.process = Some(process);
    }

    /// A wire to the host; an address and a port of each end, for what carries its packets.
    fn wired(&self) -> [SocketAddr; 2] {
        run(&format!("ip link add wire0 type veth peer name wire1 netns {}", self.actor.pid()));
        run("ip addr add 10.98.0.1/24 dev wire0");
        run("ip link set wire0 up");
        self.run_batch("link set lo up\naddr add 10.98.0.2/24 dev wire1\nlink set wire1 up\n");
        [(1, 7_001), (2, 7_002)].map(|(last, port)| SocketAddr::from(([10, 98, 0, last], port)))
    }

    /// One more address.
    pub fn also_has(&self, address: &str) {
        self.run_batch(&format!("addr add {address}/24 dev eth0\n"));
    }

    /// Addresses and routes for a link `eth0` that is there, to whoever is `10.99.0.1`.
    pub fn furnish(&self) {
        let number = self.number;
        self.run_batch(&format!(
            "link set lo up
             link set eth0 up
             addr add 10.99.0.{number}/24 dev eth0
             addr add fd99::{number}/64 dev eth0 nodad
             route add default via 10.99.0.1
             route add ::/0 via fd99::1
            "
        ));
        self.may_ping();
    }

    /// Addresses for a link `eth0` by which the far side is a neighbour.
    pub fn on_the_far_sides_net(self) -> Guest {
        let number = self.number + 10;
        self.run_batch(&format!(
            "link set lo up
             link set eth0 up
             addr add 10.77.0.{number}/24 dev eth0
             addr add fd77::{number}/64 dev eth0 nodad
            "
        ));
        self.may_ping();
        self
    }

    fn may_ping(&self) {
        let anybody = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
        self.run(&["sh", "-c", anybody]).exits(0);
    }

    /// A command in the guest's namespace.
    pub fn run(&self, words: &[&str]) -> Done {
        let mut command = myself(&["--enter", &self.actor.pid().to_string()]);
        command.args(words);
        run_with(command, "")
    }

    fn run_batch(&self, lines: &str) {
        let command = myself(&["--enter", &self.actor.pid().to_string(), "ip", "-batch", "-"]);
        run_with(command, lines).exits(0);
    }

    pub fn address(&self, family: Family) -> IpAddr {
        let text = match family {
            Family::V4 => format!("10.99.0.{}", self.number),
            Family::V6 => format!("fd99::{}", self.number),
        };
        text.parse().expect("an address")
    }

    /// Sends so many bytes to the far side, and waits until they are there.
    pub fn upload(&mut self, world: &mut World, family: Family, bytes: u64) {
        let port = world.sink(Proto::Tcp);
        let socket = self.actor.connect(world.far_at(family, port));
        self.actor.tell(&Order::Send { socket, bytes });
        world.until("the guest's bytes are there", |world| {
            world.far.seen(Proto::Tcp, port).bytes >= bytes
        });
    }

    /// Takes so many bytes from the far side, over a connection that it begins.
    pub fn download(&mut self, world: &mut World, family: Family, bytes: u64) {
        self.port += 1;
        let at = world.far_at(family, self.port);
        let listener = world.far.socket(&Order::Listen(at));
        let socket = self.actor.connect(at);
        let sender = world.far.socket(&Order::Accept(listener));
        self.take(&mut world.far, (socket, sender), bytes);
    }

    /// Takes so many bytes over a connection that the far side begins, to this address.
    pub fn serve(&mut self, world: &mut World, at: SocketAddr, by: SocketAddr, bytes: u64) {
        let listener = self.actor.socket(&Order::Listen(at));
        let sender = world.far.connect(by);
        let socket = self.actor.socket(&Order::Accept(listener));
        self.take(&mut world.far, (socket, sender), bytes);
    }

    fn take(&mut self, far: &mut Actor, (socket, sender): (SocketId, SocketId), bytes: u64) {
        self.port += 1;
        let port = self.port;
        self.actor.tell(&Order::Drain { socket, port });
        far.tell(&Order::Send { socket: sender, bytes });
        let all = || self.actor.seen(Proto::Tcp, port).bytes >= bytes;
        super::clock::soon("the guest has its bytes", std::time::Duration::from_secs(20), all);
    }

    /// Datagrams for so long, to the far side.
    pub fn datagrams(&mut self, world: &mut World, family: Family, count: u32) {
        let port = world.sink(Proto::Udp);
        let socket = self.actor.socket(&Order::Datagram(world.far_at(family, port)));
        self.actor.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 8_000_000 });
        world.until("the datagrams are there", |world| {
            world.far.seen(Proto::Udp, port).bytes >= u64::from(count) * 1_000
        });
        self.actor.stop(socket);
    }

    pub fn ping(&mut self, world: &World, family: Family, count: u32, payload: usize) {
        let to = world.far_at(family, 0);
        match self.actor.tell(&Order::Ping { to, count, payload }) {
            Answer::Replies(replies) => assert_eq!(replies, count, "echo replies from {to}"),
            other => panic!("a ping was answered with {other:?}"),
        }
    }
}
