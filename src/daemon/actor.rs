//! The actor performs decisions: it places processes, applies, and tells others the daemon's
//! condition. [`State`] decides when, and what follows from the outcome.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;

use super::applied::log_of;
use super::event::{Action, Event};
use super::last_good;
use super::passing::Reading;
use super::placing::Placing;
use super::service_manager::{ALIVE, tell};
use super::shaping::Attempt;
use super::state::State;
use super::telling::TURN;
use crate::apply::{self, Applied, ApplyOptions, InForce, Request, Session};
use crate::cgroup::{Condition, Keeping};
use crate::facts::Observation;
use crate::failure::Failure;
use crate::host::execute;
use crate::host::kept::{self, Totals};
use crate::host::observe::{self, ObserveError, Snapshot, Wanted, WhoLeft};
use crate::plan::Step;
use crate::sample;
use crate::sys::memory;
use crate::tree::{Claim, KernelState, LinkName};

/// The kernel, and the listeners that are told of the daemon's condition.
pub(super) struct Actor {
    session: Session,
    placing: Placing,
    /// The look with which retired classes are compared.
    earlier: Option<Snapshot>,
    /// The look at who left that is going on, and how long it took so far.
    who_left: Option<(WhoLeft, Duration)>,
    /// The lock by which others find this daemon.
    keeping: Option<Keeping>,
    condition: Condition,
    /// What is shaped and for how many, in words.
    extent: String,
    /// Where the last good policy is kept.
    kept: Option<PathBuf>,
    /// The warnings of the last apply, so that each is logged once.
    said: Vec<String>,
}

