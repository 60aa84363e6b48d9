//! Filters at clsact, and the ifbs. A redirect comes when all that it leads to stands, and goes
//! before any of it: packets that are redirected to nowhere are lost, and the host with them.

use std::collections::{BTreeMap, BTreeSet};

use super::comparison::Comparison;
use crate::plan::{Change, FilterChange, Step, Whole};
use crate::tree::{
    Clsact, Filter, FoundFilter, Ifb, KernelState, LinkName, OwnerKey, Parent, Pref,
};

/// What becomes of some of the filters at one side of a link's clsact.
struct Turn<'a> {
    link: &'a LinkName,
    parent: Parent,
    standing: BTreeMap<Pref, FoundFilter>,
    wanted: BTreeMap<Pref, &'a Filter>,
}

impl Turn<'_> {
    fn step(&self, pref: Pref, change: FilterChange) -> Step {
        let port = match self.parent {
            Parent::Ingress => self.link.ingress(),
            _ => self.link.egress(),
        };
        Step::Filter(port, self.parent.at(pref), change)
    }

    fn stays(&self, pref: Pref) -> bool {
        let standing = self.standing.get(&pref).and_then(FoundFilter::ours);
        standing.is_some() && standing == self.wanted.get(&pref).copied()
    }

    fn removals(&self, which: impl Fn(&Pref) -> bool) -> Vec<Step> {
        let gone = self.standing.iter().filter(|(pref, _)| !self.stays(**pref) && which(pref));
        gone.map(|(pref, filter)| self.step(*pref, Whole::Remove(filter.clone()))).collect()
    }

    /// What is in the place of something that comes goes before it.
    fn additions(&self) -> Vec<Step> {
        let mut steps = self.removals(|pref| self.wanted.contains_key(pref));
        let new = self.wanted.iter().filter(|(pref, _)| !self.stays(**pref));
        steps.extend(new.map(|(pref, filter)| self.step(*pref, Whole::Add((*filter).clone()))));
        steps
    }

    /// All others that are not wanted.
    fn leftovers(&self) -> Vec<Step> {
        self.removals(|pref| !self.wanted.contains_key(pref))
    }
}

