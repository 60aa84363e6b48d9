//! A daemon for one network namespace: events come from the sources, the state decides what
//! follows, and the actor performs it.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use sd_notify::NotifyState;

use super::actor::Actor;
use super::counts::Counts;
use super::event::{Action, Decision, Ended, Event};
use super::first;
use super::last_good;
use super::people::People;
use super::refusal::CannotGoOn;
use super::service_manager::tell;
use super::settings::Settings;
use super::sources::Sources;
use super::state::State;
use crate::apply::{Keeps, Session};
use crate::failure::Failure;
use crate::host::kept::{self, Totals};
use crate::intent::Intent;
use crate::sample::Upkeep;
use crate::sys::listener::ProcessListener;
use crate::sys::netns::Target;
use crate::sys::{memory, priority, signal};

struct Watch {
    sources: Sources,
    state: State,
    actor: Actor,
    /// The service manager was told that what is wanted is in force.
    is_ready: bool,
}

/// Applies the policy and keeps it in force. `target`: the name of this thread's network namespace.
pub(super) fn keep(
    mut session: Session,
    intent: Intent,
    processes: Option<ProcessListener>,
    settings: &Settings,
    target: Option<&Target>,
) -> Result<Ended, Failure> {
    let events = processes.as_ref().map(ProcessListener::began);
    // Events from now on are kept, and handled after the first apply.
    let sources = Sources::open(&session.kernel, processes, settings, target)?;
    let kept = settings.kept.as_deref();
    if !settings.once {
        session.keep_use(Keeps::Caller);
    }
    let how = (settings.wait, settings.once);
    let first = first::apply(&mut session, intent, kept, how)?;
    // Whoever counts next goes on from here.
    session.write_use();
    sources.hear_signals()?;
    if let Some(signal) = signal::caught().filter(|signal| *signal != Signal::SIGHUP as i32) {
        log::info!("ended by signal {signal}; what was made stays");
        return Ok(Ended::BySignal);
    }
    let (standing, now) = (first.standing.ok_or(CannotGoOn::Restless)?, Instant::now());
    // One that holds on fewer links than it means may be worse than the one before it.
    let has_one = kept.is_some_and(Path::exists);
    if standing.is_whole() || (standing.shapes() && !has_one) {
        last_good::keep(&standing.intent.policy.source, kept);
    }
    if settings.once {
        return Ok(Ended::AfterFirst);
    }
    if !standing.in_force.tells() {
        // What a daemon before has told is over.
        let _none_is_left = session.tell_accounts(&standing.in_force, usize::MAX);
    }
    let people = People::new(settings.grace, first.accounts, events, now);
    // The daemon before, if there was one since the machine started.
    let before = fs::read_to_string(kept::path(Totals::Daemon, &session.kernel.name)).ok();
    let before = before.and_then(|text| Upkeep::parse(&text));
    let counts = Counts::new(before.unwrap_or_default());
    let standing = (standing, first.postponed);
    let state = State::new(settings.clone(), standing, people, counts, now);
    // From now on no look waits for an engine.
    session.engines.may_be_asked = false;
    session.wait_for_use(false);
    let actor = Actor::new(session, first.said, state.word(), settings.kept.clone());
    let mut watch = Watch { sources, state, actor, is_ready: false };
    watch.begin();
    watch.run()
}

impl Watch {
    fn begin(&mut self) {
        // A login must be placed before its process, or a storm of processes, has the processors
        // again.
        if !priority::before_others() {
            log::debug!("the daemon has no more right to a processor than others (CAP_SYS_NICE)");
        }
        if !self.sources.has_process_events() {
            log::warn!(
                "this kernel or namespace has no process events: all processes are looked at every second or so instead"
            );
        }
        let mut decisions = vec![Decision::Do(Action::Keep)];
        decisions.extend(self.state.begin(sd_notify::watchdog_enabled(), Instant::now()));
        // Those that were silent at the first apply.
        let silent = Event::Learned { is_news: false, asks: self.actor.asks() };
        decisions.extend(self.state.on(silent, Instant::now()));
        // None of these decisions ends the daemon.
        let _ended = self.perform_all(decisions);
        memory::give_back();
        self.tell_ready();
    }

    /// Tells the service manager, once all is in force, or was tried once more.
    fn tell_ready(&mut self) {
        if self.is_ready || self.state.is_beginning() {
            return;
        }
        self.is_ready = true;
        tell(&[NotifyState::Ready]);
        let trees = self.state.in_force().state.trees.keys();
        let links = trees.map(|port| &port.link).collect::<BTreeSet<_>>().len();
        let file = self.state.file();
        log::info!("watching {file}, {links} link{}", if links == 1 { "" } else { "s" });
    }

    fn run(&mut self) -> Result<Ended, Failure> {
        loop {
            let due = self.state.due(Instant::now());
            let event = self.sources.next(due, self.state.in_force())?;
            let decisions = self.state.on(event, Instant::now());
            if let Some(ended) = self.perform_all(decisions) {
                if matches!(ended, Ended::BySignal) {
                    tell(&[NotifyState::Stopping]);
                    log::info!("ended; what was made stays (shaper clear removes it)");
                }
                return Ok(ended);
            }
            self.tell_ready();
            if self.state.is_hopeless() && !self.actor.has_hierarchy() {
                return Err(CannotGoOn::NoHierarchy.into());
            }
        }
    }

    /// Performs decisions, and those that follow from their outcomes, each before the next one.
    fn perform_all(&mut self, decisions: Vec<Decision>) -> Option<Ended> {
        let mut left = VecDeque::from(decisions);
        while let Some(decision) = left.pop_front() {
            let came_of_it = match decision {
                Decision::End(ended) => return Some(ended),
                decision => self.perform(decision),
            };
            if let Some(event) = came_of_it {
                let next = self.state.on(event, Instant::now());
                next.into_iter().rev().for_each(|decision| left.push_front(decision));
            }
        }
        None
    }

    fn perform(&mut self, decision: Decision) -> Option<Event> {
        let Watch { sources, state, actor, .. } = self;
        match decision {
            Decision::Narrow { exec, muted } => {
                sources.narrow(exec, &muted);
                None
            }
            Decision::ReadFile => Some(sources.read_file(&state.policy().source)),
            Decision::Ask(question) => sources.ask(question),
            Decision::AskEngines => sources.ask_engines(),
            Decision::GoOnPlacing { until } => Some(Event::Turn { until }),
            Decision::Do(action) => actor.perform(action, state),
            Decision::End(_) => None,
        }
    }
}
