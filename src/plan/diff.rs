//! The order of steps. A claim is made before its class and removed after it; a class stands on
//! every link before anything sends packets to it; what replaces something is whole before the old
//! one goes; the root and the default class come first and go last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Disturbance, Plan, Planned, Step};
use crate::state::{
    Claim, Class, Filter, Foreign, KernelState, LeafQdisc, LinkName, NetCls, Owner, Pref, Tree,
    U32Rule,
};
use crate::units::{ClassId, Minor};

/// The steps that turn `from` into `to`. `foreign` is what stands among ours and must not be
/// disturbed unasked.
pub fn diff(from: &KernelState, to: &KernelState, foreign: &[Foreign]) -> Plan {
    // Most runs find nothing to do, which comparing says much sooner.
    if from == to {
        return Plan::default();
    }
    let filters = from.links.iter().map(|(link, tree)| (link, tree.filters.clone())).collect();
    let mut diff = Diff { from, to, foreign, names: names(from, to), filters, steps: Vec::new() };
    diff.mount();
    diff.roots();
    diff.make_claims();
    diff.left_tables();
    diff.let_go();
    diff.classes();
    diff.filters();
    diff.write_classids();
    diff.delete_roots();
    diff.delete_classes();
    diff.remove_claims();
    diff.unmount();
    diff.into_plan()
}

struct Diff<'a> {
    from: &'a KernelState,
    to: &'a KernelState,
    foreign: &'a [Foreign],
    names: BTreeMap<Minor, Owner>,
    /// Filters of `from`, as the steps so far have left them.
    filters: BTreeMap<&'a LinkName, BTreeMap<Pref, Filter>>,
    steps: Vec<Step>,
}

/// Whose each minor is, in either state; the new owner first.
fn names(from: &KernelState, to: &KernelState) -> BTreeMap<Minor, Owner> {
    let owners = |state: &KernelState| -> Vec<(Minor, Owner)> {
        let owner = |(claim, classid): (&Claim, &ClassId)| match claim {
            Claim::Owner(owner) => Some((classid.our_minor()?, owner.clone())),
            _ => None,
        };
        state.claims.iter().filter_map(owner).collect()
    };
    owners(from).into_iter().chain(owners(to)).collect()
}

impl<'a> Diff<'a> {
    fn mount(&mut self) {
        if self.from.net_cls == NetCls::Unmounted && self.to.net_cls != NetCls::Unmounted {
            self.steps.push(Step::Mount);
        }
    }

    fn unmount(&mut self) {
        if self.from.net_cls != NetCls::Unmounted && self.to.net_cls == NetCls::Unmounted {
            self.steps.push(Step::Unmount);
        }
    }

    /// Roots that are new, each with the classes that nobody claims: from the root on the host sends
    /// through us, so the default follows at once.
    fn roots(&mut self) {
        for (link, tree) in &self.to.links {
            if self.from.links.contains_key(link) {
                continue;
            }
            self.steps.push(Step::AddRoot { link: link.clone() });
            for minor in [Minor::LINK, Minor::DEFAULT, Minor::UNSHAPED] {
                self.add_class(link, tree, minor);
            }
        }
    }

    fn add_class(&mut self, link: &LinkName, tree: &Tree, minor: Minor) {
        if let Some(class) = tree.classes.get(&minor) {
            self.steps.push(Step::AddClass { link: link.clone(), minor, class: *class });
            if let Some(leaf) = tree.leaves.get(&minor) {
                self.steps.push(Step::AddLeaf { link: link.clone(), minor, leaf: *leaf });
            }
        }
    }

    /// New claims. A claim whose minor changes is rewritten only after the new class stands, so the new
    /// minor is held by a retired claim meanwhile, and the old one by another for good.
    fn make_claims(&mut self) {
        for (claim, classid) in &self.to.claims {
            match self.from.claims.get(claim) {
                None => {
                    self.steps.push(Step::MakeClaim { claim: claim.clone(), classid: *classid })
                }
                // Made by a run that was killed before it wrote the number.
                Some(&ClassId::NONE) if *classid != ClassId::NONE => {
                    self.steps.push(Step::WriteClassid {
                        claim: claim.clone(),
                        from: ClassId::NONE,
                        to: *classid,
                    })
                }
                Some(_) => {}
            }
        }
        for (minor, classid) in self.held_meanwhile() {
            let claim = Claim::Retired(minor);
            self.steps.push(Step::MakeClaim { claim, classid });
        }
    }

