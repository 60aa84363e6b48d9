//! Where a filter sits on its link.

use std::fmt;

use super::Pref;
use crate::units::{ClassId, Shard};

/// What holds filters: packets that come there are shown to them, by pref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parent {
    /// Our root qdisc.
    Root,
    /// A shard's qdisc.
    Shard(Shard),
    /// The egress side of the link's `clsact`, which packets pass before the root qdisc.
    Egress,
}

impl Parent {
    /// As messages name it (`tcm_parent`).
    pub fn classid(self) -> ClassId {
        match self {
            Parent::Root => ClassId::ROOT,
            Parent::Shard(shard) => shard.qdisc(),
            Parent::Egress => ClassId::EGRESS,
        }
    }

    /// The shard, of a shard's qdisc.
    pub fn shard(self) -> Option<Shard> {
        match self {
            Parent::Shard(shard) => Some(shard),
            Parent::Root | Parent::Egress => None,
        }
    }

    /// This parent's seat at a pref.
    pub fn at(self, pref: Pref) -> Seat {
        Seat { parent: self, pref }
    }
}

/// The one place on a link where a filter is: no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// What the filter belongs to.
    pub parent: Parent,
    /// When it is asked there.
    pub pref: Pref,
}

/// As a line of a plan names it: `pref 200`, `at e000: pref 200`, `at clsact egress pref 1`.
impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent {
            Parent::Root => {}
            Parent::Shard(shard) => write!(f, "at {} ", shard.qdisc())?,
            Parent::Egress => write!(f, "at clsact egress ")?,
        }
        write!(f, "pref {}", self.pref)
    }
}
