//! The daemon: users placed as they log in, and repairs of whatever changes underneath.

mod births;
mod condition;
pub mod logins;
mod namespace;
mod newcomers;
mod repairs;
mod scale;
mod service;
mod windows;

use crate::support::command::Done;
use crate::support::harness::Test;
use crate::support::program::shaper;

pub const BIRTHS: &[Test] = births::TESTS;
pub const CONDITION: &[Test] = condition::TESTS;
pub const LOGINS: &[Test] = logins::TESTS;
pub const NAMESPACE: &[Test] = namespace::TESTS;
pub const NEWCOMERS: &[Test] = newcomers::TESTS;
pub const SCALE: &[Test] = scale::TESTS;
pub const SERVICE: &[Test] = service::TESTS;
pub const REPAIRS: &[Test] = repairs::TESTS;
pub const WINDOWS: &[Test] = windows::TESTS;

/// The program beside a daemon that was started with events: the same instance.
pub fn beside(words: &[&str]) -> Done {
    shaper(&[&["--cgroup", "shaper"], words].concat())
}