    /// Minors of claims that are rewritten and that nothing else holds: the new one before it is
    /// written, the old one until its class is gone.
    fn held_meanwhile(&self) -> BTreeMap<Minor, ClassId> {
        let minors = |claims: &BTreeMap<Claim, ClassId>| -> BTreeSet<Minor> {
            claims.values().filter_map(|classid| classid.our_minor()).collect()
        };
        let (before, after) = (minors(&self.from.claims), minors(&self.to.claims));
        let mut meanwhile = BTreeMap::new();
        for (_, from, to) in self.rewritten() {
            let new = to.our_minor().filter(|minor| !before.contains(minor));
            let old = from.our_minor().filter(|minor| !after.contains(minor));
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
        for (link, tree) in &self.to.links {
            let empty = Tree::default();
            let is_new = !self.from.links.contains_key(link);
            let old = self.from.links.get(link).unwrap_or(&empty);
            for minor in parents_first(tree) {
                let fixed = matches!(minor, Minor::LINK | Minor::DEFAULT | Minor::UNSHAPED);
                match old.classes.get(&minor) {
                    None if is_new && fixed => continue,
                    None => self.add_class(link, tree, minor),
                    Some(from) => self.change_class(link, minor, *from, tree, old),
                }
            }
        }
    }

    fn change_class(
        &mut self,
        link: &LinkName,
        minor: Minor,
        from: Class,
        tree: &Tree,
        old: &Tree,
    ) {
        let link = || link.clone();
        let to = tree.classes[&minor];
        if from.parent != to.parent {
            let leaf = tree.leaves.get(&minor).copied();
            self.steps.push(Step::ReplaceClass { link: link(), minor, from, to, leaf });
            return;
        }
        if from != to {
            self.steps.push(Step::ChangeClass { link: link(), minor, from, to });
        }
        match (old.leaves.get(&minor), tree.leaves.get(&minor)) {
            (None, Some(leaf)) => {
                self.steps.push(Step::AddLeaf { link: link(), minor, leaf: *leaf })
            }
            (Some(from), Some(to)) if from != to => {
                let (from, to) = (*from, *to);
                let step = match std::mem::discriminant(&from) == std::mem::discriminant(&to) {
                    true => Step::ChangeLeaf { link: link(), minor, from, to },
                    false => Step::ReplaceLeaf { link: link(), minor, from, to },
                };
                self.steps.push(step);
            }
            _ => {}
        }
    }

    /// A class to which a rule is bound cannot be deleted (`HTB class in use`), so where one is made
    /// again under another parent, the rule set without the rules to it stands in meanwhile: their
    /// packets go to the tag's class, all others to where they went.
    fn let_go(&mut self) {
        for (link, tree) in &self.to.links {
            let Some(old) = self.from.links.get(link) else { continue };
            let replaced = |minor: &Minor| {
                let classes = (old.classes.get(minor), tree.classes.get(minor));
                matches!(classes, (Some(from), Some(to)) if from.parent != to.parent)
            };
            let bound = |rule: &U32Rule| rule.to.our_minor().is_some_and(|minor| replaced(&minor));
            for pair in [Pref::RULES_V4, Pref::RULES_V6] {
                for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    let Some(Filter::U32 { family, rules }) = old.filters.get(&pref) else {
                        continue;
                    };
                    if !rules.rules().any(bound) {
                        continue;
                    }
                    let rest = rules.without(bound);
                    if !rest.is_empty() && self.standing(link, other).is_none() {
                        self.add_filter(link, other, Filter::U32 { family: *family, rules: rest });
                    }
                    self.delete_filter(link, pref);
                }
            }
        }
    }

