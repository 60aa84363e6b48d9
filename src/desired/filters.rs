//! The filters of one link: the rules, and behind them the filter that says whose a packet is.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::identity::Identities;
use super::impossible::Impossible;
use super::labels;
use crate::classify::{self, NoClassifier};
use crate::facts::{LinkFacts, Observation};
use crate::model::{Link, Model, Rule, Target};
use crate::tree::{
    Asks, Direction, Family, Filter, Match, Owner, Parent, Port, Pref, Program, ProgramRule,
    Protocol, RuleProgram, Senders, Tag, Tree, U32Rule, U32Rules,
};
use crate::units::ClassId;

/// What the filters of one link depend on.
pub(super) struct Filters<'a> {
    pub model: &'a Model,
    pub link: &'a Link,
    pub facts: &'a LinkFacts,
    pub ids: &'a Identities<'a>,
    pub observed: &'a Observation,
    /// The rules' targets that have a class on this link.
    pub targets: BTreeMap<&'a Owner, ClassId>,
}

impl Filters<'_> {
    /// The filter that says whose a packet is, on this link, in a qdisc without shards below it.
    fn tag(&self) -> Result<Tag, Impossible> {
        let facts = &self.observed.facts;
        match classify::classifier(self.link.classifier, &facts.features) {
            Ok(classifier) => Ok(labels::tag(classifier, self.model, self.observed)),
            Err(source) => {
                Err(Impossible::Classifier { link: self.link.port.link.clone(), source })
            }
        }
    }

    /// Adds the filters to the tree that has their classes.
    pub(super) fn add_to(&self, tree: &mut Tree) -> Result<(), Impossible> {
        let old = self.observed.state.trees.get(&self.link.port);
        let standing = self.standing(old.map(|old| &old.filters), Parent::Root);
        let filters = if self.facts.ethernet {
            let tables = classify::frame::tables_of_a_family();
            let [v4, v6] = [Family::V4, Family::V6].map(|family| self.rules(family, tables));
            vec![(Protocol::All, Pref::RULES_V4, classify::frame::both(v4, v6))]
        } else {
            let by_family = [(Family::V4, Pref::RULES_V4), (Family::V6, Pref::RULES_V6)];
            let rules = |(family, prefs): (Family, [Pref; 2])| {
                (family.into(), prefs, self.rules(family, prefs[0].most_tables()))
            };
            by_family.map(rules).into()
        };
        if let Some(program) = self.program()? {
            if program.asks == Some(Asks::Flow) {
                let find = Filter::Find { shards: false, for_rules: true };
                standing.insert(&mut tree.filters, Pref::FIND, find);
            }
            let filter = Filter::Program(program);
            standing.insert(&mut tree.filters, Pref::PROGRAM, filter);
        }
        for (protocol, prefs, rules) in filters.into_iter().filter(|(_, _, r)| !r.is_empty()) {
            standing.insert(&mut tree.filters, prefs, Filter::U32 { protocol, rules });
        }
        for (shard, filters) in &mut tree.shards {
            let filters_there = old.and_then(|old| old.shards.get(shard));
            let standing = self.standing(filters_there, Parent::Shard(*shard));
            standing.insert(filters, Pref::TAG, self.whose(false)?);
        }
        if self.arrives() {
            standing.insert(&mut tree.filters, Pref::PULSE, Filter::Pulse);
        }
        let whose = self.whose(!tree.shards.is_empty())?;
        standing.insert(&mut tree.filters, Pref::TAG, whose);
        Ok(())
    }

    fn standing<'s>(
        &'s self,
        ours: Option<&'s BTreeMap<Pref, Filter>>,
        parent: Parent,
    ) -> Standing<'s> {
        Standing { ours, observed: self.observed, port: &self.link.port, parent }
    }

    /// What says whose a packet is; `shards`: at the root of a tree that has some.
    fn whose(&self, shards: bool) -> Result<Filter, Impossible> {
        Ok(match (self.link.port.direction, self.tag()?) {
            (Direction::Ingress, _) => Filter::Find { shards, for_rules: false },
            (Direction::Egress, Tag::Bpf(program)) => {
                Filter::Tag(Tag::Bpf(Program { shards, ..program }))
            }
            (Direction::Egress, Tag::Cgroup) => Filter::Tag(Tag::Cgroup),
        })
    }

    /// Whether packets arrive here: a rule is for those that answer the ones that it names.
    fn arrives(&self) -> bool {
        self.link.port.direction == Direction::Ingress
    }

    /// The link's rules in file order, as two lists: those before the first rule that u32 cannot
    /// decide, and the rest.
    fn rules_here(&self) -> (Vec<&Rule>, Vec<&Rule>) {
        let on_link = |rule: &&Rule| {
            rule.links.as_ref().is_none_or(|links| links.contains(&self.link.port.link))
        };
        let mut rules: Vec<&Rule> = self.model.rules.iter().filter(on_link).collect();
        let first = rules.iter().position(|rule| rule.needs_program()).unwrap_or(rules.len());
        let others = rules.split_off(first);
        (rules, others)
    }

    /// The eBPF program of the rules that u32 cannot decide, and of those behind them.
    fn program(&self) -> Result<Option<RuleProgram>, Impossible> {
        let (_, rules) = self.rules_here();
        if rules.is_empty() {
            return Ok(None);
        }
        let nodes = self.model.nodes.iter().map(|node| &node.owner).zip(&self.ids.nodes);
        let asks = match (rules.iter().any(|rule| rule.from.is_some()), self.tag()?) {
            (false, _) => None,
            (true, _) if self.arrives() => Some(Asks::Flow),
            (true, Tag::Bpf(program)) => Some(Asks::Socket(program)),
            // The model has asked what the kernel can do; this is what it has become since.
            (true, Tag::Cgroup) => {
                let (link, source) = (self.link.port.link.clone(), NoClassifier::Bpf);
                return Err(Impossible::Classifier { link, source });
            }
        };
        let senders: BTreeMap<&Owner, ClassId> = match asks {
            Some(_) => nodes.map(|(owner, id)| (owner, *id)).collect(),
            None => BTreeMap::new(),
        };
        let rules = rules.into_iter().map(|rule| ProgramRule {
            line: rule.line,
            to: self.target(&rule.to),
            from: rule.from.as_ref().map(|from| {
                let of = from.owners.iter().filter_map(|owner| senders.get(owner).copied());
                let of: BTreeSet<ClassId> = of.collect();
                Senders { not: from.not, of: of.into_iter().collect() }
            }),
            packets: match self.arrives() {
                true => rule.packets.mirrored(),
                false => rule.packets.clone(),
            },
        });
        Ok(Some(RuleProgram { asks, ethernet: self.facts.ethernet, rules: rules.collect() }))
    }

    fn rules(&self, family: Family, most_tables: u16) -> U32Rules {
        let (rules, _) = self.rules_here();
        let rules = rules.into_iter().flat_map(|rule| {
            let mirrored: Vec<Match>;
            let matches = match self.arrives() {
                true => {
                    mirrored = rule.matches.iter().map(Match::mirrored).collect();
                    &mirrored
                }
                false => &rule.matches,
            };
            let parts = classify::u32::compile(family, matches, self.target(&rule.to));
            parts.into_iter().map(|part| U32Rule { line: Some(rule.line), ..part })
        });
        classify::hash::arrange_in(family, rules.collect(), most_tables)
    }

    /// The class of a target; the default class where the target has none on this link, as its tag
    /// would be.
    fn target(&self, target: &Target) -> ClassId {
        match target {
            Target::Default => ClassId::DEFAULT,
            Target::Unshaped => ClassId::UNSHAPED,
            Target::Owner(owner) => self.targets.get(owner).copied().unwrap_or(ClassId::DEFAULT),
        }
    }
}

/// What is at one parent's prefs now.
struct Standing<'a> {
    ours: Option<&'a BTreeMap<Pref, Filter>>,
    observed: &'a Observation,
    port: &'a Port,
    parent: Parent,
}

impl Standing<'_> {
    /// Puts `filter` at one of its two prefs: the one where it stands already, else the free one,
    /// so that the old filter answers until the new one is whole.
    fn insert(&self, filters: &mut BTreeMap<Pref, Filter>, prefs: [Pref; 2], filter: Filter) {
        let at = |pref: Pref| self.ours.and_then(|filters| filters.get(&pref));
        let [a, b] = prefs;
        let is_free = at(a).is_none() && !self.observed.is_strange(self.port, self.parent.at(a));
        let pref =
            if at(a) == Some(&filter) || (at(b) != Some(&filter) && is_free) { a } else { b };
        filters.insert(pref, filter);
    }
}
