//! The events that the daemon's life depends on, and its orders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::policy::Source;
use crate::process::Changers;
use crate::tree::LinkName;

/// Which policy is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attempt {
    /// The policy in force, once more.
    Repair,
    /// The policy on its way in.
    Adopt,
}

/// What a look at the policy file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The text of the policy that is in force.
    InForce,
    Text(Source),
    /// The text differs from that of the look before.
    Changing,
    /// Somebody has had the file open for writing for this long.
    BeingWritten(Duration),
    Unreadable(String),
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The report for people, with lines of the file.
    pub(crate) text: String,
    /// One line, with its place.
    pub(crate) brief: String,
}

/// What became of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The policy is in force. `took`: how long the apply took, where nothing was to be done.
    /// `repaired`: links on which somebody's change was repaired. `drains`: some classes are not
    /// quiet yet.
    InForce {
        took: Option<Duration>,
        repaired: BTreeSet<LinkName>,
        drains: bool,
    },
    /// The policy cannot hold here.
    Refused(Refusal),
    Locked(String),
    Failed(String),
}

/// Links whose traffic control somebody else changed, and who it was.
pub(crate) type Touched = BTreeMap<LinkName, Changers>;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event<P> {
    Time,
    /// Something happened to the file, or on the way to it.
    FileTold,
    /// The file was read. `watched`: an event will come for every further change.
    FileRead {
        found: Found,
        watched: bool,
    },
    /// The text that was read is a policy, or is none.
    Parsed(Result<P, Refusal>),
    /// NSS has answered, or was given up. `asks`: other names of the policy are still asked for.
    Named {
        asks: bool,
    },
    /// Notices about links that are shaped or that the policy means. `touched`: those whose traffic
    /// control somebody else changed. `has_come`: one of them is not shaped yet.
    LinksTold {
        touched: Touched,
        has_come: bool,
    },
    /// Links have changed for which a policy may have been refused.
    LinksDiffer,
    /// An apply is wanted by this time, for accounts or for a window.
    Wanted {
        by: Instant,
    },
    Applied {
        attempt: Attempt,
        outcome: Outcome,
    },
    /// SIGHUP: the administrator wants the file read, everything looked at, and NSS asked again.
    Hangup,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the policy file.
    Read,
    /// Make a policy of these texts.
    Parse(Source),
    /// Ask NSS for the names of the policy on its way in.
    AskForNames,
    /// Apply it.
    Adopt,
    /// Apply what is in force, but for these links. `collects`: compare retired classes with the
    /// look that was taken of them.
    Repair {
        held: BTreeSet<LinkName>,
        collects: bool,
    },
    /// Take a first look at retired classes.
    LookAtRetired,
    /// Count a repair of this link, and note who had changed it.
    CountRepair {
        link: LinkName,
        by: String,
    },
    Complain(String),
    Warn(String),
    Inform(String),
}

/// A policy's text.
pub(crate) trait Text {
    /// As it was read from its files.
    fn source(&self) -> &Source;
}
