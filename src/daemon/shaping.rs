//! Everything that the daemon changes besides placing processes: repairs, new policies, classes
//! that come and go with their accounts. Each is an apply.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::agenda::Task;
use super::file::{CALM, Now};
use super::{IDLE_SHARE, RECONCILE, Watch};
use crate::apply::{self, Applied, ApplyOptions, Request};
use crate::cgroup::Keeping;
use crate::failure::Failure;
use crate::host::observe::Snapshot;
use crate::intent::{Intent, Leaving};
use crate::plan::{Change, Planned, Step, Whole};
use crate::policy::{self, LinkLine, Severity};
use crate::sys::memory;
use crate::tree::LinkName;

/// An editor writes a file in several steps.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// A file that somebody has open for writing, or that is not there, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Another run holds the lock, or a change waits to be confirmed.
pub(super) const LOCKED: Duration = Duration::from_millis(500);
/// After a failure; doubled for each one that follows.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Between two looks at everything, at most.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// A long apply says so often that it goes on.
pub(super) const ALIVE: Duration = Duration::from_secs(5);
/// Between two looks whether retired classes have become quiet, when they did not.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

impl Watch {
    /// A look at the kernel by this time, but not before a failure has had its pause.
    pub(super) fn soon(&mut self, at: Instant) {
        let at = self.not_before.map_or(at, |not_before| at.max(not_before));
        self.agenda.by(Task::Reconcile, at);
    }

    /// Looks, and repairs what differs.
    pub(super) fn reconcile(&mut self) {
        let start = Instant::now();
        // A policy on its way in may be what stands already.
        if self.candidate.is_some() && self.failures == 0 {
            self.agenda.at(Task::Reconcile, start + LOCKED);
            return;
        }
        self.admit(start);
        let old_enough = |earlier: &mut (Snapshot, Instant)| earlier.1.elapsed() >= apply::QUIET;
        let earlier = self.earlier.take_if(old_enough).map(|(snapshot, _)| snapshot);
        let intent = Intent { held: self.backoff.held(start), ..self.intent.clone() };
        let outcome = self.apply(Request { earlier, ..Request::from(intent) }, true);
        self.looked = Instant::now();
        match outcome {
            Ok(applied) => {
                if applied.steps.is_empty() {
                    self.took = start.elapsed();
                }
                self.note_repairs(&applied, start);
                let made_anew = |planned: &Planned| {
                    let made = matches!(
                        planned.step,
                        Step::Claim(_, Change::Add(_)) | Step::Root(_, Whole::Add(_))
                    );
                    made && !planned.routine
                };
                // Directories that somebody removed hold nobody.
                if applied.mounted || applied.steps.iter().any(made_anew) {
                    self.agenda.at(Task::Sweep, start);
                }
                let pause = self.took.saturating_mul(IDLE_SHARE).clamp(RECONCILE, LONGEST_REST);
                self.agenda.at(Task::Reconcile, Instant::now() + pause);
                // After that: whoever still waits puts himself on the agenda.
                self.settle(applied);
                if let Some(at) = self.backoff.next(Instant::now()) {
                    self.soon(at);
                }
            }
            Err(failure) => {
                self.try_again(
                    &failure,
                    Task::Reconcile,
                    "links and classes cannot be brought into order",
                );
            }
        }
    }

    /// One apply of the policy in force, to the accounts as they are known.
    fn apply(&mut self, mut request: Request, repair: bool) -> Result<Applied, Failure> {
        self.count_running();
        request.known = Some(self.accounts.clone());
        request.processes = self.everybody;
        request.intent.leaving = Leaving::These(self.roster.leaving());
        let may =
            ApplyOptions { wait: Duration::ZERO, quiet: None, repair, ..ApplyOptions::default() };
        let mut told = Instant::now();
        let mut still_here = |_: usize, _: &Step| {
            if told.elapsed() > ALIVE {
                told = Instant::now();
                super::tell(&[NotifyState::Watchdog]);
            }
            Ok(())
        };
        let applied = apply::apply(&mut self.session, request, may, &mut still_here)?;
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
        self.not_before = None;
        self.complaints.clear();
        self.touched.clear();
        self.everybody = false;
        if let Some(in_force) = applied.in_force {
            // Also while one is left alone, when what stands there is somebody else's.
            self.intent.reclaimed.extend(in_force.links.values());
            self.intent.good.clone_from(&in_force.good);
            self.in_force = in_force;
            self.tell_roster_of_what_is_in_force();
        }
        self.keep_instance();
        self.schedule_collection();
        memory::give_back();
    }

    /// Where other runs find this daemon. The instance may have been removed, and made anew.
    pub(super) fn keep_instance(&mut self) {
        if self.keeping.as_ref().is_some_and(Keeping::holds) {
            return;
        }
        let Some(instance) = self.session.kernel.instance() else { return };
        match instance.keep() {
            Ok(keeping) => self.keeping = Some(keeping),
            Err(error) => log::warn!("other runs will not know of this daemon: {error}"),
        }
    }

