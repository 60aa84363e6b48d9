//! Which classes may go: those that hold no packets, have sent none for a while, and that no socket
//! would send in.

use std::collections::BTreeSet;

use super::Intent;
use crate::facts::{Observation, Tags};
use crate::tree::{Claim, Counted};
use crate::units::ClassId;

impl Intent {
    /// Retired classes, and those of accounts that leave, that hold no packets on any link and have
    /// sent none between two looks, by what the classes had counted `earlier` and have `now`.
    /// Whether a socket is tagged with one of them must be read.
    pub fn silent(
        &self,
        seen: &Observation,
        earlier: &Counted,
        now: &Counted,
    ) -> BTreeSet<ClassId> {
        let retired = seen.state.claims.iter().filter_map(|(claim, classid)| match claim {
            Claim::Retired(..) => classid.our_class(),
            _ => None,
        });
        let leaving = self.leaves(seen).into_values().filter_map(ClassId::our_class);
        let is_silent = |classid: &ClassId| {
            now.iter().all(|(port, classes)| {
                let Some(counters) = classes.get(classid) else { return true };
                let before = earlier.get(port).and_then(|classes| classes.get(classid));
                counters.backlog_packets == 0
                    && counters.backlog_bytes == 0
                    && before.is_some_and(|before| before.sent_packets == counters.sent_packets)
            })
        };
        retired.chain(leaving).filter(is_silent).collect()
    }
}

/// Of the classes that are silent those that no socket is tagged with: a connection that nobody has
/// accepted yet sends nothing and keeps its tag, and would send past every limit once its class
/// were gone, or in the class of whoever gets the number next. So all stay while a socket may carry
/// any tag, until it is closed or some process has it.
pub fn quiet(mut silent: BTreeSet<ClassId>, tags: &Tags) -> BTreeSet<ClassId> {
    match tags {
        Tags::Known(tags) => silent.retain(|classid| !tags.contains(classid)),
        Tags::Hidden => silent.clear(),
    }
    silent
}
