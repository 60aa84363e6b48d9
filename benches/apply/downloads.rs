//! What users receive: how near downloads are to their caps, and what another user waits for beside
//! them.

use std::fmt::Write;
use std::thread::sleep;
use std::time::Duration;

use super::write;
use crate::support::accounts::{ANN, BOB};
use crate::support::goodput::{self, Packets};
use crate::support::program::{apply, shaper};
use crate::support::rates::{MBIT, percentile};
use crate::support::world::{Family, World};

const CAPS: [u64; 7] = [1, 4, 10, 40, 100, 400, 1_000];
const KINDS: [(u32, Packets, &str); 4] = [
    (1, Packets::Large, "one stream, TSO"),
    (8, Packets::Large, "eight, TSO"),
    (1, Packets::OfTheMtu, "one, of the MTU"),
    (8, Packets::OfTheMtu, "eight, of the MTU"),
];
/// Within this a cap is kept.
const PERCENT: f64 = 2.0;
/// A machine that is busy is slow now and then, a wrong rate always is.
const TIMES: usize = 3;

pub fn goodput() {
    let mut world = World::new();
    let mut text = format!(
        "| cap |{}\n|---:|{}\n",
        KINDS.map(|(_, _, name)| format!(" {name} |")).concat(),
        KINDS.map(|_| "---:|").concat()
    );
    for mbit in CAPS {
        let _ = write!(text, "| {mbit} Mbit |");
        for (connections, packets, _) in KINDS {
            goodput::send(&world, packets);
            let off = nearest(&mut world, mbit, connections);
            let verdict = if off.abs() <= PERCENT { "" } else { " **missed**" };
            let _ = write!(text, " {off:+.2} %{verdict} |");
        }
        println!("{}", text.lines().last().unwrap_or_default());
        text.push('\n');
    }
    let _ = write!(
        text,
        "\nHow far what one user receives over TCP is from his `down`: the payload that processes \
         have read, counted as the frames that carried it (1,514 bytes for 1,448); wanted within \
         {PERCENT} %. The far side's TCP gives its link packets of up to 64 kB (TSO), or of one \
         frame. A cell that missed is measured again, at most {TIMES} times, and the nearest counts.\n"
    );
    write(&text);
}

/// By how many percent the goodput is off.
fn nearest(world: &mut World, mbit: u64, connections: u32) -> f64 {
    // A frame is one percent of a second's at 1 Mbit.
    let time = Duration::from_secs(if mbit < 10 { 6 } else { 2 });
    let mut best = f64::MAX;
    for _ in 0..TIMES {
        // Anew, so that no queue of the one before is left.
        shaper(&["clear", "-q"]).exits(0);
        apply(&policy(mbit));
        let start = Duration::from_secs(if mbit < 10 { 10 } else { 2 });
        let rate = goodput::downloads(world, ANN, connections, start, time);
        let off = (rate as f64 / (mbit * MBIT) as f64 - 1.0) * 100.0;
        if off.abs() < best.abs() {
            best = off;
        }
        if best.abs() <= PERCENT {
            break;
        }
    }
    best
}

fn policy(mbit: u64) -> String {
    format!(
        "version: 1\nlinks: {{up0: {{rate: 2gbit, down: 2gbit}}}}\n\
         users: {{ann: {{ceil: 2gbit, down: {mbit}mbit}}, bob: {{ceil: 2gbit, down: 100mbit}}}}\n"
    )
}

const ROUNDS: usize = 6;
/// Another user's 99th of a hundred may wait for so many microseconds longer.
const LONGER: u64 = 200;

pub fn latency() {
    let mut world = World::new();
    let mut text = String::from(
        "| ann's cap, and her downloads | p50 / p99, idle | beside her | p99 longer by |\n\
         |---|---:|---:|---:|\n",
    );
    for (mbit, connections) in [(10, 1), (10, 8), (100, 8)] {
        apply(&policy(mbit));
        let mut bob = world.actor(BOB);
        let (mut idle, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            idle.extend(world.probe(&mut bob, 500, 3));
            let downloads: Vec<_> =
                (0..connections).map(|_| world.downloading(ANN, Family::V4)).collect();
            sleep(Duration::from_secs(1));
            beside.extend(world.probe(&mut bob, 500, 3));
            drop(downloads);
            sleep(Duration::from_millis(300));
        }
        let spell = |rtts: &[u64]| {
            let millis = |percent| percentile(rtts, percent) as f64 / 1e3;
            format!("{:.3} / {:.3} ms", millis(50), millis(99))
        };
        let longer = percentile(&beside, 99).saturating_sub(percentile(&idle, 99));
        let verdict = if longer <= LONGER { "met" } else { "**missed**" };
        let row = format!(
            "| {mbit} Mbit, {connections} | {} | {} | {:.3} ms (≤ {:.1}: {verdict}) |",
            spell(&idle),
            spell(&beside),
            longer as f64 / 1e3,
            LONGER as f64 / 1e3
        );
        println!("{row}");
        let _ = writeln!(text, "{row}");
        shaper(&["clear", "-q"]).exits(0);
    }
    let _ = write!(
        text,
        "\nRound trips of bob's small UDP packets, {ROUNDS} times without and with ann's downloads \
         in turns; each download comes as fast as it can.\n"
    );
    write(&text);
}
