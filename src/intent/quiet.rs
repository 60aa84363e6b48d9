//! Which classes may go: those that have no packet waiting, have sent none for a while, and whose
//! tag no socket has.

use std::collections::BTreeSet;

use super::Intent;
use crate::facts::{Observation, Tags};
use crate::tree::Counted;
use crate::units::ClassId;

impl Intent {
    /// Pending classes that have no packet waiting on any link and have sent none between two
    /// looks, by their counters of `earlier` and `now`. The caller must read whether a socket has
    /// one of their tags.
    pub fn silent(
        &self,
        seen: &Observation,
        earlier: &Counted,
        now: &Counted,
    ) -> BTreeSet<ClassId> {
        let is_silent = |classid: &ClassId| {
            now.iter().all(|(port, classes)| {
                let Some(counters) = classes.get(classid) else { return true };
                let before = earlier.get(port).and_then(|classes| classes.get(classid));
                counters.backlog_packets == 0
                    && counters.backlog_bytes == 0
                    && before.is_some_and(|before| before.sent_packets == counters.sent_packets)
            })
        };
        self.pending(seen).into_iter().filter(is_silent).collect()
    }

    /// The classes that go once they are quiet: retired ones, and those of accounts that leave.
    pub(super) fn pending(&self, seen: &Observation) -> BTreeSet<ClassId> {
        let claims = seen.state.claims.iter();
        let retired = claims.filter(|(claim, _)| claim.retired().is_some()).map(|(_, id)| *id);
        let leaving = self.leaves(seen).into_values();
        retired.chain(leaving).filter_map(ClassId::our_class).collect()
    }
}

/// Of the silent classes those whose tag no socket has. A connection that nobody has accepted yet
/// sends nothing and keeps its tag; once its class were gone it would send past every limit, or in
/// the class of the next owner of the number. While there is a socket whose tag is unknown, all
/// classes stay, until it is closed or some process has it.
pub fn quiet(mut silent: BTreeSet<ClassId>, tags: &Tags) -> BTreeSet<ClassId> {
    match tags {
        Tags::Known(tags) => silent.retain(|classid| !tags.contains(classid)),
        Tags::Hidden => silent.clear(),
    }
    silent
}
