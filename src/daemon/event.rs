//! What the daemon hears, and what it decides: events come of the sources and of what the actor
//! did, decisions go to the sources and to the actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shaping::{Attempt, Found};
use crate::accounts::Question;
use crate::accounts::asking::Unanswered;
use crate::apply::Applied;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::netlink::notice::Notice;
use crate::netlink::proc_event::ProcEvent;
use crate::policy::Policy;
use crate::process::{PlacedOne, Placement};
use crate::sys::listener::Heard;
use crate::sys::route::SocketError;
use crate::tree::{LinkName, Owner};

/// What whoever sent a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP.
    ReadAgain,
}

/// What happened.
pub(super) enum Event {
    Signal(Wish),
    /// What the kernel told of processes, in its order; nothing of it, where some wait to be placed
    /// and it is time for them. An error: it tells nothing any more.
    Processes {
        told: Vec<ProcEvent>,
        heard: Result<Heard, SocketError>,
    },
    /// What the kernel told of links, but for what our own socket did.
    Links {
        told: BTreeSet<Notice>,
        heard: Result<Heard, SocketError>,
    },
    /// Something happened to the policy file, or on the way to it.
    PolicyFile,
    /// What came of the question to NSS.
    Answered(Result<Accounts, Unanswered>),
    /// `/etc/subuid` is another one.
    Subuids,
    /// The name on the command line stands for this network namespace no more.
    CutOff,
    /// All that came meanwhile was told. It may be time for something.
    Time,

    /// [`Decision::ReadFile`]. `watched`: every further change will be told.
    FileRead {
        found: Found,
        watched: bool,
    },
    /// [`Decision::Ask`]: no child could be started.
    NotAsked(Unanswered),
    /// [`Decision::GoOnPlacing`].
    Turn {
        until: Instant,
    },
    /// [`Action::Place`]. `open`: the uid about which NSS has still to be asked before it is
    /// certain whose the process is. `owner`: whose directory it was moved to.
    Looked {
        newcomer: Newcomer,
        placed: PlacedOne,
        open: Option<u32>,
        owner: Option<Owner>,
    },
    /// [`Action::Place`]: it could not be read, or not be moved.
    NotPlaced {
        pid: u32,
        why: String,
    },
    /// [`Action::Sweep`].
    Swept(Swept),
    /// [`Action::LookWhoLeft`]: nobody is in the directories of these.
    Directories {
        empty: BTreeSet<Owner>,
        took: Duration,
    },
    /// [`Action::Apply`].
    Applied {
        attempt: Attempt,
        start: Instant,
        came_of_it: Result<Box<Applied>, Failure>,
    },
}

/// What a look at all processes found and did.
pub(super) struct Swept {
    pub start: Instant,
    /// All uids that have a process.
    pub running: BTreeSet<u32>,
    /// By pid: the uid about which NSS has still to be asked.
    pub open: BTreeMap<u32, u32>,
    pub placement: Placement,
    /// Those that waited and are no more.
    pub ended: BTreeSet<u32>,
}

/// A process that waits to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    pub pid: u32,
    /// On whose account it is looked at.
    pub uid: u32,
    /// The last user for whom the kernel said that it acts.
    pub acted_for: Option<u32>,
}

/// What is to be done.
pub(super) enum Decision {
    /// Hear no more process events than these: see
    /// [`Sources::narrow`](super::sources::Sources::narrow).
    Narrow { exec: bool, muted: Vec<u32> },
    /// Read the policy file.
    ReadFile,
    /// Ask NSS.
    Ask(Question),
    /// Place the next process that waits, until then.
    GoOnPlacing { until: Instant },
    /// Act on the kernel, or say something.
    Do(Action),
    /// Stop looking after this network namespace.
    End(Ended),
}

/// What only the actor can do.
pub(super) enum Action {
    /// Look at this process, and place it.
    Place(Newcomer),
    /// Give what the processes placed lately hold of root's to whom they serve.
    HandOver,
    /// Look at all processes, and place them.
    Sweep,
    /// Look into the directories of all who come and go.
    LookWhoLeft,
    /// Apply the policy. `held`: links that are left alone. `collects`: retired classes are
    /// compared with the look that was taken of them.
    Apply { attempt: Attempt, held: BTreeSet<LinkName>, collects: bool },
    /// Take a first look at retired classes.
    LookAtRetired,
    /// Tell others what the daemon is about. `is_said`: the journal gets the reason by itself.
    TellCondition { word: &'static str, why: Option<String>, is_said: bool },
    /// Be found by other runs, where the instance may have been made anew.
    Keep,
    /// Tell the service manager that we live.
    SignOfLife,
    /// A line of the journal.
    Log(log::Level, String),
}

/// Why the daemon stopped to look after a network namespace.
pub(super) enum Ended {
    BySignal,
    /// The namespace's name stands for it no more. The policy that was in force.
    WithNamespace(Arc<Policy>),
}
