//! Steps without a message: directories, and the maps that say whose a packet is.

use std::io;

use log::warn;

use super::{Cause, Run, no_maps};
use crate::cgroup;
use crate::plan::{Change, InPlace, Step, Whole};
use crate::sys::bpf::Maps;
use crate::tree::{Claim, OwnerChange, OwnerTable};
use crate::units::ClassId;

impl Run<'_, '_> {
    /// Performs a step that is about no link.
    pub(super) fn without_message(&mut self, step: &Step) -> Result<(), Cause> {
        match step {
            Step::Mount(Whole::Add(())) => Ok(self.kernel.mount().map(|_| ())?),
            Step::Mount(Whole::Remove(())) => Ok(self.kernel.unmount()?),
            Step::Ifb(name, change) => self.arriving.change(self.kernel, name, change),
            Step::Claim(claim, change) => Ok(self.directory(claim, change)?),
            Step::Owners(change) => self.owners(change),
            Step::Entries(changes) => self.entries(changes),
            Step::Root(..)
            | Step::Clsact(..)
            | Step::Class(..)
            | Step::Leaf(..)
            | Step::Filter(..)
            | Step::Tables(..)
            | Step::Learn(_) => Ok(()),
        }
    }

    fn directory(&mut self, claim: &Claim, change: &InPlace<ClassId>) -> Result<(), cgroup::Error> {
        let instance = self.instance;
        match change {
            Change::Add(classid) => {
                if let Claim::Retired(..) = claim {
                    self.keep_orphans(*classid);
                }
                instance.make(claim, *classid)
            }
            Change::Alter { from, to } => {
                // Pairs that were given move to the new class before any socket has the new tag.
                self.for_given(*from, &|maps, uid| maps.give(uid, *to));
                instance.write(claim, *to)
            }
            Change::Replace { below, .. } => match *below {},
            Change::Remove(classid) => {
                // The pairs of a removed claim go, so that they do not count for the number's next
                // owner. While the claim is retired they stay, and keep its orphaned packets within
                // its limits.
                let stays = match claim {
                    Claim::Pinned(_) => true,
                    Claim::Retired(..) => false,
                    Claim::Owner(_) => instance.is_retired(classid.minor())?,
                };
                if let Claim::Pinned(owner) = claim
                    && !self.kernel.remove_pinned(Some(owner))
                {
                    instance.note_unswept()?;
                }
                if !stays {
                    self.for_given(*classid, &|maps, uid| maps.take_back(uid, *classid));
                }
                instance.remove(claim)
            }
        }
    }

    /// Packets that ended processes of the class's accounts have left queued still have its tag.
    /// Gives the pairs of these accounts and the class, so that the packets stay within its limits
    /// although nobody may claim the accounts from now on.
    fn keep_orphans(&self, class: ClassId) {
        let Some(maps) = &self.kernel.owners else { return };
        let outcome = maps.table().and_then(|table| {
            let mut accounts = table.accounts.iter().filter(|(_, of)| **of == class);
            accounts.try_for_each(|(uid, _)| maps.give(*uid, class))
        });
        if let Err(error) = outcome {
            warn!("what is left queued in {class} goes to the default class: {error}");
        }
    }

    /// Calls `act` for every uid that was given the class. Where that fails, such packets go to
    /// their owner's class until the next placement gives the pair again.
    fn for_given(&self, class: ClassId, act: &dyn Fn(&Maps, u32) -> io::Result<()>) {
        let Some(maps) = &self.kernel.owners else { return };
        let outcome = maps.given().and_then(|given| {
            let mut given = given.into_iter().filter(|(_, to)| *to == class);
            given.try_for_each(|(uid, _)| act(maps, uid))
        });
        if let Err(error) = outcome {
            warn!("the map of what was given on purpose: {error}");
        }
    }

    fn owners(&mut self, change: &Whole<OwnerTable, ()>) -> Result<(), Cause> {
        self.kernel.owners = match change {
            Whole::Add(table) => {
                let maps = Maps::create(table).map_err(Cause::Bpf)?;
                let before = self.kernel.owners.as_ref().map_or(Ok(Vec::new()), Maps::given);
                // Programs read the new maps before processes are placed again. Who could not open
                // the old maps knows from the processes alone, whose pairs come first: there may be
                // no room for all.
                let living = self.facts.given.iter().copied();
                let all = living.chain(before.map_err(Cause::Bpf)?);
                if let Some((count, error)) = give_all(all, |uid, class| maps.give(uid, class)) {
                    warn!(
                        "{count} of the pairs of uid and class that were given on purpose are \
                         lost, so that what these uids send counts as their own: {error}"
                    );
                }
                Some(maps)
            }
            Whole::Remove(()) => None,
        };
        // Programs that are loaded already read the old maps.
        self.programs.forget_readers();
        Ok(())
    }

    fn entries(&self, changes: &[OwnerChange]) -> Result<(), Cause> {
        let maps = self.kernel.owners.as_ref().ok_or_else(no_maps)?;
        changes.iter().try_for_each(|change| maps.perform(change).map_err(Cause::Bpf))
    }
}

/// Gives every pair that can be given. How many cannot, and why the last one cannot; `None`: all
/// were given.
fn give_all(
    pairs: impl Iterator<Item = (u32, ClassId)>,
    give: impl Fn(u32, ClassId) -> io::Result<()>,
) -> Option<(usize, io::Error)> {
    let refused = pairs.filter_map(|(uid, class)| give(uid, class).err());
    refused.enumerate().last().map(|(before, error)| (before + 1, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    #[test]
    fn pairs_that_do_not_fit_are_counted_and_keep_no_other_away() {
        let map = RefCell::new(BTreeSet::new());
        let give = |uid: u32, _: ClassId| {
            let mut map = map.borrow_mut();
            if map.len() == 2 && !map.contains(&uid) {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            map.insert(uid);
            Ok(())
        };
        let refused = |uids: &[u32]| {
            let pairs = uids.iter().map(|uid| (*uid, ClassId(0x1_0010)));
            give_all(pairs, give).map(|(count, error)| (count, error.raw_os_error()))
        };
        assert_eq!(refused(&[4711, 4712]), None);
        assert_eq!(refused(&[4713, 4711, 4714, 4712]), Some((2, Some(libc::E2BIG))));
        assert_eq!(*map.borrow(), BTreeSet::from([4711, 4712]));
    }
}
