//! Makes the kernel match a policy, verifies it, and puts back what was there when a step fails.
//! What `shaper apply` does, and whoever else applies (the daemon, the tests). Looks through
//! `observe`, acts through `execute` and `process::place`.

mod clear;
mod confirm;
mod session;
mod source;
mod undo;
mod unfit;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use clear::clear;
pub use confirm::{confirm, hash};
pub use session::{Meaning, Options, Session, may_change};
pub use source::{Passed, WasRead, read, text_of, way};

use crate::cgroup::{self, Lock};
use crate::execute::{self, Cause, Failed, Gate};
use crate::failure::Failure;
use crate::kernel::Kernel;
use crate::model::Model;
use crate::observe::{self, ObserveError, Sight, Wanted};
use crate::plan::{Journal, Phase, Plan, Planned, Step, diff};
use crate::policy::Diagnostic;
use crate::process::{self, Placement, Seen, Verdict};
use crate::state::{Accounts, Claim, Facts, KernelState, LinkName, Owner};
use crate::sys::signal;
use crate::units::{Minor, Psched};
use undo::Before;

/// Plans that follow from each other: a pin waits for the class that holds its minor to be quiet, an
/// account logs in meanwhile. More than these, and somebody else is changing things as we do.
const MAX_ROUNDS: usize = 8;

/// How often the kernel may contradict what was seen a moment before.
const MAX_CONTRADICTIONS: u32 = 5;
/// The pause before the third look, and each one after it longer by so much.
const CONTRADICTED: Duration = Duration::from_millis(20);

/// A retired class that has sent nothing for so long may go.
pub const QUIET: Duration = Duration::from_secs(2);

/// What an apply may do, and how long it may take about it.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// Perform steps that drop or delay somebody's packets.
    pub disrupt: bool,
    /// How long to wait for another run to finish.
    pub wait: Duration,
    /// How long a retired class must have sent nothing before it is deleted, which is waited for;
    /// `None`: not now (see [`Session::earlier`]).
    pub quiet: Option<Duration>,
    /// Take the change back unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Also a policy that was taken back before.
    pub force: bool,
    /// No new policy, but the one in force: what was taken back before stays refused.
    pub repair: bool,
}

impl Default for May {
    fn default() -> May {
        May {
            disrupt: false,
            wait: Duration::from_secs(10),
            quiet: Some(QUIET),
            confirm: None,
            force: false,
            repair: false,
        }
    }
}

/// What an apply did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The hierarchy had to be mounted.
    pub mounted: bool,
    pub steps: Vec<Planned>,
    /// Steps that would disturb somebody and were not allowed to.
    pub left: Vec<Planned>,
    /// The last pass; `added`, `moved` and `gone` summed over all.
    pub placement: Placement,
    pub warnings: Vec<Diagnostic>,
    pub psched: Psched,
    /// Changing messages sent over netlink.
    pub messages: u64,
    /// What was made so.
    pub stands: Option<Stands>,
}

/// What a policy came to mean, and stands.
#[derive(Debug)]
pub struct Stands {
    pub model: Model,
    pub accounts: Accounts,
    pub state: KernelState,
    /// Classes that go once they are quiet stand.
    pub draining: bool,
    /// The links that are shaped, with their indices.
    pub links: BTreeMap<LinkName, u32>,
}

impl Stands {
    fn new(meaning: Meaning, state: KernelState) -> Stands {
        let Facts { accounts, links, .. } = meaning.sight.observation.facts;
        let shaped = links.into_iter().filter(|(name, _)| state.links.contains_key(name));
        let links = shaped.map(|(name, facts)| (name, facts.ifindex)).collect();
        let retired = state.claims.keys().any(|claim| claim.retired().is_some());
        let draining = retired || !meaning.draining.is_empty();
        Stands { model: meaning.model, accounts, state, draining, links }
    }
}

impl Applied {
    /// Whether the policy or the kernel differed; logins and drained classes are no difference.
    pub fn changed(&self) -> bool {
        self.mounted || self.steps.iter().any(|planned| !planned.routine)
    }

    /// Whether a link was shaped that was not before.
    pub fn first_build(&self) -> bool {
        self.steps.iter().any(|planned| matches!(planned.step, Step::AddRoot { .. }))
    }

    /// Adds a placement's numbers; how things stand is as the latest says.
    fn members(&mut self, placement: Placement) {
        let before = std::mem::replace(&mut self.placement, placement);
        self.placement.added += before.added;
        self.placement.moved += before.moved;
        self.placement.gone += before.gone;
    }
}

/// The gate of a run that a person may interrupt: between two steps it asks whether a signal came.
pub fn unless_interrupted(_: usize, _: &Step) -> Result<(), Cause> {
    match signal::caught() {
        Some(signal) => Err(Cause::Interrupted(signal)),
        None => Ok(()),
    }
}

