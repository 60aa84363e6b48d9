//! What a user receives is held to his limits like what he sends: how much of it his class has,
//! how exact its rate is, and that others get what they would get of what is sent.

mod rates;
mod shares;

use crate::support::harness::Test;

pub const RATES: &[Test] = rates::TESTS;
pub const SHARES: &[Test] = shares::TESTS;
