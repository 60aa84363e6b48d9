//! Makes the kernel match a policy, verifies it, and puts back what was there when a step fails.
//! What `shaper apply` does, and whoever else applies (the daemon, the tests). Looks through
//! `observe`, acts through `execute` and `process::place`.

mod clear;
mod confirm;
mod session;
mod source;
mod undo;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use clear::clear;
pub use confirm::{confirm, hash};
pub use session::{Meaning, Options, Session, may_change};
pub use source::read;

use crate::cgroup::Lock;
use crate::execute::{self, Cause, Failed, Gate};
use crate::failure::Failure;
use crate::model::Model;
use crate::observe::{self, Wanted};
use crate::plan::{Phase, Plan, Planned, Step, diff};
use crate::policy::Diagnostic;
use crate::process::{self, Placement};
use crate::state::{Accounts, Claim, KernelState, Owner};
use crate::sys::signal;
use crate::units::{Minor, Psched};
use undo::Before;

/// Plans that follow from each other: a pin waits for the class that holds its minor to be quiet, an
/// account logs in meanwhile. More than these, and somebody else is changing things as we do.
const MAX_ROUNDS: usize = 8;

/// What an apply may do, and how long it may take about it.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// Perform steps that drop or delay somebody's packets.
    pub disrupt: bool,
    /// How long to wait for another run to finish.
    pub wait: Duration,
    /// How long a retired class must have sent nothing before it is deleted.
    pub quiet: Duration,
    /// Take the change back unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Also a policy that was taken back before.
    pub force: bool,
}

