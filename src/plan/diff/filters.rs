//! Filters: what replaces one is whole, and asked, before the old one goes.

use std::collections::BTreeMap;

use super::{Diff, displaced};
use crate::plan::Step;
use crate::tree::{Filter, Foreign, KernelState, Port, Pref, RuleProgram, Tree, U32Rule};
use crate::units::ClassId;

/// The filters that stand, by link and qdisc.
pub(super) fn standing(from: &KernelState) -> BTreeMap<(&Port, ClassId), BTreeMap<Pref, Filter>> {
    let mut standing = BTreeMap::new();
    for (port, tree) in &from.trees {
        standing.insert((port, ClassId::ROOT), tree.filters.clone());
        for (shard, filters) in &tree.shards {
            standing.insert((port, shard.qdisc()), filters.clone());
        }
    }
    standing
}

impl<'a> Diff<'a> {
    /// A class to which a rule is bound cannot be deleted (`HTB class in use`), so where one is
    /// made again under another parent, or must go before another comes, the rule set without the
    /// rules to it stands in meanwhile: their packets go to the tag's class, all others to where
    /// they went.
    pub(super) fn let_go(&mut self) {
        for (port, tree) in &self.to.trees {
            let Some(old) = self.from.trees.get(port) else { continue };
            let replaced = |id: &ClassId| {
                let classes = (old.classes.get(id), tree.classes.get(id));
                matches!(classes, (Some(from), Some(to)) if from.parent != to.parent)
            };
            let displaced = displaced(old, tree);
            let bound = |rule: &U32Rule| replaced(&rule.to) || displaced.contains(&rule.to);
            for pair in [Pref::RULES_V4, Pref::RULES_V6] {
                for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    let Some(Filter::U32 { protocol, rules }) = old.filters.get(&pref) else {
                        continue;
                    };
                    if !rules.rules().any(bound) {
                        continue;
                    }
                    let rest = rules.without(bound);
                    if !rest.is_empty() && self.standing(port, ClassId::ROOT, other).is_none() {
                        let filter = Filter::U32 { protocol: *protocol, rules: rest };
                        self.add_filter(port, ClassId::ROOT, other, filter);
                    }
                    self.delete_filter(port, ClassId::ROOT, pref);
                }
            }
        }
    }

    /// New filters before the old ones of the same kind go. Within a set the rules are added in
    /// their order, so a packet that is not yet answered by the new set falls to the old one. A
    /// shard's tag is read before anything is sent there.
    pub(super) fn filters(&mut self) {
        for (port, tree) in &self.to.trees {
            for (shard, filters) in &tree.shards {
                self.pair(port, shard.qdisc(), Pref::TAG, filters);
            }
            self.rules(port, tree);
            if !self.needs_shards(port, tree) {
                self.pair(port, ClassId::ROOT, Pref::TAG, &tree.filters);
            }
        }
    }

    /// u32 rules and the program of those behind them. A rule may move from one to the other, so
    /// all that is new is there before anything goes: u32 rules first, then the program, and the
    /// other way round. Otherwise a packet could meet the new set of one and the old set of the
    /// other, and get an answer that neither policy gives.
    fn rules(&mut self, port: &'a Port, tree: &Tree) {
        let mut filters = tree.filters.clone();
        for filter in filters.values_mut() {
            if let Filter::Program(program) = filter {
                *filter = Filter::Program(self.for_both(program));
            }
        }
        let kinds = [Pref::RULES_V4, Pref::RULES_V6, Pref::PROGRAM];
        for pair in kinds {
            self.add_to(port, ClassId::ROOT, pair, &filters);
        }
        for pair in kinds.into_iter().rev() {
            self.delete_from(port, ClassId::ROOT, pair, &filters);
        }
    }

    /// The program for as long as a sender whose class changes may be in the old one or in the new
    /// one.
    fn for_both(&self, program: &RuleProgram) -> RuleProgram {
        let other: BTreeMap<ClassId, ClassId> =
            self.rewritten().map(|(_, from, to)| (to, from)).collect();
        program.with_senders(|class| other.get(&class).copied())
    }

    /// Once everybody is in his new class.
    pub(super) fn late_programs(&mut self) {
        for (port, tree) in &self.to.trees {
            self.pair(port, ClassId::ROOT, Pref::PROGRAM, &tree.filters);
        }
    }

    /// While somebody may still carry a shard's tag, the root must know the way there.
    fn needs_shards(&self, port: &Port, tree: &Tree) -> bool {
        let wanted = tree.filters.values().any(reads_shards);
        !wanted && self.from.trees.get(port).is_some_and(|old| !old.shards.is_empty())
    }

    /// The tags of links that lose their last shard, once nobody is in it.
    pub(super) fn late_tags(&mut self) {
        for (port, tree) in &self.to.trees {
            if self.needs_shards(port, tree) {
                self.pair(port, ClassId::ROOT, Pref::TAG, &tree.filters);
            }
        }
    }

    /// What is wanted at the two prefs of one kind, in one qdisc.
    pub(super) fn pair(
        &mut self,
        port: &'a Port,
        parent: ClassId,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        self.add_to(port, parent, pair, wanted);
        self.delete_from(port, parent, pair, wanted);
    }

    fn add_to(
        &mut self,
        port: &'a Port,
        parent: ClassId,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let Some(wanted) = wanted.get(&pref) else { continue };
            match self.standing(port, parent, pref) {
                Some(standing) if standing == wanted => continue,
                Some(_) if self.standing(port, parent, other).is_none() => {
                    self.add_filter(port, parent, other, wanted.clone());
                    self.delete_filter(port, parent, pref);
                }
                Some(_) => self.delete_filter(port, parent, pref),
                None => {}
            }
            self.add_filter(port, parent, pref, wanted.clone());
        }
    }

    fn delete_from(
        &mut self,
        port: &'a Port,
        parent: ClassId,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        for pref in pair {
            if self.standing(port, parent, pref).is_some() && !wanted.contains_key(&pref) {
                self.delete_filter(port, parent, pref);
            }
        }
    }

    /// What stands at a pref by now.
    fn standing(&self, port: &'a Port, parent: ClassId, pref: Pref) -> Option<&Filter> {
        self.filters.get(&(port, parent))?.get(&pref)
    }

    fn add_filter(&mut self, port: &'a Port, parent: ClassId, pref: Pref, filter: Filter) {
        self.filters.entry((port, parent)).or_default().insert(pref, filter.clone());
        self.push(Step::AddFilter { port: port.clone(), parent, pref, filter });
    }

    fn delete_filter(&mut self, port: &'a Port, parent: ClassId, pref: Pref) {
        let filters = self.filters.get_mut(&(port, parent));
        let gone = filters.and_then(|filters| filters.remove(&pref));
        if let Some(filter) = gone {
            let tables = filter.tables(pref);
            self.push(Step::DeleteFilter { port: port.clone(), parent, pref, filter });
            if parent == ClassId::ROOT {
                self.delete_tables(port, tables);
            }
        }
    }

    /// Hash tables that an earlier run, or somebody who deleted a pref by hand, has left: their
    /// rules keep classes from being deleted.
    pub(super) fn left_tables(&mut self) {
        for (port, old) in &self.from.trees {
            if self.to.trees.contains_key(port) {
                self.delete_tables(port, old.left_tables.iter().rev().copied().collect());
            }
        }
    }

    fn delete_tables(&mut self, port: &'a Port, tables: Vec<u16>) {
        if tables.is_empty() {
            return;
        }
        let ours = self.filters.get(&(port, ClassId::ROOT)).into_iter().flatten();
        let ours = ours.filter(|(_, filter)| filter.is_u32());
        let ours = ours.map(|(pref, filter)| (*pref, filter.protocol()));
        let theirs = self.foreign.iter().filter_map(|object| match object {
            Foreign::Filter { port: at, parent, pref, protocol, kind } => {
                let here = at == port && *parent == ClassId::ROOT && kind == "u32";
                here.then_some((*pref, *protocol))
            }
            _ => None,
        });
        if let Some((through, protocol)) = ours.chain(theirs).next() {
            self.push(Step::DeleteTables { port: port.clone(), through, protocol, tables });
        }
    }
}

/// Whether a filter knows the way to shards.
fn reads_shards(filter: &Filter) -> bool {
    matches!(filter, Filter::Tag(tag) if tag.reads_shards())
}
