//! How many packets one HTB takes: it has one lock for all processors. Small packets and such of
//! 60 kB, which a device or its driver cuts (GSO), sent here or forwarded, by one processor and by
//! two, onto a device that frees what it is given.

use std::fmt::Write;
use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use super::flood::{self, SMALL, at};
use super::{host, write};
use crate::support::actor::Actor;
use crate::support::cell::myself;
use crate::support::command::{run, run_with};
use crate::support::program::shaper;

const LINK: &str = "up0";
/// `None`: without a qdisc.
const CASES: [(Option<u32>, &str); 4] =
    [(None, "no qdisc"), (Some(1), "1"), (Some(100), "100"), (Some(10_000), "10,000, in shards")];
const LENGTH: Duration = Duration::from_millis(30);
const TIMES: usize = 15;
const ROUNDS: usize = 3;

/// What is sent: bytes of payload, in segments of so many where they are several; whether another
/// namespace sends it, which the host forwards; by how many processors.
#[derive(Clone, Copy)]
struct Load {
    bytes: usize,
    segment: Option<i32>,
    forwarded: bool,
    processors: usize,
}

const SMALL_HERE: Load = Load { bytes: SMALL, segment: None, forwarded: false, processors: 1 };
const LARGE_HERE: Load = Load { bytes: 60_000, segment: Some(1_448), ..SMALL_HERE };
const LOADS: [(&str, Load); 8] = [
    ("small, from here, one", SMALL_HERE),
    ("small, from here, two", Load { processors: 2, ..SMALL_HERE }),
    ("small, forwarded, one", Load { forwarded: true, ..SMALL_HERE }),
    ("small, forwarded, two", Load { forwarded: true, processors: 2, ..SMALL_HERE }),
    ("60 kB, from here, one", LARGE_HERE),
    ("60 kB, from here, two", Load { processors: 2, ..LARGE_HERE }),
    ("60 kB, forwarded, one", Load { forwarded: true, ..LARGE_HERE }),
    ("60 kB, forwarded, two", Load { forwarded: true, processors: 2, ..LARGE_HERE }),
];

pub fn measure() {
    let inner = furnish();
    let mut all: [[Vec<u64>; LOADS.len()]; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for ((users, name), found) in CASES.iter().zip(&mut all) {
            match *users {
                Some(users) => {
                    host::apply(&policy(users));
                }
                None => drop(run(&format!("tc qdisc replace dev {LINK} root noqueue"))),
            }
            let rates = LOADS.map(|(_, load)| rate(load, users.unwrap_or(0), inner.pid()));
            println!("{name}: {rates:?}");
            found.iter_mut().zip(rates).for_each(|(all, rate)| all.push(rate));
            if users.is_some() {
                shaper(&["clear"]).exits(0);
                host::settle();
            } else {
                run(&format!("tc qdisc del dev {LINK} root"));
            }
        }
    }
    let names = CASES.map(|(_, name)| format!(" {name} |")).concat();
    let mut text = format!("| packets, processors |{names}\n|---|{}\n", "---:|".repeat(4));
    for (load, (name, _)) in LOADS.iter().enumerate() {
        let _ = write!(text, "| {name} |");
        for found in &all {
            let rate = found[load].iter().max().copied().unwrap_or(1);
            let _ = write!(text, " {} k/s, {:.2} µs |", rate / 1_000, 1e6 / rate as f64);
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "\nThousands of packets a second that left, as the kernel's queues count them (one of 60 kB is one), \
         and the time for one; by the number of users. The best of {ROUNDS} rounds in turns. What leaves \
         is freed at once, so all but the first column's time is HTB's, with its filter.\n"
    );
    write(&text);
}

/// The link, and a namespace behind the host, whose packets to the link are forwarded.
fn furnish() -> Actor {
    let inner = Actor::start(myself(&["--isolated-actor"]));
    let pid = inner.pid().to_string();
    for line in [
        "link set lo up",
        &format!("link add {LINK} type ifb"),
        &format!("addr add 10.77.0.1/24 dev {LINK}"),
        &format!("link set {LINK} up"),
        &format!("neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev {LINK}"),
        &format!("link add in0 type veth peer name eth0 netns {pid}"),
        "addr add 10.79.0.1/24 dev in0",
        "link set in0 up",
    ] {
        run(&format!("ip {line}"));
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forward");
    let lines = "addr add 10.79.0.2/24 dev eth0\nlink set eth0 up\n\
                 route add default via 10.79.0.1\n";
    run_with(myself(&["--enter", &pid, "ip", "-batch", "-"]), lines).exits(0);
    inner
}

/// All of whom may send more than can be sent.
fn policy(users: u32) -> String {
    let mut text = format!(
        "version: 1\nlinks: {{{LINK}: {{rate: 4tbit, default: {{rate: 1tbit, ceil: 4tbit}}}}}}\n\
         users:\n"
    );
    for n in 0..users {
        let limits = if n < 2 { "rate: 1tbit, ceil: 4tbit" } else { "ceil: 4tbit" };
        let _ = writeln!(text, "  u{n:05}: {{{limits}, uids: [{}]}}", 20_000 + n);
    }
    host::policy_of("one", &text)
}

/// Packets a second that the link was given.
fn rate(load: Load, users: u32, inner: u32) -> u64 {
    let sockets: Vec<UdpSocket> = (0..load.processors as u32)
        .map(|n| {
            if users > 0 {
                flood::move_to(n % users);
            }
            let open = || {
                let from = if load.forwarded { [10, 79, 0, 2] } else { [10, 77, 0, 1] };
                let socket = UdpSocket::bind(at(from, 0)).expect("a socket");
                socket.connect(at([10, 77, 0, 2], 9)).expect("a route");
                if let Some(bytes) = load.segment {
                    setsockopt(&socket.as_fd(), sockopt::UdpGsoSegment, &bytes).expect("segments");
                }
                socket
            };
            if load.forwarded { flood::within(inner, open) } else { open() }
        })
        .collect();
    // Of many short measurements the fastest tenth counts: in others something else wanted a
    // processor.
    let mut rates: Vec<u64> = (0..TIMES).map(|_| once(&sockets, load.bytes)).collect();
    rates.sort_unstable();
    rates[TIMES - 1 - TIMES / 10]
}

/// All of them send for so long, each from a processor of its own.
fn once(sockets: &[UdpSocket], bytes: usize) -> u64 {
    let ready = Barrier::new(sockets.len());
    let payload = vec![0; bytes];
    let send = |processor: usize, socket: &UdpSocket| {
        let mut only = CpuSet::new();
        only.set(processor).expect("a processor");
        sched_setaffinity(Pid::from_raw(0), &only).expect("stay there");
        ready.wait();
        let begun = Instant::now();
        while begun.elapsed() < LENGTH {
            for _ in 0..16 {
                // What finds a queue full is counted nowhere.
                let _ = socket.send(&payload);
            }
        }
    };
    let (before, begun) = (given(), Instant::now());
    thread::scope(|scope| {
        for (processor, socket) in sockets.iter().enumerate() {
            let send = &send;
            scope.spawn(move || send(processor, socket));
        }
    });
    let time = begun.elapsed();
    ((given() - before) as f64 / time.as_secs_f64()) as u64
}

/// Packets that the link was given so far: an ifb counts what is not redirected to it as dropped
/// at receiving.
fn given() -> u64 {
    let text = fs::read_to_string("/proc/net/dev").expect("the kernel's counters");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{LINK}:")));
    let drops = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    drops.expect("those of the link")
}
