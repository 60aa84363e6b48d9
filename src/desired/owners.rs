//! The class of each uid's sockets: the policy's owner of every uid, as the class of that owner;
//! and that of the sockets of each unit.

use std::collections::BTreeMap;

use crate::classify::cgroups;
use crate::facts::Facts;
use crate::model::{Owners, Units, Whose};
use crate::tree::{Cgroup, Claim, Owner, OwnerTable, Turn};
use crate::units::ClassId;

/// The table that the deciding programs look up. A uid of `everyone` that has no class yet is in
/// the newcomers' class; so is a range of subordinate uids as which nobody runs.
pub(super) fn table(owners: &Owners, claims: &BTreeMap<Claim, ClassId>) -> OwnerTable {
    let of = |owner: Owner| claims.get(&Claim::Owner(owner)).copied();
    let newcomers = of(Owner::Newcomers);
    let class = |owner: &Owner| of(owner.clone()).or(newcomers);
    let mut table = OwnerTable::default();
    for (range, whose) in &owners.ranges {
        let class = match whose {
            Whose::Owner(owner) => class(owner),
            Whose::Newcomers => newcomers,
        };
        if let Some(class) = class {
            table.add_range(range, class);
        }
    }
    let accounts = owners.accounts.iter().filter_map(|(uid, owner)| {
        let class = owner.as_ref().and_then(class).unwrap_or(ClassId::NONE);
        // No entry for a uid whose range has the same class.
        let said = table.class(*uid).unwrap_or(ClassId::NONE);
        (class != said).then_some((*uid, class))
    });
    table.accounts = accounts.collect();
    table
}

/// The classes of units' cgroups, and of those for what `run` and `attach` put into a class, for
/// programs that read no tags. A cgroup that is too deep to be asked about has none.
pub(super) fn cgroups(
    units: &Units,
    facts: &Facts,
    claims: &BTreeMap<Claim, ClassId>,
) -> BTreeMap<(Cgroup, Turn), ClassId> {
    let class = |owner: &Owner| claims.get(&Claim::Owner(owner.clone())).copied();
    let pinned = facts.pinned_cgroups.iter().filter_map(|(cgroup, owner)| {
        let at = (*cgroup, Turn::First);
        cgroups::key(*cgroup, Turn::First).and_then(|_| Some((at, class(owner)?)))
    });
    let there = facts.unit_cgroups.iter().flatten().flatten();
    let given = there.filter_map(|(cgroup, unit)| {
        let key = units.find(unit)?;
        let turn = match units.following.contains(key) {
            true => Turn::AfterOwner,
            false => Turn::First,
        };
        let class = class(&Owner::User(key.clone()))?;
        cgroups::key(*cgroup, turn).map(|_| ((*cgroup, turn), class))
    });
    given.chain(pinned).collect()
}
