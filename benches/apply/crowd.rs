//! What a packet costs beside many users: one who sends small datagrams as fast as they go, among
//! 10, 1,000 and 10,000, who are silent, or all have a queue that waits for its rate. Shards beside
//! the same users in one qdisc (numbered in the policy, which keeps them there).

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::{host, write};
use crate::support::command::run;
use crate::support::program::{directory, shaper};

/// How many users there are, and whether each has a number of his own.
const CASES: [(u32, bool, &str); 4] = [
    (10, false, "10"),
    (1_000, false, "1,000"),
    (10_000, false, "10,000, in shards"),
    (10_000, true, "10,000, in one qdisc"),
];
const ROUNDS: usize = 3;
/// For so long the packets of one measurement are counted; the median of so many.
const LENGTH: Duration = Duration::from_millis(100);
const TIMES: usize = 9;
/// Bytes of payload, of who is measured and of the others.
const SMALL: usize = 18;
const LARGE: usize = 1_000;
/// Seconds' worth at 8 kbit: until the last has his queue, that of the first has shrunk by a few.
const QUEUED: usize = 50;

/// Nanoseconds that a packet took.
#[derive(Default)]
struct Found {
    silent: Vec<u64>,
    busy: Vec<u64>,
}

pub fn measure() {
    host::furnish(10_000);
    run(&format!("ip addr add 10.77.0.1/24 dev {}", host::LINK));
    run(&format!("ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev {}", host::LINK));
    let mut all: [Found; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for ((users, numbered, name), found) in CASES.iter().zip(&mut all) {
            let line = |n: u32| {
                let limits = if n == 0 { "rate: 1gbit, ceil: 10gbit" } else { "ceil: 8kbit" };
                let number = if *numbered {
                    format!(", classid: '1:{:x}'", 0x10 + n)
                } else {
                    String::new()
                };
                format!("{{{limits}{number}}}")
            };
            host::apply(&host::policy("crowd", *users, line));
            move_to(0);
            found.silent.push(packet());
            fill(1..*users);
            found.busy.push(packet());
            println!("{name}: {:?} {:?} ns", found.silent.last(), found.busy.last());
            shaper(&["clear"]).exits(0);
            host::settle();
        }
    }
    let mut text = String::from(
        "| users | the others are silent | beside 10 | all others wait for their rate | beside 10 |\n\
         |---|---:|---:|---:|---:|\n",
    );
    let [silent, busy] = [&mut all[0].silent, &mut all[0].busy].map(|times| median(times));
    for ((_, _, name), found) in CASES.iter().zip(&mut all) {
        let cells = [(&mut found.silent, silent), (&mut found.busy, busy)].map(|(times, of)| {
            let time = median(times);
            format!("{:.2} µs | {:.2} ×", time as f64 / 1e3, time as f64 / of as f64)
        });
        let _ = writeln!(text, "| {name} | {} | {} |", cells[0], cells[1]);
    }
    let _ = write!(
        text,
        "\nTime for one packet of 64 bytes of a user who is within his rate, one sender; medians of {ROUNDS} \
         rounds in turns. Each of the others has {QUEUED} packets of {LARGE} bytes at 8 kbit: the link sends \
         those beside his, which is part of what he waits for.\n"
    );
    write(&text);
}

/// This process, and so its sockets, into a user's class.
fn move_to(user: u32) {
    let procs = directory(&format!("user/u{user:05}")).join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string()).expect("move to a user's directory");
}

/// A socket to nobody: the far end has no address, so what comes is dropped there.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 77, 0, 1), 0)).expect("a socket");
    socket.connect((Ipv4Addr::new(10, 77, 0, 2), 9)).expect("a route");
    socket
}

/// A queue for each of these users. A socket for each: one would count what waits as its own and
/// block.
fn fill(users: std::ops::Range<u32>) {
    for user in users {
        move_to(user);
        let socket = socket();
        socket.set_nonblocking(true).expect("a socket that does not wait");
        for _ in 0..QUEUED {
            let _ = socket.send(&[0; LARGE]);
        }
    }
    move_to(0);
}

/// Nanoseconds for a packet.
fn packet() -> u64 {
    let socket = socket();
    let once = || {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < LENGTH {
            for _ in 0..64 {
                socket.send(&[0; SMALL]).expect("send");
            }
            count += 64;
        }
        u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX) / count
    };
    let mut times: Vec<u64> = (0..TIMES).map(|_| once()).collect();
    median(&mut times)
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(1).max(1)
}
