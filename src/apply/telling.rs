//! Tells accounts what was used of their quotas, and which limits hold: who is not root may read
//! neither the policy nor the use.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::applied::InForce;
use crate::host::{Kernel, told};
use crate::quota::Account;
use crate::status;
use crate::times::Timestamp;
use crate::tree::Owner;

/// What accounts were told by this process.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// By uid, what stands in its file: a hash of it.
    told: BTreeMap<u32, u64>,
    /// The uid after which the next turn begins; `None`: with the first.
    after: Option<u32>,
    /// There may be files that this process did not write.
    is_swept: bool,
    /// What was said last of why it cannot be told, so that it is said once.
    said: Option<String>,
}

impl Telling {
    /// Tells the next accounts, at most so many; returns whether these were the last ones. `used`:
    /// what all have used.
    pub(super) fn go_on(
        &mut self,
        (kernel, most): (&Kernel, usize),
        in_force: &InForce,
        used: Option<(&BTreeMap<Owner, Account>, Timestamp)>,
    ) -> bool {
        let outcome = match in_force.tells() {
            true => self.turn((kernel, most), in_force, used),
            false => self.forget_all(&kernel.name).map(|()| true),
        };
        outcome.unwrap_or_else(|error| {
            self.say(&error);
            self.after = None;
            true
        })
    }

    fn say(&mut self, error: &io::Error) {
        let why = error.to_string();
        if self.said.as_ref() != Some(&why) {
            log::warn!("accounts cannot be told of their own limits: {why}");
            self.said = Some(why);
        }
    }

    fn turn(
        &mut self,
        (kernel, most): (&Kernel, usize),
        in_force: &InForce,
        used: Option<(&BTreeMap<Owner, Account>, Timestamp)>,
    ) -> io::Result<bool> {
        let instance = kernel.name.as_str();
        let InForce { model, accounts, zone, .. } = in_force;
        if self.after.is_none() {
            told::make_room(instance)?;
        }
        let known = accounts.by_uid.keys().chain(accounts.by_name.values().flatten());
        let uids: BTreeSet<u32> = known.chain(&accounts.running).copied().collect();
        let first = self.after.map_or(0, |after| after.saturating_add(1));
        let turn: Vec<u32> = uids.range(first..).take(most).copied().collect();
        let owner = |uid: &u32| Some((*uid, model.matcher.claim(*uid, None, accounts)?.owner()));
        let owners: BTreeMap<u32, Owner> = turn.iter().filter_map(owner).collect();
        let wanted = owners.values().cloned().collect();
        let told = status::told(model, &wanted, used, zone);
        let mut failed = None;
        for uid in &turn {
            let Some(text) = owners.get(uid).and_then(|owner| told.get(owner)) else {
                if self.told.remove(uid).is_some() {
                    told::forget(instance, *uid)?;
                }
                continue;
            };
            let name = accounts.by_uid.get(uid).map(|account| account.name.as_str());
            let text = text.text(name, kernel.netns);
            let hash = hash(&text);
            let is_told = match self.told.get(uid) {
                Some(before) => *before == hash,
                None => told::is_told(instance, *uid, &text),
            };
            let written = if is_told { Ok(()) } else { told::write(instance, *uid, &text) };
            match written {
                Ok(()) => drop(self.told.insert(*uid, hash)),
                // The others are told all the same, and what he was told before is true no more.
                Err(error) => {
                    self.told.remove(uid);
                    let forgotten = told::forget(instance, *uid);
                    failed.get_or_insert(forgotten.err().unwrap_or(error));
                }
            }
        }
        let is_last = turn.len() < most;
        self.after = turn.last().copied().filter(|_| !is_last);
        if is_last {
            self.told.retain(|uid, _| uids.contains(uid));
            let there = told::keep_only(instance, &self.told.keys().copied().collect())?;
            self.told.retain(|uid, _| there.contains(uid));
            self.is_swept = false;
        }
        if let Some(error) = failed {
            self.say(&error);
        }
        Ok(is_last)
    }

    fn forget_all(&mut self, instance: &str) -> io::Result<()> {
        if !self.is_swept || !self.told.is_empty() {
            told::forget_all(instance)?;
            self.told.clear();
        }
        (self.after, self.is_swept) = (None, true);
        Ok(())
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
