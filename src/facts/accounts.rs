//! Which accounts run, and what is known of the accounts and groups that the policy names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::subuid::SubordinateUids;
use crate::tree::{Owner, UidRange};

/// What NSS and `/etc/subuid` said, for the names in the policy and the uids that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Uids that have a process in the links' network namespace.
    pub running: BTreeSet<u32>,
    /// Accounts by uid: those that run or that NSS was asked about.
    pub by_uid: BTreeMap<u32, Account>,
    /// Account names in the policy → uid; `None`: NSS says there is no such account.
    pub by_name: BTreeMap<String, Option<u32>>,
    /// Group names in the policy → gid; `None`: no such group.
    pub groups: BTreeMap<String, Option<u32>>,
    /// Uids that run or were asked for and that NSS says no account has.
    pub absent: BTreeSet<u32>,
    /// `/etc/subuid`.
    pub subuids: SubordinateUids,
    /// Ranges of subordinate uids that have one class together and in which a uid has a process.
    #[serde(skip)]
    pub running_ranges: BTreeSet<UidRange>,
    /// Uids that have a guest ([`crate::facts::Guests`]), whether or not they run a process.
    #[serde(skip)]
    pub with_guests: BTreeSet<u32>,
    /// Accounts' names that guests say as their user's, whether or not NSS was asked about them.
    #[serde(skip)]
    pub named_by_guests: BTreeSet<String>,
    /// NSS could not answer: not the same as "no such account".
    pub unavailable: Option<String>,
}

impl Accounts {
    /// Whether NSS has answered about `uid`: there is such an account, or there is none.
    pub fn has_answer(&self, uid: u32) -> bool {
        self.by_uid.contains_key(&uid) || self.absent.contains(&uid)
    }

    /// The names and uids of guests' users about which NSS was not asked, or could not answer; of a
    /// subordinate uid that is who its range's owner is.
    pub fn unasked_of_guests(&self) -> (BTreeSet<String>, BTreeSet<u32>) {
        let names = self.named_by_guests.iter().filter(|name| !self.by_name.contains_key(*name));
        let uids = self.with_guests.iter().filter(|uid| !self.has_answer(**uid));
        (names.cloned().collect(), uids.copied().collect())
    }

    /// Takes in what NSS said about users of guests, beside what it said before.
    pub fn learn_of_guests(&mut self, answer: Accounts) {
        self.subuids.name_owners(&answer.by_uid);
        self.subuids.learn(answer.subuids.into());
        self.absent.extend(answer.absent);
        self.by_uid.extend(answer.by_uid);
        self.by_name.extend(answer.by_name);
        self.unavailable = self.unavailable.take().or(answer.unavailable);
    }

    /// Uids that have a process or a guest.
    pub fn present(&self) -> impl Iterator<Item = u32> {
        self.running.union(&self.with_guests).copied()
    }

    /// Whether an account, or somebody in a range of subordinate uids, has a guest.
    pub fn has_guest(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Uid(uid) => {
                self.with_guests.contains(uid)
                    || self.with_guests.iter().any(|guest| self.acts_for(*guest) == Some(*uid))
            }
            Owner::Subuids(UidRange { first, last }) => {
                self.with_guests.range(*first..=*last).next().is_some()
            }
            _ => false,
        }
    }

    /// The account that has a subordinate uid, where that is no account's own.
    fn acts_for(&self, uid: u32) -> Option<u32> {
        let is_account = self.by_uid.contains_key(&uid);
        self.subuids.holding(uid).filter(|_| !is_account)?.owner
    }

    /// Whether an account, or somebody in a range of subordinate uids, has a process.
    pub fn runs(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Uid(uid) => self.running.contains(uid),
            Owner::Subuids(range) => {
                let UidRange { first, last } = *range;
                self.running_ranges.contains(range)
                    || self.running.range(first..=last).next().is_some()
            }
            _ => false,
        }
    }

    /// From now on the owner counts as without a process.
    pub fn dismiss(&mut self, owner: &Owner) {
        match owner {
            Owner::Uid(uid) => {
                self.running.remove(uid);
            }
            Owner::Subuids(range) => {
                self.running_ranges.remove(range);
            }
            _ => {}
        }
    }

    /// From now on the owner counts as one that has a process.
    pub fn admit(&mut self, owner: &Owner) {
        match owner {
            Owner::Uid(uid) => {
                self.running.insert(*uid);
            }
            Owner::Subuids(range) => {
                self.running_ranges.insert(*range);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Subuids;

    #[test]
    fn who_has_a_guest_under_a_subordinate_uid_has_one() {
        let range = UidRange { first: 700_000, last: 765_535 };
        let line = Subuids { range, written: "dave".to_string(), owner: Some(1_004) };
        let account = |name: &str| Account { name: name.to_string(), gids: BTreeSet::new() };
        let mut accounts = Accounts {
            subuids: vec![line].into(),
            with_guests: [700_000, 1_005].into(),
            ..Accounts::default()
        };
        let have = |accounts: &Accounts| {
            [1_004, 1_005, 1_006].map(|uid| accounts.has_guest(&Owner::Uid(uid)))
        };
        assert_eq!(have(&accounts), [true, true, false]);
        assert!(accounts.has_guest(&Owner::Subuids(range)));
        // An account of its own in that range.
        accounts.by_uid.insert(700_000, account("guest"));
        assert_eq!(have(&accounts), [false, true, false]);
        assert!(accounts.has_guest(&Owner::Uid(700_000)));
    }
}
