//! Where a filter is on its link.

use std::fmt;

use super::Pref;
use crate::units::{ClassId, Shard};

/// What filters belong to: it asks its filters about each packet that comes there, by pref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parent {
    /// Our root qdisc.
    Root,
    /// A shard's qdisc.
    Shard(Shard),
    /// The egress side of the link's `clsact`, which packets pass before the root qdisc.
    Egress,
    /// Its ingress side, which packets pass when they arrive.
    Ingress,
}

impl Parent {
    /// The parent's classid, as messages have it (`tcm_parent`).
    pub fn classid(self) -> ClassId {
        match self {
            Parent::Root => ClassId::ROOT,
            Parent::Shard(shard) => shard.qdisc(),
            Parent::Egress => ClassId::EGRESS,
            Parent::Ingress => ClassId::INGRESS,
        }
    }

    /// The shard whose qdisc the parent is; `None` for another parent.
    pub fn shard(self) -> Option<Shard> {
        match self {
            Parent::Shard(shard) => Some(shard),
            Parent::Root | Parent::Egress | Parent::Ingress => None,
        }
    }

    /// Whether the parent is a side of `clsact`.
    pub fn is_clsact(self) -> bool {
        matches!(self, Parent::Egress | Parent::Ingress)
    }

    /// The seat at `pref` of this parent.
    pub fn at(self, pref: Pref) -> Seat {
        Seat { parent: self, pref }
    }
}

/// The key of a filter on its link: no two filters have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// What the filter belongs to.
    pub parent: Parent,
    /// The filter's preference there: a lower one is asked earlier.
    pub pref: Pref,
}

/// As a line of a plan names it: `pref 200`, `at e000: pref 200`, `at clsact egress pref 1`.
impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent {
            Parent::Root => {}
            Parent::Shard(shard) => write!(f, "at {} ", shard.qdisc())?,
            Parent::Egress => write!(f, "at clsact egress ")?,
            Parent::Ingress => write!(f, "at clsact ingress ")?,
        }
        write!(f, "pref {}", self.pref)
    }
}
