//! The daemon's whole state, as one value: events go in with their time, decisions come out.
//! Accounts and processes are in [`People`], the daemon's own life in [`Shaping`]; what the one
//! wants of the other passes through here. Pure.

mod arriving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::applied::{self, outcome_of, refusal};
use super::asks::Asks;
use super::counts::Counts;
use super::event::{Action, Decision, Ended, Event, Wish};
use super::links::Ours;
use super::listening::Listening;
use super::metering::Metering;
use super::passing::{Bypassed, Passing};
use super::people::{People, Want};
use super::registry::Whose;
use super::settings::Settings;
use super::shaping::{self, Attempt, Order, Outcome, Shaping, Touched};
use super::standing::Standing;
use super::telling::Telling;
use super::unowned::Unowned;
use super::watchdog::Watchdog;
use crate::accounts::Question;
use crate::apply::{Applied, InForce, Request, Who};
use crate::intent::Leaving;
use crate::netlink::notice::Notice;
use crate::plan::LEARNT;
use crate::policy::{self, Policy};
use crate::process::Changers;
use crate::sample::Deed;
use crate::sys::listener::Heard;
use crate::sys::route::SocketError;
use crate::tree::LinkName;

/// From how many failures in a row on it is more than a bad moment.
const HOPELESS: u32 = 3;

/// The daemon's state, once its first apply has come to rest.
pub(super) struct State {
    settings: Settings,
    standing: Standing,
    people: People,
    shaping: Shaping<Arc<Policy>>,
    listening: Listening,
    passing: Passing,
    metering: Metering,
    telling: Telling,
    unowned: Unowned,
    counts: Counts,
    /// The next apply looks at all processes, and moves them.
    everybody: bool,
    /// The first apply has postponed something, and no other has ended since.
    beginning: bool,
    /// When container engines are asked.
    asks: Asks,
    watchdog: Option<Watchdog>,
    /// What is to be done about the event that is being heard.
    decisions: Vec<Decision>,
}

impl State {
    /// The state after the first apply, which found these accounts, and has postponed this.
    pub(super) fn new(
        settings: Settings,
        (standing, postponed): (Standing, bool),
        people: People,
        counts: Counts,
        now: Instant,
    ) -> State {
        let file = settings.file.display().to_string();
        let (shaping, orders) = Shaping::new(file, standing.in_force.draining, now);
        let mut state = State {
            settings,
            standing,
            people,
            shaping,
            listening: Listening::new(),
            passing: Passing::new(),
            metering: Metering::default(),
            telling: Telling::default(),
            unowned: Unowned::default(),
            counts,
            everybody: false,
            beginning: postponed,
            asks: Asks::default(),
            watchdog: None,
            decisions: Vec::new(),
        };
        state.go_on_by_itself(now);
        state.follow(orders, now);
        state.go_on_later(postponed, now);
        state
    }

    /// The decisions before the first event. `watchdog`: how long the service manager waits for a
    /// sign of life, if it does.
    pub(super) fn begin(&mut self, watchdog: Option<Duration>, now: Instant) -> Vec<Decision> {
        self.watchdog = watchdog.map(|patience| Watchdog::new(patience, now));
        self.people.narrow(&self.standing.in_force.model.matcher);
        self.follow_people(now);
        // A metric that begins at 0 shows the first of what it counts.
        let text = self.counts.text();
        self.act(Action::KeepCounts(text));
        std::mem::take(&mut self.decisions)
    }