    /// Steps that nobody's coming and going explains were made necessary by somebody.
    fn note_repairs(&mut self, applied: &Applied, now: Instant) {
        let repairs = applied.steps.iter().filter(|planned| !planned.routine);
        let links: BTreeSet<&LinkName> =
            repairs.filter_map(|planned| planned.step.link()).collect();
        // What we changed for reasons of our own (a class that moves to its group) is no fight.
        for link in links.into_iter().filter(|link| self.touched.contains(*link)) {
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
        // Not every way to change a file is told: folders between links, network file systems.
        let now = Instant::now();
        self.agenda.at(Task::Reload, now + RECONCILE);
        let read = self.file.read();
        if !self.file.is_watched() {
            self.agenda.at(Task::Reload, now + LOOK_AGAIN);
        }
        let text = match read {
            Ok(Now::Text(text)) => text,
            Ok(Now::BeingWritten(since)) => {
                self.agenda.at(Task::Reload, now + LOOK_AGAIN);
                if since > LOOK_AGAIN {
                    let file = self.settings.file.display();
                    self.complain(
                        Task::Reload,
                        &format!("{file} is open for writing; it is read once it is closed"),
                    );
                }
                return;
            }
            Ok(Now::Changing) => {
                self.agenda.by(Task::Reload, now + CALM);
                return;
            }
            Err(failure) => return self.refuse(&failure),
        };
        self.complaints.remove(&Task::Reload);
        if self.refused.as_ref() == Some(&text) {
            return;
        }
        // A policy of 10,000 lines takes a while to be parsed, and seldom differs.
        let in_force = &self.intent.policy;
        let read = match *in_force.source.text == *text {
            true => Ok(None),
            false => policy::parse(&text, &self.settings.file.display().to_string()).map(Some),
        };
        match read {
            Err(report) => self.refuse(&report.into()),
            Ok(None) => {
                self.complaints.remove(&Task::Adopt);
                if self.candidate.take().is_some() {
                    self.agenda.drop(Task::Adopt);
                    log::info!("{} is as it was", self.settings.file.display());
                }
            }
            Ok(Some(policy)) => {
                // Its names are asked for first, off the loop; those in force stay known.
                self.candidate = Some(Arc::new(policy));
                let question = self.question();
                self.names.ask_all(question);
                match self.names.is_asking_about_all() {
                    true => self.after_asking(),
                    false => self.agenda.at(Task::Adopt, Instant::now()),
                }
            }
        }
    }

    /// The names of a new policy are known: applies it, or goes back to the one before.
    pub(super) fn adopt(&mut self) {
        let Some(policy) = self.candidate.take() else { return };
        let file = self.settings.file.display().to_string();
        let new_link = |line: &LinkLine| {
            self.intent.policy.links.iter().all(|old| old.name.value != line.name.value)
        };
        // As by hand: a new line for a link that is not there is a mistake.
        let strict = policy.links.iter().any(new_link);
        let mut intent = Intent { policy: Arc::clone(&policy), ..self.intent.clone() };
        intent.options.absent_links = !strict;
        self.everybody = true;
        let outcome = self.apply(Request::from(intent), false);
        let failure = match outcome {
            Ok(applied) => {
                log::info!("{file} is in force");
                self.refused = None;
                self.intent.policy = policy;
                self.intent.reclaimed.clear();
                self.settle(applied);
                self.narrow_events();
                self.soon(Instant::now());
                return;
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Policy(_) | Failure::Usage(_) => {
                self.refused = Some(policy.source.text.to_string());
                self.refuse(&failure);
            }
            failure => {
                self.candidate = Some(policy);
                self.try_again(&failure, Task::Adopt, &format!("{file} cannot be adopted"));
            }
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        self.complain(
            Task::Adopt,
            &format!(
                "the policy is not adopted, and the one before stays in force: {}",
                failure.message()
            ),
        );
    }

    /// Classes that are retired, or whose account has left, go once they have been quiet for a
    /// while: the first of two looks now.
    pub(super) fn schedule_collection(&mut self) {
        if !self.in_force.draining {
            self.draining = 0;
            self.earlier = None;
            self.agenda.drop(Task::Collect);
            return;
        }
        if self.earlier.is_some() {
            return;
        }
        match self.begin_to_drain() {
            Ok(snapshot) => self.earlier = Some((snapshot, Instant::now())),
            Err(failure) => log::debug!("retired classes: {}", failure.message()),
        }
        let doublings = 2_u32.saturating_pow(self.draining);
        let pause = apply::QUIET.saturating_mul(doublings).min(LONGEST_DRAIN);
        self.draining = self.draining.saturating_add(1);
        self.agenda.at(Task::Collect, Instant::now() + pause);
    }

    /// Under the lock: another run may be writing tags.
    fn begin_to_drain(&mut self) -> Result<Snapshot, Failure> {
        let instance = self.session.kernel.instance();
        let _lock = instance.map(|instance| instance.lock(Duration::ZERO)).transpose()?;
        apply::begin_to_drain(&mut self.session.kernel, &self.in_force.state)
    }

    fn try_again(&mut self, failure: &Failure, task: Task, what: &str) {
        let pause = match failure {
            Failure::Locked(_) => LOCKED,
            _ => {
                self.failures = self.failures.saturating_add(1);
                RETRY.saturating_mul(2_u32.saturating_pow(self.failures - 1)).min(LONGEST_RETRY)
            }
        };
        let at = Instant::now() + pause;
        self.not_before = Some(at);
        match failure {
            Failure::Locked(why) => log::info!("waiting: {why}"),
            failure => self.complain(task, &format!("{what}: {}", failure.message())),
        }
        self.agenda.at(task, at);
    }

    /// Says it, unless it was the last that was said of this.
    fn complain(&mut self, about: Task, complaint: &str) {
        if self.complaints.get(&about).is_none_or(|said| said != complaint) {
            log::error!("{complaint}");
            self.complaints.insert(about, complaint.to_string());
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
