//! The order of steps. A claim is made before its class and removed after it; a class stands on
//! every link before anything sends packets to it; what replaces something is whole before the old
//! one goes; the root and the default class come first and go last.

use std::collections::{BTreeMap, BTreeSet};

mod classes;
mod disturbs;
mod filters;

use super::{Change, Phase, Plan, Planned, Replaced, Step, Whole};
use crate::facts::{Facts, Observation, RootQdisc};
use crate::tree::{
    Claim, Filter, Foreign, KernelState, LinkName, NetCls, Owner, Parent, Port, Pref,
};
use crate::units::{ClassId, Minor};
use classes::{FIXED, Turn};
use disturbs::disturbs;
use filters::standing;

/// The steps that turn what was observed into `to`. What is foreign among ours must not be
/// disturbed unasked; the facts say which root qdiscs ours come in place of.
pub fn diff(observed: &Observation, to: &KernelState) -> Plan {
    let Observation { state: from, foreign, facts, .. } = observed;
    // Most runs find nothing to do, which comparing says much sooner.
    if from == to {
        return Plan::default();
    }
    let names = names(from, to);
    let steps = Vec::new();
    let mut diff = Diff {
        from,
        to,
        foreign,
        facts,
        names,
        filters: standing(from),
        phase: Phase::Build,
        steps,
    };
    diff.mount();
    diff.clsact();
    diff.roots();
    diff.make_claims();
    diff.left_tables();
    diff.let_go();
    diff.classes();
    diff.make_owners();
    diff.filters();
    diff.change_owners();
    diff.write_classids();
    diff.phase = Phase::TearDown;
    diff.late_tags();
    diff.late_programs();
    diff.delete_roots();
    diff.delete_clsact();
    diff.delete_classes();
    diff.drop_owners();
    diff.remove_claims();
    diff.unmount();
    diff.into_plan()
}

struct Diff<'a> {
    from: &'a KernelState,
    to: &'a KernelState,
    foreign: &'a [Foreign],
    facts: &'a Facts,
    names: BTreeMap<ClassId, Owner>,
    /// Filters of `from`, as the steps so far have left them.
    filters: BTreeMap<(&'a Port, Parent), BTreeMap<Pref, Filter>>,
    /// Of the steps that are added now.
    phase: Phase,
    steps: Vec<(Phase, Step)>,
}

/// Whose each class is, in either state; the new owner first.
fn names(from: &KernelState, to: &KernelState) -> BTreeMap<ClassId, Owner> {
    let owners = |state: &KernelState| -> Vec<(ClassId, Owner)> {
        let owner = |(claim, classid): (&Claim, &ClassId)| match claim {
            Claim::Owner(owner) => Some((classid.our_class()?, owner.clone())),
            _ => None,
        };
        state.claims.iter().filter_map(owner).collect()
    };
    owners(from).into_iter().chain(owners(to)).collect()
}

impl<'a> Diff<'a> {
    fn push(&mut self, step: Step) {
        self.steps.push((self.phase, step));
    }

    fn mount(&mut self) {
        if self.from.net_cls == NetCls::Unmounted && self.to.net_cls != NetCls::Unmounted {
            self.push(Step::Mount(Whole::Add(())));
        }
    }

    fn unmount(&mut self) {
        if self.from.net_cls != NetCls::Unmounted && self.to.net_cls == NetCls::Unmounted {
            self.push(Step::Mount(Whole::Remove(())));
        }
    }

    /// What clears foreign priorities, before there is a class that they could name. A new program
    /// comes beside the old one where there is room ([`crate::desired`] chooses the pref).
    fn clsact(&mut self) {
        for (link, wanted) in self.to.clsact.iter().filter(|(_, it)| !it.filters.is_empty()) {
            let standing = self.from.clsact.get(link);
            if standing.is_none() {
                self.push(Step::Clsact(link.clone(), Whole::Add(())));
            }
            let none = BTreeMap::new();
            let standing = standing.map_or(&none, |standing| &standing.filters);
            let differ =
                |(pref, filter): &(&Pref, &Filter)| wanted.filters.get(pref) != Some(filter);
            let (now, later): (Vec<_>, Vec<_>) = standing
                .iter()
                .filter(differ)
                .partition(|(pref, _)| wanted.filters.contains_key(pref));
            self.delete_at_egress(link, now);
            let new = wanted.filters.iter().filter(|(pref, to)| standing.get(pref) != Some(to));
            for (pref, filter) in new {
                let seat = Parent::Egress.at(*pref);
                self.push(Step::Filter(link.egress(), seat, Whole::Add(filter.clone())));
            }
            self.delete_at_egress(link, later);
        }
    }

