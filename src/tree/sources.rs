//! What comes in by one link from one network.

use std::fmt;

use ipnet::IpNet;

/// Packets that come in by an inner link with a source in a network: of the networks of one link
/// that hold an address the longest prefix decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The link's, which is no other link's while that exists.
    pub ifindex: u32,
    /// The network, without bits beyond its prefix.
    pub net: IpNet,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by link {}", self.net, self.ifindex)
    }
}
