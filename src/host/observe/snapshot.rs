//! All that one look saw.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::drops::LeavesDrops;
use super::passage::Passage;
use super::tree::{RuleHits, SeenTree};
use crate::facts::{Facts, Observation};
use crate::process::Scan;
use crate::tree::{Counted, Counters, LinkName, Port};
use crate::units::ClassId;

/// The result of one look.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Our own objects, foreign ones among them, and the facts.
    pub observation: Observation,
    /// The counters of our classes, by port.
    pub counters: Counted,
    /// Packets that went past every class, by port: there was no default class for them.
    pub direct_packets: BTreeMap<Port, u32>,
    /// How many packets each line of `rules` has matched since its filter was made, by port.
    pub rules: BTreeMap<Port, BTreeMap<NonZeroU32, RuleHits>>,
    /// What has come by links with a `down`, and what of it was led on; empty until counters are
    /// read again.
    pub passages: BTreeMap<LinkName, Passage>,
    /// One pass over `/proc`; empty where it was not wanted.
    pub scan: Scan,
    /// What leaves have dropped; empty until counters are read again.
    pub(super) drops: LeavesDrops,
}

impl Snapshot {
    /// The facts, which are enough to build a model.
    pub fn facts(&self) -> &Facts {
        &self.observation.facts
    }

    /// The counters of a class of ours.
    pub fn counters(&self, port: &Port, classid: ClassId) -> Option<&Counters> {
        self.counters.get(port)?.get(&classid)
    }

    /// Takes in the tree at a port, with its counters and the foreign objects in it.
    pub(super) fn add_tree(&mut self, port: Port, seen: SeenTree) {
        let SeenTree {
            tree,
            strange,
            counters,
            direct_packets,
            rules,
            foreign,
            bound,
            maps,
            programs,
            finders: _,
            pulses: _,
        } = seen;
        let observation = &mut self.observation;
        observation.state.trees.insert(port.clone(), tree);
        if !strange.is_empty() {
            let here = observation.strange.entry(port.clone()).or_default();
            here.filters.extend(strange.filters);
            (here.leaves, here.tables) = (strange.leaves, strange.tables);
        }
        observation.foreign.extend(foreign);
        observation.bound.extend(bound);
        let maps = maps.into_iter().map(|((at, pref), ids)| ((port.clone(), at, pref), ids));
        observation.deciding.extend(maps);
        let programs = programs.into_iter().map(|(pref, name)| ((port.clone(), pref), name));
        observation.unread.rules.extend(programs);
        self.direct_packets.extend(direct_packets.map(|packets| (port.clone(), packets)));
        self.rules.insert(port.clone(), rules);
        self.counters.insert(port, counters);
    }
}
