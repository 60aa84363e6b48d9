//! Events, which come from the sources and from the actor, and decisions, which go to the sources
//! and to the actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::passing::Reading;
use super::shaping::{Attempt, Found};
use crate::accounts::Question;
use crate::accounts::asking::Unanswered;
use crate::apply::Applied;
use crate::engines;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::model::Next;
use crate::netlink::notice::Notice;
use crate::netlink::proc_event::ProcEvent;
use crate::policy::Policy;
use crate::process::{Changers, PlacedOne, Placement};
use crate::sys::listener::Heard;
use crate::sys::route::SocketError;
use crate::tree::{LinkName, Owner};

/// What a signal asks for.
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
    /// Process events, in the kernel's order; empty where it is only time to place those that wait.
    /// An error: no more events come.
    Processes {
        told: Vec<ProcEvent>,
        heard: Result<Heard, SocketError>,
    },
    /// Notices about links, but for changes by the daemon's own socket.
    /// `by`: who changed the traffic control of shaped links, by ifindex.
    Links {
        told: BTreeSet<Notice>,
        by: BTreeMap<u32, Changers>,
        heard: Result<Heard, SocketError>,
    },
    /// Something happened to the policy file, or on the way to it.
    PolicyFile,
    /// The outcome of the question to NSS.
    Answered(Result<Accounts, Unanswered>),
    /// What container engines say.
    Described(engines::Answer),
    /// `/etc/subuid` has changed.
    Subuids,
    /// Somebody may have written to the file of what owners with a quota have used.
    UseChanged,
    /// The policy may mean something else from now on: a window begins or ends, the clock was set,
    /// or the host has another zone.
    AnotherTime,
    /// The name on the command line does not stand for this network namespace any more.
    CutOff,
    /// All events that came were delivered; a task may be due.
    Time,

    /// The outcome of [`Decision::ReadFile`]. `watched`: an event will come for every further
    /// change.
    FileRead {
        found: Found,
        watched: bool,
    },
    /// The outcome of [`Decision::Ask`], where no child could be started.
    NotAsked(Unanswered),
    /// The outcome of [`Decision::GoOnPlacing`].
    Turn {
        until: Option<Instant>,
    },
    /// The outcome of [`Action::Place`]. `open`: the uid about which NSS must still be asked before
    /// it is certain who claims the process. `owner`: the owner to whose directory the process was
    /// moved.
    Looked {
        newcomer: Newcomer,
        placed: PlacedOne,
        open: Option<u32>,
        owner: Option<Owner>,
    },
    /// The outcome of [`Action::Place`], where the process could not be read or moved.
    NotPlaced {
        pid: u32,
        why: String,
    },
    /// The outcome of [`Action::Sweep`].
    Swept(Swept),
    /// The outcome of [`Action::Sweep`], where the processes could not be looked at.
    NotSwept {
        why: String,
    },
    /// The outcome of [`Action::LookWhoLeft`]: the owners whose directories are empty.
    Directories {
        empty: BTreeSet<Owner>,
        took: Duration,
    },
    /// The outcome of a turn of [`Action::LookWhoLeft`] that was not the last.
    SomeDirectories {
        took: Duration,
    },
    /// The outcome of [`Action::LookWhoListens`].
    Listening {
        took: Duration,
        /// Why it failed, if it did.
        why: Option<String>,
    },
    /// The outcome of [`Action::ReadPassages`].
    Passed {
        reading: Reading,
        took: Duration,
    },
    /// The outcome of [`Action::Count`]; `next`: what follows from it, if it was counted.
    Counted {
        next: Option<Next>,
        took: Duration,
    },
    /// The outcome of [`Action::TellAccounts`]. `is_last`: all are told now.
    Told {
        is_last: bool,
        took: Duration,
    },
    /// The outcome of [`Action::LookInTheWay`]: who may keep packets from the ifb of each link.
    InTheWay {
        suspects: BTreeMap<LinkName, Vec<String>>,
        took: Duration,
    },
    /// The outcome of [`Action::Learn`]. `asks`: when container engines are to be asked.
    Learned {
        is_news: bool,
        asks: Option<Instant>,
    },
    /// The outcome of [`Action::Apply`]. `asks`: when container engines are to be asked.
    Applied {
        asks: Option<Instant>,
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
    /// By pid, the uid about which NSS must still be asked.
    pub open: BTreeMap<u32, u32>,
    pub placement: Placement,
    /// Pids of processes that waited and have ended.
    pub ended: BTreeSet<u32>,
}

/// A process that waits to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    pub pid: u32,
    /// The uid in whose turn the process is looked at.
    pub uid: u32,
    /// The last user for whom an event said that the process acts.
    pub acted_for: Option<u32>,
    /// The time of the event that told of the process, as in [`ProcEvent`]; `None`: none did.
    pub told: Option<u64>,
}

/// What is to be done.
pub(super) enum Decision {
    /// Let no other process events come than these: see
    /// [`Sources::narrow`](super::sources::Sources::narrow).
    Narrow { exec: bool, muted: Vec<u32> },
    /// Read the policy file.
    ReadFile,
    /// Ask NSS.
    Ask(Question),
    /// Ask container engines, unless they are being asked.
    AskEngines,
    /// Place processes that wait, until this time; `None`: for a turn that begins now.
    GoOnPlacing { until: Option<Instant> },
    /// Have the actor do something.
    Do(Action),
    /// End the daemon's work in this network namespace.
    End(Ended),
}

/// What the actor does.
pub(super) enum Action {
    /// Look at this process, and place it.
    Place(Newcomer),
    /// Give the sockets of root's in processes placed lately to the users whom they serve.
    HandOver,
    /// Look at all processes, and place them.
    Sweep,
    /// Read the directories of all owners that come and go; where there are none, for a turn, who
    /// runs.
    LookWhoLeft,
    /// Apply the policy. `held`: links that are left alone. `collects`: compare retired classes
    /// with the earlier look at them, and delete the quiet ones.
    Apply { attempt: Attempt, held: BTreeSet<LinkName>, collects: bool },
    /// Remember what container engines said.
    Learn(engines::Answer),
    /// Take a first look at retired classes.
    LookAtRetired,
    /// Look which sockets are bound, for what arrives before it is answered.
    LookWhoListens,
    /// Read the counters on the way of packets that arrive.
    ReadPassages,
    /// Count what owners with a quota have used.
    Count,
    /// Write down what was counted of that.
    WriteUse,
    /// Count for the last time, and write it down.
    CountLast,
    /// Tell the next accounts what was used of their quotas, and which limits hold.
    TellAccounts,
    /// Look who may keep packets that arrive by these links from their ifbs.
    LookInTheWay(BTreeSet<LinkName>),
    /// Tell others the daemon's condition. `is_said`: the reason is in the journal already.
    TellCondition { word: &'static str, why: Option<String>, is_said: bool },
    /// Take the lock by which other runs find the daemon, if it does not have it.
    Keep,
    /// Tell the service manager that the daemon is alive.
    SignOfLife,
    /// Write down what was counted, for the metrics.
    KeepCounts(String),
    /// A line of the journal.
    Log(log::Level, String),
}

/// Why the daemon's work in a network namespace ended.
pub(super) enum Ended {
    BySignal,
    /// The policy is in force, and no more was wanted.
    AfterFirst,
    /// The name does not stand for the namespace any more. Has the policy that was in force.
    WithNamespace(Arc<Policy>),
}
