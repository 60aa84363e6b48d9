//! Counters as a look has them, by whose they are. Pure.

use std::collections::BTreeMap;

use super::book::Reading;
use crate::tree::{Claim, Owner, Port};
use crate::units::ClassId;

/// The readings of all classes of owners, also of retired ones, whose last owner is billed. What is
/// in the default class, or unshaped, is nobody's use. `counted`: the bytes that each class has
/// sent. `ifindex`: of the device at which a port's tree stands.
pub fn readings<'a>(
    claims: &BTreeMap<Claim, ClassId>,
    counted: impl IntoIterator<Item = (&'a Port, ClassId, u64)>,
    ifindex: impl Fn(&Port) -> Option<u32>,
) -> Vec<Reading> {
    let owned = claims.iter().filter_map(|(claim, classid)| match claim {
        Claim::Owner(owner) | Claim::Retired(_, Some(owner)) => Some((classid.our_class()?, owner)),
        Claim::Retired(_, None) | Claim::Pinned(_) => None,
    });
    let owners: BTreeMap<ClassId, &Owner> = owned.collect();
    let mut readings = Vec::new();
    for (port, classid, bytes) in counted {
        let Some(owner) = owners.get(&classid) else { continue };
        let Some(ifindex) = ifindex(port) else { continue };
        let (classid, owner) = (classid.0, (*owner).clone());
        readings.push(Reading { ifindex, classid, direction: port.direction, owner, bytes });
    }
    readings
}