    /// New filters before the old ones of the same kind go. Within a set the rules are added in their
    /// order, so a packet that is not yet answered by the new set falls to the old one.
    fn filters(&mut self) {
        for (link, tree) in &self.to.links {
            for pair in [Pref::RULES_V4, Pref::RULES_V6, Pref::TAG] {
                for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    let Some(wanted) = tree.filters.get(&pref) else { continue };
                    match self.standing(link, pref) {
                        Some(standing) if standing == wanted => continue,
                        Some(_) if self.standing(link, other).is_none() => {
                            self.add_filter(link, other, wanted.clone());
                            self.delete_filter(link, pref);
                        }
                        Some(_) => self.delete_filter(link, pref),
                        None => {}
                    }
                    self.add_filter(link, pref, wanted.clone());
                }
                for pref in pair {
                    if self.standing(link, pref).is_some() && !tree.filters.contains_key(&pref) {
                        self.delete_filter(link, pref);
                    }
                }
            }
        }
    }

    /// What stands at a pref by now.
    fn standing(&self, link: &LinkName, pref: Pref) -> Option<&Filter> {
        self.filters.get(link)?.get(&pref)
    }

    fn add_filter(&mut self, link: &'a LinkName, pref: Pref, filter: Filter) {
        self.filters.entry(link).or_default().insert(pref, filter.clone());
        self.steps.push(Step::AddFilter { link: link.clone(), pref, filter });
    }

    fn delete_filter(&mut self, link: &'a LinkName, pref: Pref) {
        let gone = self.filters.get_mut(link).and_then(|filters| filters.remove(&pref));
        if let Some(filter) = gone {
            let tables = filter.tables(pref);
            self.steps.push(Step::DeleteFilter { link: link.clone(), pref, filter });
            self.delete_tables(link, tables);
        }
    }

    /// Hash tables that an earlier run, or somebody who deleted a pref by hand, has left: their rules
    /// keep classes from being deleted.
    fn left_tables(&mut self) {
        for (link, old) in &self.from.links {
            if self.to.links.contains_key(link) {
                self.delete_tables(link, old.left_tables.iter().rev().copied().collect());
            }
        }
    }

    fn delete_tables(&mut self, link: &LinkName, tables: Vec<u16>) {
        if tables.is_empty() {
            return;
        }
        let ours = self.filters.get(link).into_iter().flatten();
        let ours = ours.filter(|(_, filter)| filter.is_u32());
        let ours = ours.map(|(pref, filter)| (*pref, filter.protocol()));
        let theirs = self.foreign.iter().filter_map(|object| match object {
            Foreign::Filter { link: at, pref, protocol, kind } if at == link && kind == "u32" => {
                Some((*pref, *protocol))
            }
            _ => None,
        });
        if let Some((through, protocol)) = ours.chain(theirs).next() {
            self.steps.push(Step::DeleteTables { link: link.clone(), through, protocol, tables });
        }
    }

    fn write_classids(&mut self) {
        let rewritten: Vec<_> = self.rewritten().collect();
        for (claim, from, to) in rewritten {
            self.steps.push(Step::WriteClassid { claim: claim.clone(), from, to });
        }
    }

    fn delete_roots(&mut self) {
        for link in self.from.links.keys().filter(|link| !self.to.links.contains_key(link)) {
            self.steps.push(Step::DeleteRoot { link: link.clone() });
        }
    }

    /// Children first, or HTB refuses (`HTB class in use.`). A leaf qdisc goes with its class.
    fn delete_classes(&mut self) {
        for (link, old) in &self.from.links {
            let Some(new) = self.to.links.get(link) else { continue };
            for minor in parents_first(old).into_iter().rev() {
                if !new.classes.contains_key(&minor) {
                    let class = old.classes[&minor];
                    self.steps.push(Step::DeleteClass { link: link.clone(), minor, class });
                }
            }
        }
    }

    /// After the classes: a minor that no directory claims may be given out again. Deepest first.
    fn remove_claims(&mut self) {
        let gone = self.from.claims.iter().filter(|(claim, _)| !self.to.claims.contains_key(claim));
        let mut gone: Vec<(Claim, ClassId)> = gone.map(|(c, id)| (c.clone(), *id)).collect();
        let meanwhile = self.held_meanwhile();
        gone.extend(meanwhile.into_iter().map(|(minor, id)| (Claim::Retired(minor), id)));
        gone.sort_by_key(|(claim, _)| !matches!(claim, Claim::Pinned(_)));
        for (claim, classid) in gone {
            self.steps.push(Step::RemoveClaim { claim, classid });
        }
    }

    fn into_plan(self) -> Plan {
        let Diff { foreign, names, steps, .. } = self;
        let steps = steps
            .into_iter()
            .map(|step| Planned {
                routine: false,
                disturbs: disturbs(&step, foreign, &names),
                step,
            })
            .collect();
        Plan { steps, names }
    }
}

/// The tree's minors, each after its parent; siblings in order.
fn parents_first(tree: &Tree) -> Vec<Minor> {
    let depth = |minor: Minor| {
        let parent = |m: &Minor| tree.classes.get(m).and_then(|class| class.parent);
        // A loop cannot stand in the kernel; the bound keeps a wrong reading from hanging us.
        std::iter::successors(Some(minor), parent).take(16).count()
    };
    let mut minors: Vec<(usize, Minor)> =
        tree.classes.keys().map(|minor| (depth(*minor), *minor)).collect();
    minors.sort();
    minors.into_iter().map(|(_, minor)| minor).collect()
}

/// Who loses packets by a step.
fn disturbs(step: &Step, foreign: &[Foreign], names: &BTreeMap<Minor, Owner>) -> Vec<Disturbance> {
    let name = |minor: &Minor| match (*minor, names.get(minor)) {
        (_, Some(owner)) => owner.to_string(),
        (Minor::DEFAULT, _) => "default".to_string(),
        (Minor::UNSHAPED, _) => "unshaped".to_string(),
        (minor, _) => format!("class {}", ClassId::ours(minor)),
    };
    match step {
        Step::ReplaceLeaf { link, minor, from, to } => vec![Disturbance {
            who: name(minor),
            why: format!(
                "packets waiting in its {} queue on {link} are dropped when {} takes its place",
                from.kind(),
                LeafQdisc::kind(to)
            ),
        }],
        Step::ReplaceClass { link, minor, .. } => vec![Disturbance {
            who: name(minor),
            why: format!(
                "packets waiting in it on {link} are dropped when it is made again under its parent"
            ),
        }],
        Step::DeleteRoot { link } => foreign
            .iter()
            .filter_map(|object| match object {
                Foreign::Class { link: at, classid } if at == link => Some(Disturbance {
                    who: format!("class {classid} on {link}"),
                    why: "somebody put it under shaper's root qdisc; it goes with it".to_string(),
                }),
                Foreign::Filter { link: at, pref, kind, .. } if at == link => Some(Disturbance {
                    who: format!("{kind} filter pref {pref} on {link}"),
                    why: "somebody put it under shaper's root qdisc; it goes with it".to_string(),
                }),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
