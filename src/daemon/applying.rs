//! What the daemon carries out besides placing processes: it reads its file, asks for names, and
//! applies. When, and what follows from how it went, says [`shaping`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;

use super::Watch;
use super::agenda::Task;
use super::file::Now;
use super::service_manager::tell;
use super::shaping::{Attempt, Event, Found, Order, Outcome, Refusal, Text};
use crate::apply::{self, Applied, ApplyOptions, Request, Who};
use crate::cgroup::{Condition, Keeping};
use crate::failure::Failure;
use crate::host::observe::Snapshot;
use crate::intent::{Intent, Leaving};
use crate::plan::{Change, Planned, Step, Whole};
use crate::policy::{self, LinkLine, Place, Policy, Report, Severity};
use crate::sys::memory;
use crate::tree::LinkName;

/// A long apply says so often that it goes on.
pub(super) const ALIVE: Duration = Duration::from_secs(5);

impl Text for Arc<Policy> {
    fn text(&self) -> &str {
        &self.source.text
    }
}

impl Watch {
    /// What has happened to links, to the file, or to an apply, and what follows from it.
    pub(super) fn tell_shaping(&mut self, event: Event<Arc<Policy>>) {
        let before = self.shaping.word();
        let orders = self.shaping.on(event, Instant::now());
        let (word, why) = self.shaping.word();
        if (word, &why) != (before.0, &before.1) {
            let is_said = orders.iter().any(|order| matches!(order, Order::Complain(_)));
            self.tell_condition(before.0, is_said);
        }
        self.carry_out(orders);
    }

    /// In the journal where the word is another one, to the service manager, and where `shaper
    /// status` finds it. `is_said`: the journal gets the reason by itself.
    pub(super) fn tell_condition(&mut self, before: &str, is_said: bool) {
        let (word, why) = self.shaping.word();
        let why = why.as_deref().and_then(|why| why.lines().next());
        let line = why.map_or_else(|| word.to_string(), |why| format!("{word}: {why}"));
        if word != before {
            self.since = SystemTime::now();
            // Whoever logs out leaves a class that drains: no news.
            let level = match (before, word) {
                ("idle", "draining") | ("draining", "idle") => log::Level::Debug,
                _ => log::Level::Info,
            };
            log::log!(level, "{}", if is_said { word } else { &line });
        }
        tell(&[NotifyState::Status(&line)]);
        let (word, why) = (word.to_string(), why.map(str::to_string));
        let condition = Condition { word, why, since: self.since };
        if let Some(Err(error)) = self.keeping.as_mut().map(|keeping| keeping.tell(&condition)) {
            log::debug!("others cannot be told the daemon's condition: {error}");
        }
    }

