//! Filters: a new one is whole, and asked, before the old one goes.

use std::collections::BTreeMap;

use super::comparison::Comparison;
use crate::plan::{LeftTables, Step, Whole};
use crate::tree::{
    Filter, Foreign, FoundFilter, Parent, Port, Pref, RuleProgram, Seat, Tree, U32Rule,
};
use crate::units::ClassId;

impl<'a> Comparison<'a> {
    /// Replaces rule sets for a while. A class to which a rule is bound cannot be deleted (`HTB
    /// class in use`), so where such a class is made again under another parent, or must go before
    /// another comes, a set without the rules to it stands in meanwhile: packets of these rules go
    /// to the tag's class, all others where they went.
    pub(super) fn let_go(&mut self) {
        for turn in self.turns() {
            let displaced = turn.displaced();
            let bound = |rule: &U32Rule| turn.moves(rule.to) || displaced.contains(&rule.to);
            for pair in [Pref::RULES_V4, Pref::RULES_V6] {
                for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    self.let_go_at(turn.port, pref, other, &bound);
                }
            }
        }
    }

    /// The same for the rules at `pref`: the rules to other classes move to `other`, if nothing is
    /// there.
    fn let_go_at(
        &mut self,
        port: &'a Port,
        pref: Pref,
        other: Pref,
        bound: &dyn Fn(&U32Rule) -> bool,
    ) {
        let standing = self.from.trees.get(port).and_then(|tree| tree.filters.get(&pref));
        let Some(Filter::U32 { protocol, rules }) = standing else { return };
        if !rules.rules().any(bound) {
            return;
        }
        let rest = rules.without(bound);
        if !rest.is_empty() && self.standing(port, Parent::Root.at(other)).is_none() {
            let filter = Filter::U32 { protocol: *protocol, rules: rest };
            self.add_filter(port, Parent::Root.at(other), filter);
        }
        self.delete_filter(port, Parent::Root.at(pref));
    }

    /// Adds new filters before the old ones of the same kind go. The rules of a set are added in
    /// their order, so a packet for which the new set has no answer yet comes to the old set. A
    /// shard's filter comes before anything is sent to the shard.
    pub(super) fn filters(&mut self) {
        for (port, tree) in &self.to.trees {
            self.add_to(port, Parent::Root, Pref::PULSE, &tree.filters);
            for (shard, filters) in &tree.shards {
                self.pair(port, Parent::Shard(*shard), Pref::TAG, filters);
            }
            self.rules(port, tree);
            if !self.needs_shards(port, tree) {
                self.pair(port, Parent::Root, Pref::TAG, &tree.filters);
            }
        }
    }

    /// What notes that packets come to an ifb, for redirects that have gone.
    pub(super) fn old_pulses(&mut self) {
        for (port, tree) in &self.to.trees {
            self.delete_from(port, Parent::Root, Pref::PULSE, &tree.filters);
        }
    }

    /// u32 rules, and the program of the rules behind them. A rule may move between the two, so
    /// everything new is added before anything old goes: the u32 rules are added first and the
    /// program second, then the old program goes first and the old u32 rules second. Otherwise a
    /// packet could meet the new set of one and the old set of the other, and get an answer that
    /// neither policy gives. What tells the program whose a flow is comes before it, and goes
    /// after.
    fn rules(&mut self, port: &'a Port, tree: &Tree) {
        let mut filters = tree.filters.clone();
        for filter in filters.values_mut() {
            if let Filter::Program(program) = filter {
                *filter = Filter::Program(self.for_both(program));
            }
        }
        let kinds = [Pref::RULES_V4, Pref::RULES_V6, Pref::FIND, Pref::PROGRAM];
        for pair in kinds {
            self.add_to(port, Parent::Root, pair, &filters);
        }
        for pair in kinds.into_iter().rev() {
            self.delete_from(port, Parent::Root, pair, &filters);
        }
    }

    /// The program for the time in which a sender whose class changes may be in the old class or in
    /// the new one: it knows both.
    fn for_both(&self, program: &RuleProgram) -> RuleProgram {
        let other: BTreeMap<ClassId, ClassId> =
            self.rewritten().map(|(_, from, to)| (to, from)).collect();
        program.with_senders(|class| other.get(&class).copied())
    }

    /// Replaces those programs, once everybody is in his new class.
    pub(super) fn late_programs(&mut self) {
        for (port, tree) in &self.to.trees {
            self.pair(port, Parent::Root, Pref::PROGRAM, &tree.filters);
        }
    }

    /// Whether the root's program must know shards: it must while any process or socket may carry a
    /// shard's tag.
    fn needs_shards(&self, port: &Port, tree: &Tree) -> bool {
        let wanted = tree.filters.values().any(reads_shards);
        !wanted && self.from.trees.get(port).is_some_and(|old| !old.shards.is_empty())
    }

    /// Replaces the program at the root of links that lose their last shard, once nobody is in it.
    pub(super) fn late_tags(&mut self) {
        for (port, tree) in &self.to.trees {
            if self.needs_shards(port, tree) {
                self.pair(port, Parent::Root, Pref::TAG, &tree.filters);
            }
        }
    }

    /// Brings the two prefs of one kind, in one qdisc, to what is desired there.
    pub(super) fn pair(
        &mut self,
        port: &'a Port,
        parent: Parent,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        self.add_to(port, parent, pair, wanted);
        self.delete_from(port, parent, pair, wanted);
    }

    fn add_to(
        &mut self,
        port: &'a Port,
        parent: Parent,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        for (pref, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let Some(wanted) = wanted.get(&pref) else { continue };
            let (seat, other) = (parent.at(pref), parent.at(other));
            match self.standing(port, seat) {
                Some(FoundFilter::Ours(standing)) if standing == wanted => continue,
                Some(_) if self.standing(port, other).is_none() => {
                    self.add_filter(port, other, wanted.clone());
                    self.delete_filter(port, seat);
                }
                Some(_) => self.delete_filter(port, seat),
                None => {}
            }
            self.add_filter(port, seat, wanted.clone());
        }
    }

    fn delete_from(
        &mut self,
        port: &'a Port,
        parent: Parent,
        pair: [Pref; 2],
        wanted: &BTreeMap<Pref, Filter>,
    ) {
        for pref in pair {
            let seat = parent.at(pref);
            if self.standing(port, seat).is_some() && !wanted.contains_key(&pref) {
                self.delete_filter(port, seat);
            }
        }
    }

    /// The filter at this seat, as the steps so far leave it.
    fn standing(&self, port: &'a Port, seat: Seat) -> Option<&FoundFilter> {
        self.filters.get(&(port, seat.parent))?.get(&seat.pref)
    }

    fn add_filter(&mut self, port: &'a Port, seat: Seat, filter: Filter) {
        let filters = self.filters.entry((port, seat.parent)).or_default();
        filters.insert(seat.pref, FoundFilter::Ours(filter.clone()));
        self.push(Step::Filter(port.clone(), seat, Whole::Add(filter)));
    }

    fn delete_filter(&mut self, port: &'a Port, seat: Seat) {
        let filters = self.filters.get_mut(&(port, seat.parent));
        let gone = filters.and_then(|filters| filters.remove(&seat.pref));
        if let Some(filter) = gone {
            let tables = filter.tables(seat.pref);
            self.push(Step::Filter(port.clone(), seat, Whole::Remove(filter)));
            if seat.parent == Parent::Root {
                self.delete_tables(port, tables);
            }
        }
    }

    /// Deletes hash tables that an earlier run, or somebody who deleted a pref by hand, has left:
    /// their rules keep classes from being deleted.
    pub(super) fn left_tables(&mut self) {
        for turn in self.turns() {
            let tables = turn.strange.into_iter().flat_map(|strange| strange.tables.iter().rev());
            self.delete_tables(turn.port, tables.copied().collect());
        }
    }

    fn delete_tables(&mut self, port: &'a Port, tables: Vec<u16>) {
        if tables.is_empty() {
            return;
        }
        let ours = self.filters.get(&(port, Parent::Root)).into_iter().flatten();
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
            self.push(Step::Tables(port.clone(), LeftTables { tables, through, protocol }));
        }
    }
}

/// Whether a filter sends the tags of a shard's users to the shard's class.
fn reads_shards(filter: &Filter) -> bool {
    filter.reads_shards()
}
