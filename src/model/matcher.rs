//! Who claims a process. Pure: the answer follows from the policy, the process and the accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Pattern;
use crate::facts::{Account, Accounts};
use crate::tree::{Group, Key, Owner, UidRange};

/// Who claims which processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// The lines that name systemd units.
    pub units: Units,
    /// The uids that lines name, ascending, with the line of each; the ranges do not overlap.
    pub uids: Vec<(RangeInclusive<u32>, Key)>,
    /// `gid` groups in file order, by gid.
    pub groups: Vec<(u32, Key)>,
    /// The uids of `everyone`, if there is such a line, and the group that they are in when it has
    /// a rate or a ceil for all together.
    pub everyone: Option<(Vec<RangeInclusive<u32>>, Option<Group>)>,
    /// The addresses of containers that somebody has: a proxy that serves one is his.
    pub proxied: BTreeMap<IpAddr, Owner>,
}

/// Which lines claim the processes of systemd units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units that are named exactly, which go before patterns.
    pub named: BTreeMap<String, Key>,
    /// Patterns in file order: the first that fits decides.
    pub patterns: Vec<(Pattern, Key)>,
    /// Lines with `follow: effective`, whose units' processes count by their effective uid.
    pub following: BTreeSet<Key>,
}

impl Units {
    /// Whether no line names a unit.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty()
    }

    /// Whether a unit's processes count by their effective uid.
    pub fn follows(&self, unit: Option<&str>) -> bool {
        !self.following.is_empty()
            && unit.and_then(|unit| self.find(unit)).is_some_and(|key| self.following.contains(key))
    }

    /// The line that names the unit, or whose pattern fits it.
    pub fn find(&self, unit: &str) -> Option<&Key> {
        let fits = || self.patterns.iter().find(|(pattern, _)| pattern.fits(unit));
        self.named.get(unit).or_else(|| fits().map(|(_, key)| key))
    }
}

/// Who claims a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A line of `users`.
    User(Key),
    /// An account without a line of its own, of `everyone` or of a `gid` group.
    Account {
        /// The account's uid.
        uid: u32,
        /// The group by whose `gid` it is claimed; `None`: by `everyone`.
        group: Option<Group>,
    },
    /// A range of subordinate uids, all together under `everyone`, whose owner nobody claims.
    Subuids {
        /// The subordinate uids that are one class.
        range: UidRange,
        /// The group by whose `gid` the range's owner is claimed; `None`: by `everyone`.
        group: Option<Group>,
    },
}

impl Claimed {
    /// The owner of the class and directory in which the process belongs.
    pub fn owner(&self) -> Owner {
        match self {
            Claimed::User(key) => Owner::User(key.clone()),
            Claimed::Account { uid, .. } => Owner::Uid(*uid),
            Claimed::Subuids { range, .. } => Owner::Subuids(*range),
        }
    }
}

impl Matcher {
    /// Who claims a process of `uid` (its real uid) in `unit`: the unit, then an explicit account
    /// or uid, then the first `gid` group in file order, then `everyone`; else nobody. Root only by
    /// a line that names it: its daemons serve everybody.
    ///
    /// A subordinate uid that no line names and NSS does not know counts for the owner of its
    /// range, if somebody claims him. Otherwise all uids of the range have one class under
    /// `everyone`.
    pub fn claim(&self, uid: u32, unit: Option<&str>, accounts: &Accounts) -> Option<Claimed> {
        if let Some(key) = unit.and_then(|unit| self.units.find(unit)) {
            return Some(Claimed::User(key.clone()));
        }
        match accounts.by_uid.contains_key(&uid) || uid == 0 {
            true => self.claim_account(uid, accounts),
            false => self.claim_number(uid, accounts),
        }
    }

