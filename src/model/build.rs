//! `Policy` and `Facts` → `Model`: the parts of the model in the order in which one needs the
//! other. Touches nothing.

use crate::facts::Facts;
use crate::policy::{Diagnostic, Findings, Policy, Report, UserLine};

use super::options::BuildOptions;
use super::quotas::{self, Quotas};
use super::schedule::Schedule;
use super::senders::Senders;
use super::shaped::Links;
use super::{Matcher, Model, arriving, claims, groups, inner, links, nodes, proxied, rules, steps};

/// Resolves a policy on this host. The result holds the warnings and notes too, in file order.
///
/// # Errors
/// Everything that the lines say together and that cannot be so: unknown names, double claims,
/// rates above their parent's, promises that add up to too much, rules that match nothing. The
/// kernel refuses almost none of these itself. No warning is among them.
pub fn build(
    policy: &Policy,
    facts: &Facts,
    options: BuildOptions,
) -> Result<(Model, Vec<Diagnostic>), Report> {
    let mut findings = Findings::default();
    let schedule = Schedule::new(policy, facts, &mut findings);
    let situation = schedule.at(facts.now);
    let mut links = links::resolve(policy, &situation, facts, options, &mut findings);
    arriving::unlinked(&links, &mut findings);
    let claims = claims::resolve(policy, facts, options, &mut findings);
    let groups = groups::resolve(policy, facts, &claims, &mut findings);
    let mut nodes = nodes::resolve(facts, &links, &claims, &groups, &mut findings);
    let metered = Quotas::new(policy, facts, &mut findings).hold(facts, &links, &mut nodes);
    let senders = Senders { policy, matcher: &claims.matcher, facts, options };
    let rules = rules::resolve(&senders, &links, &mut findings);
    let shaped = links.shaped.iter().map(|shaped| shaped.link.port.link.clone()).collect();
    let names_guests = policy.users.iter().any(UserLine::has_guests) || !policy.guests.is_empty();
    let inner = names_guests.then(|| inner::resolve(&senders, &shaped, &mut findings));
    let proxied = inner.as_ref().map(|inner| proxied::proxied(facts, inner)).unwrap_or_default();
    let about = |links: &Links<'_>| {
        let mut about = Findings::default();
        nodes::resolve(facts, links, &claims, &groups, &mut about);
        about.without_notes()
    };
    // What no rate of a link makes right is refused, also where the rate is unknown.
    let unrated = links.only_unrated();
    if !unrated.shaped.is_empty() && !findings.has_errors() {
        findings.append(about(&unrated), false);
    }
    // Limits that cannot be on a link that may come are warned of now, not only when it comes.
    let (to_come, mut is_warned) = (links.only_to_come(), false);
    if !to_come.shaped.is_empty() && !findings.has_errors() {
        let about = about(&to_come);
        is_warned = about.has_errors();
        findings.append(about, true);
    }
    let others = Others { policy, facts, options, schedule: &schedule };
    others.refuse(about, is_warned, &mut findings);
    schedule.notes(policy, facts.now, &mut findings);
    quotas::notes(policy, &mut findings);
    steps::notes(policy, &mut findings);
    let notes = findings.finish(&policy.source)?;
    let (links, unfit) = links.into_model();
    let classifiers = policy.links.iter().map(|line| line.classifier).collect();
    let matcher = Matcher { proxied, ..claims.matcher };
    let turns = metered.owners.values().filter_map(|it| it.together.changes);
    let valid_until = turns.chain(situation.until()).min();
    let model =
        Model { links, unfit, classifiers, nodes, matcher, inner, rules, metered, valid_until };
    Ok((model, notes))
}

/// The situations in which other windows hold than now.
struct Others<'a> {
    policy: &'a Policy,
    facts: &'a Facts,
    options: BuildOptions,
    schedule: &'a Schedule<'a>,
}

impl Others<'_> {
    /// What cannot be in one of them is refused now, and not when it begins. `is_warned`: what
    /// cannot be on a link that may come has been said, and is not said again.
    fn refuse(
        self,
        about: impl Fn(&Links<'_>) -> Findings,
        mut is_warned: bool,
        findings: &mut Findings,
    ) {
        for (moment, words) in self.schedule.others(self.facts.now) {
            if findings.has_errors() {
                break;
            }
            let mut wrong = Findings::default();
            let situation = self.schedule.at(moment);
            let (policy, facts) = (self.policy, self.facts);
            let mut links = links::resolve(policy, &situation, facts, self.options, &mut wrong);
            let (unrated, to_come) = (links.only_unrated(), links.only_to_come());
            wrong.append(about(&links), false);
            if !unrated.shaped.is_empty() && !wrong.has_errors() {
                wrong.append(about(&unrated), false);
            }
            findings.append(wrong.only_errors(&words), false);
            if !to_come.shaped.is_empty() && !is_warned && !findings.has_errors() {
                let warned = about(&to_come).only_errors(&words);
                is_warned = warned.has_errors();
                findings.append(warned, true);
            }
        }
    }
}
