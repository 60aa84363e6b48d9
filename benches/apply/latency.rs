//! What a user waits for who sends little, while another fills his class, and while he fills his
//! own.

use std::fmt::Write;
use std::thread::sleep;
use std::time::Duration;

use super::traffic::{Flow, process};
use super::write;
use crate::support::orders::Proto;
use crate::support::program::{apply, shaper};
use crate::support::rates::percentile;
use crate::support::world::{UPLINK, World};

pub fn measure() {
    let mut world = World::new();
    let mut text = String::from(
        "| cap of each | p50 / p99, idle | another user fills his class | he fills his own |\n\
         |---:|---:|---:|---:|\n",
    );
    let mut leaf = String::new();
    for mbit in [1u64, 10, 100] {
        apply(&format!(
            "version: 1\nlinks:\n  {UPLINK}: {{rate: 1gbit, default: {{rate: 10mbit}}}}\nusers:\n  \
             busy: {{rate: {mbit}mbit, uids: [7001]}}\n  quiet: {{rate: {mbit}mbit, uids: [7002]}}\n"
        ));
        leaf = leaf_kind(&world);
        let mut quiet = process(Some("quiet"));
        let idle = world.probe(&mut quiet, 300, 5);
        let busy = Flow::start(&mut world, Some("busy"), Proto::Tcp);
        sleep(Duration::from_secs(1));
        let beside = world.probe(&mut quiet, 300, 5);
        drop(busy);
        let busy = Flow::start(&mut world, Some("quiet"), Proto::Tcp);
        sleep(Duration::from_secs(2));
        // Where each waits for half a second, fewer must do.
        let own = world.probe(&mut quiet, if mbit == 1 { 30 } else { 200 }, 5);
        drop(busy);
        let _ = writeln!(
            text,
            "| {mbit} Mbit | {} | {} | {} |",
            spell(&idle),
            spell(&beside),
            spell(&own)
        );
        shaper(&["clear"]).exits(0);
    }
    let _ = write!(
        text,
        "\nRound trips of small UDP packets; the other stream is TCP, as fast as it goes. The leaf that \
         `auto` chose on this kernel is {leaf}.{}\n",
        match leaf.as_str() {
            "fq_codel" => "",
            _ =>
                " It has one queue, so who fills his own class waits in it; with fq_codel he does not.",
        }
    );
    write(&text);
}

fn leaf_kind(world: &World) -> String {
    let text = world.on_host(&format!("tc qdisc show dev {UPLINK}")).stdout;
    let leaf = text.lines().find(|line| line.contains(" parent 1:10 "));
    leaf.and_then(|line| line.split(' ').nth(1)).unwrap_or("none").to_string()
}

fn spell(rtts: &[u64]) -> String {
    let millis = |percent| percentile(rtts, percent) as f64 / 1_000.0;
    format!("{:.2} / {:.2} ms", millis(50), millis(99))
}