    /// When there is something to do although nothing happens.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let shaping = self.shaping.due();
        let watchdog = self.watchdog.as_ref().map(Watchdog::due);
        let others =
            self.people.due(now).into_iter().chain(watchdog).chain(self.listening.rounds.due());
        let others =
            others.chain(self.asks.due()).chain(self.unowned.due()).chain(self.counts.due());
        let others = others.chain(self.passing.due()).chain(self.metering.due());
        let others = others.chain(self.telling.due());
        others.fold(shaping, Instant::min)
    }

    /// Whether applies have failed too often for a bad moment.
    pub(super) fn is_hopeless(&self) -> bool {
        self.shaping.failures() > HOPELESS
    }

    /// Whether what the first apply has postponed was not tried yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.beginning
    }

    /// The daemon's state as one word, and the reason in one line.
    pub(super) fn word(&self) -> (&'static str, Option<String>) {
        let (word, why) = self.standing.or_partial(self.shaping.word());
        match (self.passing.complaint(), word) {
            (None, _) => (word, why),
            (Some(Bypassed { whole, .. }), "idle" | "draining") => {
                ("bypassed", Some(whole.clone()))
            }
            // First, since a long reason is cut off where others read it.
            (Some(Bypassed { brief, .. }), _) => {
                (word, Some(why.map_or_else(|| brief.clone(), |why| format!("{brief}; {why}"))))
            }
        }
    }

    /// What is shaped and for how many.
    pub(super) fn extent(&self) -> String {
        self.standing.extent()
    }

    /// The policy file, as the command line names it.
    pub(super) fn file(&self) -> impl std::fmt::Display {
        self.settings.file.display()
    }

    pub(super) fn policy(&self) -> &Arc<Policy> {
        &self.standing.intent.policy
    }

    pub(super) fn in_force(&self) -> &InForce {
        &self.standing.in_force
    }

    /// Says who claims a process, by the policy in force and NSS.
    pub(super) fn whose(&self) -> Whose<'_> {
        self.people.whose(&self.standing.in_force)
    }

    /// Processes that wait for a class, or for NSS's answer.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.people.waiting()
    }

    /// The request for an apply now.
    pub(super) fn request(&self, attempt: Attempt, held: BTreeSet<LinkName>) -> Request {
        let mut request = match (attempt, self.shaping.candidate()) {
            (Attempt::Adopt, Some(policy)) => self.standing.adoption(policy),
            _ => self.standing.repair(held),
        };
        request.intent.leaving = Leaving::These(self.people.leaving());
        let accounts = self.people.accounts();
        request.who = Who::Known { accounts: Box::new(accounts), processes: self.everybody };
        request
    }

    /// The decisions that follow from an event.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Decision> {
        let State { people, standing: Standing { in_force, .. }, .. } = self;
        match event {
            Event::Signal(wish) => self.signal(wish, now),
            Event::Processes { told, heard } => {
                people.told(&told, heard, &in_force.model.matcher, now);
            }
            Event::Links { told, by, heard } => self.links((&told, &by), heard, now),
            Event::PolicyFile => self.tell(shaping::Event::FileTold, now),
            Event::Answered(answer) => people.answered(answer, in_force, now),
            Event::Described(answer) => self.act(Action::Learn(answer)),
            Event::Learned { is_news, asks } => self.learned(is_news, asks, now),
            Event::Subuids => people.subuids_changed(now),
            Event::UseChanged => self.use_changed(now),
            Event::AnotherTime => self.tell(shaping::Event::Wanted { by: now }, now),
            Event::CutOff => self.end(Ended::WithNamespace(Arc::clone(self.policy()))),
            Event::Time => self.on_time(now),
            Event::FileRead { found, watched } => {
                self.tell(shaping::Event::FileRead { found, watched }, now);
            }
            Event::NotAsked(why) => people.not_asked(&why, now),
            Event::Turn { until } => people.place_next(until, now),
            Event::Looked { newcomer, placed, open, owner } => {
                people.looked((newcomer, &placed), (open, owner), in_force, now);
            }
            Event::NotPlaced { pid, why } => people.not_placed(pid, &why, now),
            Event::NotSwept { why } => people.not_swept(why, now),
            Event::Swept(swept) => people.swept(swept, in_force, now),
            Event::Directories { empty, took } => people.left(empty, took, in_force, now),
            Event::SomeDirectories { took } => people.looks_on(took, now),
            Event::Listening { took, why } => {
                let said = self.listening.ended(took, why, now);
                said.into_iter().for_each(|line| self.say(log::Level::Warn, line));
            }
            Event::Passed { reading, took } => self.passed(reading, took, now),
            Event::Counted { next, took } => {
                if self.metering.counted(next, took, now) {
                    self.tell(shaping::Event::Wanted { by: now }, now);
                }
            }
            Event::Told { is_last, took } => self.telling.told(is_last, took, now),
            Event::InTheWay { suspects, took } => self.in_the_way(&suspects, took, now),
            Event::Applied { asks, attempt, start, came_of_it } => {
                self.asks.learned(asks);
                self.beginning = false;
                match came_of_it {
                    Ok(applied) => self.applied(attempt, start, *applied, now),
                    Err(failure) => {
                        let outcome = outcome_of(failure);
                        self.tell(shaping::Event::Applied { attempt, outcome }, now);
                    }
                }
            }
        }
        if self.passing.news() {
            self.tell_condition(true);
        }
        self.follow_people(now);
        std::mem::take(&mut self.decisions)
    }

    /// Somebody may have granted an owner more.
    fn use_changed(&mut self, now: Instant) {
        self.metering.told(now);
        self.telling.changed(self.standing.in_force.tells(), now);
    }

    fn signal(&mut self, wish: Wish, now: Instant) {
        match wish {
            Wish::End => self.end(Ended::BySignal),
            Wish::ReadAgain => {
                let file = self.settings.file.display();
                let line = format!("SIGHUP: reading {file} and asking NSS again");
                self.say(log::Level::Info, line);
                self.tell(shaping::Event::Hangup, now);
                self.people.ask_all_again(now);
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        self.keep_counts(None);
        self.decisions.extend(self.metering.ends().map(Decision::Do));
        self.decisions.push(Decision::End(ended));
    }

    /// Has written down what was counted; `now`: if it is time for that.
    fn keep_counts(&mut self, now: Option<Instant>) {
        if let Some(text) = self.counts.news(now) {
            self.act(Action::KeepCounts(text));
        }
    }

    /// Handles one task that is due: the daemon's own life goes before accounts.
    fn on_time(&mut self, now: Instant) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.begins(now)) {
            self.act(Action::SignOfLife);
        }
        self.keep_counts(Some(now));
        if self.asks.begins(now) {
            self.decisions.push(Decision::AskEngines);
        }
        if self.listening.rounds.begins(now) {
            self.act(Action::LookWhoListens);
        }
        if self.passing.begins(now) {
            self.act(Action::ReadPassages);
        }
        self.metering.on_time(now).into_iter().for_each(|action| self.act(action));
        if self.telling.begins(now) {
            self.act(Action::TellAccounts);
        }
        if self.unowned.begins(now) {
            // As for links that come.
            let event = shaping::Event::LinksTold { touched: Touched::new(), has_come: true };
            self.tell(event, now);
        }
        match self.shaping.due() <= now {
            true => self.tell(shaping::Event::Time, now),
            false => self.people.on_time(&self.standing.in_force, now),
        }
    }

    /// Whose containers are may differ now. What is no news wants no apply.
    fn learned(&mut self, is_news: bool, asks: Option<Instant>, now: Instant) {
        self.asks.learned(asks);
        if is_news {
            self.tell(shaping::Event::Wanted { by: now }, now);
        }
    }

    fn tell_condition(&mut self, is_said: bool) {
        let (word, why) = self.word();
        self.act(Action::TellCondition { word, why, is_said });
    }

    /// Takes over what is to be done by itself for what is in force now.
    fn go_on_by_itself(&mut self, now: Instant) {
        let (arrives, is_metered) = (self.standing.arrives(), self.standing.is_metered());
        self.listening.rounds.applied(arrives, now);
        self.passing.applied(arrives, now);
        self.metering.applied(is_metered, now);
        self.telling.changed(self.standing.in_force.tells(), now);
        self.unowned.applied(self.standing.in_force.unowned(), now);
    }

    fn links(
        &mut self,
        (told, by): (&BTreeSet<Notice>, &BTreeMap<u32, Changers>),
        heard: Result<Heard, SocketError>,
        now: Instant,
    ) {
        if let Err(error) = &heard {
            let line = format!("what happens to links cannot be heard: {error}");
            self.say(log::Level::Warn, line);
        }
        let is_all = matches!(heard, Ok(Heard::All));
        if matches!(heard, Ok(Heard::Lost)) {
            self.counts.note(&Deed::Lost, now);
        }
        let Standing { in_force, intent } = &self.standing;
        let ours = Ours { in_force, policy: &intent.policy };
        ours.new_guests(told).for_each(|index| self.asks.link_came(index, now));
        let event = ours.told(told, by, is_all);
        let may_hold_now = |policy: &Arc<Policy>| {
            let ours = Ours { in_force, policy };
            ours.may_hold_now(told, is_all)
        };
        if self.shaping.refused().is_some_and(may_hold_now) {
            self.tell(shaping::Event::LinksDiffer, now);
        }
        if let Some(event) = event {
            self.tell(event, now);
        }
    }

    /// Takes over the outcome of an apply.
    fn applied(&mut self, attempt: Attempt, start: Instant, applied: Applied, now: Instant) {
        let (mut took, mut repaired) = (None, BTreeSet::new());
        match attempt {
            Attempt::Repair => {
                if applied::made_anew(&applied) {
                    self.people.sweep_by(start);
                }
                took = applied.steps.is_empty().then(|| now.duration_since(start));
                repaired = applied::repaired(&applied);
            }
            Attempt::Adopt => {
                if let Some(policy) = self.shaping.candidate() {
                    self.standing.adopted(Arc::clone(policy));
                }
            }
        }
        self.everybody = false;
        let postponed = applied.postponed;
        let came_to_rest = applied.in_force.is_some();
        if let Some(in_force) = applied.in_force {
            let proxied = &self.standing.in_force.model.matcher.proxied;
            let is_news = in_force.model.matcher.proxied != *proxied;
            if self.standing.take_over(in_force) {
                self.tell_condition(false);
            }
            if is_news {
                // A container's proxies may have come before it was known whose it is.
                self.people.narrow(&self.standing.in_force.model.matcher);
                self.people.sweep_soon(now);
            }
            self.go_on_by_itself(now);
        }
        let outcome = Outcome::InForce { took, repaired, drains: self.standing.in_force.draining };
        self.tell(shaping::Event::Applied { attempt, outcome }, now);
        // After that, since these want another apply, as a process does that still waits.
        self.go_on_later(postponed, now);
        if came_to_rest {
            self.people.have_classes(&self.standing.in_force, now);
            self.people.ask_about_guests(&self.standing.in_force, now);
            self.follow_people(now);
        }
        self.act(Action::Keep);
        if attempt == Attempt::Adopt {
            self.people.narrow(&self.standing.in_force.model.matcher);
        }
    }

    /// Has another apply do what the last one has postponed.
    fn go_on_later(&mut self, postponed: bool, now: Instant) {
        if postponed {
            self.tell(shaping::Event::Wanted { by: now + LEARNT }, now);
        }
    }

    /// Passes an event about links, the file or an apply to [`Shaping`], and handles its orders.
    fn tell(&mut self, event: shaping::Event<Arc<Policy>>, now: Instant) {
        let before = self.shaping.word();
        let orders = self.shaping.on(event, now);
        if self.shaping.word() != before {
            let is_said = orders.iter().any(|order| matches!(order, Order::Complain(_)));
            self.tell_condition(is_said);
        }
        self.follow(orders, now);
    }

    fn follow(&mut self, orders: Vec<Order>, now: Instant) {
        for order in orders {
            match order {
                Order::Read => self.decisions.push(Decision::ReadFile),
                Order::Parse(source) => {
                    let parsed = policy::read(source).map(Arc::new);
                    let parsed = parsed.map_err(|report| refusal(&report.into()));
                    self.tell(shaping::Event::Parsed(parsed), now);
                }
                Order::AskForNames => self.ask_for_all(now),
                Order::Adopt => {
                    self.everybody = true;
                    let (held, collects) = (BTreeSet::new(), false);
                    self.act(Action::Apply { attempt: Attempt::Adopt, held, collects });
                }
                Order::Repair { held, collects } => {
                    self.people.admit(&self.standing.in_force, now);
                    self.follow_people(now);
                    self.act(Action::Apply { attempt: Attempt::Repair, held, collects });
                }
                Order::LookAtRetired => self.act(Action::LookAtRetired),
                Order::CountRepair { link, by } => {
                    let at = self.standing.in_force.looked_at;
                    self.counts.note(&Deed::Repaired { link, by, at }, now);
                }
                Order::Complain(complaint) => self.say(log::Level::Error, complaint),
                Order::Warn(warning) => self.say(log::Level::Warn, warning),
                Order::Inform(news) => self.say(log::Level::Info, news),
            }
        }
    }

    /// Asks about all names of the policy in force and of a new one.
    fn ask_for_all(&mut self, now: Instant) {
        let candidate = self.shaping.candidate().map(|policy| Question::of(policy));
        let question = candidate.into_iter().fold(Question::of(self.policy()), Question::and);
        self.people.ask_all(question, &self.standing.in_force, now);
        self.follow_people(now);
    }

    /// Handles what [`People`] wants.
    fn follow_people(&mut self, now: Instant) {
        for want in self.people.wants() {
            match want {
                Want::Done(decision) => self.decisions.push(decision),
                Want::Apply { by } => self.tell(shaping::Event::Wanted { by }, now),
                Want::LookAtAll => self.everybody = true,
                Want::Named { asks } => self.tell(shaping::Event::Named { asks }, now),
                Want::AskForAll => self.ask_for_all(now),
                Want::Count(deed) => self.counts.note(&deed, now),
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.decisions.push(Decision::Do(action));
    }

    fn say(&mut self, level: log::Level, line: String) {
        self.act(Action::Log(level, line));
    }
}
