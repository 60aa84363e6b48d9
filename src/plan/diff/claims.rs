//! Claims: a directory is made before the class of its number, and goes after it.

use std::collections::{BTreeMap, BTreeSet};

use super::comparison::Comparison;
use crate::plan::{Change, Step};
use crate::tree::Claim;
use crate::units::{ClassId, Minor};

impl<'a> Comparison<'a> {
    /// Makes new claims. A claim whose minor changes is rewritten only after the new class stands;
    /// until then a retired claim has the new minor, and from then on another one has the old
    /// minor.
    pub(super) fn make_claims(&mut self) {
        for (claim, classid) in &self.to.claims {
            match self.from.claims.get(claim) {
                None => self.push(Step::Claim(claim.clone(), Change::Add(*classid))),
                // A directory made by a run that was killed before it wrote the classid.
                Some(&ClassId::NONE) if *classid != ClassId::NONE => {
                    let change = Change::Alter { from: ClassId::NONE, to: *classid };
                    self.push(Step::Claim(claim.clone(), change));
                }
                Some(_) => {}
            }
        }
        for (minor, classid) in self.held_meanwhile() {
            let claim = Claim::Retired(minor, None);
            self.push(Step::Claim(claim, Change::Add(classid)));
        }
    }

    /// The minors for which a retired claim is made because no other claim has them for a while:
    /// the new minor of a claim until it is rewritten, the old one until its class is gone.
    fn held_meanwhile(&self) -> BTreeMap<Minor, ClassId> {
        let minors = |claims: &BTreeMap<Claim, ClassId>| -> BTreeSet<Minor> {
            claims.values().filter_map(|id| id.our_class()).map(ClassId::minor).collect()
        };
        let (before, after) = (minors(&self.from.claims), minors(&self.to.claims));
        let mut meanwhile = BTreeMap::new();
        for (_, from, to) in self.rewritten() {
            let minor = |id: ClassId| id.our_class().map(ClassId::minor);
            let new = minor(to).filter(|minor| !before.contains(minor));
            let old = minor(from).filter(|minor| !after.contains(minor));
            meanwhile.extend(new.map(|minor| (minor, to)));
            meanwhile.extend(old.map(|minor| (minor, from)));
        }
        meanwhile
    }

    pub(super) fn rewritten(
        &self,
    ) -> impl Iterator<Item = (&'a Claim, ClassId, ClassId)> + use<'a> {
        let from = self.from;
        self.to.claims.iter().filter_map(move |(claim, to)| {
            let from = from.claims.get(claim)?;
            (from != to && *from != ClassId::NONE).then_some((claim, *from, *to))
        })
    }

    pub(super) fn write_classids(&mut self) {
        let rewritten: Vec<_> = self.rewritten().collect();
        for (claim, from, to) in rewritten {
            self.push(Step::Claim(claim.clone(), Change::Alter { from, to }));
        }
    }

    /// Removes claims, after the classes, because a minor that no directory has may be given out
    /// again. Deepest directories first.
    pub(super) fn remove_claims(&mut self) {
        let gone = self.from.claims.iter().filter(|(claim, _)| !self.to.claims.contains_key(claim));
        let mut gone: Vec<(Claim, ClassId)> = gone.map(|(c, id)| (c.clone(), *id)).collect();
        let meanwhile = self.held_meanwhile();
        gone.extend(meanwhile.into_iter().map(|(minor, id)| (Claim::Retired(minor, None), id)));
        gone.sort_by_key(|(claim, _)| !matches!(claim, Claim::Pinned(_)));
        for (claim, classid) in gone {
            self.push(Step::Claim(claim, Change::Remove(classid)));
        }
    }
}
