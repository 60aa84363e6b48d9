//! Links that are not as the policy needs them, and the model of all others: one link keeps no
//! other from being shaped.

use super::trial::{Misfit, Outcome, PassedOver, Tried};
use super::{Intent, NoneFits, Refusal};
use crate::desired::{self, Impossible};
use crate::facts::{Facts, LinkFacts, Observation, default_route};
use crate::model::{self, BuildOptions, Model};
use crate::policy::{Diagnostic, Kind, LinkLine, LinkRef, Report, quote};
use crate::tree::LinkName;

/// The model of those links that can be shaped.
pub(super) struct Fitted {
    pub model: Model,
    pub warnings: Vec<Diagnostic>,
    pub passed_over: PassedOver,
}

impl Intent {
    /// The model of all links as the policy has them, or, where links may be absent, of those that
    /// are fit. `tried`: what came of trials before.
    pub(super) fn fit(&self, seen: &mut Observation, tried: &mut Tried) -> Result<Fitted, Refusal> {
        match self.options.absent_links {
            true => self.with_what_links_allow(seen, tried),
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
            None => Ok(Fitted { model, warnings, passed_over: PassedOver::new() }),
        }
    }

    /// The model although some links are not as the policy needs them: those are passed over. Where
    /// a line would have no link by that, a link that was fit before counts as it was then (a cable
    /// is out, a switch gives a lower speed, a tunnel has the default route).
    fn with_what_links_allow(
        &self,
        seen: &mut Observation,
        tried: &mut Tried,
    ) -> Result<Fitted, Refusal> {
        let (mut passed_over, mut said) = (PassedOver::new(), Vec::new());
        let mut outcome = tried.known(self, &seen.facts);
        let mut is_tried = outcome.is_some();
        let (model, mut warnings) = loop {
            if let Some(Outcome { links, unfit, as_they_were }) = outcome.take() {
                seen.facts.links = links;
                passed_over.extend(unfit);
                said.extend(as_they_were);
            }
            let (model, warnings) = match self.build(&seen.facts) {
                Ok(built) => built,
                Err(report) if !is_tried => {
                    is_tried = true;
                    outcome = Some(self.try_links(&seen.facts, &report, tried)?);
                    continue;
                }
                Err(report) => return Err(report.into()),
            };
            let Some((link, why)) = self.in_the_way(&model, seen) else { break (model, warnings) };
            if let Some(LinkFacts { ifindex, .. }) = seen.facts.links.remove(&link) {
                if self.is_autos(&model, &link) {
                    self.keep_auto(&mut seen.facts);
                }
                passed_over.insert(link, Misfit { ifindex, why });
            }
        };
        passed_over.extend(model.unfit.iter().filter_map(|(name, why)| {
            let ifindex = seen.facts.links.get(name)?.ifindex;
            Some((name.clone(), Misfit { ifindex, why: why.clone() }))
        }));
        let is_refused = self.options.none_fits == NoneFits::Refused;
        if is_refused && model.links.is_empty() && !passed_over.is_empty() {
            let error = |it: Misfit| Diagnostic::error(Kind::Link, self.policy.links_at, it.why);
            let errors = passed_over.into_values().map(error).collect();
            return Err(Report::new(&self.policy.source, errors).into());
        }
        let warning = |why| Diagnostic::warning(Kind::Link, None, why);
        self.say_who_is_passed_over(&passed_over, (&model, &seen.facts), &mut warnings);
        warnings.extend(said.into_iter().map(warning));
        Ok(Fitted { model, warnings, passed_over })
    }

    fn build(&self, facts: &Facts) -> Result<(Model, Vec<Diagnostic>), Report> {
        model::build(&self.policy, facts, self.build_options())
    }

