//! The world of a test: the cell's own network namespace is the host, where shaper runs and where
//! users' processes live; one veth pair away is the far side, where receivers are. More hosts, each
//! with a far side of its own, for what must not see each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::accounts::{self, Account};
use super::actor::Actor;
use super::cell::myself;
use super::clock::soon;
use super::command::{Done, run_with};
use super::orders::{Answer, Order, Proto, SocketId};
use super::timeline::{Numbered, Timeline};

/// The uplink on every host.
pub const UPLINK: &str = "up0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A host and its far side.
pub struct World {
    /// The namespace's holder, for a host beside the cell's own.
    holder: Option<Actor>,
    pub far: Actor,
    port: u16,
}

impl World {
    /// The cell's own: once in a test.
    pub fn new() -> World {
        accounts::furnish();
        World::around(None)
    }

    /// Another host in a network namespace of its own, with the same names and addresses.
    pub fn beside(&self) -> World {
        World::around(Some(Actor::start(isolated_actor())))
    }

    fn around(holder: Option<Actor>) -> World {
        let far = Actor::start(isolated_actor());
        let mut world = World { holder, far, port: 5000 };
        let far_pid = world.far.pid().to_string();
        // In one go each: in the lab it is the processes that take the time.
        let host = format!(
            "link set lo up
             link add {UPLINK} type veth peer name far0 netns {far_pid}
             addr add 10.77.0.1/24 dev up0
             addr add 1.2.3.4/32 dev up0
             addr add fd77::1/64 dev up0 nodad
             link set up0 up
            "
        );
        let far = "link set lo up
             addr add 10.77.0.2/24 dev far0
             addr add fd77::2/64 dev far0 nodad
             link set far0 up
             route add 1.2.3.4/32 dev far0
            ";
        run_with(world.command(&["ip", "-batch", "-"]), &host).exits(0);
        run_with(entering(&far_pid, &["ip", "-batch", "-"]), far).exits(0);
        // Anybody may ping; and every kernel's TCP behaves alike: some default to bbr, and
        // reno is the one that a namespace may always choose.
        let write = "cd /proc/sys/net/ipv4
            echo 0 2147483647 > ping_group_range && echo reno > tcp_congestion_control";
        run_with(world.command(&["sh", "-c", write]), "").exits(0);
        world.until("the link is up", |world| {
            world.on_host("ip -6 -o addr show dev up0 tentative").stdout.is_empty()
                && world.on_host("ip -o link show up0").stdout.contains("LOWER_UP")
        });
        world.port = 5000;
        world
    }

    /// `ip` or `tc` on this host.
    pub fn on_host(&self, line: &str) -> Done {
        run_with(self.command(&line.split_whitespace().collect::<Vec<_>>()), "")
    }

