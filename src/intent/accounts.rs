//! Which accounts have a class: those that run, those that came in this run, and those whose class
//! stands, until it is quiet; and in which groups accounts count while NSS does not answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{Intent, Leaving, Meaning};
use crate::facts::{Account, Observation};
use crate::policy::{Gid, Policy};
use crate::tree::{Claim, Group, KernelState, Owner};
use crate::units::ClassId;

impl Intent {
    /// Accounts and ranges without a line that have a class and no process any more, so that their
    /// class may go; never one whose process was found in this run, nor one that has a guest. The
    /// caller must read whether a process is in the directory of any of them
    /// ([`Observation::occupied`]).
    pub fn may_leave(&self, seen: &Observation) -> BTreeSet<Owner> {
        let accounts = &seen.facts.accounts;
        let standing = seen.state.claims.keys().filter_map(Claim::comes_and_goes);
        let may_leave = standing.filter(|owner| match &self.leaving {
            Leaving::WithoutProcess => !accounts.runs(owner),
            Leaving::These(leaving) => leaving.contains(owner),
        });
        let stays = |owner: &Owner| self.came.contains(owner) || accounts.has_guest(owner);
        may_leave.filter(|owner| !stays(owner)).cloned().collect()
    }

    /// The owners that leave, each with its class.
    pub fn leaves(&self, seen: &Observation) -> BTreeMap<Owner, ClassId> {
        let class = |owner: Owner| {
            let classid = *seen.state.claims.get(&Claim::Owner(owner.clone()))?;
            Some((owner, classid))
        };
        let may_leave = self.may_leave(seen).into_iter();
        may_leave.filter(|owner| !seen.occupied.contains(owner)).filter_map(class).collect()
    }

    /// Makes owners whose class stands count as running, until they leave and their class is quiet.
    /// Returns the classes of owners that leave whose class is not known to be quiet.
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

/// While NSS does not answer, it is not known which line an account is for that NSS alone knows.
/// Its sockets stay in the class that the maps have for its uid, if the claim that the class is for
/// stays.
pub(super) fn keep_unanswered(meaning: &Meaning, desired: &mut KernelState) {
    let Meaning { observation, model, .. } = meaning;
    let (seen, accounts) = (&observation.state, &observation.facts.accounts);
    let (Some(before), Some(owners)) = (&seen.owners, &mut desired.owners) else { return };
    if accounts.unavailable.is_none() {
        return;
    }
    let stays = |(claim, id): &(&Claim, &ClassId)| desired.claims.get(*claim) == Some(*id);
    let staying: BTreeSet<ClassId> =
        seen.claims.iter().filter(stays).map(|(_, classid)| *classid).collect();
    for (uid, classid) in &before.accounts {
        if model.matcher.is_open(*uid, None, accounts) && staying.contains(classid) {
            owners.accounts.insert(*uid, *classid);
        }
    }
}

/// Where NSS could not answer about an account, or was not asked because the account does not run:
/// if its class is in a group, the account counts as still in that group, so that nobody is moved
/// to another class.
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
    // The stand-in for the group's gid can be any number that no group has.
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
