//! Where a tree stands.

use std::fmt;

/// A network interface's name, as the kernel allows it: 1–15 bytes, no `/`, no white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// Mirrors `dev_valid_name` (net/core/dev.c).
    pub fn new(name: &str) -> Option<LinkName> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let valid =
            (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad);
        valid.then(|| LinkName(name.to_string()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