impl Default for May {
    fn default() -> May {
        May {
            disrupt: false,
            wait: Duration::from_secs(10),
            quiet: Duration::from_secs(2),
            confirm: None,
            force: false,
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
    session.kernel.look_for_hierarchy()?;
    let standing = session.kernel.instance().filter(|instance| instance.root().exists());
    let mut lock = standing.map(|instance| instance.lock(may.wait)).transpose()?;
    let policy = hash(&session.policy.source.text);
    if let Some(instance) = session.kernel.instance().filter(|_| lock.is_some()) {
        confirm::allowed(&instance, policy, may.force)?;
    }
    // Whatever is wrong with the policy is said before anything is touched.
    let mut meaning = session.look()?;
    session.desired(&mut meaning)?;
    signal::catch();
    let mut applied = Applied::default();
    if lock.is_none() {
        applied.mounted = session.kernel.mount()?;
        lock = lock_new(session, may)?;
        meaning = session.look()?;
    }
    let mounted = applied.mounted;
    let sight = &meaning.sight;
    let before = Before::new(sight.observation.clone(), &sight.processes);
    let mut run = Run { session, may, gate, before, applied };
    let outcome = run.finish(meaning);
    let Run { session, before, applied, .. } = run;
    if outcome.is_ok() {
        if let Some(instance) = session.kernel.instance() {
            instance.forget_reverted()?;
        }
        if let Some(time) = may.confirm.filter(|_| applied.changed()) {
            let change = confirm::Change { before: &before, policy, time };
            confirm::start(&session.kernel, &change, lock.take())?;
        }
    }
    drop(lock);
    if outcome.is_err() {
        leave_no_trace(session, mounted);
    }
    outcome.map(|()| applied)
}

/// The lock of an instance that has no directory yet: taking it makes one.
fn lock_new(session: &Session, may: May) -> Result<Option<Lock>, Failure> {
    session.kernel.instance().map(|instance| Ok(instance.lock(may.wait)?)).transpose()
}

/// After a failed run: an instance directory without claims, and a mount that this run made, go.
fn leave_no_trace(session: &mut Session, mounted: bool) {
    let Some(instance) = session.kernel.instance() else { return };
    let gone = instance.remove_if_empty();
    if mounted && matches!(gone, Ok(true)) {
        let unmounted = session.kernel.unmount();
        log::debug!("after the failure: removed {gone:?}, unmounted {unmounted:?}");
    }
}

struct Run<'s, 'g> {
    session: &'s mut Session,
    may: May,
    gate: Gate<'g>,
    /// What stood when the run began: what a failure brings back.
    before: Before,
    applied: Applied,
}

impl Run<'_, '_> {
    fn finish(&mut self, mut meaning: Meaning) -> Result<(), Failure> {
        let mut waited_for = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let before = self.applied.steps.len();
            let done = self.round(&mut meaning)?;
            let freed = self.applied.steps.iter().skip(before).any(|planned| {
                matches!(planned.step, Step::RemoveClaim { claim: Claim::Retired(_), .. })
            });
            let pending: BTreeSet<Minor> = done.claims.keys().filter_map(Claim::retired).collect();
            // A minor that was collected may be retired once more.
            waited_for.retain(|minor| pending.contains(minor));
            if !pending.is_subset(&waited_for) {
                waited_for = pending;
                meaning = self.wait_for_quiet(&done)?;
            } else if freed || !self.applied.placement.waiting.is_empty() {
                // A pin may be free now; newcomers need classes.
                meaning = self.session.look()?;
            } else {
                break;
            }
        }
        self.applied.messages = self.session.kernel.netlink.changes_sent();
        Ok(())
    }

    /// Waits, so that retired classes can drain, and looks which of them did. A connection that was
    /// not accepted when its listener's process moved still carries the old tag: all tags are
    /// written once more, which takes along what has been accepted since.
    fn wait_for_quiet(&mut self, done: &KernelState) -> Result<Meaning, Failure> {
        if let Some(instance) = self.session.kernel.instance() {
            for (claim, classid) in &done.claims {
                if !matches!(claim, Claim::Retired(_) | Claim::Owner(Owner::Group(_))) {
                    instance.write(claim, *classid)?;
                }
            }
        }
        let first = observe::observe(&mut self.session.kernel, Wanted::default())?;
        wait(self.may.quiet)?;
        let mut meaning = self.session.look()?;
        meaning.sight.observation.facts.quiet = observe::quiet(&first, &meaning.sight);
        Ok(meaning)
    }

    /// One plan, performed and verified; the state that it was for.
    fn round(&mut self, meaning: &mut Meaning) -> Result<KernelState, Failure> {
        let (mut plan, desired) = self.session.plan(meaning)?;
        self.applied.warnings.clone_from(&meaning.warnings);
        self.applied.psched = meaning.sight.facts().psched;
        self.applied.left = match self.may.disrupt {
            true => Vec::new(),
            false => plan.without_disruption(),
        };
        self.carry_out(&plan, meaning)?;
        if !plan.is_empty() {
            self.verify(&desired)?;
            self.applied.steps.extend(plan.steps);
        }
        Ok(desired)
    }

    /// Build, place, tear down; place again if that set processes free.
    fn carry_out(&mut self, plan: &Plan, meaning: &Meaning) -> Result<(), Failure> {
        self.perform(plan, Phase::Build, meaning)?;
        self.place(&meaning.model, meaning)?;
        self.perform(plan, Phase::TearDown, meaning)?;
        let evicted =
            plan.phase(Phase::TearDown).any(|step| matches!(step, Step::RemoveClaim { .. }));
        if evicted {
            self.place(&meaning.model, meaning)?;
        }
        Ok(())
    }

    fn perform(&mut self, plan: &Plan, phase: Phase, meaning: &Meaning) -> Result<(), Failure> {
        let observation = &meaning.sight.observation;
        let kernel = &mut self.session.kernel;
        match execute::perform(kernel, &observation.facts, plan.phase(phase), self.gate) {
            Ok(_) => Ok(()),
            Err(failed) => Err(self.undo(&failed)),
        }
    }

    fn place(&mut self, model: &Model, meaning: &Meaning) -> Result<(), Failure> {
        let accounts = &meaning.sight.observation.facts.accounts;
        let placement = place(self.session, model, accounts)?;
        self.applied.members(placement);
        Ok(())
    }

    /// Looks again: whatever is still to do (but what was left undone on purpose) is a failure.
    fn verify(&mut self, desired: &KernelState) -> Result<(), Failure> {
        let now = observe::observe(&mut self.session.kernel, Wanted::default())?.observation;
        let mut missing = diff(&now.state, desired, &now.foreign);
        if !self.may.disrupt {
            missing.without_disruption();
        }
        let Some(first) = missing.steps.first() else { return Ok(()) };
        let cause = Cause::Stopped(format!(
            "the kernel took every step but does not show the result; still to do:\n{missing}"
        ));
        let failed = Failed { step: Box::new(first.step.clone()), source: Box::new(cause) };
        Err(self.undo(&failed))
    }

    /// Brings back what was there before, and says what came of it.
    fn undo(&mut self, failed: &Failed) -> Failure {
        let paths = self.session.kernel.paths(self.applied.psched);
        Failure::step(failed, &paths, &self.before.bring_back(&mut self.session.kernel))
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
                message: "interrupted while waiting for retired classes to drain; the policy is in force, the next apply collects them".to_string(),
            });
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// Moves every process to where the model says.
pub fn place(session: &Session, model: &Model, accounts: &Accounts) -> Result<Placement, Failure> {
    let Some(instance) = session.kernel.instance() else { return Ok(Placement::default()) };
    let view = session.kernel.view();
    let decide =
        |process: &process::Process| process::decide(process, &model.matcher, accounts, &view);
    Ok(process::place(&session.kernel.proc_root, &instance, decide)?)
}