    /// Finds the links with which the policy can hold, after it could not with all of them.
    fn try_links(
        &self,
        facts: &Facts,
        report: &Report,
        tried: &mut Tried,
    ) -> Result<Outcome, Refusal> {
        let mut fitting = facts.clone();
        let (unfit, as_they_were) = self.without_unfit(&mut fitting, report)?;
        let (model, _) = self.build(&fitting)?;
        let why = report.first().map_or("", |first| &first.message);
        let as_they_were =
            as_they_were.then(|| format!("{why}: links are taken to be as they were"));
        let outcome = Outcome { links: fitting.links, unfit, as_they_were };
        tried.learn((self, facts.clone()), outcome.clone(), model.valid_until);
        Ok(outcome)
    }

    /// Whether it is `auto` that means this link.
    fn is_autos(&self, model: &Model, link: &LinkName) -> bool {
        let mut lines = self.policy.links.iter().filter(|line| line.name.value == LinkRef::Auto);
        lines
            .any(|line| model.links.iter().any(|it| it.at == line.name.at && it.port.link == *link))
    }

    /// Where the link of the default route is passed over, `auto` goes to no other one: it means
    /// the link that it meant before, if it is there, or none.
    fn keep_auto(&self, facts: &mut Facts) {
        let before = default_route(&self.good).map(|(name, _)| name);
        for (name, link) in &mut facts.links {
            let good = self.good.get(name).filter(|_| before == Some(name));
            link.default_route_v4 = good.and_then(|good| good.default_route_v4);
            link.default_route_v6 = good.and_then(|good| good.default_route_v6);
        }
    }

    /// A link where somebody else has what shaping takes, and what it is.
    fn in_the_way(&self, model: &Model, seen: &Observation) -> Option<(LinkName, String)> {
        let root = self.root_in_the_way(model, seen).map(|it| (it.link().clone(), it.to_string()));
        root.or_else(|| {
            let (link, why) = desired::down_in_the_way(model, seen)?;
            Some((link.clone(), Impossible::Down { link, why }.to_string()))
        })
    }

    /// A warning of each link that is passed over, instead of one that its line means no link.
    fn say_who_is_passed_over(
        &self,
        passed_over: &PassedOver,
        (model, facts): (&Model, &Facts),
        warnings: &mut Vec<Diagnostic>,
    ) {
        for (name, Misfit { why, .. }) in passed_over {
            // Of a link of a pattern it is said already, with the place in the file.
            if model.unfit.contains_key(name) {
                continue;
            }
            let means = |line: &&LinkLine| match line.name.value {
                LinkRef::Auto => facts.default_route().is_none(),
                _ => line.name.value.means(name, &[]),
            };
            let lines: Vec<_> = self.policy.links.iter().filter(means).collect();
            warnings.retain(|it| {
                it.kind != Kind::Link || lines.iter().all(|line| it.at != Some(line.name.at))
            });
            let why = format!("{why}; {} is passed over", quote(name.as_str()));
            warnings.push(Diagnostic::warning(Kind::Link, None, why));
        }
    }

    /// Whether an error is about a link itself, whose speed is not known for example.
    fn is_about_a_link(&self, report: &Report) -> bool {
        let spans = |line: &LinkLine| {
            let in_windows = line.when.iter().filter_map(|when| when.rate);
            let rates = line.rate.into_iter().chain(in_windows).map(|rate| rate.at);
            rates.chain([line.name.at]).collect::<Vec<_>>()
        };
        let spans: Vec<_> = self.policy.links.iter().flat_map(spans).collect();
        report.diagnostics.iter().any(|it| it.at.is_some_and(|at| spans.contains(&at)))
    }

    /// Gives links the facts from when they were fit; whether some had others.
    fn links_as_they_were(&self, facts: &mut Facts) -> bool {
        let mut changed = false;
        for (name, link) in &mut facts.links {
            let Some(good) = self.good.get(name) else { continue };
            let as_it_was = LinkFacts {
                speed: good.speed,
                default_route_v4: good.default_route_v4,
                default_route_v6: good.default_route_v6,
                ..link.clone()
            };
            changed |= *link != as_it_was;
            *link = as_it_was;
        }
        changed
    }

