//! `shaper apply`: make the kernel match the policy, verify it, and put back what was there when a
//! step fails.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Output;
use super::failure::Failure;
use super::report::Applied;
use super::session::{Meaning, Options, Session, may_change};
use crate::cgroup::Lock;
use crate::cli::Global;
use crate::execute::{self, Cause, Failed};
use crate::model::Model;
use crate::observe::{self, Sight, Wanted};
use crate::plan::{Phase, Plan, Step, diff};
use crate::process::{self, Placement};
use crate::state::{Accounts, Claim, KernelState, NetCls, Observation};
use crate::sys::signal;

/// How long a retired class must have sent nothing before it is deleted.
const QUIET: Duration = Duration::from_secs(2);

/// Plans that follow from each other: a pin waits for the class that holds its minor to be quiet, an
/// account logs in meanwhile. More than these, and somebody else is changing things as we do.
const MAX_ROUNDS: usize = 8;

/// Options of `apply` that say what it may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct May {
    pub disrupt: bool,
}

/// The command: applies and reports.
pub fn command(
    global: &Global,
    file: &Path,
    options: Options,
    may: May,
) -> Result<Output, Failure> {
    let (applied, session) = apply(global, file, options, may)?;
    let mut output = match global.json {
        true => Output::json(applied.json(&session.kernel.paths(applied.psched))),
        false => Output::text(applied.text(global.quiet)),
    };
    output.warn(&session.policy, &applied.warnings, global);
    if !global.json {
        for warning in applied.placement_warnings() {
            output.stderr.push_str(&format!("warning: {warning}\n"));
        }
    }
    output.status = applied.exit_status();
    Ok(output)
}

/// Applies the policy in `file`.
fn apply(
    global: &Global,
    file: &Path,
    options: Options,
    may: May,
) -> Result<(Applied, Session), Failure> {
    let mut session = Session::open(global, file, options)?;
    may_change(&session.kernel)?;
    let mut lock = match session.kernel.instance().filter(|instance| instance.root().exists()) {
        Some(instance) => Some(instance.lock(global.wait)?),
        None => None,
    };
    // Whatever is wrong with the policy is said before anything is touched.
    let mut meaning = session.look()?;
    session.desired(&mut meaning)?;
    let mut mounted = false;
    if lock.is_none() {
        mounted = session.kernel.mount()?;
        lock = lock_instance(&session, global)?;
        meaning = session.look()?;
    }
    signal::catch();
    let outcome =
        Run { session: &mut session, may, applied: Applied::new(mounted) }.finish(meaning);
    drop(lock);
    if outcome.is_err() {
        leave_no_trace(&mut session, mounted);
    }
    Ok((outcome?, session))
}

fn lock_instance(session: &Session, global: &Global) -> Result<Option<Lock>, Failure> {
    session.kernel.instance().map(|instance| Ok(instance.lock(global.wait)?)).transpose()
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

struct Run<'s> {
    session: &'s mut Session,
    may: May,
    applied: Applied,
}

impl Run<'_> {
    fn finish(mut self, mut meaning: Meaning) -> Result<Applied, Failure> {
        let mut earlier: Option<(Instant, Sight)> = None;
        for _ in 0..MAX_ROUNDS {
            let (mut plan, desired) = self.session.plan(&mut meaning)?;
            self.applied.warnings.clone_from(&meaning.warnings);
            self.applied.psched = meaning.sight.facts().psched;
            let left = if self.may.disrupt { Vec::new() } else { plan.without_disruption() };
            self.applied.left = left;
            let before = meaning.sight.observation.clone();
            self.round(&plan, &meaning)?;
            if !plan.is_empty() {
                self.applied.steps.extend(plan.steps);
                self.verify(&desired, &before)?;
            }
            let pending = desired.claims.keys().any(|claim| matches!(claim, Claim::Retired(_)));
            let newcomers = !self.applied.placement.waiting.is_empty();
            meaning = match (pending, newcomers) {
                (false, false) => break,
                (_, true) => self.session.look()?,
                (true, false) => {
                    // Nothing drained since the last wait: a later run collects it.
                    if earlier.is_some() && self.applied.steps.len() == self.applied.steps_at_wait {
                        break;
                    }
                    self.applied.steps_at_wait = self.applied.steps.len();
                    let first = self.session.look()?.sight;
                    wait(QUIET)?;
                    let mut meaning = self.session.look()?;
                    meaning.sight.observation.facts.quiet = observe::quiet(&first, &meaning.sight);
                    earlier = Some((Instant::now(), first));
                    meaning
                }
            };
        }
        self.applied.messages = self.session.kernel.netlink.changes_sent();
        Ok(self.applied)
    }

    /// Build, place, tear down; place again if that set processes free.
    fn round(&mut self, plan: &Plan, meaning: &Meaning) -> Result<(), Failure> {
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
        let mut gate = |_: usize, _: &Step| match signal::caught() {
            Some(signal) => Err(Cause::Interrupted(signal)),
            None => Ok(()),
        };
        let kernel = &mut self.session.kernel;
        match execute::perform(kernel, &observation.facts, plan.phase(phase), &mut gate) {
            Ok(_) => Ok(()),
            Err(failed) => Err(self.undo(&failed, observation)),
        }
    }

    fn place(&mut self, model: &Model, meaning: &Meaning) -> Result<(), Failure> {
        let accounts = &meaning.sight.observation.facts.accounts;
        let placement = place(self.session, model, accounts)?;
        self.applied.members(placement);
        Ok(())
    }

    /// Looks again: whatever is still to do (but what was left undone on purpose) is a failure.
    fn verify(&mut self, desired: &KernelState, before: &Observation) -> Result<(), Failure> {
        let now = observe::observe(&mut self.session.kernel, Wanted::default())?.observation;
        let mut missing = diff(&now.state, desired, &now.foreign);
        if !self.may.disrupt {
            missing.without_disruption();
        }
        let Some(first) = missing.steps.first() else { return Ok(()) };
        let cause = Cause::Stopped(format!(
            "the kernel took every step but does not show the result; still to do:\n{missing}"
        ));
        Err(self
            .undo(&Failed { step: Box::new(first.step.clone()), source: Box::new(cause) }, before))
    }

    /// Plans back to what was observed before, and says what came of it.
    fn undo(&mut self, failed: &Failed, before: &Observation) -> Failure {
        let paths = self.session.kernel.paths(before.facts.psched);
        let aftermath = match undo(self.session, before) {
            Ok(()) => "what was there before is back".to_string(),
            Err(what_stands) => format!("undoing it failed too: {what_stands}"),
        };
        Failure::step(failed, &paths, &aftermath)
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

fn undo(session: &mut Session, before: &Observation) -> Result<(), String> {
    let mut state = before.state.clone();
    // The mount is taken back by whoever made it, once the lock in it is released.
    if state.net_cls == NetCls::Unmounted {
        state.net_cls = session.kernel.net_cls();
    }
    let look = |session: &mut Session| {
        observe::observe(&mut session.kernel, Wanted::default())
            .map(|sight| sight.observation)
            .map_err(|error| error.to_string())
    };
    let now = look(session)?;
    let plan = diff(&now.state, &state, &now.foreign);
    let steps = plan.steps.iter().map(|planned| &planned.step);
    execute::perform(&mut session.kernel, &now.facts, steps, &mut |_, _| Ok(()))
        .map_err(|failed| format!("`{}`: {failed}", failed.step))?;
    let now = look(session)?;
    let left = diff(&now.state, &state, &now.foreign);
    if left.is_empty() { Ok(()) } else { Err(format!("this is still different:\n{left}")) }
}
