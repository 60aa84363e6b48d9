//! Looks at bound sockets, as long as something is shaped that arrives. Pure.

use std::time::{Duration, Instant};

use super::rounds::{Rounds, SOCKETS};
use super::sweeps::Complaint;

/// When they are, and what is said of those that fail.
#[derive(Debug)]
pub(super) struct Listening {
    pub rounds: Rounds,
    complaint: Complaint,
}

impl Listening {
    /// None, until something is shaped that arrives.
    pub(super) fn new() -> Listening {
        Listening { rounds: Rounds::new(SOCKETS), complaint: Complaint::default() }
    }

    /// After a look that took so long; `why`: it failed. Returns what is to be said of that.
    pub(super) fn ended(
        &mut self,
        took: Duration,
        why: Option<String>,
        now: Instant,
    ) -> Option<String> {
        self.rounds.ended(took, now);
        let why = why.filter(|_| self.complaint.may_be_said(now))?;
        Some(format!("what nobody answers may arrive in the default class: {why}"))
    }
}