impl<'a> Comparison<'a> {
    /// The filters of one side that are at these prefs, for the links that are to have some of ours
    /// or (`to_have`: false) that are not to have any.
    fn hooks(&self, parent: Parent, is_at: impl Fn(Pref) -> bool, to_have: bool) -> Vec<Turn<'a>> {
        let wanted = |clsact: Option<&'a Clsact>| -> BTreeMap<Pref, &'a Filter> {
            let side = clsact.map(|clsact| match parent {
                Parent::Ingress => &clsact.ingress,
                _ => &clsact.egress,
            });
            let filters = side.into_iter().flat_map(|side| &side.filters);
            let filters = filters.map(|(pref, filter)| (*pref, filter));
            filters.filter(|(pref, _)| is_at(*pref)).collect()
        };
        let links: BTreeSet<&'a LinkName> =
            self.to.clsact.keys().chain(self.from.clsact.keys()).collect();
        let turns = links.into_iter().map(|link| {
            let mut standing = self.at_clsact(link, parent);
            standing.retain(|pref, _| is_at(*pref));
            Turn { link, parent, standing, wanted: wanted(self.to.clsact.get(link)) }
        });
        turns.filter(|turn| turn.wanted.is_empty() != to_have).collect()
    }

    fn push_all(&mut self, steps: Vec<Step>) {
        steps.into_iter().for_each(|step| self.push(step));
    }

    /// The ifbs, before anything leads to them; one that is switched off drops what it gets.
    pub(super) fn ifbs(&mut self) {
        for (name, wanted) in &self.to.ifbs {
            let change = match self.from.ifbs.get(name) {
                None => Change::Add(*wanted),
                Some(standing) if standing != wanted => {
                    Change::Alter { from: *standing, to: *wanted }
                }
                Some(_) => continue,
            };
            self.push(Step::Ifb(name.clone(), change));
        }
    }

    /// After the roots that stand on them.
    pub(super) fn delete_ifbs(&mut self) {
        let gone = self.from.ifbs.iter().filter(|(name, _)| !self.to.ifbs.contains_key(*name));
        let gone: Vec<(&LinkName, Ifb)> = gone.map(|(name, ifb)| (name, *ifb)).collect();
        for (name, ifb) in gone {
            self.push(Step::Ifb(name.clone(), Change::Remove(ifb)));
        }
    }

    /// The qdiscs, and what clears foreign priorities, before there is a class that they could
    /// name. A new program comes beside the old one where there is room ([`crate::desired`] chooses
    /// the pref).
    pub(super) fn clsact(&mut self) {
        let (from, to) = (self.from, self.to);
        for link in to.clsact.iter().filter(|(_, it)| it.is_used()).map(|(link, _)| link) {
            if !from.clsact.contains_key(link) {
                self.push(Step::Clsact(link.clone(), Whole::Add(())));
            }
        }
        for turn in self.hooks(Parent::Egress, is_priority, true) {
            self.push_all(turn.additions());
            self.push_all(turn.leftovers());
        }
    }

    /// What notes flows, before what finds them: both read one map, so a new one of the one kind
    /// comes with new ones of the other.
    pub(super) fn learners(&mut self) {
        for turn in self.hooks(Parent::Egress, is_learner, true) {
            self.push_all(turn.additions());
        }
    }

    /// Busy links on which what notes flows is new, and knows none yet, or too few. `is_in`:
    /// whether packets go through the ifb already.
    fn unlearnt(&self, is_in: bool) -> Vec<LinkName> {
        let turns = self.hooks(Parent::Egress, is_learner, true).into_iter();
        let is_new = |turn: &Turn<'_>| match self.observed.keeps_flows(turn.link) {
            // Where a plan was made again before the first one had waited.
            true => !is_in,
            false => turn.wanted.keys().any(|pref| !turn.stays(*pref)),
        };
        let links = turns.filter(is_new).map(|turn| turn.link);
        let links = links.filter(|link| self.facts.busy.contains(*link));
        // Also what another version redirects, or this one does with another map: its packets come
        // to the ifb until its successor is there.
        let redirects = |link: &&LinkName| {
            let at = self.at_clsact(link, Parent::Ingress);
            self.from.ifbs.contains_key(&link.ifb()) && at.keys().any(|pref| is_redirect(*pref))
        };
        links.filter(|link| redirects(link) == is_in).cloned().collect()
    }

    fn learn(&mut self, links: Vec<LinkName>) {
        if !links.is_empty() {
            self.push(Step::Learn(links));
        }
    }

    /// While what finds flows still has the old map.
    pub(super) fn learn_before_finding(&mut self) {
        self.learn(self.unlearnt(true));
    }

    /// Once everybody has his class, with his processes in it.
    pub(super) fn learn_before_redirecting(&mut self) {
        self.learn(self.unlearnt(false));
    }

    /// Those whose flows nobody looks for any more.
    pub(super) fn old_learners(&mut self) {
        for turn in self.hooks(Parent::Egress, is_learner, true) {
            self.push_all(turn.leftovers());
        }
    }

    /// All that they lead to stands by then.
    pub(super) fn redirects(&mut self) {
        for turn in self.hooks(Parent::Ingress, is_redirect, true) {
            self.push_all(turn.additions());
            self.push_all(turn.leftovers());
        }
    }

    /// What labels packets that come in by inner links, while no program reads a label yet: a guest
    /// without an owner could have written one, until its link is labelled as well. The sources
    /// come before the labels that look them up: otherwise they would be whose the rest of the
    /// link is.
    pub(super) fn labels_unread(&mut self) {
        if !read_labels(self.from) {
            self.entries(|key| matches!(key, OwnerKey::Source(_)));
            self.labels();
        }
    }

    /// The same while labels are read: once the classes that they name stand, with the programs
    /// that lead there.
    pub(super) fn labels_read(&mut self) {
        if read_labels(self.from) {
            self.labels();
        }
    }

    fn labels(&mut self) {
        for turn in self.hooks(Parent::Ingress, is_label, true) {
            self.push_all(turn.additions());
            self.push_all(turn.leftovers());
        }
    }

    /// First: nothing that they lead to has gone.
    pub(super) fn delete_redirects(&mut self) {
        for turn in self.hooks(Parent::Ingress, is_redirect, false) {
            self.push_all(turn.leftovers());
        }
    }

    /// The filters at these prefs of links that are not to have any.
    fn delete_hooks(&mut self, parent: Parent, is_at: fn(Pref) -> bool) {
        for turn in self.hooks(parent, is_at, false) {
            // Ours go with a clsact.
            if self.to.clsact.contains_key(turn.link) {
                self.push_all(turn.leftovers());
            }
        }
    }

    /// After the roots: until then there are classes that a priority can name.
    pub(super) fn delete_clsact(&mut self) {
        self.delete_hooks(Parent::Egress, is_learner);
        self.delete_hooks(Parent::Egress, is_priority);
        // Nothing reads them any more, or they are nobody's; their classes still stand.
        self.delete_hooks(Parent::Ingress, is_label);
        for link in self.from.clsact.keys().filter(|link| !self.to.clsact.contains_key(*link)) {
            self.push(Step::Clsact(link.clone(), Whole::Remove(())));
        }
    }
}

/// Whether a program reads labels.
pub(super) fn read_labels(state: &KernelState) -> bool {
    let mut filters = state.trees.values().flat_map(|tree| tree.filters.values());
    filters.any(Filter::reads_labels)
}

fn is_redirect(pref: Pref) -> bool {
    Pref::REDIRECT.contains(&pref)
}

fn is_label(pref: Pref) -> bool {
    !is_redirect(pref)
}

fn is_learner(pref: Pref) -> bool {
    Pref::LEARN.contains(&pref)
}

fn is_priority(pref: Pref) -> bool {
    !is_learner(pref)
}
