//! What a user receives is held to his limits like what he sends: how much of it his class has,
//! how exact its rate is, and that others get what they would get of what is sent.

mod namespaces;
mod rates;
mod shares;
mod swaps;

use crate::support::counters::classes;
use crate::support::harness::Test;
use crate::support::rates::Interval;
use crate::support::world::UPLINK;

pub const NAMESPACES: &[Test] = namespaces::TESTS;
pub const RATES: &[Test] = rates::TESTS;
pub const SHARES: &[Test] = shares::TESTS;
pub const SWAPS: &[Test] = swaps::TESTS;

/// Of the uplink.
const IFB: &str = "ifb-up0";

/// What a class has of all that comes, and of all that leaves, while this goes on: at least these
/// percents.
#[track_caller]
fn measured(what: &str, class: &str, least: [f64; 2], go_on: impl FnOnce()) {
    let before = [IFB, UPLINK].map(classes);
    go_on();
    let ways = [IFB, UPLINK].into_iter().zip(["down", "up"]);
    for (((link, way), before), least) in ways.zip(before).zip(least) {
        Interval::since(before, link).has_share(&format!("{what}, {way}"), class, least);
    }
}
