//! Links that are not as the policy needs them, and what is made of a policy all the same: one link
//! keeps no other from being shaped.

use std::collections::{BTreeMap, BTreeSet};

use super::{Meaning, Session};
use crate::facts::{Facts, LinkFacts};
use crate::failure::Failure;
use crate::model::{self, BuildOptions, Model};
use crate::policy::{Diagnostic, Kind, LinkRef, Report, Severity};
use crate::tree::LinkName;

impl Session {
    /// A model although some links are not as the policy needs them: one that was well before is
    /// taken to be so still (a cable is out, a switch gives a lower speed, a tunnel has the default
    /// route); another one is passed over.
    pub(super) fn with_what_links_allow(
        &mut self,
        facts: &mut Facts,
        options: BuildOptions,
    ) -> Result<(Model, Vec<Diagnostic>), Failure> {
        self.in_the_way.clear();
        let mut said = Vec::new();
        let mut strict = true;
        loop {
            let (model, mut warnings) = match model::build(&self.policy, facts, options) {
                Ok(built) => built,
                Err(report) if strict => {
                    let unfit = self.unfit(&report, facts);
                    if unfit.is_empty() {
                        strict = false;
                        let why = report.first().map_or("", |first| &first.message);
                        said.push(format!("{why}: links are taken to be as they were"));
                        self.links_as_they_were(facts, &BTreeSet::new());
                    } else {
                        said.extend(unfit.values().map(|why| format!("{why}; it is passed over")));
                        self.links_as_they_were(facts, &unfit.into_keys().collect());
                    }
                    continue;
                }
                Err(report) => return Err(report.into()),
            };
            let Some((link, problem)) = self.root_in_the_way(&model, facts) else {
                let warning = |why| Diagnostic::warning(Kind::Link, None, why);
                warnings.extend(said.into_iter().map(warning));
                return Ok((model, warnings));
            };
            said.push(format!("{problem}; it is passed over"));
            let passed_over = facts.links.remove(&link);
            self.in_the_way.extend(passed_over.map(|link| link.ifindex));
        }
    }

    /// New links that an error is about, each with the error: they need not keep the others from
    /// being shaped.
    fn unfit(&self, report: &Report, facts: &Facts) -> BTreeMap<LinkName, String> {
        let mut unfit = BTreeMap::new();
        for line in &self.policy.links {
            let spans = [Some(line.name.at), line.rate.as_ref().map(|rate| rate.at)];
            let is_about = |it: &&Diagnostic| {
                it.severity == Severity::Error && it.at.is_some_and(|at| spans.contains(&Some(at)))
            };
            let Some(error) = report.diagnostics.iter().find(is_about) else { continue };
            let is_new = |(name, link): &(&LinkName, &LinkFacts)| {
                line.name.value.means(name, &link.altnames) && !self.good.contains_key(*name)
            };
            let new = facts.links.iter().filter(is_new);
            unfit.extend(new.map(|(name, _)| (name.clone(), error.message.clone())));
        }
        unfit
    }

    /// Takes links to be as they were when all was well. Those that are new and `unfit` are not
    /// there, or, where it is not known which are, all new ones.
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

    /// Links that stand and that the policy means, but not now: the model passed them over, or
    /// `auto` finds no link and may be any of them.
    pub(super) fn passed_over<'a>(
        &self,
        meaning: &'a Meaning,
    ) -> impl Iterator<Item = &'a LinkName> + use<'a> {
        let Meaning { snapshot, model, .. } = meaning;
        let facts = &snapshot.facts().links;
        let open: Vec<&LinkRef> = self
            .policy
            .links
            .iter()
            .filter(|line| model.links.iter().all(|link| link.place != line.name.at.place))
            .map(|line| &line.name.value)
            .collect();
        let shaped = |name: &LinkName| model.links.iter().any(|link| link.port.link == *name);
        let is_shaped = |index: u32| {
            model
                .links
                .iter()
                .any(|link| facts.get(&link.port.link).is_some_and(|f| f.ifindex == index))
        };
        let is_open = |name: &LinkName| {
            let device = facts.get(name);
            // A port is its master's once that is shaped.
            let is_port = device.and_then(|device| device.master).is_some_and(is_shaped);
            let altnames = device.map_or(&[][..], |device| &device.altnames);
            open.iter().any(|line| match line {
                LinkRef::Auto => true,
                LinkRef::Pattern(_) if is_port => false,
                line => line.means(name, altnames),
            })
        };
        let standing = snapshot.observation.state.trees.keys();
        let names: BTreeSet<&LinkName> =
            standing.map(|port| &port.link).filter(|name| is_open(name) && !shaped(name)).collect();
        names.into_iter()
    }
}
