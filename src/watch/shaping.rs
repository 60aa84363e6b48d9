//! Everything that the daemon changes besides placing processes: repairs, new policies, classes
//! that come and go with their accounts. Each is an apply.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::agenda::Task;
use super::{IDLE_SHARE, RECONCILE, Watch};
use crate::apply::{self, Applied, May};
use crate::failure::Failure;
use crate::observe::Sight;
use crate::plan::{Planned, Step};
use crate::policy::Severity;
use crate::state::{Claim, LinkName};
use crate::sys::memory;

/// An editor writes a file in several steps.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// Another run holds the lock, or a change waits to be confirmed.
pub(super) const LOCKED: Duration = Duration::from_millis(500);
/// After a failure; doubled for each one that follows.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Between two looks whether retired classes have become quiet, when they did not.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

impl Watch {
    /// Looks, and repairs what differs.
    pub(super) fn reconcile(&mut self) {
        let start = Instant::now();
        self.admit(start);
        self.session.held = self.backoff.held(start);
        let old_enough = |earlier: &mut (Sight, Instant)| earlier.1.elapsed() >= apply::QUIET;
        self.session.earlier = self.earlier.take_if(old_enough).map(|(sight, _)| sight);
        match self.apply() {
            Ok(applied) => {
                self.note_repairs(&applied, start);
                let made_anew = |planned: &Planned| {
                    !planned.routine
                        && matches!(planned.step, Step::MakeClaim { .. } | Step::AddRoot { .. })
                };
                // Directories that somebody removed hold nobody.
                if applied.mounted || applied.steps.iter().any(made_anew) {
                    self.agenda.at(Task::Sweep, start);
                }
                self.settle(applied);
                self.took = start.elapsed();
                let pause = RECONCILE.max(self.took.saturating_mul(IDLE_SHARE));
                self.agenda.at(Task::Reconcile, Instant::now() + pause);
                if let Some(at) = self.backoff.next(Instant::now()) {
                    self.agenda.by(Task::Reconcile, at);
                }
                // After the agenda: whoever still waits puts himself on it.
                self.place_waiting();
            }
            Err(failure) => self.try_again(
                &failure,
                Task::Reconcile,
                "cannot bring links and classes into order",
            ),
        }
    }

    /// One apply of the policy in force, to the accounts as they are known.
    fn apply(&mut self) -> Result<Applied, Failure> {
        self.session.known = Some(self.accounts.clone());
        self.session.reclaimed = self.stands.state.links.keys().cloned().collect();
        let may = May { wait: Duration::ZERO, quiet: None, ..May::default() };
        let applied = apply::apply(&mut self.session, may, &mut |_, _| Ok(()))?;
        let said = log_of(&applied);
        if said != self.said {
            said.iter().for_each(|line| log::warn!("{line}"));
            self.said = said;
        }
        Ok(applied)
    }

    /// Takes over what an apply came to.
    fn settle(&mut self, applied: Applied) {
        self.failures = 0;
        self.complaint = None;
        self.session.processes = false;
        self.session.earlier = None;
        if let Some(stands) = applied.stands {
            let accounts = &stands.accounts.running;
            self.accounts.running.extend(accounts.iter().copied());
            self.stands = stands;
        }
        self.schedule_collection();
        memory::give_back();
    }

    /// Steps that nobody's coming and going explains were made necessary by somebody.
    fn note_repairs(&mut self, applied: &Applied, now: Instant) {
        let repairs = applied.steps.iter().filter(|planned| !planned.routine);
        let links: BTreeSet<&LinkName> =
            repairs.filter_map(|planned| planned.step.link()).collect();
        for link in links {
            if let Some(pause) = self.backoff.repaired(link, now) {
                log::warn!(
                    "{link} keeps being changed by somebody else; it is left alone for {} s",
                    pause.as_secs_f32()
                );
            }
        }
    }

