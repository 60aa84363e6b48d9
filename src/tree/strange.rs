//! Strange objects: found where only objects of ours should be, and such as shaper never writes.
//! They are kept beside the state, which has nothing that cannot be desired.

use std::collections::{BTreeMap, BTreeSet};

use super::class::LeafQdisc;
use super::filter::Filter;
use super::pref::Pref;
use super::seat::{Parent, Seat};
use crate::units::ClassId;

/// The strange objects at one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strange {
    /// Qdiscs that somebody else put below classes of ours, each by its handle: the handle's major
    /// is the class's minor only by chance.
    pub leaves: BTreeMap<ClassId, ClassId>,
    /// Filters at prefs of ours: half an update, or another program's filters.
    pub filters: BTreeMap<Seat, StrangeFilter>,
    /// The numbers of u32 hash tables whose pref is gone. The kernel lists them nowhere, and their
    /// rules keep the classes that they send to from being deleted.
    pub tables: BTreeSet<u16>,
}

impl Strange {
    /// Whether nothing is strange there.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.filters.is_empty() && self.tables.is_empty()
    }

    /// The strange filters of one parent, by pref.
    pub fn filters_of(&self, parent: Parent) -> impl Iterator<Item = (Pref, &StrangeFilter)> {
        let here = self.filters.iter().filter(move |(seat, _)| seat.parent == parent);
        here.map(|(seat, filter)| (seat.pref, filter))
    }
}

/// A filter that shaper does not write. Enough is known of it to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangeFilter {
    /// Ethertype.
    pub protocol: u16,
    /// `TCA_KIND`.
    pub kind: String,
    /// The numbers of its u32 hash tables, which stay when the pref is deleted.
    pub tables: Vec<u16>,
}

/// A filter that is found at a pref of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundFilter {
    /// One that shaper writes.
    Ours(Filter),
    /// Another, which is always replaced.
    Strange(StrangeFilter),
}

impl FoundFilter {
    /// The filter, if it is one that shaper writes.
    pub fn ours(&self) -> Option<&Filter> {
        match self {
            FoundFilter::Ours(filter) => Some(filter),
            FoundFilter::Strange(_) => None,
        }
    }

    /// The protocol of the filter, as an ethertype in host order.
    pub fn protocol(&self) -> u16 {
        match self {
            FoundFilter::Ours(filter) => filter.protocol(),
            FoundFilter::Strange(filter) => filter.protocol,
        }
    }

    /// Whether the filter is a set of u32 rules.
    pub fn is_u32(&self) -> bool {
        match self {
            FoundFilter::Ours(filter) => filter.is_u32(),
            FoundFilter::Strange(filter) => filter.kind == "u32",
        }
    }

    /// As [`Filter::tables`].
    pub fn tables(&self, pref: Pref) -> Vec<u16> {
        match self {
            FoundFilter::Ours(filter) => filter.tables(pref),
            FoundFilter::Strange(filter) => filter.tables.clone(),
        }
    }
}

/// The qdisc that is found below a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundLeaf {
    /// One that shaper makes.
    Ours(LeafQdisc),
    /// Another, which is always replaced.
    Strange {
        /// The qdisc's own handle.
        handle: ClassId,
    },
}

impl FoundLeaf {
    /// The handle that the qdisc has below this class.
    pub fn handle(&self, below: ClassId) -> ClassId {
        match self {
            FoundLeaf::Ours(_) => LeafQdisc::handle(below),
            FoundLeaf::Strange { handle } => *handle,
        }
    }

    /// The qdisc's kind, as in `TCA_KIND`; of a strange one a word that stands for any kind.
    pub fn kind(&self) -> &'static str {
        match self {
            FoundLeaf::Ours(leaf) => leaf.kind(),
            FoundLeaf::Strange { .. } => FoundLeaf::STRANGE,
        }
    }

    /// The kind of all that are strange, as plans and the status have it.
    pub const STRANGE: &'static str = "foreign";
}
