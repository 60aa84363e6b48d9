//! What a policy means on a host, as a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Facts, LinkFacts, Observation};
use crate::model::Model;
use crate::policy::Diagnostic;
use crate::tree::LinkName;
use crate::units::ClassId;

/// What a policy means on a host as it was seen.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// What was seen, as far as it is believed: who stands counts as running, links that are unfit
    /// are as they were when they were fit.
    pub observation: Observation,
    /// The policy as meant.
    pub model: Model,
    /// What is to be said.
    pub warnings: Vec<Diagnostic>,
    /// Classes of accounts that leave and may still hold packets.
    pub draining: BTreeSet<ClassId>,
    /// Links on which what was seen is desired. What is strange there is to stay as well: planning
    /// takes it out of the observation.
    pub left_alone: BTreeSet<LinkName>,
    /// Links that are passed over, by ifindex, because somebody else's root qdisc stands there.
    pub in_the_way: BTreeSet<u32>,
}

impl Meaning {
    /// What was true when it was looked.
    pub fn facts(&self) -> &Facts {
        &self.observation.facts
    }

    /// The facts of the links that the model is about.
    pub fn good_links(&self) -> BTreeMap<LinkName, LinkFacts> {
        let facts = |name: &LinkName| Some((name.clone(), self.facts().links.get(name)?.clone()));
        self.model.links.iter().filter_map(|link| facts(&link.port.link)).collect()
    }
}
