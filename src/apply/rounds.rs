//! The rounds of a run: look, plan, build, place, tear down, look again; and another look where the
//! kernel contradicts the one that the plan was made with.

use std::time::{Duration, Instant};

use super::applied::{Applied, InForce};
use super::drain::begin_to_drain;
use super::options::ApplyOptions;
use super::place::place_seen;
use super::session::{Look, Request, Session};
use crate::cgroup::{self, Locked};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::host::execute::{self, Cause, Failed, Gate};
use crate::host::observe::{self, Directories, ObserveError, Wanted};
use crate::intent::{MOST_ROUNDS, Meaning, Next, Rounds};
use crate::plan::{Change, Journal, Phase, Plan, Step, Whole, diff};
use crate::process::{Scan, Seen};
use crate::sys::signal;
use crate::tree::{Claim, KernelState, LinkName, Port};

/// How often the kernel may contradict the look of a moment before.
const MAX_CONTRADICTIONS: u32 = 5;
/// The pause before the third look; each later pause is longer by as much.
const CONTRADICTED: Duration = Duration::from_millis(20);

/// How long steps may take without making the look at all processes too old. Asking NSS and
/// planning for 10,000 users take as long.
const JUST_NOW: Duration = Duration::from_millis(50);

/// What ended a run that had begun to change things.
pub(super) enum Trouble {
    Step(Failed),
    Other(Failure),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Trouble {
        Trouble::Step(failed)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Other(failure)
    }
}

impl From<ObserveError> for Trouble {
    fn from(error: ObserveError) -> Trouble {
        Trouble::Other(error.into())
    }
}

impl From<cgroup::Error> for Trouble {
    fn from(error: cgroup::Error) -> Trouble {
        Trouble::Other(error.into())
    }
}

pub(super) struct Run<'s, 'g> {
    pub session: &'s mut Session,
    pub locked: &'s Locked,
    /// The request, with what became known in this run: accounts that came, links that went.
    pub request: Request,
    pub may: ApplyOptions,
    pub gate: Gate<'g>,
    pub applied: Applied,
    pub journal: Journal,
    /// Whether a link that this round was to shape went meanwhile.
    pub link_went: bool,
    /// All claims were moved to the instance's other place, so that processes are placed, and
    /// connections given, before the filters are exchanged that go by that.
    pub moves: bool,
}

impl Run<'_, '_> {
    /// Runs rounds until nothing is left to do. `planned`: the plan from `look`, where it was made
    /// already.
    pub(super) fn finish(
        &mut self,
        mut look: Look,
        mut planned: Option<(Plan, KernelState)>,
    ) -> Result<(), Trouble> {
        self.request.intent.good = look.meaning.good_links();
        let mut rounds = Rounds::default();
        let mut contradictions = 0;
        for _ in 0..MOST_ROUNDS {
            let before = self.applied.steps.len();
            let next = match planned.take() {
                Some(planned) => planned,
                None => self.session.plan(&self.request.intent, &mut look.meaning)?,
            };
            let done = match self.round(next, &mut look) {
                Ok(done) => done,
                Err(trouble) => {
                    contradictions += 1;
                    (look, planned) = self.another_look(trouble, contradictions)?;
                    continue;
                }
            };
            if std::mem::take(&mut self.link_went) {
                look = self.look_again()?;
                continue;
            }
            let waiting = &self.applied.placement.waiting;
            let (quiet, comes) = (self.may.quiet, !waiting.is_empty());
            // Newcomers need classes, also those whose process acts as root again at the next
            // look (`follow`).
            let newcomers = waiting.keys().filter_map(Claim::comes_and_goes).cloned();
            self.request.intent.came.extend(newcomers);
            let steps = self.applied.steps.get(before..).unwrap_or_default();
            let stands = (&done, &look.meaning.draining);
            match (rounds.after(steps, stands, (comes, quiet.is_some())), quiet) {
                (Next::Quiet, Some(quiet)) => look = self.wait_for_quiet(quiet, &done)?,
                (Next::Quiet, None) | (Next::Look, _) => look = self.look()?,
                (Next::Done, _) => {
                    let netlink = &mut self.session.kernel.netlink;
                    let ifbs =
                        observe::indexes(netlink, done.ifbs.keys()).map_err(ObserveError::from)?;
                    self.applied.in_force = Some(InForce::new(look.meaning, done, ifbs));
                    break;
                }
            }
        }
        self.applied.messages = self.session.kernel.netlink.changes_sent();
        // Afterwards, since it asks for the classes that owners have now.
        if let Err(error) = execute::refresh_servers(&mut self.session.kernel) {
            log::warn!("what nobody answers arrives in the default class: {error}");
        }
        Ok(())
    }

