//! Whose the packets of a guest are, where they come in.

use crate::units::Minor;

/// What the program at the ingress side of an inner link's clsact writes into each packet that
/// comes in there: the minor of its owner's class, in `tc_index` (16 bits of `struct sk_buff`,
/// which bridges, routing and NAT leave alone), where the programs of the links by which it leaves
/// find it. All other numbers are written over, so that a guest cannot choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Whose all other packets are that come in there; `None`: nobody's.
    pub owner: Option<Minor>,
    /// Whether a packet whose source has an entry ([`super::OwnerTable::sources`]) is that entry's.
    pub by_source: bool,
    /// Whether a label that the packet has already stays: that of a bridge's port goes before the
    /// bridge's own.
    pub keeps: bool,
}