/// Applies the session's policy. `gate` is asked before each step.
///
/// # Errors
/// A policy that cannot hold here, before anything is touched; a refused step, after what was there
/// before is back (or with words on what is not).
pub fn apply(session: &mut Session, may: May, gate: Gate<'_>) -> Result<Applied, Failure> {
    may_change(&session.kernel)?;
    session.came.clear();
    session.asks_apart |= may.confirm.is_some();
    session.kernel.look_for_hierarchy()?;
    let standing = session.kernel.instance().filter(|instance| instance.root().exists());
    let mut lock = standing.map(|instance| instance.lock(may.wait)).transpose()?;
    let policy = hash(&session.policy.source.text);
    if let Some(instance) = session.kernel.instance().filter(|_| lock.is_some()) {
        confirm::allowed(&instance, policy, may.force)?;
    }
    // Whatever is wrong with the policy is said before anything is touched.
    let mut meaning = session.look()?;
    let mut planned = Some(session.plan(&mut meaning)?);
    signal::catch();
    let mut applied = Applied::default();
    if lock.is_none() {
        applied.mounted = session.kernel.mount()?;
        // Who runs is known, and sits where he sat: reading them all again would take a second for 20,000.
        let scan = std::mem::take(&mut meaning.sight.scan);
        session.seen = match applied.mounted {
            false => Some(scan),
            true if session.kernel.is_empty_hierarchy() => Some(scan.in_new_hierarchy()),
            true => None,
        };
        match lock_new(session, may, policy).and_then(|lock| Ok((lock, session.look()?))) {
            Ok(ready) => {
                (lock, meaning) = ready;
                planned = None;
            }
            Err(failure) => {
                leave_no_trace(session, applied.mounted, None);
                return Err(failure);
            }
        }
    }
    let mounted = applied.mounted;
    let sight = &meaning.sight;
    let before = Before::new(sight.observation.clone(), &sight.scan.processes);
    let absent_links = session.options.absent_links;
    let mut run =
        Run { session, may, gate, applied, journal: Journal::default(), link_went: false };
    let outcome = run.finish(meaning, planned);
    let Run { applied, journal, .. } = run;
    session.options.absent_links = absent_links;
    // From here on whatever goes wrong brings back what was there before, once.
    let outcome = outcome.and_then(|()| {
        let Some(instance) = session.kernel.instance() else { return Ok(()) };
        if !may.repair {
            instance.forget_reverted()?;
        }
        match may.confirm.filter(|_| !applied.steps.is_empty() || applied.mounted) {
            Some(time) => {
                let change = confirm::Change { before: &before, journal: &journal, policy, time };
                Ok(confirm::start(&session.kernel, &change, &mut lock)?)
            }
            None => Ok(()),
        }
    });
    let outcome = match outcome {
        Ok(()) => Ok(applied),
        Err(Trouble::Step(failed)) => {
            let paths = session.kernel.paths(applied.psched);
            let aftermath = before.bring_back(&mut session.kernel, &journal);
            Err(Failure::step(&failed, &paths, &aftermath))
        }
        Err(Trouble::Other(failure)) => {
            Err(failure.in_the_middle(&before.bring_back(&mut session.kernel, &journal)))
        }
    };
    if outcome.is_err() {
        leave_no_trace(session, mounted, lock);
    }
    outcome
}

/// The lock of an instance that has no directory yet: taking it makes one.
/// Another run may have made it since, so its guard is asked about as well.
fn lock_new(session: &Session, may: May, policy: u64) -> Result<Option<Lock>, Failure> {
    let Some(instance) = session.kernel.instance() else { return Ok(None) };
    let lock = instance.lock(may.wait)?;
    confirm::allowed(&instance, policy, may.force)?;
    Ok(Some(lock))
}

/// After a failed run: an instance directory without claims goes, under the lock, so that whoever
/// waits for it finds out; then, the lock released, a mount that this run made.
fn leave_no_trace(session: &mut Session, mounted: bool, lock: Option<Lock>) {
    let Some(instance) = session.kernel.instance() else { return };
    let gone = instance.remove_if_empty();
    drop(lock);
    if mounted && matches!(gone, Ok(true)) {
        let unmounted = session.kernel.unmount();
        log::debug!("after the failure: removed {gone:?}, unmounted {unmounted:?}");
    }
}