    /// Whether an owner claims processes by their uid.
    pub fn claims_by_uid(&self, owner: &Owner, accounts: &Accounts) -> bool {
        let claims =
            |uid| self.claim(uid, None, accounts).is_some_and(|claimed| claimed.owner() == *owner);
        match owner {
            Owner::User(key) => self.uids.iter().any(|(_, line)| line == key),
            Owner::Uid(uid) => claims(*uid),
            Owner::Subuids(range) => claims(range.first),
            Owner::Class(_) | Owner::Newcomers | Owner::Group(_) => false,
        }
    }

    /// Whether NSS may still change the answer of [`Matcher::claim`]: it was not asked about this
    /// uid, or could not answer.
    pub fn is_open(&self, uid: u32, unit: Option<&str>, accounts: &Accounts) -> bool {
        let of_a_line = unit.is_some_and(|unit| self.units.find(unit).is_some());
        !of_a_line && uid != 0 && self.line(uid).is_none() && !accounts.has_answer(uid)
    }

    /// The line that names the uid, alone or in a range.
    pub(super) fn line(&self, uid: u32) -> Option<&Key> {
        // By halves: there may be 10,000 lines for each of 10,000 processes.
        let after = self.uids.partition_point(|(range, _)| *range.start() <= uid);
        let (range, key) = self.uids.get(after.checked_sub(1)?)?;
        range.contains(&uid).then_some(key)
    }

    /// Who claims an account, whichever range of subordinate uids its uid lies in.
    fn claim_account(&self, uid: u32, accounts: &Accounts) -> Option<Claimed> {
        if let Some(key) = self.line(uid) {
            return Some(Claimed::User(key.clone()));
        }
        if uid == 0 {
            return None;
        }
        if let Some(key) = accounts.by_uid.get(&uid).and_then(|account| self.group_of(account)) {
            return Some(Claimed::Account { uid, group: Some(Group::Line(key.clone())) });
        }
        self.under_everyone(uid).map(|group| Claimed::Account { uid, group })
    }

    /// Who claims a uid that NSS does not know, or was not asked about.
    fn claim_number(&self, uid: u32, accounts: &Accounts) -> Option<Claimed> {
        match self.line(uid) {
            Some(key) => Some(Claimed::User(key.clone())),
            None => self.claim_unnamed(uid, accounts),
        }
    }

    /// Who claims such a uid where no line names it.
    pub(super) fn claim_unnamed(&self, uid: u32, accounts: &Accounts) -> Option<Claimed> {
        let Some(subuids) = accounts.subuids.holding(uid) else {
            return self.under_everyone(uid).map(|group| Claimed::Account { uid, group });
        };
        let owner = subuids.owner.and_then(|owner| self.claim_account(owner, accounts));
        owner.or_else(|| {
            let range = subuids.range;
            self.under_everyone(uid).map(|group| Claimed::Subuids { range, group })
        })
    }

    /// The ranges of `running_ranges` that have a class together, by today's policy and accounts.
    pub(super) fn claim_ranges(&self, accounts: &Accounts) -> impl Iterator<Item = Claimed> {
        let pieces = accounts.subuids.pieces();
        let runs = |range: UidRange| accounts.running_ranges.contains(&range);
        let here = pieces.filter(move |(_, subuids)| runs(subuids.range));
        let claimed = here.filter_map(|(piece, _)| self.claim_unnamed(piece.first, accounts));
        claimed.filter(|claimed| matches!(claimed, Claimed::Subuids { .. }))
    }

    fn group_of(&self, account: &Account) -> Option<&Key> {
        let (_, key) = self.groups.iter().find(|(gid, _)| account.gids.contains(gid))?;
        Some(key)
    }

    /// `None`: `everyone` does not cover the uid. Otherwise the group in which accounts of
    /// `everyone` are, if there is one.
    fn under_everyone(&self, uid: u32) -> Option<Option<Group>> {
        let (ranges, group) = self.everyone.as_ref()?;
        ranges.iter().any(|range| range.contains(&uid)).then(|| group.clone())
    }
}