    pub(super) fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Read => self.read_file(),
                Order::Parse(text) => {
                    let parsed = policy::parse(&text, &self.settings.file.display().to_string());
                    let parsed = parsed.map(Arc::new);
                    let parsed = parsed.map_err(|report| refusal(&report.into()));
                    self.tell_shaping(Event::Parsed(parsed));
                }
                Order::AskForNames => self.ask_for_names(),
                Order::Adopt => self.adopt(),
                Order::Repair { held, collects } => self.repair(held, collects),
                Order::LookAtRetired => match self.begin_to_drain() {
                    Ok(snapshot) => self.earlier = Some(snapshot),
                    Err(failure) => log::debug!("retired classes: {}", failure.message()),
                },
                Order::Complain(complaint) => log::error!("{complaint}"),
                Order::Warn(warning) => log::warn!("{warning}"),
                Order::Inform(news) => log::info!("{news}"),
            }
        }
        self.agenda.at(Task::Shape, self.shaping.due());
    }

    /// A look at the kernel by this time, but not before a failure has had its pause.
    pub(super) fn soon(&mut self, by: Instant) {
        self.tell_shaping(Event::Wanted { by });
    }

    fn read_file(&mut self) {
        let found = match self.file.read() {
            // A policy of 10,000 lines takes a while to be parsed, and seldom differs.
            Ok(Now::Text(text)) if *self.intent.policy.source.text == *text => Found::InForce,
            Ok(Now::Text(text)) => Found::Text(text),
            Ok(Now::BeingWritten(since)) => Found::BeingWritten(since),
            Ok(Now::Changing) => Found::Changing,
            Err(failure) => Found::Unreadable(failure.message()),
        };
        self.tell_shaping(Event::FileRead { found, watched: self.file.is_watched() });
    }

    fn ask_for_names(&mut self) {
        let question = self.question();
        self.names.ask_all(question);
        match self.names.is_asking_about_all() {
            true => self.after_asking(),
            false => self.tell_shaping(Event::Named { asks: false }),
        }
    }

    /// Looks, and repairs what differs.
    fn repair(&mut self, held: BTreeSet<LinkName>, collects: bool) {
        let start = Instant::now();
        self.admit(start);
        let earlier = self.earlier.take_if(|_| collects);
        let intent = Intent { held, ..self.intent.clone() };
        let applied = match self.apply(Request { earlier, ..Request::from(intent) }, true) {
            Ok(applied) => applied,
            Err(failure) => return self.tell_of_failure(Attempt::Repair, failure),
        };
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
        // Steps that nobody's coming and going explains were made necessary by somebody.
        let repairs = applied.steps.iter().filter(|planned| !planned.routine);
        let repaired = repairs.filter_map(|planned| planned.step.link()).cloned().collect();
        let took = applied.steps.is_empty().then(|| start.elapsed());
        self.settle(Attempt::Repair, applied, took, repaired);
    }

    /// The names of a new policy are known: applies it, or goes back to the one before.
    fn adopt(&mut self) {
        let Some(policy) = self.shaping.candidate().cloned() else { return };
        let new_link = |line: &LinkLine| {
            self.intent.policy.links.iter().all(|old| old.name.value != line.name.value)
        };
        // As by hand: a new line for a link that is not there is a mistake.
        let strict = policy.links.iter().any(new_link);
        let mut intent = Intent { policy: Arc::clone(&policy), ..self.intent.clone() };
        intent.options.absent_links = !strict;
        self.everybody = true;
        match self.apply(Request::from(intent), false) {
            Ok(applied) => {
                self.intent.policy = policy;
                self.intent.reclaimed.clear();
                self.settle(Attempt::Adopt, applied, None, BTreeSet::new());
                self.narrow_events();
            }
            Err(failure) => self.tell_of_failure(Attempt::Adopt, failure),
        }
    }

    /// One apply of what is asked, to the accounts as they are known.
    fn apply(&mut self, mut request: Request, repair: bool) -> Result<Applied, Failure> {
        self.count_running();
        request.who = Who::Known { accounts: self.accounts.clone(), processes: self.everybody };
        request.intent.leaving = Leaving::These(self.roster.leaving());
        let may =
            ApplyOptions { wait: Duration::ZERO, quiet: None, repair, ..ApplyOptions::default() };
        let mut told = Instant::now();
        let mut still_here = |_: usize, _: &Step| {
            if told.elapsed() > ALIVE {
                told = Instant::now();
                tell(&[NotifyState::Watchdog]);
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
    fn settle(
        &mut self,
        attempt: Attempt,
        applied: Applied,
        took: Option<Duration>,
        repaired: BTreeSet<LinkName>,
    ) {
        self.everybody = false;
        let came_to_rest = applied.in_force.is_some();
        if let Some(in_force) = applied.in_force {
            // Also while one is left alone, when what stands there is somebody else's.
            self.intent.reclaimed.extend(in_force.links.values());
            self.intent.good.clone_from(&in_force.good);
            self.in_force = in_force;
        }
        let drains = self.in_force.draining;
        let outcome = Outcome::InForce { took, repaired, drains };
        self.tell_shaping(Event::Applied { attempt, outcome });
        // After that: whoever still waits wants another apply.
        if came_to_rest {
            self.tell_roster_of_what_is_in_force();
        }
        self.keep_instance();
        memory::give_back();
    }

    fn tell_of_failure(&mut self, attempt: Attempt, failure: Failure) {
        let outcome = match failure {
            Failure::Locked(why) => Outcome::Locked(why),
            failure @ (Failure::Policy(_) | Failure::Usage(_)) => {
                Outcome::Refused(refusal(&failure))
            }
            failure => Outcome::Failed(failure.message()),
        };
        self.tell_shaping(Event::Applied { attempt, outcome });
    }

    /// Where other runs find this daemon. The instance may have been removed, and made anew.
    pub(super) fn keep_instance(&mut self) {
        if self.keeping.as_ref().is_some_and(Keeping::holds) {
            return;
        }
        let Some(instance) = self.session.kernel.instance() else { return };
        match instance.keep() {
            Ok(keeping) => {
                self.keeping = Some(keeping);
                self.tell_condition(self.shaping.word().0, true);
            }
            Err(error) => log::warn!("other runs will not know of this daemon: {error}"),
        }
    }

    /// Under the lock: another run may be writing tags.
    fn begin_to_drain(&mut self) -> Result<Snapshot, Failure> {
        let locked = self.session.kernel.lock(Duration::ZERO)?;
        apply::begin_to_drain(&mut self.session.kernel, &locked, &self.in_force.state)
    }
}

/// Why a policy is refused, for the journal and in one line.
fn refusal(failure: &Failure) -> Refusal {
    let text = failure.message();
    let first = |report: &Report| {
        let first = report.first()?;
        let file = &report.source.file;
        Some(match first.place() {
            Some(Place { line, column }) => format!("{file}:{line}:{column}: {}", first.message),
            None => format!("{file}: {}", first.message),
        })
    };
    let brief = match failure {
        Failure::Policy(report) => first(report),
        _ => None,
    };
    Refusal { brief: brief.unwrap_or_else(|| text.clone()), text }
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
