//! How fast downloads are whose sender makes packets of one segment or of many.

use std::thread::sleep;
use std::time::Duration;

use super::accounts::Account;
use super::clock::Micros;
use super::world::{Download, Family, World};

/// What the far side's TCP gives to its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// Up to 64 kB in one (TSO): so they come to the host's link, too.
    Large,
    /// As long as a frame may be.
    OfTheMtu,
}

/// From now on, for new connections.
pub fn send(world: &World, packets: Packets) {
    let most = match packets {
        Packets::Large => 65_535,
        Packets::OfTheMtu => 1,
    };
    world.on_far(&format!("ip link set far0 gso_max_segs {most}"));
}

/// Bits a second of the frames that carried what this account's processes received over so many
/// connections for so long: 1,514 bytes for 1,448 of payload.
pub fn downloads(world: &mut World, account: Account, connections: u32, time: Duration) -> u64 {
    let mut all: Vec<Download> =
        (0..connections).map(|_| world.downloading(account, Family::V4)).collect();
    sleep(Duration::from_secs(2));
    let from = Micros::now();
    sleep(time);
    let to = Micros::now();
    let payload: u64 = all.iter_mut().map(|download| download.seen().rate(from, to)).sum();
    payload * 1_514 / 1_448
}
