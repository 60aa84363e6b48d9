//! What is seen beside our own objects: others' among ours, and what classes have counted.

use std::fmt;

use super::{Claim, Port, Pref};
use crate::units::ClassId;

/// An object that stands among ours and carries no claim of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// A class below our root that no directory claims.
    Class {
        /// At which root it is.
        port: Port,
        /// Its number, which is never given to anybody.
        classid: ClassId,
    },
    /// A filter below our root at a pref that is not ours.
    Filter {
        /// At which root it is.
        port: Port,
        /// The qdisc: the root or a shard's.
        parent: ClassId,
        /// When it is asked.
        pref: Pref,
        /// Ethertype.
        protocol: u16,
        /// `TCA_KIND`.
        kind: String,
    },
    /// A directory in our instance's that is none of ours.
    Directory {
        /// Below the instance's.
        path: String,
        /// Its tag, which it has from the directory that it was made in unless somebody wrote it.
        classid: ClassId,
        /// The claim whose directory it is in, which cannot be removed while it is there.
        below: Option<Claim>,
    },
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

/// Counters of one class (`TCA_STATS2`, `struct tc_htb_xstats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent since the class was made, with link-layer headers.
    pub sent_bytes: u64,
    /// Packets sent since then; one that is cut up later counts as its pieces.
    pub sent_packets: u64,
    /// Packets that found the queue full.
    pub drops: u64,
    /// How often the class had to wait.
    pub overlimits: u64,
    /// What waits now.
    pub backlog_bytes: u64,
    /// How many wait now.
    pub backlog_packets: u64,
    /// Packets sent within the class's own rate (`struct tc_htb_xstats`).
    pub lends: u64,
    /// Packets sent on what a parent had left.
    pub borrows: u64,
}
