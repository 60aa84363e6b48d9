//! Counters as a look has them, by whose they are. Pure.

use std::collections::BTreeMap;

use super::book::Reading;
use crate::host::observe::Snapshot;
use crate::tree::{Claim, Owner};
use crate::units::ClassId;

/// The readings of all classes of owners, also of retired ones, whose last owner is billed. What is
/// in the default class, or unshaped, is nobody's use.
pub fn readings(snapshot: &Snapshot) -> Vec<Reading> {
    let claims = &snapshot.observation.state.claims;
    let owned = claims.iter().filter_map(|(claim, classid)| match claim {
        Claim::Owner(owner) | Claim::Retired(_, Some(owner)) => Some((classid.our_class()?, owner)),
        Claim::Retired(_, None) | Claim::Pinned(_) => None,
    });
    let owners: BTreeMap<ClassId, &Owner> = owned.collect();
    let mut readings = Vec::new();
    for (port, classes) in &snapshot.counters {
        let Some(ifindex) = snapshot.facts().ifindex(port) else { continue };
        for (classid, counters) in classes {
            let Some(owner) = owners.get(classid) else { continue };
            readings.push(Reading {
                ifindex,
                classid: classid.0,
                direction: port.direction,
                owner: (*owner).clone(),
                bytes: counters.sent_bytes,
            });
        }
    }
    readings
}
