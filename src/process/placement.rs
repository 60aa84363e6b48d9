//! What is to be done with processes, and what was done.

use std::collections::BTreeMap;

use super::{Decision, HandedOver};
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// What is to be done with a process, and with its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where the process is to be.
    pub decision: Decision,
    /// The user for whom a process of root's acts ([`super::acts_for`]).
    pub acts_for: Option<u32>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Verdict {
        Verdict { decision, acts_for: None }
    }
}

/// What was done with processes, and what could not be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Processes that came into one of our claims.
    pub added: u32,
    /// Processes that were moved from one of our claims to another.
    pub moved: u32,
    /// Processes that were taken out of our directories, because nobody claims them any more.
    pub gone: u32,
    /// Processes in our namespace that are left alone because they are in somebody else's
    /// directory.
    pub foreign: Vec<ForeignProcess>,
    /// Processes that could not be moved.
    pub failed: Vec<Failed>,
    /// Claims that have processes but no directory yet, and how many: accounts that came since the
    /// plan was made. Their processes are in nobody's class until the next run.
    pub waiting: BTreeMap<Claim, u32>,
    /// Processes that are left alone because their network namespace may not be read
    /// (CAP_SYS_PTRACE).
    pub unknown_namespace: u32,
    /// Connections of root's that went to the users whose processes came into their claims.
    pub handed_over: HandedOver,
    /// How many looks there were, at all processes or at those born since the look before.
    pub passes: u32,
    /// The last look found every process where it belongs. Otherwise processes are moved by others,
    /// or forked, faster than they can be followed.
    pub settled: bool,
}

/// A process in the directory of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProcess {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// Up to 15 bytes that the process chose itself.
    pub comm: Foreign,
    /// The path of that directory below the hierarchy's root.
    pub path: Foreign,
    /// Who would claim the process; `None`: nobody.
    pub owner: Option<Owner>,
}

/// A process that could not be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// Up to 15 bytes that the process chose itself.
    pub comm: Foreign,
    /// `None`: an error without a number.
    pub errno: Option<i32>,
    /// What was tried, and the kernel's answer.
    pub message: String,
}

impl Placement {
    /// Adds what another part of the same look has done.
    pub(super) fn take_in(&mut self, part: Placement) {
        self.added += part.added;
        self.moved += part.moved;
        self.gone += part.gone;
        self.foreign.extend(part.foreign);
        self.failed.extend(part.failed);
        for (claim, count) in part.waiting {
            *self.waiting.entry(claim).or_default() += count;
        }
        self.unknown_namespace += part.unknown_namespace;
    }
}
