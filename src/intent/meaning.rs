//! What a policy means on a host, as a value.

use std::collections::{BTreeMap, BTreeSet};

use super::trial::PassedOver;
use crate::facts::{Facts, LinkFacts, Observation};
use crate::model::Model;
use crate::policy::Diagnostic;
use crate::tree::LinkName;
use crate::units::ClassId;

/// What a policy means on a host as it was seen.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// The observation as decisions take it: owners whose class stands count as running, and unfit
    /// links have the facts from when they were fit.
    pub observation: Observation,
    /// The model that the policy makes of these facts.
    pub model: Model,
    /// Warnings and notes for whoever wrote the policy.
    pub warnings: Vec<Diagnostic>,
    /// Classes of accounts that leave, to which packets may still come.
    pub draining: BTreeSet<ClassId>,
    /// Links on which what was seen is desired. What is strange there is to stay as well: planning
    /// takes it out of the observation.
    pub left_alone: BTreeSet<LinkName>,
    /// Links that are there and not shaped, although the policy means them: somebody else has there
    /// what that takes, or the policy cannot hold there.
    pub passed_over: PassedOver,
}

impl Meaning {
    /// The facts of the look.
    pub fn facts(&self) -> &Facts {
        &self.observation.facts
    }

    /// The facts of the links that the model is about.
    pub fn good_links(&self) -> BTreeMap<LinkName, LinkFacts> {
        let facts = |name: &LinkName| Some((name.clone(), self.facts().links.get(name)?.clone()));
        self.model.links.iter().filter_map(|link| facts(&link.port.link)).collect()
    }
}
