//! What is seen beside our own objects: others' among ours, and what classes have counted.

use std::fmt;

use super::{Claim, Port, Pref};
use crate::units::ClassId;

/// An object that stands among ours and carries no claim of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    Class {
        port: Port,
        classid: ClassId,
    },
    Filter {
        port: Port,
        /// The qdisc: the root or a shard's.
        parent: ClassId,
        pref: Pref,
        /// Ethertype.
        protocol: u16,
        kind: String,
    },
    Directory {
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
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub drops: u64,
    pub overlimits: u64,
    pub backlog_bytes: u64,
    pub backlog_packets: u64,
    pub lends: u64,
    pub borrows: u64,
}
