//! What the daemon's life hears of, and what it wants done.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::tree::LinkName;

/// What is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attempt {
    /// The policy in force, once more.
    Repair,
    /// The policy on its way in.
    Adopt,
}

/// What lies at the policy file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The text of the policy that is in force.
    InForce,
    Text(String),
    /// It was another one at the look before.
    Changing,
    /// Somebody has it open for writing, for so long.
    BeingWritten(Duration),
    Unreadable(String),
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// As people read it: with the lines of the file.
    pub(crate) text: String,
    /// One line, with its place.
    pub(crate) brief: String,
}

/// What became of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `took`: how long it took, where nothing was to be done. `repaired`: links of which something
    /// differed that nobody's coming and going explains. `drains`: some classes have still to
    /// become quiet.
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

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event<P> {
    Time,
    /// Something happened to the file, or on the way to it.
    FileTold,
    /// It was read. `watched`: every further change will be told.
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
    /// Links that are shaped, or that the policy means, changed. `touched`: those among them whose
    /// traffic control somebody else changed. `has_come`: there is one that is not shaped yet.
    LinksTold {
        touched: BTreeSet<LinkName>,
        has_come: bool,
    },
    /// The accounts want an apply by then.
    Wanted {
        by: Instant,
    },
    Applied {
        attempt: Attempt,
        outcome: Outcome,
    },
    /// Whoever runs the host says: read, look and ask again.
    Hangup,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the policy file.
    Read,
    /// Make a policy of this text.
    Parse(String),
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
    Complain(String),
    Warn(String),
    Inform(String),
}

/// A policy's text.
pub(crate) trait Text {
    /// As it was read from the file.
    fn text(&self) -> &str;
}
