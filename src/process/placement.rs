//! What is to be done with processes, and what was done.

use std::collections::BTreeMap;

use super::{Decision, HandedOver};
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// What to do with a process, and with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is to become of it.
    pub decision: Decision,
    /// The user for whom a process of root's acts ([`super::acts_for`]).
    pub acts_for: Option<u32>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Verdict {
        Verdict { decision, acts_for: None }
    }
}

/// What was done, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Came into one of our claims.
    pub added: u32,
    /// From one of our claims to another.
    pub moved: u32,
    /// Taken out of our directories: nobody claims them any more.
    pub gone: u32,
    /// In our namespace, but in a directory of somebody else: left alone.
    pub foreign: Vec<ForeignProcess>,
    /// Processes that could not be moved.
    pub failed: Vec<Failed>,
    /// Claims that have processes but no directory yet, and how many: accounts that came since the
    /// plan was made. Their processes are in nobody's class until the next run.
    pub waiting: BTreeMap<Claim, u32>,
    /// Processes whose network namespace we may not read (CAP_SYS_PTRACE): left alone.
    pub unknown_namespace: u32,
    /// Connections of root's that went to the users whose processes came into their claims.
    pub handed_over: HandedOver,
    /// Looks at all processes, or at those who were born since the one before.
    pub passes: u32,
    /// The last look found every process in its place. Otherwise they keep being moved or forked
    /// faster than we can follow.
    pub settled: bool,
}

/// A process in a directory of another program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProcess {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// Up to 15 bytes that the process chose itself.
    pub comm: Foreign,
    /// Below the hierarchy's root.
    pub path: Foreign,
    /// Whose it would be; `None`: nobody's.
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
    /// What another part of the same look did.
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
