//! Steps without a message: directories, and the maps that say whose a packet is.

use std::io;

use log::warn;

use super::{Cause, Run, no_maps};
use crate::cgroup;
use crate::plan::Step;
use crate::sys::bpf::Maps;
use crate::tree::Claim;
use crate::units::ClassId;

impl Run<'_, '_> {
    pub(super) fn directory(&mut self, step: &Step) -> Result<(), cgroup::Error> {
        match step {
            Step::Mount => return self.kernel.mount().map(|_| ()),
            Step::Unmount => return self.kernel.unmount(),
            _ => {}
        }
        let Some(instance) = self.kernel.instance() else { return Err(cgroup::Error::NotMounted) };
        match step {
            Step::MakeClaim { claim, classid } => {
                if let Claim::Retired(..) = claim {
                    self.keep_orphans(*classid);
                }
                instance.make(claim, *classid)
            }
            Step::WriteClassid { claim, from, to } => {
                // What was given goes along, before any socket carries the new number.
                self.for_given(*from, &|maps, uid| maps.give(uid, *to));
                instance.write(claim, *to)
            }
            Step::RemoveClaim { claim: claim @ Claim::Pinned(_), .. } => instance.remove(claim),
            Step::RemoveClaim { claim, classid } => {
                // Whoever gets the number next was not given to anybody; while it is retired it is
                // what keeps orphans within its limits.
                let stays = claim.retired().is_none() && instance.is_retired(classid.minor())?;
                if !stays {
                    self.for_given(*classid, &|maps, uid| maps.take_back(uid, *classid));
                }
                instance.remove(claim)
            }
            _ => Ok(()),
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

    pub(super) fn owners(&mut self, step: &Step) -> Result<(), Cause> {
        match step {
            Step::MakeOwners { table } => {
                let maps = Maps::create(table).map_err(Cause::Bpf)?;
                let before = self.kernel.owners.as_ref().map_or(Ok(Vec::new()), Maps::given);
                for (uid, class) in before.map_err(Cause::Bpf)? {
                    maps.give(uid, class).map_err(Cause::Bpf)?;
                }
                self.kernel.owners = Some(maps);
            }
            Step::ChangeOwners { changes } => {
                let maps = self.kernel.owners.as_ref().ok_or_else(no_maps)?;
                for change in changes {
                    maps.perform(change).map_err(Cause::Bpf)?;
                }
            }
            _ => self.kernel.owners = None,
        }
        // Programs that were loaded read the maps of before.
        if !matches!(step, Step::ChangeOwners { .. }) {
            self.programs.clear();
        }
        Ok(())
    }
}