    /// Takes the links out with which the policy cannot hold. Where a line has no link then that
    /// had one, links are taken to be as they were when they were fit; whether that is so.
    fn without_unfit(
        &self,
        facts: &mut Facts,
        report: &Report,
    ) -> Result<(PassedOver, bool), Refusal> {
        if self.good.is_empty() {
            return Ok((self.only_what_fits(facts, report, false)?, false));
        }
        let there = facts.links.clone();
        let is_kept = |line: &LinkLine, model: &Model| {
            let means = |(name, link): (&LinkName, &LinkFacts)| match line.name.value {
                LinkRef::Auto => link.has_default_route(),
                _ => line.name.value.means(name, &link.altnames),
            };
            !self.good.iter().any(means) || model.links.iter().any(|it| it.at == line.name.at)
        };
        if let Ok(unfit) = self.only_what_fits(facts, report, false)
            && let Ok((model, _)) = self.build(facts)
            && self.policy.links.iter().all(|line| is_kept(line, &model))
        {
            return Ok((unfit, false));
        }
        facts.links = there;
        let as_they_were = self.links_as_they_were(facts);
        Ok((self.only_what_fits(facts, report, true)?, as_they_were))
    }

    /// Takes those of the new links out with which the policy cannot hold. They are found by trial,
    /// halves first, since an error may name the line of somebody's whose limits do not fit.
    fn only_what_fits(
        &self,
        facts: &mut Facts,
        report: &Report,
        as_they_were: bool,
    ) -> Result<PassedOver, Refusal> {
        let lines = &self.policy.links;
        let has_auto = as_they_were && self.good.values().any(LinkFacts::has_default_route);
        let is_auto = |line: &LinkLine| line.name.value == LinkRef::Auto;
        let auto = facts.default_route().filter(|_| !has_auto && lines.iter().any(is_auto));
        let auto = auto.map(|(name, _)| name.clone());
        let mut new = Vec::new();
        facts.links.retain(|name, link| {
            if self.good.contains_key(name) {
                return true;
            }
            let is_auto = auto.as_ref() == Some(name);
            // `auto` goes to no other link meanwhile.
            if !is_auto {
                (link.default_route_v4, link.default_route_v6) = (None, None);
            }
            let means = |line: &LinkLine| line.name.value.means(name, &link.altnames);
            let is_meant = is_auto || lines.iter().any(means);
            if is_meant {
                new.push((name.clone(), link.clone()));
            }
            !is_meant
        });
        let mut unfit = PassedOver::new();
        let all = new.len();
        // Without any of them it may be refused as well.
        if !self.good.is_empty() && self.build(facts).is_err() {
            return Err(report.clone().into());
        }
        self.admit(facts, new, &mut unfit);
        let is_refused = match self.options.none_fits {
            NoneFits::PassedOver => all == 0,
            NoneFits::RefusedUnlessTheirs => !self.is_about_a_link(report),
            NoneFits::Refused => true,
        };
        match is_refused && unfit.len() == all && self.good.is_empty() {
            true => Err(report.clone().into()),
            false => Ok(unfit),
        }
    }

    /// Adds those of the links with which the policy can hold.
    fn admit(
        &self,
        facts: &mut Facts,
        mut links: Vec<(LinkName, LinkFacts)>,
        unfit: &mut PassedOver,
    ) {
        if links.is_empty() {
            return;
        }
        facts.links.extend(links.iter().cloned());
        let Err(report) = self.build(facts) else { return };
        facts.links.retain(|name, _| links.iter().all(|(link, _)| link != name));
        let half = links.split_off(links.len() / 2);
        match links.is_empty() {
            false => {
                self.admit(facts, links, unfit);
                self.admit(facts, half, unfit);
            }
            true => unfit.extend(half.into_iter().map(|(name, LinkFacts { ifindex, .. })| {
                let why = report.first().map_or(String::new(), |first| first.message.clone());
                (name, Misfit { ifindex, why })
            })),
        }
    }
}