    /// A command that will run on this host.
    pub fn command(&self, words: &[&str]) -> Command {
        match &self.holder {
            Some(holder) => entering(&holder.pid().to_string(), words),
            None => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]);
                command
            }
        }
    }

    /// A command that will run on the far side.
    pub fn far_command(&self, words: &[&str]) -> Command {
        entering(&self.far.pid().to_string(), words)
    }

    /// `ip` or `tc` on the far side.
    #[track_caller]
    pub fn on_far(&self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        run_with(self.far_command(&words), "").exits(0);
    }

    /// The far end of a program's tunnel.
    pub fn far_tunnel(&mut self, device: &str, from: SocketAddr, to: SocketAddr) {
        self.far.tell(&Order::Tunnel { device: device.to_string(), from, to });
    }

    /// A process whose network namespace is this host's, for `--netns`; `None`: the cell's own.
    pub fn netns_pid(&self) -> Option<u32> {
        self.holder.as_ref().map(Actor::pid)
    }

    /// A process on this host that has become the account.
    pub fn actor(&self, account: Account) -> Actor {
        let mut actor = Actor::start(match &self.holder {
            Some(holder) => entering(&holder.pid().to_string(), &["--actor"]),
            None => myself(&["--actor"]),
        });
        if account != accounts::ROOT {
            actor.become_account(account);
        }
        actor
    }

    /// The far side's address.
    pub fn far_at(&self, family: Family, port: u16) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(10, 77, 0, 2).into(),
            Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).into(),
        };
        SocketAddr::new(ip, port)
    }

    /// The host's own address.
    pub fn host_at(&self, family: Family, port: u16) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(10, 77, 0, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
        };
        SocketAddr::new(ip, port)
    }

    /// A far port that receives, so far unused.
    pub fn sink(&mut self, proto: Proto) -> u16 {
        self.port += 1;
        self.far.sink(proto, self.port);
        self.port
    }

    /// A new process of the account, connected to a sink of its own, not sending yet.
    pub fn stream(&mut self, account: Account, family: Family) -> Stream {
        let port = self.sink(Proto::Tcp);
        let mut actor = self.actor(account);
        let socket = actor.connect(self.far_at(family, port));
        Stream { actor, socket, port }
    }

    /// A new process of the account whose connection leaves from 1.2.3.4, to this far port.
    pub fn stream_from_1_2_3_4(&mut self, account: Account, port: u16) -> Stream {
        self.far.sink(Proto::Tcp, port);
        let mut actor = self.actor(account);
        let from = SocketAddr::from((Ipv4Addr::new(1, 2, 3, 4), 0));
        let to = self.far_at(Family::V4, port);
        let socket = actor.socket(&Order::ConnectFrom { from, to });
        Stream { actor, socket, port }
    }

    /// A new process of the account that sends to a sink of its own as fast as it can.
    pub fn pouring(&mut self, account: Account, family: Family) -> Stream {
        let mut stream = self.stream(account, family);
        stream.actor.pour(stream.socket);
        stream
    }

    /// A new process of the account that has a connection to the far side and takes what comes over
    /// it, which is as much as comes through.
    pub fn downloading(&mut self, account: Account, family: Family) -> Download {
        self.port += 1;
        let (at, port) = (self.far_at(family, self.port), self.port);
        let listener = self.far.socket(&Order::Listen(at));
        let mut actor = self.actor(account);
        let socket = actor.connect(at);
        let sender = self.far.socket(&Order::Accept(listener));
        actor.tell(&Order::Drain { socket, port });
        self.far.pour(sender);
        Download { actor, port }
    }

    /// A new process of the account that sends numbered datagrams at this rate of payload.
    pub fn beating(&mut self, account: Account, family: Family, bits_per_second: u64) -> Stream {
        let port = self.sink(Proto::Udp);
        let mut actor = self.actor(account);
        let socket = actor.socket(&Order::Datagram(self.far_at(family, port)));
        actor.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second });
        Stream { actor, socket, port }
    }

    /// What came from a stream so far.
    pub fn seen(&mut self, stream: &Stream) -> Timeline {
        self.far.seen(Proto::Tcp, stream.port)
    }

    /// Ends a TCP stream, waits until all of it has arrived, and gives its bytes.
    pub fn finish(&mut self, stream: &mut Stream) -> u64 {
        let (sent, _) = stream.actor.stop(stream.socket);
        self.until("the whole stream has arrived", |world| world.seen(stream).bytes >= sent);
        sent
    }

    /// Ends numbered datagrams, waits until the last has arrived, wants none to be missing, and
    /// gives what has come.
    #[track_caller]
    pub fn finish_beating(&mut self, stream: &mut Stream) -> Timeline {
        let (_, packets) = stream.actor.stop(stream.socket);
        let port = stream.port;
        self.until("all datagrams have arrived", |world| {
            world.far.seen(Proto::Udp, port).packets >= packets
        });
        let seen = self.far.seen(Proto::Udp, port);
        assert_eq!(seen.senders.values().map(Numbered::gaps).sum::<u64>(), 0, "datagrams are lost");
        seen
    }

    /// Waits until something is true, at most ten seconds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut World) -> bool) {
        soon(what, Duration::from_secs(10), || holds(self));
    }

    /// An actor sends datagrams for so long.
    pub fn udp(&mut self, actor: &mut Actor, family: Family, bits_per_second: u64, time: Duration) {
        let port = self.sink(Proto::Udp);
        let socket = actor.socket(&Order::Datagram(self.far_at(family, port)));
        actor.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second });
        sleep(time);
        actor.stop(socket);
    }

    /// An actor sends echo requests; every one must be answered.
    pub fn ping_from(&self, actor: &mut Actor, family: Family, count: u32, payload: usize) {
        let to = self.far_at(family, 0);
        match actor.tell(&Order::Ping { to, count, payload }) {
            Answer::Replies(replies) => assert_eq!(replies, count, "echo replies from {to}"),
            other => panic!("a ping was answered with {other:?}"),
        }
    }

    /// Round-trip times of UDP probes that an actor sends, in microseconds.
    pub fn probe(&mut self, actor: &mut Actor, count: u32, every_ms: u64) -> Vec<u64> {
        self.port += 1;
        self.far.tell(&Order::Echo(self.port));
        let to = self.far_at(Family::V4, self.port);
        match actor.tell(&Order::Probe { to, count, every_ms }) {
            Answer::Rtts(rtts) => rtts,
            other => panic!("a probe was answered with {other:?}"),
        }
    }
}

/// One process that sends to a far port of its own.
pub struct Stream {
    pub actor: Actor,
    pub socket: SocketId,
    pub port: u16,
}

/// One process that receives what the far side pours.
pub struct Download {
    pub actor: Actor,
    pub port: u16,
}

impl Download {
    /// What has come so far.
    pub fn seen(&mut self) -> Timeline {
        self.actor.seen(Proto::Tcp, self.port)
    }
}

impl Stream {
    pub fn pid(&self) -> u32 {
        self.actor.pid()
    }
}

/// An actor in a network namespace of its own.
fn isolated_actor() -> Command {
    myself(&["--isolated-actor"])
}

/// This binary, which enters a process's network namespace and becomes the command there.
fn entering(pid: &str, words: &[&str]) -> Command {
    let mut command = myself(&["--enter", pid]);
    command.args(words);
    command
}