/// What ended a run that had begun to change things.
enum Trouble {
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

struct Run<'s, 'g> {
    session: &'s mut Session,
    may: May,
    gate: Gate<'g>,
    applied: Applied,
    journal: Journal,
    /// A link that this round was to shape went meanwhile.
    link_went: bool,
}

impl Run<'_, '_> {
    /// `planned`: what follows from `meaning`, where that was found out already.
    fn finish(
        &mut self,
        mut meaning: Meaning,
        mut planned: Option<(Plan, KernelState)>,
    ) -> Result<(), Trouble> {
        let mut waited_for = BTreeSet::new();
        let mut contradictions = 0;
        for _ in 0..MAX_ROUNDS {
            let before = self.applied.steps.len();
            let next = match planned.take() {
                Some(planned) => planned,
                None => self.session.plan(&mut meaning)?,
            };
            let done = match self.round(next, &mut meaning) {
                Ok(done) => done,
                Err(trouble) => {
                    contradictions += 1;
                    (meaning, planned) = self.another_look(trouble, contradictions)?;
                    continue;
                }
            };
            if std::mem::take(&mut self.link_went) {
                meaning = self.look_again()?;
                continue;
            }
            let freed = self.applied.steps.iter().skip(before).any(|planned| {
                matches!(planned.step, Step::RemoveClaim { claim: Claim::Retired(..), .. })
            });
            let retired = done.claims.keys().filter_map(Claim::retired);
            let draining = meaning.draining.iter().map(|id| id.minor());
            let pending: BTreeSet<Minor> = retired.chain(draining).collect();
            // A minor that was collected may be retired once more.
            waited_for.retain(|minor| pending.contains(minor));
            if !self.applied.placement.waiting.is_empty() {
                // Newcomers need classes, also those who are root again at the next look (`follow`).
                let waiting = self.applied.placement.waiting.keys();
                self.session.came.extend(waiting.filter_map(Claim::comes_and_goes).cloned());
                meaning = self.session.look()?;
            } else if let Some(quiet) = self.may.quiet
                && !pending.is_subset(&waited_for)
            {
                waited_for = pending;
                meaning = self.wait_for_quiet(quiet, &done)?;
            } else if freed {
                // A pin may be free now.
                meaning = self.session.look()?;
            } else {
                self.applied.stands = Some(Stands::new(meaning, done));
                break;
            }
        }
        self.applied.messages = self.session.kernel.netlink.changes_sent();
        Ok(())
    }

    /// A step was refused, or its result is not to be seen. What the look said may not be so any more:
    /// another look, and another plan from there. The trouble itself where that says the same as before
    /// and the kernel does not contradict it, or has done so too often.
    fn another_look(
        &mut self,
        trouble: Trouble,
        contradictions: u32,
    ) -> Result<(Meaning, Option<(Plan, KernelState)>), Trouble> {
        let Trouble::Step(failed) = &trouble else { return Err(trouble) };
        if contradictions > MAX_CONTRADICTIONS || !failed.source.may_be_outdated() {
            return Err(trouble);
        }
        log::debug!("`{}`: {failed}; looking again", failed.step);
        std::thread::sleep(CONTRADICTED.saturating_mul(contradictions - 1));
        let Ok(mut meaning) = self.look_again() else { return Err(trouble) };
        let Ok(planned) = self.session.plan(&mut meaning) else { return Err(trouble) };
        let is_wanted = planned.0.steps.iter().any(|planned| planned.step == *failed.step);
        if is_wanted && contradictions > 1 && !failed.source.contradicts() {
            return Err(trouble);
        }
        Ok((meaning, Some(planned)))
    }

    /// A look in the middle of a run: a link that went since it began is passed over.
    fn look_again(&mut self) -> Result<Meaning, Failure> {
        self.session.options.absent_links = true;
        self.session.look()
    }

    /// Waits, so that retired classes can drain, and looks which of them did.
    fn wait_for_quiet(&mut self, quiet: Duration, done: &KernelState) -> Result<Meaning, Trouble> {
        let earlier = begin_to_drain(&mut self.session.kernel, done)?;
        wait(quiet)?;
        let before = self.session.earlier.replace(earlier);
        let meaning = self.session.look();
        self.session.earlier = before;
        Ok(meaning?)
    }

    /// One plan, performed and verified; the state that it was for.
    fn round(
        &mut self,
        (mut plan, desired): (Plan, KernelState),
        meaning: &mut Meaning,
    ) -> Result<KernelState, Trouble> {
        self.applied.warnings.clone_from(&meaning.warnings);
        self.applied.psched = meaning.sight.facts().psched;
        self.applied.left = match self.may.disrupt {
            true => Vec::new(),
            false => plan.without_disruption(),
        };
        let outcome = self.carry_out(&plan, meaning).and_then(|()| match plan.is_empty() {
            true => Ok(()),
            false => self.verify(&desired, meaning.sight.facts()),
        });
        if outcome.is_err() {
            let links = &meaning.sight.facts().links;
            let index = |step: &Step| step.link().and_then(|name| Some(links.get(name)?.ifindex));
            plan.steps.retain(|it| self.journal.covers(&it.step, index(&it.step).unwrap_or(0)));
        }
        self.applied.steps.extend(plan.steps);
        outcome.map(|()| desired)
    }

