//! Ways out of one's class that were tried, one file for each mechanism that closes some of them.

pub mod answers;
pub mod handed_on;
pub mod headers;
pub mod hidden;
pub mod kernel_sockets;
pub mod mptcp;
pub mod passed_on;
pub mod priority;
mod reused;
mod routed;
pub mod tag_only;
pub mod tried;

use crate::support::harness::Test;

pub const ANSWERS: &[Test] = answers::TESTS;
pub const HANDED_ON: &[Test] = handed_on::TESTS;
pub const HEADERS: &[Test] = headers::TESTS;
pub const HIDDEN: &[Test] = hidden::TESTS;
pub const KERNEL_SOCKETS: &[Test] = kernel_sockets::TESTS;
pub const MPTCP: &[Test] = mptcp::TESTS;
pub const PASSED_ON: &[Test] = passed_on::TESTS;
pub const PRIORITY: &[Test] = priority::TESTS;
pub const REUSED: &[Test] = reused::TESTS;
pub const ROUTED: &[Test] = routed::TESTS;
pub const TRIED: &[Test] = tried::TESTS;
