//! Who has a class: whoever runs, whoever came, and whoever stands until it is known that nothing
//! of him is left; and whose groups are believed while NSS is silent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Intent, Leaving};
use crate::facts::{Account, Observation};
use crate::policy::{Gid, Policy};
use crate::tree::{Claim, Group, Owner};
use crate::units::ClassId;

impl Intent {
    /// Those that come and go, have a class, and have nobody any more; none whose process was found
    /// in this run, whatever else is said of him. Whether somebody sits in the
    /// directory of one of them must be read ([`Observation::occupied`]).
    pub fn may_leave(&self, seen: &Observation) -> BTreeSet<Owner> {
        let accounts = &seen.facts.accounts;
        let standing = seen.state.claims.keys().filter_map(Claim::comes_and_goes);
        let may_leave = standing.filter(|owner| match &self.leaving {
            Leaving::WithoutProcess => !accounts.runs(owner),
            Leaving::These(leaving) => leaving.contains(owner),
        });
        may_leave.filter(|owner| !self.came.contains(owner)).cloned().collect()
    }

    /// Those that leave, with the class that each has.
    pub fn leaves(&self, seen: &Observation) -> BTreeMap<Owner, ClassId> {
        let class = |owner: Owner| {
            let classid = *seen.state.claims.get(&Claim::Owner(owner.clone()))?;
            Some((owner, classid))
        };
        let may_leave = self.may_leave(seen).into_iter();
        may_leave.filter(|owner| !seen.occupied.contains(owner)).filter_map(class).collect()
    }

    /// Whoever stands runs, as far as classes go, until he leaves and his class is quiet. The
    /// classes of those who leave and whose are not known to be.
    pub(super) fn keep_who_stands(&self, seen: &mut Observation) -> BTreeSet<ClassId> {
        let leaves = self.leaves(seen);
        let Observation { state, facts, .. } = seen;
        let mut draining = BTreeSet::new();
        for owner in state.claims.keys().filter_map(Claim::comes_and_goes) {
            let has_class =
                |id: &ClassId| state.trees.values().any(|tree| tree.classes.contains_key(id));
            match leaves.get(owner) {
                Some(id) if facts.quiet.contains(id) || !has_class(id) => {
                    facts.accounts.dismiss(owner);
                }
                Some(id) => {
                    draining.insert(*id);
                    facts.accounts.admit(owner);
                }
                None => facts.accounts.admit(owner),
            }
        }
        draining
    }
}

/// NSS could not answer, or was not asked about somebody who stands and does not run: an account
/// that has a class in a group is taken to be in it still, so that nobody is moved to another
/// class.
pub(super) fn remember_groups(policy: &Policy, observation: &mut Observation) {
    let Observation { state, facts, .. } = observation;
    let accounts = &mut facts.accounts;
    let group_at: BTreeMap<ClassId, &Group> = state
        .claims
        .iter()
        .filter_map(|(claim, classid)| match claim {
            Claim::Owner(Owner::Group(group)) => Some((*classid, group)),
            _ => None,
        })
        .collect();
    // Any number will do that no group has: it only says "that group".
    let mut stand_in = (0..u32::MAX).rev();
    let silent: Vec<u32> =
        accounts.running.iter().filter(|uid| !accounts.has_answer(**uid)).copied().collect();
    for uid in silent {
        let classid = state.claims.get(&Claim::Owner(Owner::Uid(uid)));
        let parent = classid.and_then(|id| state.trees.values().find_map(|tree| tree.parent(*id)));
        let line = parent.and_then(|parent| match group_at.get(&parent)? {
            Group::Line(key) => policy.groups.iter().find(|line| line.key.value == *key),
            Group::Everyone => None,
        });
        let gid = match line.and_then(|line| line.gid.as_ref()).map(|gid| &gid.value) {
            Some(Gid::Number(gid)) => Some(*gid),
            Some(Gid::Name(name)) => {
                let known = accounts.groups.entry(name.clone()).or_default();
                *known = known.or_else(|| stand_in.next());
                *known
            }
            None => None,
        };
        if let Some(gid) = gid {
            let account = Account { name: uid.to_string(), gids: BTreeSet::from([gid]) };
            accounts.by_uid.insert(uid, account);
        }
    }
}
