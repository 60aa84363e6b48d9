//! Where a tree stands: on which link, and for which direction of its packets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A network interface's name, as the kernel allows it: 1–15 bytes, no `/`, no white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(pub(super) String);

impl LinkName {
    /// Mirrors `dev_valid_name` (net/core/dev.c).
    pub fn new(name: &str) -> Option<LinkName> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let valid =
            (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad);
        valid.then(|| LinkName(name.to_string()))
    }

    /// The name, up to 15 bytes, as `ip link` shows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The port at which packets leave by this link.
    pub fn egress(&self) -> Port {
        Port { link: self.clone(), direction: Direction::Egress }
    }

    /// The port at which packets arrive by this link.
    pub fn ingress(&self) -> Port {
        Port { link: self.clone(), direction: Direction::Ingress }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way packets pass a link, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// They leave the host: the link's root qdisc delays them.
    Egress,
    /// They arrive: the root qdisc of the link's ifb delays them.
    Ingress,
}

impl Direction {
    /// The word that `tc`, `status --json` and the metrics have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One direction of one link: the key of trees, limits, counters, filters and steps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The link's name.
    pub link: LinkName,
    /// Which of its two directions.
    pub direction: Direction,
}

impl Port {
    /// The same port, by the ifindex of its link.
    pub fn at(&self, ifindex: u32) -> PortIndex {
        PortIndex { ifindex, direction: self.direction }
    }
}

/// A port by the ifindex of its link, which stays the same when the link is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortIndex {
    /// The link's ifindex.
    pub ifindex: u32,
    /// Which of its two directions.
    pub direction: Direction,
}

/// As plans and errors name it: `eth0` for what leaves, `eth0 ingress` for what arrives.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Egress => self.link.fmt(f),
            Direction::Ingress => write!(f, "{} {}", self.link, self.direction),
        }
    }
}
