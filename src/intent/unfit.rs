//! Links that are not as the policy needs them, and the model of all others: one link keeps no
//! other from being shaped.

use std::collections::{BTreeMap, BTreeSet};

use super::{Intent, Refusal};
use crate::facts::{Facts, LinkFacts, Observation};
use crate::model::{self, BuildOptions, Model};
use crate::policy::{Diagnostic, Kind, Report};
use crate::tree::LinkName;

/// The model of those links that can be shaped.
pub(super) struct Fitted {
    pub model: Model,
    pub warnings: Vec<Diagnostic>,
    /// Links that are passed over, by ifindex, because somebody else's root qdisc stands there.
    pub in_the_way: BTreeSet<u32>,
}

impl Intent {
    /// The model of all links as the policy has them, or, where links may be absent, of those that
    /// are fit.
    pub(super) fn fit(&self, seen: &mut Observation) -> Result<Fitted, Refusal> {
        match self.options.absent_links {
            true => self.with_what_links_allow(seen),
            false => self.as_written(seen),
        }
    }

    fn build_options(&self) -> BuildOptions {
        let super::Options { skip_unknown, absent_links, .. } = self.options;
        BuildOptions { offline: false, skip_unknown, skip_absent: true, absent_links }
    }

    fn as_written(&self, seen: &Observation) -> Result<Fitted, Refusal> {
        let options = self.build_options();
        let (mut model, mut warnings) = model::build(&self.policy, &seen.facts, options)?;
        // If the host has none of the links, that is more likely a mistake in the policy.
        if model.links.is_empty() {
            let strict = BuildOptions { skip_absent: false, ..options };
            (model, warnings) = model::build(&self.policy, &seen.facts, strict)?;
        }
        match self.root_in_the_way(&model, seen) {
            Some(why) => Err(why.into()),
            None => Ok(Fitted { model, warnings, in_the_way: BTreeSet::new() }),
        }
    }

    /// The model although some links are not as the policy needs them. A link that was fit before
    /// counts as it was then (a cable is out, a switch gives a lower speed, a tunnel has the
    /// default route); any other is passed over.
    fn with_what_links_allow(&self, seen: &mut Observation) -> Result<Fitted, Refusal> {
        let mut in_the_way = BTreeSet::new();
        let mut said = Vec::new();
        let mut strict = true;
        loop {
            let (model, mut warnings) =
                match model::build(&self.policy, &seen.facts, self.build_options()) {
                    Ok(built) => built,
                    Err(report) if strict => {
                        let facts = &mut seen.facts;
                        let unfit = self.unfit(&report, facts);
                        if unfit.is_empty() {
                            strict = false;
                            let why = report.first().map_or("", |first| &first.message);
                            said.push(format!("{why}: links are taken to be as they were"));
                            self.links_as_they_were(facts, &BTreeSet::new());
                        } else {
                            said.extend(
                                unfit.values().map(|why| format!("{why}; it is passed over")),
                            );
                            self.links_as_they_were(facts, &unfit.into_keys().collect());
                        }
                        continue;
                    }
                    Err(report) => return Err(report.into()),
                };
            let Some(why) = self.root_in_the_way(&model, seen) else {
                let warning = |why| Diagnostic::warning(Kind::Link, None, why);
                warnings.extend(said.into_iter().map(warning));
                return Ok(Fitted { model, warnings, in_the_way });
            };
            said.push(format!("{why}; it is passed over"));
            let passed_over = seen.facts.links.remove(why.link());
            in_the_way.extend(passed_over.map(|link| link.ifindex));
        }
    }

    /// New links that an error is about, each with the error. They are passed over, so that the
    /// others are shaped.
    fn unfit(&self, report: &Report, facts: &Facts) -> BTreeMap<LinkName, String> {
        let mut unfit = BTreeMap::new();
        for line in &self.policy.links {
            let in_windows = line.when.iter().filter_map(|when| when.rate);
            let rates = line.rate.into_iter().chain(in_windows).map(|rate| rate.at);
            let spans: Vec<_> = rates.chain([line.name.at]).collect();
            let is_about = |it: &&Diagnostic| it.at.is_some_and(|at| spans.contains(&at));
            let Some(error) = report.diagnostics.iter().find(is_about) else { continue };
            let is_new = |(name, link): &(&LinkName, &LinkFacts)| {
                line.name.value.means(name, &link.altnames) && !self.good.contains_key(*name)
            };
            let new = facts.links.iter().filter(is_new);
            unfit.extend(new.map(|(name, _)| (name.clone(), error.message.clone())));
        }
        unfit
    }

    /// Gives links the facts from when they were fit. New links that are `unfit` count as absent;
    /// where `unfit` is empty, because no error names a link, all new ones that lines mean do.
    fn links_as_they_were(&self, facts: &mut Facts, unfit: &BTreeSet<LinkName>) {
        let named = |name: &LinkName, link: &LinkFacts| {
            self.policy.links.iter().any(|line| line.name.value.means(name, &link.altnames))
        };
        facts.links.retain(|name, link| {
            match self.good.get(name) {
                Some(good) => {
                    link.speed = good.speed;
                    link.default_route_v4 = good.default_route_v4;
                    link.default_route_v6 = good.default_route_v6;
                }
                // `auto` goes to no other link meanwhile.
                None if !unfit.is_empty() => {}
                None => (link.default_route_v4, link.default_route_v6) = (None, None),
            }
            match unfit.is_empty() {
                true => self.good.contains_key(name) || !named(name, link),
                false => !unfit.contains(name),
            }
        });
    }
}
