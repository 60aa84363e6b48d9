//! The class of each uid's sockets: the policy's owner of every uid, as the class of that owner.

use std::collections::BTreeMap;

use crate::model::{Owners, Whose};
use crate::tree::{Claim, Owner, OwnerTable};
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
