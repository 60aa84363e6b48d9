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
    /// Steps on links are not for here.
    pub(super) fn without_message(&mut self, step: &Step) -> Result<(), Cause> {
        match step {
            Step::Mount(Whole::Add(())) => Ok(self.kernel.mount().map(|_| ())?),
            Step::Mount(Whole::Remove(())) => Ok(self.kernel.unmount()?),
            Step::Claim(claim, change) => Ok(self.directory(claim, change)?),
            Step::Owners(change) => self.owners(change),
            Step::Entries(changes) => self.entries(changes),
            Step::Root(..)
            | Step::Clsact(..)
            | Step::Class(..)
            | Step::Leaf(..)
            | Step::Filter(..)
            | Step::Tables(..) => Ok(()),
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
                // What was given goes along, before any socket carries the new number.
                self.for_given(*from, &|maps, uid| maps.give(uid, *to));
                instance.write(claim, *to)
            }
            Change::Replace { below, .. } => match *below {},
            Change::Remove(classid) => {
                // Whoever gets the number next was not given to anybody; while it is retired it is
                // what keeps orphans within its limits.
                let stays = match claim {
                    Claim::Pinned(_) => true,
                    Claim::Retired(..) => false,
                    Claim::Owner(_) => instance.is_retired(classid.minor())?,
                };
                if !stays {
                    self.for_given(*classid, &|maps, uid| maps.take_back(uid, *classid));
                }
                instance.remove(claim)
            }
        }
    }

    /// What processes of a class's accounts have left queued carries its number still, and stays
    /// within its limits, although the accounts may be nobody's from now on.
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

    /// Does something about every uid that was given the class. Where that fails such packets go to
    /// their owner's class meanwhile: the next placement gives again.
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
                for (uid, class) in before.map_err(Cause::Bpf)? {
                    maps.give(uid, class).map_err(Cause::Bpf)?;
                }
                Some(maps)
            }
            Whole::Remove(()) => None,
        };
        // Programs that were loaded read the maps of before.
        self.programs.clear();
        Ok(())
    }

    fn entries(&self, changes: &[OwnerChange]) -> Result<(), Cause> {
        let maps = self.kernel.owners.as_ref().ok_or_else(no_maps)?;
        changes.iter().try_for_each(|change| maps.perform(change).map_err(Cause::Bpf))
    }
}