impl Actor {
    /// `said`: the warnings of the first apply. `condition`: the daemon's state as one word, and
    /// the reason.
    pub(super) fn new(
        session: Session,
        said: Vec<String>,
        (word, why): (&'static str, Option<String>),
        kept: Option<PathBuf>,
    ) -> Actor {
        let condition = Condition { word: word.to_string(), why, since: SystemTime::now() };
        let (placing, extent) = (Placing::default(), String::new());
        let (earlier, who_left, keeping) = (None, None, None);
        Actor { session, placing, earlier, who_left, keeping, condition, extent, kept, said }
    }

    /// Whether there is a hierarchy to place processes in.
    pub(super) fn has_hierarchy(&self) -> bool {
        self.session.kernel.instance().is_some()
    }

    /// When container engines are to be asked.
    pub(super) fn asks(&self) -> Option<Instant> {
        self.session.engines.known.due()
    }

    /// Performs an action, with what it needs of the state; the outcome is an event.
    pub(super) fn perform(&mut self, action: Action, state: &State) -> Option<Event> {
        let (kernel, whose) = (&self.session.kernel, state.whose());
        match action {
            Action::Place(newcomer) => return self.placing.one(kernel, newcomer, whose),
            Action::HandOver => self.placing.hand_over(),
            Action::Sweep => return self.placing.all(kernel, whose, state.waiting()),
            Action::LookWhoLeft => return Some(self.look_who_left(&state.in_force().state)),
            Action::Apply { attempt, held, collects } => {
                let start = Instant::now();
                let mut request = state.request(attempt, held);
                request.earlier = self.earlier.take_if(|_| collects);
                let policy = Arc::clone(&request.intent.policy);
                let came_of_it = self.apply(request, attempt == Attempt::Repair).map(Box::new);
                if attempt == Attempt::Adopt && came_of_it.as_ref().is_ok_and(|it| it.shapes()) {
                    last_good::keep(&policy.source, self.kept.as_deref());
                }
                return Some(Event::Applied { asks: self.asks(), attempt, start, came_of_it });
            }
            Action::Learn(answer) => {
                let is_news = self.session.engines.known.learn(answer, Instant::now());
                return Some(Event::Learned { is_news, asks: self.asks() });
            }
            Action::LookAtRetired => match self.begin_to_drain(&state.in_force().state) {
                Ok(snapshot) => self.earlier = Some(snapshot),
                Err(failure) => log::debug!("retired classes: {}", failure.message()),
            },
            Action::LookWhoListens => {
                let start = Instant::now();
                let outcome = execute::refresh_servers(&mut self.session.kernel);
                let why = outcome.err().map(|error| error.to_string());
                return Some(Event::Listening { took: start.elapsed(), why });
            }
            Action::ReadPassages => return Some(self.passages(state.in_force())),
            Action::Count => return Some(self.count(state)),
            Action::WriteUse => self.session.write_use(),
            Action::CountLast => self.count_last(state),
            Action::TellAccounts => return Some(self.tell_accounts(state)),
            Action::LookInTheWay(links) => return Some(self.in_the_way(links)),
            Action::TellCondition { word, why, is_said } => {
                self.extent = state.extent();
                self.tell_condition(word, why, is_said);
            }
            Action::Keep => {
                let before = std::mem::replace(&mut self.extent, state.extent());
                self.keep_instance();
                if self.extent != before {
                    tell(&[NotifyState::Status(&self.status())]);
                }
                memory::give_back();
            }
            Action::KeepCounts(text) => {
                let path = kept::path(Totals::Daemon, &self.session.kernel.name);
                if let Err(error) = kept::write(&path, &text) {
                    log::debug!("the metrics will lack what the daemon does: {error}");
                }
            }
            Action::SignOfLife => tell(&[NotifyState::Watchdog]),
            Action::Log(level, line) => log::log!(level, "{line}"),
        }
        None
    }

    /// Reads the counters on the way of packets that arrive, and who could see none of them.
    fn passages(&mut self, in_force: &InForce) -> Event {
        let start = Instant::now();
        let index = |name: &LinkName| in_force.links.get(name).copied();
        let read = observe::passages(&mut self.session.kernel, &in_force.state, index);
        let tell = |error: &_| log::debug!("the counters of what arrives: {error}");
        let passages = read.inspect_err(tell).ok();
        let tell = |error: &_| log::debug!("what nftables has at links: {error}");
        let firewalls = observe::firewalls(&mut self.session.kernel).inspect_err(tell).ok();
        Event::Passed { reading: Reading { passages, firewalls }, took: start.elapsed() }
    }

    /// Counts and writes at the end. Whatever follows from it is the next process's.
    fn count_last(&mut self, state: &State) {
        self.session.wait_for_use(true);
        let _ = self.count(state);
        self.session.write_use();
    }

    /// Counts what owners with a quota have used.
    fn count(&mut self, state: &State) -> Event {
        let start = Instant::now();
        let next = self.session.count_use(state.policy(), state.in_force());
        let tell = |error: &_| log::debug!("what is used is not counted: {error}");
        let next = next.inspect_err(tell).ok().flatten();
        Event::Counted { next, took: start.elapsed() }
    }

    /// Tells the next accounts what is theirs to know.
    fn tell_accounts(&mut self, state: &State) -> Event {
        let start = Instant::now();
        let is_last = self.session.tell_accounts(state.in_force(), TURN);
        Event::Told { is_last, took: start.elapsed() }
    }

    /// Looks who may keep packets that arrive by these links from their ifbs: one look for all.
    fn in_the_way(&mut self, links: BTreeSet<LinkName>) -> Event {
        let start = Instant::now();
        let seen = self.beside(&links);
        let seen = seen.inspect_err(|error| log::debug!("who is in the way of arrivals: {error}"));
        let suspects = |link: &LinkName| {
            seen.as_ref().map_or_else(|_| Vec::new(), |seen| sample::suspects(link, seen))
        };
        let suspects = links.iter().map(|link| (link.clone(), suspects(link))).collect();
        Event::InTheWay { suspects, took: start.elapsed() }
    }

    /// A look that has what others have at these links.
    fn beside(&mut self, links: &BTreeSet<LinkName>) -> Result<Observation, ObserveError> {
        let kernel = &mut self.session.kernel;
        let mut seen = observe::observe(kernel, Wanted::default())?.observation;
        observe::beside(kernel, &mut seen.facts, |name, _| links.contains(name))?;
        Ok(seen)
    }

    /// Looks which accounts have no process any more, for a turn.
    fn look_who_left(&mut self, state: &KernelState) -> Event {
        let start = Instant::now();
        let (mut look, before) = self.who_left.take().unwrap_or_else(|| {
            let owners = state.claims.keys().filter_map(Claim::comes_and_goes).cloned();
            (WhoLeft::new(owners.collect()), Duration::ZERO)
        });
        // What cannot be read may have a process.
        let empty = look.turn(&self.session.kernel).unwrap_or_else(|error| {
            log::debug!("who left: {error}");
            Some(BTreeSet::new())
        });
        let turn = start.elapsed();
        match empty {
            Some(empty) => Event::Directories { empty, took: before + turn },
            None => {
                self.who_left = Some((look, before + turn));
                Event::SomeDirectories { took: turn }
            }
        }
    }

    /// One apply. `repair`: of the policy in force.
    fn apply(&mut self, request: Request, repair: bool) -> Result<Applied, Failure> {
        // Nobody is placed while an apply goes on, so it waits for nothing.
        let wait = Duration::ZERO;
        let may = ApplyOptions { wait, learns: false, quiet: None, repair, ..Default::default() };
        let mut told = Instant::now();
        let mut still_here = |_: usize, _: &Step| {
            if told.elapsed() > ALIVE {
                told = Instant::now();
                tell(&[NotifyState::Watchdog]);
            }
            Ok(())
        };
        let policy = Arc::clone(&request.intent.policy);
        let applied = apply::apply(&mut self.session, request, may, &mut still_here)?;
        let said = log_of(&applied, &policy.source);
        if said != self.said {
            said.iter().for_each(|line| log::warn!("{line}"));
            self.said = said;
        }
        Ok(applied)
    }

    /// Takes the lock, because another run may be writing tags.
    fn begin_to_drain(&mut self, state: &KernelState) -> Result<Snapshot, Failure> {
        let locked = self.session.kernel.lock(Duration::ZERO)?;
        apply::begin_to_drain(&mut self.session.kernel, &locked, state)
    }

    /// Tells the condition to the journal (where the word has changed), to the service manager, and
    /// to `shaper status`.
    fn tell_condition(&mut self, word: &str, why: Option<String>, is_said: bool) {
        let before = std::mem::replace(&mut self.condition.word, word.to_string());
        self.condition.why = why;
        if word != before {
            self.condition.since = SystemTime::now();
            // Each logout leaves a class that drains, so that is no news for the journal.
            let level = match (before.as_str(), word) {
                ("idle", "draining") | ("draining", "idle") => log::Level::Debug,
                // It is tried again since links have changed, and refused as before.
                ("refusing", "adopting") => log::Level::Debug,
                ("adopting", "refusing") if !is_said => log::Level::Debug,
                _ => log::Level::Info,
            };
            let line = if is_said { word.to_string() } else { self.condition_line() };
            log::log!(level, "{line}");
        }
        self.publish();
    }

    fn condition_line(&self) -> String {
        let Condition { word, why, .. } = &self.condition;
        why.as_ref().map_or_else(|| word.clone(), |why| format!("{word}: {why}"))
    }

    /// The line for the service manager.
    fn status(&self) -> String {
        let said = match self.condition.word.as_str() {
            "idle" => "idle: in sync".to_string(),
            _ => self.condition_line(),
        };
        format!("{said} ({})", self.extent)
    }

    fn publish(&mut self) {
        tell(&[NotifyState::Status(&self.status())]);
        let told = self.keeping.as_mut().map(|keeping| keeping.tell(&self.condition));
        if let Some(Err(error)) = told {
            log::debug!("others cannot be told the daemon's condition: {error}");
        }
    }

    /// Takes the lock by which other runs find this daemon, unless it has the lock. The instance
    /// may have been removed, and made anew.
    fn keep_instance(&mut self) {
        if self.keeping.as_ref().is_some_and(Keeping::holds) {
            return;
        }
        let Some(instance) = self.session.kernel.instance() else { return };
        match instance.keep() {
            Ok(keeping) => {
                self.keeping = Some(keeping);
                self.publish();
            }
            Err(error) => log::warn!("other runs will not know of this daemon: {error}"),
        }
    }
}