    /// The file may have changed: reads it, and adopts it if it is good.
    pub(super) fn reload(&mut self) {
        match self.file.read() {
            Err(failure) => self.complain(&format!(
                "the policy is not adopted, and the one before stays in force: {}",
                failure.message()
            )),
            Ok(policy) if policy.source.text == self.session.policy.source.text => {
                if self.candidate.take().is_some() {
                    log::info!("{} is as it was", self.settings.file.display());
                }
            }
            Ok(policy) => {
                // Its names are asked for first, off the loop.
                let before = std::mem::replace(&mut self.session.policy, policy);
                let question = self.whole_question();
                self.candidate = Some(std::mem::replace(&mut self.session.policy, before));
                self.names.ask_all(question);
                match self.names.child() {
                    Some(_) => self.after_asking(),
                    None => self.agenda.at(Task::Adopt, Instant::now()),
                }
            }
        }
    }

    /// The names of a new policy are known: applies it, or goes back to the one before.
    pub(super) fn adopt(&mut self) {
        let Some(policy) = self.candidate.take() else { return };
        let file = self.settings.file.display().to_string();
        let before = std::mem::replace(&mut self.session.policy, policy);
        self.session.held = BTreeSet::new();
        self.session.processes = true;
        // By hand, a link that is not there would be an error too.
        self.session.options.absent_links = false;
        let outcome = self.apply();
        self.session.options.absent_links = true;
        match outcome {
            Ok(applied) => {
                log::info!("{file} is in force");
                self.settle(applied);
                self.narrow_events();
                self.agenda.by(Task::Reconcile, Instant::now());
            }
            Err(Failure::Locked(why)) => {
                let policy = std::mem::replace(&mut self.session.policy, before);
                self.complain(&format!("waiting before {file} is adopted: {why}"));
                self.candidate = Some(policy);
                self.agenda.at(Task::Adopt, Instant::now() + LOCKED);
            }
            Err(failure) => {
                self.session.policy = before;
                self.complain(&format!(
                    "the policy is not adopted, and the one before stays in force: {}",
                    failure.message()
                ));
                // The names of the one in force.
                self.names.ask_all(self.whole_question());
                self.after_asking();
            }
        }
    }

    /// Retired classes go once they have been quiet for a while: the first of two looks now.
    pub(super) fn schedule_collection(&mut self) {
        let retired = self.state().claims.keys().any(|claim| matches!(claim, Claim::Retired(_)));
        if !retired {
            self.draining = 0;
            self.earlier = None;
            self.agenda.drop(Task::Collect);
            return;
        }
        if self.earlier.is_some() {
            return;
        }
        match apply::begin_to_drain(&mut self.session.kernel, &self.stands.state) {
            Ok(sight) => self.earlier = Some((sight, Instant::now())),
            Err(failure) => log::debug!("retired classes: {}", failure.message()),
        }
        let doublings = 2_u32.saturating_pow(self.draining);
        let pause = apply::QUIET.saturating_mul(doublings).min(LONGEST_DRAIN);
        self.draining = self.draining.saturating_add(1);
        self.agenda.at(Task::Collect, Instant::now() + pause);
    }

    fn try_again(&mut self, failure: &Failure, task: Task, what: &str) {
        let pause = match failure {
            Failure::Locked(_) => LOCKED,
            _ => RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY),
        };
        self.failures = self.failures.saturating_add(1);
        self.complain(&format!("{what}: {}", failure.message()));
        self.agenda.at(task, Instant::now() + pause);
    }

    /// Says it, unless it was the last that was said.
    fn complain(&mut self, complaint: &str) {
        if self.complaint.as_deref() != Some(complaint) {
            log::error!("{complaint}");
            self.complaint = Some(complaint.to_string());
        }
    }
}

/// What an apply has to say beside its steps, which `execute` logs.
pub(super) fn log_of(applied: &Applied) -> Vec<String> {
    let warnings = applied.warnings.iter().filter(|warning| warning.severity == Severity::Warning);
    let mut lines: Vec<String> = warnings
        .map(|warning| match warning.place() {
            Some(place) => format!("line {}: {}", place.line, warning.message),
            None => warning.message.clone(),
        })
        .collect();
    lines.extend(applied.left.iter().map(|Planned { step, disturbs, .. }| {
        let whom: Vec<String> =
            disturbs.iter().map(|it| format!("{}: {}", it.who, it.why)).collect();
        format!("left undone, because it disturbs {}: {step}", whom.join("; "))
    }));
    lines
}
