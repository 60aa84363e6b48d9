//! The order of steps. A claim is made before its class and removed after it; a class stands on
//! every link before anything sends packets to it; what replaces something is whole before the old
//! one goes; the root and the default class come first and go last.

use std::collections::{BTreeMap, BTreeSet};

mod filters;

use super::{Disturbance, Phase, Plan, Planned, Replaced, Step};
use crate::facts::{Facts, Observation, RootQdisc};
use crate::tree::{
    Claim, Class, Filter, Foreign, KernelState, LeafQdisc, LinkName, NetCls, Owner, Port, Pref,
    Reserved, Tree,
};
use crate::units::{ClassId, Minor, Shard};
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
    filters: BTreeMap<(&'a Port, ClassId), BTreeMap<Pref, Filter>>,
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
            self.push(Step::Mount);
        }
    }

    fn unmount(&mut self) {
        if self.from.net_cls != NetCls::Unmounted && self.to.net_cls == NetCls::Unmounted {
            self.push(Step::Unmount);
        }
    }

    /// What clears foreign priorities, before there is a class that they could name. A new program
    /// comes beside the old one where there is room ([`crate::desired`] chooses the pref).
    fn clsact(&mut self) {
        for (link, wanted) in self.to.clsact.iter().filter(|(_, it)| !it.filters.is_empty()) {
            let standing = self.from.clsact.get(link);
            if standing.is_none() {
                self.push(Step::AddClsact { link: link.clone() });
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
                let (port, pref, filter) = (link.egress(), *pref, filter.clone());
                self.push(Step::AddFilter { port, parent: ClassId::EGRESS, pref, filter });
            }
            self.delete_at_egress(link, later);
        }
    }

    fn delete_at_egress(&mut self, link: &LinkName, filters: Vec<(&Pref, &Filter)>) {
        for (pref, filter) in filters {
            let (port, pref, filter) = (link.egress(), *pref, filter.clone());
            self.push(Step::DeleteFilter { port, parent: ClassId::EGRESS, pref, filter });
        }
    }

    /// After the roots: until then there are classes that a priority can name.
    fn delete_clsact(&mut self) {
        for (link, old) in &self.from.clsact {
            match self.to.clsact.get(link) {
                // Ours go with it.
                None => self.push(Step::DeleteClsact { link: link.clone() }),
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
        for (port, tree) in &self.to.trees {
            if self.from.trees.contains_key(port) {
                continue;
            }
            self.push(Step::AddRoot { port: port.clone(), replaces: self.replaced(port) });
            for id in [ClassId::LINK, ClassId::DEFAULT, ClassId::UNSHAPED] {
                self.add_class(port, tree, id);
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

    fn add_class(&mut self, port: &Port, tree: &Tree, id: ClassId) {
        if let Some(class) = tree.classes.get(&id) {
            self.push(Step::AddClass { port: port.clone(), id, class: *class });
            if let Some(leaf) = tree.leaves.get(&id) {
                self.push(Step::AddLeaf { port: port.clone(), id, leaf: *leaf });
            }
        }
    }

    /// New claims. A claim whose minor changes is rewritten only after the new class stands, so the
    /// new minor is held by a retired claim meanwhile, and the old one by another for good.
    fn make_claims(&mut self) {
        for (claim, classid) in &self.to.claims {
            match self.from.claims.get(claim) {
                None => self.push(Step::MakeClaim { claim: claim.clone(), classid: *classid }),
                // Made by a run that was killed before it wrote the number.
                Some(&ClassId::NONE) if *classid != ClassId::NONE => {
                    self.push(Step::WriteClassid {
                        claim: claim.clone(),
                        from: ClassId::NONE,
                        to: *classid,
                    });
                }
                Some(_) => {}
            }
        }
        for (minor, classid) in self.held_meanwhile() {
            let claim = Claim::Retired(minor, None);
            self.push(Step::MakeClaim { claim, classid });
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

    /// Classes and leaves that change or are new, parents first.
    fn classes(&mut self) {
        for (port, tree) in &self.to.trees {
            let empty = Tree::default();
            let is_new = !self.from.trees.contains_key(port);
            let old = self.from.trees.get(port).unwrap_or(&empty);
            let emptied = made_again(old, tree);
            for shard in &emptied {
                self.filters.remove(&(port, shard.qdisc()));
            }
            for id in displaced(old, tree) {
                self.push(Step::DeleteClass { port: port.clone(), id, class: old.classes[&id] });
            }
            for id in parents_first(tree) {
                let fixed = matches!(id, ClassId::LINK | ClassId::DEFAULT | ClassId::UNSHAPED);
                let gone = id.shard().is_some_and(|shard| emptied.contains(&shard));
                match old.classes.get(&id).filter(|_| !gone) {
                    None if is_new && fixed => continue,
                    None => self.add_class(port, tree, id),
                    Some(from) => self.change_class(port, id, *from, tree, old),
                }
                // Uids may be sent to a shard already that another link has: whoever comes there is
                // told apart at once, and the root knows the way. Where no map stands nobody is
                // sent anywhere yet.
                if let Some((shard, filters)) = shard_of(tree, id)
                    && self.from.owners.is_some()
                    && (emptied.contains(&shard) || !old.shards.contains_key(&shard))
                {
                    self.pair(port, shard.qdisc(), Pref::TAG, filters);
                    if old.shards.is_empty() && !is_new {
                        self.pair(port, ClassId::ROOT, Pref::TAG, &tree.filters);
                    }
                }
            }
        }
    }

    fn change_class(&mut self, port: &Port, id: ClassId, from: Class, tree: &Tree, old: &Tree) {
        let port = || port.clone();
        let to = tree.classes[&id];
        if from.parent != to.parent {
            let leaf = tree.leaves.get(&id).copied();
            self.push(Step::ReplaceClass { port: port(), id, from, to, leaf });
            return;
        }
        if from != to {
            self.push(Step::ChangeClass { port: port(), id, from, to });
        }
        match (old.leaves.get(&id), tree.leaves.get(&id)) {
            (None, Some(leaf)) => self.push(Step::AddLeaf { port: port(), id, leaf: *leaf }),
            (Some(from), Some(to)) if from != to => {
                let (from, to) = (*from, *to);
                let step = match std::mem::discriminant(&from) == std::mem::discriminant(&to) {
                    true => Step::ChangeLeaf { port: port(), id, from, to },
                    false => Step::ReplaceLeaf { port: port(), id, from, to },
                };
                self.push(step);
            }
            _ => {}
        }
    }

    /// What the deciding programs look up, where none stands: whole, before the first that reads
    /// it.
    fn make_owners(&mut self) {
        if let (None, Some(table)) = (&self.from.owners, &self.to.owners) {
            self.push(Step::MakeOwners { table: table.clone() });
        }
    }

    /// The programs that stand read changes at once: so the classes that come must stand, with the
    /// way to them (a shard's filter), and those that go, too.
    fn change_owners(&mut self) {
        if let (Some(standing), Some(wanted)) = (&self.from.owners, &self.to.owners) {
            let changes = standing.changes(wanted);
            if !changes.is_empty() {
                self.push(Step::ChangeOwners { changes });
            }
        }
    }

    fn drop_owners(&mut self) {
        if self.from.owners.is_some() && self.to.owners.is_none() {
            self.push(Step::DropOwners);
        }
    }

    fn write_classids(&mut self) {
        let rewritten: Vec<_> = self.rewritten().collect();
        for (claim, from, to) in rewritten {
            self.push(Step::WriteClassid { claim: claim.clone(), from, to });
        }
    }

    fn delete_roots(&mut self) {
        for port in self.from.trees.keys().filter(|port| !self.to.trees.contains_key(port)) {
            self.push(Step::DeleteRoot { port: port.clone() });
        }
    }

    /// Children first, or HTB refuses (`HTB class in use.`). A leaf qdisc goes with its class.
    fn delete_classes(&mut self) {
        for (port, old) in &self.from.trees {
            let Some(new) = self.to.trees.get(port) else { continue };
            let emptied = made_again(old, new);
            let displaced = displaced(old, new);
            for id in parents_first(old).into_iter().rev() {
                let emptied = id.shard().is_some_and(|shard| emptied.contains(&shard));
                let gone = emptied || displaced.contains(&id);
                if !gone && !new.classes.contains_key(&id) {
                    let class = old.classes[&id];
                    self.push(Step::DeleteClass { port: port.clone(), id, class });
                }
            }
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
            self.push(Step::RemoveClaim { claim, classid });
        }
    }

    fn into_plan(self) -> Plan {
        let Diff { foreign, names, steps, .. } = self;
        let steps = steps
            .into_iter()
            .map(|(phase, step)| Planned {
                phase,
                routine: false,
                disturbs: disturbs(&step, foreign, &names),
                step,
            })
            .collect();
        Plan { steps, names }
    }
}

/// Shards whose qdisc is lost with its class or to another's, and all that is in it.
fn made_again(old: &Tree, new: &Tree) -> BTreeSet<Shard> {
    let lost = |shard: &Shard| {
        let id = shard.class();
        let class = old.classes.get(&id).zip(new.classes.get(&id));
        class.is_some_and(|(old, new)| old.parent != new.parent)
            || old.leaves.get(&id) != new.leaves.get(&id)
    };
    new.shards.keys().copied().filter(lost).collect()
}

/// Classes that go and whose minor another class has that comes, in a shard or from one. The handle
/// of a leaf qdisc is the minor and unique on the link, so the old one must go first. Only where a
/// plan leads back: forward, a minor is given out again once nobody holds it.
fn displaced(old: &Tree, new: &Tree) -> BTreeSet<ClassId> {
    let leaves = |tree: &Tree, other: &Tree| -> BTreeSet<ClassId> {
        let own = tree.leaves.iter().filter(|(_, leaf)| **leaf != LeafQdisc::Shard);
        own.map(|(id, _)| *id).filter(|id| !other.leaves.contains_key(id)).collect()
    };
    let come: BTreeSet<Minor> = leaves(new, old).into_iter().map(ClassId::minor).collect();
    let mut gone = leaves(old, new);
    gone.retain(|id| come.contains(&id.minor()) && old.classes.contains_key(id));
    gone
}

/// The shard whose class in the root this is, with its filters.
fn shard_of(tree: &Tree, id: ClassId) -> Option<(Shard, &BTreeMap<Pref, Filter>)> {
    let shard = Shard::of_class(id)?;
    Some((shard, tree.shards.get(&shard)?))
}

/// The tree's classes, each after its parent; siblings in order.
fn parents_first(tree: &Tree) -> Vec<ClassId> {
    let depth = |id: ClassId| {
        // A loop cannot stand in the kernel; the bound keeps a wrong reading from hanging us.
        std::iter::successors(Some(id), |id| tree.above(*id)).take(16).count()
    };
    let mut classes: Vec<(usize, ClassId)> =
        tree.classes.keys().map(|id| (depth(*id), *id)).collect();
    classes.sort();
    classes.into_iter().map(|(_, id)| id).collect()
}

/// Who loses packets by a step.
fn disturbs(
    step: &Step,
    foreign: &[Foreign],
    names: &BTreeMap<ClassId, Owner>,
) -> Vec<Disturbance> {
    let name = |id: &ClassId| match (*id, names.get(id)) {
        (_, Some(owner)) => owner.to_string(),
        (ClassId::DEFAULT, _) => Reserved::Default.to_string(),
        (ClassId::UNSHAPED, _) => Reserved::Unshaped.to_string(),
        (id, _) => match Shard::of_class(id) {
            Some(shard) => format!("everybody in {shard}"),
            None => format!("class {id}"),
        },
    };
    match step {
        Step::ReplaceLeaf { port, id, from, to } => vec![Disturbance {
            who: name(id),
            why: format!(
                "packets waiting in its {} queue on {port} are dropped when {} takes its place",
                from.kind(),
                LeafQdisc::kind(to)
            ),
        }],
        Step::ReplaceClass { port, id, .. } => vec![Disturbance {
            who: name(id),
            why: format!(
                "packets waiting in it on {port} are dropped when it is made again under its parent"
            ),
        }],
        Step::DeleteRoot { port } => foreign
            .iter()
            .filter_map(|object| match object {
                Foreign::Class { port: at, classid } if at == port => Some(Disturbance {
                    who: format!("class {classid} on {port}"),
                    why: "somebody put it under shaper's root qdisc; it goes with it".to_string(),
                }),
                Foreign::Filter { port: at, pref, kind, .. } if at == port => Some(Disturbance {
                    who: format!("{kind} filter pref {pref} on {port}"),
                    why: "somebody put it under shaper's root qdisc; it goes with it".to_string(),
                }),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
