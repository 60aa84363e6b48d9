//! Whose a running download is, is known at once: when everything is built for the first time, and
//! when the programs and their map are replaced.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB};
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::apply;
use crate::support::world::{Family, World};

tests!(On::Host => little_of_a_running_download_is_nobodys);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, down: 400mbit}}
users:
  ann: {ceil: 400mbit, down: 200mbit}
  bob: {ceil: 400mbit, down: 200mbit}
";

/// Bytes that were taken for nobody's.
fn nobodys() -> u64 {
    classes("ifb-up0").class("1:fffe").bytes
}

fn little_of_a_running_download_is_nobodys() {
    let mut world = World::new();
    let mut downloads = Vec::new();
    for (account, family) in [(ANN, Family::V4), (BOB, Family::V6)] {
        downloads.extend((0..4).map(|_| world.downloading(account, family)));
    }
    sleep(Duration::from_millis(500));
    apply(POLICY);
    sleep(Duration::from_millis(500));
    let first = nobodys();
    println!("{first} bytes of 8 running downloads are nobody's after a first build");
    assert!(first < 100_000);
    let mut swaps = Vec::new();
    for _ in 0..10 {
        let before = nobodys();
        run("tc filter del dev up0 egress");
        apply(POLICY);
        sleep(Duration::from_millis(100));
        swaps.push(nobodys() - before);
    }
    println!("{swaps:?} bytes after each of 10 swaps");
    assert!(swaps.iter().all(|bytes| *bytes < 20_000));
    let came: u64 = downloads.iter_mut().map(|download| download.seen().bytes).sum();
    assert!(came > 10_000_000, "{came} bytes came");
}