    /// After a step was refused, or the verification found something left to do: the look may be
    /// outdated, so this looks and plans again. Returns the trouble itself where the new plan has
    /// the same step and the refusal does not contradict the look, or did so too often. A tree that
    /// this run made and that must be made again contradicts the look too: somebody deleted its
    /// root meanwhile, and then EINVAL refuses a class or filter below.
    fn another_look(
        &mut self,
        trouble: Trouble,
        contradictions: u32,
    ) -> Result<(Look, Option<(Plan, KernelState)>), Trouble> {
        let Trouble::Step(failed) = &trouble else { return Err(trouble) };
        if contradictions > MAX_CONTRADICTIONS || !failed.source.may_be_outdated() {
            return Err(trouble);
        }
        log::debug!("`{}`: {failed}; looking again", failed.step);
        std::thread::sleep(CONTRADICTED.saturating_mul(contradictions - 1));
        let Ok(mut look) = self.look_again() else { return Err(trouble) };
        let Ok(planned) = self.session.plan(&self.request.intent, &mut look.meaning) else {
            return Err(trouble);
        };
        let steps = || planned.0.steps.iter().map(|planned| &planned.step);
        let is_wanted = steps().any(|step| step == &*failed.step);
        let links = &look.meaning.facts().links;
        let made_here = |port: &Port| {
            let facts = links.get(&port.link);
            facts.is_some_and(|facts| self.journal.has_root(port.at(facts.ifindex)))
        };
        let was_undone =
            steps().any(|step| matches!(step, Step::Root(port, Whole::Add(_)) if made_here(port)));
        let contradicts = failed.source.contradicts() || was_undone;
        if is_wanted && contradictions > 1 && !contradicts {
            return Err(trouble);
        }
        Ok((look, Some(planned)))
    }

    fn look(&mut self) -> Result<Look, Failure> {
        let look = self.session.look(&self.request)?;
        self.request.intent.good = look.meaning.good_links();
        Ok(look)
    }

    /// A look in the middle of a run: a link that went since it began is passed over.
    fn look_again(&mut self) -> Result<Look, Failure> {
        self.request.intent.options.absent_links = true;
        self.look()
    }

    /// Waits, so that retired classes can drain, and looks which of them have.
    fn wait_for_quiet(&mut self, quiet: Duration, done: &KernelState) -> Result<Look, Trouble> {
        let earlier = begin_to_drain(&mut self.session.kernel, self.locked, done)?;
        wait(quiet)?;
        let before = self.request.earlier.replace(earlier);
        let look = self.look();
        self.request.earlier = before;
        Ok(look?)
    }

    /// Performs and verifies one plan; returns the state that it was for.
    fn round(
        &mut self,
        (mut plan, desired): (Plan, KernelState),
        look: &mut Look,
    ) -> Result<KernelState, Trouble> {
        self.applied.warnings.clone_from(&look.meaning.warnings);
        self.applied.psched = look.meaning.facts().psched;
        self.applied.left = match self.may.disrupt {
            true => Vec::new(),
            false => plan.without_disruption(&look.meaning.observation.state),
        };
        if !self.may.learns {
            self.applied.postponed = !plan.before_learning().is_empty();
        }
        let outcome = self.carry_out(&plan, look).and_then(|()| match plan.is_empty() {
            true => Ok(()),
            false => self.verify(&desired, &look.meaning),
        });
        if outcome.is_err() {
            let links = &look.meaning.facts().links;
            let index = |step: &Step| step.link().and_then(|name| Some(links.get(name)?.ifindex));
            plan.steps.retain(|it| self.journal.covers(&it.step, index(&it.step).unwrap_or(0)));
        }
        self.applied.steps.extend(plan.steps);
        outcome.map(|()| desired)
    }