    /// Build, place, tear down; place again if that set processes free.
    fn carry_out(&mut self, plan: &Plan, meaning: &mut Meaning) -> Result<(), Trouble> {
        self.perform(plan, Phase::Build, meaning)?;
        if self.session.processes {
            let scan = std::mem::take(&mut meaning.sight.scan);
            let seen = match plan.is_empty() {
                true => Seen::JustNow(scan),
                false => Seen::Before(scan),
            };
            self.place(Some(seen), meaning)?;
        }
        self.perform(plan, Phase::TearDown, meaning)?;
        let evicted =
            plan.phase(Phase::TearDown).any(|step| matches!(step, Step::RemoveClaim { .. }));
        if evicted && self.session.processes {
            self.place(None, meaning)?;
        }
        Ok(())
    }

    fn perform(&mut self, plan: &Plan, phase: Phase, meaning: &Meaning) -> Result<(), Trouble> {
        let observation = &meaning.sight.observation;
        let kernel = &mut self.session.kernel;
        let (facts, steps) = (&observation.facts, plan.phase(phase));
        execute::perform(kernel, facts, steps, self.gate, &mut self.journal)?;
        Ok(())
    }

    fn place(&mut self, seen: Option<Seen>, meaning: &Meaning) -> Result<(), Trouble> {
        let accounts = &meaning.sight.observation.facts.accounts;
        let placement = place_seen(self.session, &meaning.model, accounts, seen)?;
        self.applied.members(placement);
        Ok(())
    }

    /// Looks again: whatever is still to do (but what was left undone on purpose) is a failure. `facts`:
    /// those that the plan was made with; of a link that went since, nothing is to do.
    fn verify(&mut self, desired: &KernelState, facts: &Facts) -> Result<(), Trouble> {
        let links = desired.links.keys().map(ToString::to_string).collect();
        let wanted = Wanted { links, ..Wanted::default() };
        let now = observe::observe(&mut self.session.kernel, wanted)?.observation;
        let mut missing = diff(&now.state, desired, &now.foreign);
        if !self.may.disrupt {
            missing.without_disruption();
        }
        // Whoever fights us for a link does so while we look, too.
        let held = &self.session.held;
        missing.steps.retain(|planned| planned.step.link().is_none_or(|link| !held.contains(link)));
        let index = |facts: &Facts, link: &LinkName| facts.links.get(link).map(|it| it.ifindex);
        let went = |link: &LinkName| index(facts, link) != index(&now.facts, link);
        self.link_went = desired.links.keys().any(went);
        missing.steps.retain(|planned| planned.step.link().is_none_or(|link| !went(link)));
        let Some(first) = missing.steps.first() else { return Ok(()) };
        let cause = Cause::Unverified(missing.to_string());
        let failed =
            Failed { step: Box::new(first.step.clone()), message: None, source: Box::new(cause) };
        Err(failed.into())
    }
}

/// The look that retired classes are compared with later ([`Session::earlier`]). A connection that
/// was not accepted when its listener's process moved still carries the old tag: all tags are
/// written once more, which takes along what has been accepted since.
///
/// The caller holds the lock, or nobody else may write tags meanwhile.
pub fn begin_to_drain(kernel: &mut Kernel, stands: &KernelState) -> Result<Sight, Failure> {
    if let Some(instance) = kernel.instance() {
        for (claim, classid) in &stands.claims {
            if !matches!(claim, Claim::Retired(..) | Claim::Owner(Owner::Group(_))) {
                instance.write(claim, *classid)?;
            }
        }
    }
    Ok(observe::observe(kernel, Wanted::default())?)
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

/// Moves every process to where the model says.
pub fn place(session: &Session, model: &Model, accounts: &Accounts) -> Result<Placement, Failure> {
    place_seen(session, model, accounts, None)
}

/// The same; `seen`: a look at all of them before.
fn place_seen(
    session: &Session,
    model: &Model,
    accounts: &Accounts,
    seen: Option<Seen>,
) -> Result<Placement, Failure> {
    let Some(instance) = session.kernel.instance() else { return Ok(Placement::default()) };
    let view = session.kernel.view();
    instance.note_namespace(session.kernel.netns)?;
    let decide = |process: &process::Process| {
        let decision = session.kernel.decide(process, &model.matcher, accounts, &view);
        Verdict { decision, acts_for: process::acts_for(process, &model.matcher) }
    };
    Ok(process::place_seen(&session.kernel.proc_root, &instance, seen, decide)?)
}
