//! Numbers of bytes.

use std::fmt;

/// A number of bytes: a burst, a quantum, a queue's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// As `tc` reads it back: plain bytes with the unit `b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}b", self.0)
    }
}