    /// Builds, places and tears down; places again if the tear-down moved processes out of
    /// directories.
    fn carry_out(&mut self, plan: &Plan, look: &mut Look) -> Result<(), Trouble> {
        let began = Instant::now();
        let makes_maps = |step: &Step| matches!(step, Step::Owners(Whole::Add(_)));
        if self.request.who.moves_processes() && plan.phase(Phase::Build).any(makes_maps) {
            let Meaning { model, observation, .. } = &mut look.meaning;
            let facts = &mut observation.facts;
            let (kernel, processes) = (&self.session.kernel, &look.scan.processes);
            facts.given = kernel.given(processes, &model.matcher, &facts.accounts)?;
        }
        if std::mem::take(&mut self.moves) && self.request.who.moves_processes() {
            self.place(None, look)?;
        }
        self.perform(plan, Phase::Build, look)?;
        if self.request.who.moves_processes() {
            let steps_took = (!plan.is_empty()).then(|| began.elapsed());
            let seen = seen_before(steps_took, std::mem::take(&mut look.scan));
            self.place(Some(seen), look)?;
        }
        self.perform(plan, Phase::TearDown, look)?;
        let evicted = plan
            .phase(Phase::TearDown)
            .any(|step| matches!(step, Step::Claim(_, Change::Remove(_))));
        if evicted && self.request.who.moves_processes() {
            self.place(None, look)?;
        }
        Ok(())
    }

    fn perform(&mut self, plan: &Plan, phase: Phase, look: &Look) -> Result<(), Trouble> {
        let observation = &look.meaning.observation;
        let kernel = &mut self.session.kernel;
        let (facts, steps) = (&observation.facts, plan.phase(phase));
        let (done, outcome) = execute::perform(kernel, self.locked, facts, steps, self.gate);
        self.journal.extend(done);
        Ok(outcome?)
    }

    fn place(&mut self, seen: Option<Seen>, look: &Look) -> Result<(), Trouble> {
        let accounts = &look.meaning.observation.facts.accounts;
        let placement = place_seen(self.session, &look.meaning.model, accounts, seen)?;
        self.applied.members(placement);
        Ok(())
    }

    /// Looks again: whatever is still to do (but what was left undone on purpose) is a failure.
    /// `meaning`: what the plan was made from; of a link that went since, nothing is to do.
    fn verify(&mut self, desired: &KernelState, meaning: &Meaning) -> Result<(), Trouble> {
        let before = &meaning.observation;
        let links = desired.trees.keys().map(|port| port.link.to_string()).collect();
        let directories = Directories::Touched { before, touched: self.journal.claims() };
        let wanted = Wanted { links, directories, ..Wanted::default() };
        let mut now = observe::observe(&mut self.session.kernel, wanted)?.observation;
        now.strange.retain(|port, _| !meaning.left_alone.contains(&port.link));
        now.facts.busy.clone_from(&before.facts.busy);
        let mut missing = diff(&now, desired);
        if !self.may.disrupt {
            missing.without_disruption(&now.state);
        }
        if self.applied.postponed {
            missing.before_learning();
        }
        // On a held link somebody may change things during this look, too.
        let held = &self.request.intent.held;
        missing.steps.retain(|planned| planned.step.link().is_none_or(|link| !held.contains(link)));
        let index = |facts: &Facts, link: &LinkName| facts.links.get(link).map(|it| it.ifindex);
        let went = |link: &LinkName| index(&before.facts, link) != index(&now.facts, link);
        self.link_went = desired.trees.keys().any(|port| went(&port.link));
        missing.steps.retain(|planned| planned.step.link().is_none_or(|link| !went(link)));
        let Some(first) = missing.steps.first() else { return Ok(()) };
        let cause = Cause::Unverified(missing.to_string());
        let failed =
            Failed { step: Box::new(first.step.clone()), message: None, source: Box::new(cause) };
        Err(failed.into())
    }
}

/// A look at all processes, as fresh as the steps since then let it be. `steps_took`: how long they
/// took; `None`: there were none.
fn seen_before(steps_took: Option<Duration>, scan: Scan) -> Seen {
    match steps_took.is_none_or(|time| time < JUST_NOW) {
        true => Seen::JustNow(scan),
        false => Seen::Before(scan),
    }
}

/// Sleeps unless a signal comes.
fn wait(duration: Duration) -> Result<(), Failure> {
    let until = Instant::now() + duration;
    while let Some(left) =
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        if let Some(signal) = signal::caught() {
            return Err(Failure::Interrupted {
                signal,
                message: "interrupted while waiting for retired classes to drain".to_string(),
            });
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_steps_that_took_long_all_processes_are_read_again() {
        let is_fresh = |took| matches!(seen_before(took, Scan::default()), Seen::JustNow(_));
        assert!(is_fresh(None));
        let soon = [Duration::ZERO, JUST_NOW / 2, JUST_NOW - Duration::from_nanos(1)];
        assert!(soon.into_iter().all(|time| is_fresh(Some(time))));
        let late = [JUST_NOW, 2 * JUST_NOW, Duration::from_secs(9)];
        assert!(!late.into_iter().any(|time| is_fresh(Some(time))));
    }
}
