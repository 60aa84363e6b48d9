//! What is asked of NSS. Pure.

use std::collections::BTreeSet;

use crate::policy::{Lookups, Policy};

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Accounts that the policy names.
    pub names: BTreeSet<String>,
    /// Groups that the policy names (`gid`).
    pub groups: BTreeSet<String>,
    /// Uids that the policy names one by one.
    pub uids: BTreeSet<u32>,
    /// Uids that have a process in the links' network namespace.
    pub running: BTreeSet<u32>,
    /// Nobody needs to know which groups an account is in (so where no group has a `gid`): NSS is
    /// asked only for the uids of names and the names of uids. Groups cost more than everything
    /// else of 10,000 names together.
    pub without_groups: bool,
    /// All lines of `/etc/subuid` are wanted; otherwise only those that decide about uids that run:
    /// a host may have a line for each of 60,000 accounts.
    pub all_subuids: bool,
}

impl Question {
    /// The question that a policy's names make necessary, without uids that run.
    pub fn of(policy: &Policy) -> Question {
        let Lookups { accounts, uids, groups, memberships } = policy.lookups();
        let running = BTreeSet::new();
        let without_groups = !memberships;
        Question { names: accounts, groups, uids, running, without_groups, all_subuids: true }
    }

    /// Both questions at once.
    pub fn and(mut self, other: Question) -> Question {
        self.names.extend(other.names);
        self.groups.extend(other.groups);
        self.uids.extend(other.uids);
        self.running.extend(other.running);
        self.without_groups &= other.without_groups;
        self.all_subuids |= other.all_subuids;
        self
    }
}
