//! What the daemon costs on a crowded host.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::logins::storm;
use crate::support::cell::myself;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Test};
use crate::support::program::{directory, members, policy};
use crate::support::settings::setting;
use crate::support::world::World;

pub const TESTS: &[Test] = &[Test {
    name: "watch::a_crowd_costs_little",
    on: On::HostEvents,
    budget: Duration::from_secs(300),
    body: a_crowd_costs_little,
}];

const FIRST: u32 = 20_000;

/// Of a processor, in percent, while nothing happens.
const MOST_IDLE: f64 = 1.0;

/// Many more by night; below what the machine has room for (`kernel.pid_max`), with room for
/// everybody else.
fn processes() -> u32 {
    const FEWEST: u64 = 6_000;
    let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    let limit: u32 = limit.trim().parse().unwrap_or(32_768);
    let wanted = setting("SHAPER_CROWD").unwrap_or(FEWEST);
    let wanted = u32::try_from(wanted).expect("a number of processes");
    wanted.min(limit.saturating_sub(8_000))
}

/// Accounts with as many processes each.
fn accounts(processes: u32) -> u32 {
    (processes / 10).clamp(1, 2_000)
}

fn crowd(accounts: u32, processes: u32) -> Child {
    let words = ["--crowd", &FIRST.to_string(), &accounts.to_string(), &processes.to_string()];
    let mut crowd =
        myself(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a crowd");
    let mut line = String::new();
    let said = crowd.stdout.as_mut().expect("what the crowd says");
    BufReader::new(said).read_line(&mut line).expect("the crowd gathers");
    assert_eq!(line.trim(), processes.to_string());
    crowd
}

fn a_crowd_costs_little() {
    let _world = World::new();
    let accounts = accounts(processes());
    let of_each = processes() / accounts;
    let processes = accounts * of_each;
    let mut crowd = crowd(accounts, processes);
    let text = "
version: 1
links: {up0: {rate: 1gbit}}
everyone: {uids: \"20000-\", each: {ceil: 20mbit}}
";
    let started = Instant::now();
    let daemon = Daemon::with_events(&["watch", "-q", &policy(text)]);
    println!("{processes} processes of {accounts} accounts: ready after {:?}", started.elapsed());
    let last = format!("uid/{}", FIRST + accounts - 1);
    soon("all are placed", Duration::from_secs(60), || {
        directory(&last).exists() && members(&last).len() as u32 == of_each
    });
    sleep(Duration::from_secs(2));
    let (now, most) = daemon.memory();
    println!("memory: {now} kB of its own; all of it, at most: {most} kB");
    let cpu = |time: u64| {
        let (start, before) = (Instant::now(), daemon.cpu());
        sleep(Duration::from_secs(time));
        daemon.cpu().saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0
    };
    // The kernel tells of everybody's forks: others that run on this machine are no fault of ours.
    let mut idle = f64::MAX;
    for _ in 0..4 {
        idle = idle.min(cpu(4));
        println!("idle: {idle:.2} % of a processor");
        if idle < MOST_IDLE {
            break;
        }
    }
    let mut others = storm(7);
    sleep(Duration::from_secs(1));
    let stormy = cpu(4);
    println!("2,000 forks a second: {stormy:.2} % of a processor");
    let _ = others.wait();
    drop(crowd.stdin.take());
    let _ = crowd.wait();
    assert!(now < 8_000, "{now} kB of its own memory");
    assert!(idle < MOST_IDLE, "{idle} % while nothing happens");
    assert!(stormy < 40.0, "{stormy} % while others fork");
}
