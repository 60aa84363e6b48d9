//! Objects of others that are seen among ours, and the counters of classes.

use std::collections::BTreeMap;
use std::fmt;

use super::{Claim, LinkName, Port, Pref};
use crate::units::ClassId;

/// An object of somebody else's that stands among ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// A class below our root that no directory claims.
    Class {
        /// At which root it is.
        port: Port,
        /// The class's number, which is given to no owner of ours.
        classid: ClassId,
    },
    /// A filter below our root at a pref that is not ours.
    Filter {
        /// At which root it is.
        port: Port,
        /// The qdisc that asks the filter: the root or a shard's.
        parent: ClassId,
        /// The filter's preference: a lower one is asked earlier.
        pref: Pref,
        /// Ethertype.
        protocol: u16,
        /// `TCA_KIND`.
        kind: String,
    },
    /// A directory below our instance's that shaper did not make.
    Directory {
        /// The directory's path below the instance's.
        path: String,
        /// The directory's classid: that of the directory above it, unless somebody wrote another.
        classid: ClassId,
        /// The claim whose directory contains this one, and cannot be removed before it.
        below: Option<Claim>,
    },
}

impl Foreign {
    /// Whether it is a filter at a root of ours on the link, and asked before the one of ours that
    /// says whose a packet is.
    pub fn is_asked_first(&self, link: &LinkName) -> bool {
        match self {
            Foreign::Filter { port, pref, .. } => port.link == *link && *pref < Pref::TAG[0],
            Foreign::Class { .. } | Foreign::Directory { .. } => false,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Class { port, classid } => write!(f, "class {classid} on {port}"),
            Foreign::Filter { port, pref, kind, .. } => {
                write!(f, "{kind} filter pref {pref} on {port}")
            }
            Foreign::Directory { path, .. } => write!(f, "directory {path}"),
        }
    }
}

/// What our classes have counted, by port.
pub type Counted = BTreeMap<Port, BTreeMap<ClassId, Counters>>;

/// Counters of one class (`TCA_STATS2`, `struct tc_htb_xstats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent since the class was made, with link-layer headers.
    pub sent_bytes: u64,
    /// Packets sent since the class was made; a GSO packet counts as its segments.
    pub sent_packets: u64,
    /// Packets that found the queue full, or that the leaf qdisc dropped to keep the queue short.
    pub drops: u64,
    /// How often the class had used up its ceil and had to wait (`htb_change_class_mode`,
    /// net/sched/sch_htb.c).
    pub overlimits: u64,
    /// Bytes that wait in the queue now.
    pub backlog_bytes: u64,
    /// Packets that wait in the queue now.
    pub backlog_packets: u64,
    /// Packets sent within the class's own rate (`struct tc_htb_xstats`).
    pub lends: u64,
    /// Packets sent on what a parent had left over.
    pub borrows: u64,
}