    fn delete_at_egress(&mut self, link: &LinkName, filters: Vec<(&Pref, &Filter)>) {
        for (pref, filter) in filters {
            let seat = Parent::Egress.at(*pref);
            self.push(Step::Filter(link.egress(), seat, Whole::Remove(filter.clone())));
        }
    }

    /// After the roots: until then there are classes that a priority can name.
    fn delete_clsact(&mut self) {
        for (link, old) in &self.from.clsact {
            match self.to.clsact.get(link) {
                // Ours go with it.
                None => self.push(Step::Clsact(link.clone(), Whole::Remove(()))),
                Some(wanted) if wanted.filters.is_empty() => {
                    self.delete_at_egress(link, old.filters.iter().collect());
                }
                Some(_) => {}
            }
        }
    }

    /// Roots that are new, each with the classes that nobody claims: from the root on the host
    /// sends through us, so the default follows at once.
    fn roots(&mut self) {
        for turn in self.turns().filter(Turn::is_new) {
            self.push(Step::Root(turn.port.clone(), Whole::Add(self.replaced(turn.port))));
            for id in FIXED {
                self.add_class(&turn, id);
            }
        }
    }

    /// A link that the facts do not have is gone; its steps fail whatever they say.
    fn replaced(&self, port: &Port) -> Replaced {
        match self.facts.links.get(&port.link).map(|link| &link.root) {
            Some(RootQdisc::Foreign { kind, handle, .. }) => {
                Replaced::Foreign { kind: kind.clone(), handle: *handle }
            }
            Some(RootQdisc::Kernel { .. } | RootQdisc::Ours) | None => Replaced::Kernel,
        }
    }

    /// New claims. A claim whose minor changes is rewritten only after the new class stands, so the
    /// new minor is held by a retired claim meanwhile, and the old one by another for good.
    fn make_claims(&mut self) {
        for (claim, classid) in &self.to.claims {
            match self.from.claims.get(claim) {
                None => self.push(Step::Claim(claim.clone(), Change::Add(*classid))),
                // Made by a run that was killed before it wrote the number.
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

    /// Minors of claims that are rewritten and that nothing else holds: the new one before it is
    /// written, the old one until its class is gone.
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

    fn rewritten(&self) -> impl Iterator<Item = (&'a Claim, ClassId, ClassId)> + use<'a> {
        let from = self.from;
        self.to.claims.iter().filter_map(move |(claim, to)| {
            let from = from.claims.get(claim)?;
            (from != to && *from != ClassId::NONE).then_some((claim, *from, *to))
        })
    }

    /// What the deciding programs look up, where none stands: whole, before the first that reads
    /// it.
    fn make_owners(&mut self) {
        if let (None, Some(table)) = (&self.from.owners, &self.to.owners) {
            self.push(Step::Owners(Whole::Add(table.clone())));
        }
    }

    /// The programs that stand read changes at once: so the classes that come must stand, with the
    /// way to them (a shard's filter), and those that go, too.
    fn change_owners(&mut self) {
        if let (Some(standing), Some(wanted)) = (&self.from.owners, &self.to.owners) {
            let changes = standing.changes(wanted);
            if !changes.is_empty() {
                self.push(Step::Entries(changes));
            }
        }
    }

    fn drop_owners(&mut self) {
        if self.from.owners.is_some() && self.to.owners.is_none() {
            self.push(Step::Owners(Whole::Remove(())));
        }
    }

    fn write_classids(&mut self) {
        let rewritten: Vec<_> = self.rewritten().collect();
        for (claim, from, to) in rewritten {
            self.push(Step::Claim(claim.clone(), Change::Alter { from, to }));
        }
    }

    fn delete_roots(&mut self) {
        for port in self.from.trees.keys().filter(|port| !self.to.trees.contains_key(port)) {
            self.push(Step::Root(port.clone(), Whole::Remove(())));
        }
    }

    /// After the classes: a minor that no directory claims may be given out again. Deepest first.
    fn remove_claims(&mut self) {
        let gone = self.from.claims.iter().filter(|(claim, _)| !self.to.claims.contains_key(claim));
        let mut gone: Vec<(Claim, ClassId)> = gone.map(|(c, id)| (c.clone(), *id)).collect();
        let meanwhile = self.held_meanwhile();
        gone.extend(meanwhile.into_iter().map(|(minor, id)| (Claim::Retired(minor, None), id)));
        gone.sort_by_key(|(claim, _)| !matches!(claim, Claim::Pinned(_)));
        for (claim, classid) in gone {
            self.push(Step::Claim(claim, Change::Remove(classid)));
        }
    }

    fn into_plan(self) -> Plan {
        let Diff { foreign, names, steps, .. } = self;
        let planned = |(phase, step): (Phase, Step)| Planned {
            phase,
            routine: false,
            disturbs: disturbs(&step, foreign, &names),
            step,
        };
        let steps = steps.into_iter().map(planned).collect();
        Plan { steps, names }
    }
}
