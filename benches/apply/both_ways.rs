//! What a packet of 64 bytes costs where a link is shaped both ways, among 10,000 users and 60,000
//! flows, beside the same link as it is without.

use std::fmt::Write;
use std::io;
use std::net::UdpSocket;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::flood::{self, SMALL, at};
use super::{host, write};
use crate::support::program::shaper;
use crate::support::world::{UPLINK, World};

/// `None`: nothing of ours.
const CASES: [(Option<u32>, &str); 3] =
    [(None, "not shaped"), (Some(10), "10 users"), (Some(10_000), "10,000 users, in shards")];
const ROUNDS: usize = 5;
/// Known, and of those with a socket.
const FLOWS: u16 = 60_000;
const OPEN: u16 = 15_000;
const FIRST_PORT: u16 = 1_024;
const HOST: [u8; 4] = [10, 77, 0, 1];
const FAR: [u8; 4] = [10, 77, 0, 2];

/// What is measured: in or out, one flow or all in turn; and how much more than where nothing is
/// shaped it may take.
const WAYS: [(&str, f64); 4] = [
    ("in, one flow", 1.6),
    ("in, 15,000 flows in turn", 1.6),
    ("out, one flow", 1.45),
    ("out, 15,000 flows in turn", 1.45),
];

pub fn measure() {
    let world = World::new();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("how many files there may be");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a socket for each flow");
    let mut all: [[Vec<u64>; WAYS.len()]; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for ((users, name), found) in CASES.iter().zip(&mut all) {
            if let Some(users) = *users {
                host::apply(&policy(users));
                flood::move_to(0);
            }
            let times = packets(&world);
            println!("{name}: {times:?} ns");
            found.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
            if users.is_some() {
                shaper(&["clear"]).exits(0);
                host::settle();
            }
        }
    }
    let mut text = format!("| |{}\n|---|", CASES.map(|(_, name)| format!(" {name} |")).concat());
    text.push_str(&"---:|".repeat(CASES.len()));
    text.push('\n');
    for (way, (name, wanted)) in WAYS.iter().enumerate() {
        let best = all.each_ref().map(|found| found[way].iter().min().copied().unwrap_or(1) as f64);
        let _ = write!(text, "| {name} |");
        for (time, (users, _)) in best.iter().zip(CASES) {
            let ratio = time / best[0];
            let verdict = match users {
                None => String::new(),
                Some(_) if ratio <= *wanted => format!(", {ratio:.2} × (≤ {wanted}: met)"),
                Some(_) => format!(", {ratio:.2} × (≤ {wanted}: **missed**)"),
            };
            let _ = write!(text, " {:.2} µs{verdict} |", time / 1e3);
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "\nOne sender, who uses the processor also for all that happens until the packet is at the \
         receiver's socket on the other end of a veth; the best of {ROUNDS} rounds in turns. \
         {FLOWS} flows of one user are known.\n"
    );
    write(&text);
}

fn policy(users: u32) -> String {
    let mut text = format!(
        "version: 1\nlinks: {{{UPLINK}: {{rate: 10gbit, down: 10gbit, default: {{rate: 10mbit}}}}}}\n\
         users:\n"
    );
    for n in 0..users {
        let limits = if n == 0 { "rate: 1gbit, ceil: 10gbit" } else { "ceil: 8kbit" };
        let _ =
            writeln!(text, "  u{n:05}: {{{limits}, down: {{{limits}}}, uids: [{}]}}", 20_000 + n);
    }
    host::policy_of("both", &text)
}

/// The nanoseconds of each way.
fn packets(world: &World) -> [u64; WAYS.len()] {
    let far_pid = world.far.pid();
    let far = flood::within(far_pid, || flood::socket(at(FAR, 9)));
    let known = |port: u16| {
        let socket = flood::socket(at(HOST, port));
        socket.connect(at(FAR, 9)).expect("a route");
        socket.send(&[0; SMALL]).expect("send");
        socket
    };
    (FIRST_PORT + OPEN..FIRST_PORT + FLOWS).for_each(|port| drop(known(port)));
    let host: Vec<UdpSocket> = (FIRST_PORT..FIRST_PORT + OPEN).map(known).collect();
    let to = |turn: usize| at(HOST, FIRST_PORT + (turn % host.len()) as u16);
    let come = |turn: usize| -> io::Result<usize> { far.send_to(&[0; SMALL], to(turn)) };
    let go = |turn: usize| host[turn % host.len()].send(&[0; SMALL]);
    let (here, there) = (|| flood::arrived(std::process::id()), || flood::arrived(far_pid));
    // Every socket has as much as it takes.
    for turn in 0..3 * host.len() {
        come(turn).expect("send");
    }
    [
        flood::nanos(here, |_| come(0)),
        flood::nanos(here, come),
        flood::nanos(there, |_| go(0)),
        flood::nanos(there, go),
    ]
}
