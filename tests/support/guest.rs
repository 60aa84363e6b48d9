//! A process that is root in a user and a network namespace of its own, and sends with a priority.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

use super::cell::myself;
use super::command::run_with;

/// Datagrams of one order, of this many bytes.
pub const COUNT: u64 = 40;
const BYTES: usize = 1_000;

/// Whether a program can tell whose a socket is here: everywhere but on kernels before 6.15 that do
/// not describe their types.
pub fn tells_sockets_apart() -> bool {
    let filters =
        super::command::run(&format!("tc filter show dev {} parent 1:", super::world::UPLINK));
    let is_mixed = filters.contains("sockets=mixed");
    let is_described = std::fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false);
    assert_eq!(is_mixed, !is_described, "{filters}");
    !is_mixed
}

/// A process that sends what it is told.
pub struct Sender {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sender {
    /// In namespaces of its own, without a uid map: of all capabilities it has none on the host.
    pub fn guest() -> Sender {
        Sender::start("guest")
    }

    /// Root on the host.
    pub fn host() -> Sender {
        Sender::start("host")
    }

    fn start(place: &str) -> Sender {
        let mut command = myself(&["--prioritized", place]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a sender");
        let orders = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        let mut sender = Sender { child, orders, answers };
        assert_eq!(sender.answer(), "ready");
        sender
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_string()
    }

    /// Sends [`COUNT`] datagrams with this priority.
    #[track_caller]
    pub fn send(&mut self, priority: i32, to: SocketAddr) {
        writeln!(self.orders, "{priority} {to}").expect("tell it");
        assert_eq!(self.answer(), "sent");
    }

    /// Moves a link of the host into the guest's namespace.
    pub fn give(&self, link: &str, address: &str) {
        let pid = self.child.id().to_string();
        super::command::run(&format!("ip link set {link} netns {pid}"));
        let lines = format!("addr add {address} dev {link}\nlink set {link} up\n");
        let mut enter: Command = myself(&["--enter", &pid, "ip", "-batch", "-"]);
        enter.env("LC_ALL", "C");
        run_with(enter, &lines).exits(0);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself.
pub fn run(place: &str) -> ExitCode {
    if place == "guest" {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("namespaces");
    }
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("an order");
        let (priority, to) = line.split_once(' ').expect("a priority and an address");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let priority: i32 = priority.parse().expect("a number");
        setsockopt(&socket, sockopt::Priority, &priority).expect("SO_PRIORITY");
        let to: SocketAddr = to.parse().expect("an address");
        for _ in 0..COUNT {
            socket.send_to(&[0; BYTES], to).expect("a datagram goes");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        println!("sent");
    }
    ExitCode::SUCCESS
}
