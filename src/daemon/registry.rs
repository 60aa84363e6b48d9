//! What the policy and NSS say of uids at this moment, for [`roster`](super::roster). Pure.

use super::names::Names;
use super::roster;
use crate::facts::Accounts;
use crate::model::Matcher;
use crate::tree::Owner;

/// Says who claims a process, by the policy in force and NSS.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub matcher: &'a Matcher,
    pub accounts: &'a Accounts,
    /// Whether a program of a link's asks for the cgroups (v2) of units.
    pub asks_cgroups: bool,
}

/// Says who claims a uid, and what NSS is being asked about it.
pub(super) struct Registry<'a> {
    pub whose: Whose<'a>,
    pub names: &'a Names,
}

impl roster::Registry for Registry<'_> {
    fn has_answer(&self, uid: u32) -> bool {
        self.whose.accounts.has_answer(uid)
    }

    fn is_account(&self, uid: u32) -> bool {
        self.whose.accounts.by_uid.contains_key(&uid)
    }

    fn is_subordinate(&self, uid: u32) -> bool {
        self.whose.accounts.subuids.holding(uid).is_some()
    }

    fn is_asked_about(&self, uid: u32) -> bool {
        self.names.is_asking_about(uid)
    }

    fn may_be_asked_about(&self, uid: u32) -> bool {
        self.names.has_room(self.is_subordinate(uid))
    }

    fn owner_of(&self, uid: u32) -> Option<Owner> {
        self.whose.matcher.claim(uid, None, self.whose.accounts).map(|claimed| claimed.owner())
    }
}
