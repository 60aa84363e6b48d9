//! Which accounts are here and come, and what NSS is asked about them: events about processes and
//! accounts go in, and wants come out. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::agenda::{Agenda, Task};
use super::arrivals::{Arrivals, Interest};
use super::event::{Action, Decision, Newcomer, Swept};
use super::muted;
use super::names::{Names, News};
use super::registry::{Registry, Whose};
use super::roster::{self, Roster};
use super::rounds::Pace;
use super::shaping::SETTLE;
use super::sweeps::{Complaint, Sweeps};
use crate::accounts::Question;
use crate::accounts::asking::Unanswered;
use crate::apply::InForce;
use crate::facts::Accounts;
use crate::model::Matcher;
use crate::netlink::proc_event::{Moment, ProcEvent};
use crate::process::{PlacedOne, Placement};
use crate::sample::Deed;
use crate::sys::listener::Heard;
use crate::sys::route::SocketError;
use crate::tree::{Claim, Owner};

/// How long processes are placed before other events are looked at.
const AT_A_TIME: Duration = Duration::from_millis(1);
/// How long after a process could not be placed, or all could not be looked at, all are looked at.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// After a look at who has left, the rest is at least so many times as long as the look took.
const LEFT_SHARE: u32 = 300;
/// The same after a turn of such a look.
const TURN_SHARE: u32 = 5;
/// How often NSS is asked about all accounts again.
const ASK: Duration = Duration::from_secs(600);
/// The same while NSS does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What [`People`] wants of the rest of the daemon.
pub(super) enum Want {
    /// This decision.
    Done(Decision),
    /// An apply by this time.
    Apply { by: Instant },
    /// The next apply is to look at all processes.
    LookAtAll,
    /// NSS has answered, or was given up. `asks`: names of the policy are still asked for.
    Named { asks: bool },
    /// A question about all names of the policies.
    AskForAll,
    /// This is counted.
    Count(Deed),
}

/// The accounts and processes that the daemon looks after.
pub(super) struct People {
    /// How long an account without processes keeps its class.
    grace: Duration,
    /// The answers of NSS; who runs is as the roster said when NSS was last asked.
    accounts: Accounts,
    roster: Roster,
    arrivals: Arrivals,
    names: Names,
    sweeps: Sweeps,
    agenda: Agenda,
    /// The complaint that events were lost.
    lost: Complaint,
    /// The complaint that a process could not be placed.
    unplaced: Complaint,
    /// The complaint that processes could not be looked at.
    unswept: Complaint,
    /// What is wanted because of the event that is being handled.
    wants: Vec<Want>,
}

impl People {
    /// `events`: a moment by both clocks, where the kernel sends process events.
    pub(super) fn new(
        grace: Duration,
        accounts: Accounts,
        events: Option<Moment>,
        now: Instant,
    ) -> People {
        let roster = Roster::new(grace, &accounts.running, &accounts.running_ranges);
        let mut people = People {
            grace,
            accounts,
            roster,
            arrivals: Arrivals::new(events, now),
            names: Names::default(),
            sweeps: Sweeps::new(events.is_none(), now),
            agenda: Agenda::default(),
            lost: Complaint::default(),
            unplaced: Complaint::default(),
            unswept: Complaint::default(),
            wants: Vec::new(),
        };
        people.agenda.by(Task::Ask, now + people.ask_interval());
        people.agenda.by(Task::Leave, now + grace / 2);
        people.agenda.at(Task::Sweep, people.sweeps.begin(now));
        people
    }

    /// What is wanted since the last call.
    pub(super) fn wants(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.wants)
    }

    /// When something is due even without an event; `None`: nothing is.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.arrivals.is_empty() {
            true => self.agenda.due(),
            false => Some(now),
        }
    }

    /// Processes that wait for a class, or for NSS's answer.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.roster.waiting()
    }

    /// The owners whose grace time is over.
    pub(super) fn leaving(&self) -> BTreeSet<Owner> {
        self.roster.leaving()
    }

    /// The accounts as NSS has said, and who runs now.
    pub(super) fn accounts(&self) -> Accounts {
        let (running, running_ranges) = self.roster.running();
        Accounts { running, running_ranges, ..self.accounts.clone() }
    }

    /// Says who claims a process, by the policy in force and NSS.
    pub(super) fn whose<'a>(&'a self, in_force: &'a InForce) -> Whose<'a> {
        whose(in_force, &self.accounts)
    }

    /// Has only those process events come that the policy needs.
    pub(super) fn narrow(&mut self, matcher: &Matcher) {
        let exec = !matcher.units.is_empty() || !matcher.proxied.is_empty();
        self.decide(Decision::Narrow { exec, muted: self.arrivals.muted() });
    }

    /// Handles a task that is due, if there is one.
    pub(super) fn on_time(&mut self, in_force: &InForce, now: Instant) {
        let Some(task) = self.agenda.take(now) else { return };
        match task {
            Task::Muted => {
                // Before the last look at these processes, so that events after it come.
                if self.arrivals.look_at_muted(now) {
                    self.narrow(&in_force.model.matcher);
                }
                if !self.arrivals.muted().is_empty() {
                    self.agenda.by(Task::Muted, now + muted::LOOK);
                }
            }
            Task::Sweep => {
                self.agenda.at(Task::Sweep, self.sweeps.begin(now));
                self.act(Action::Sweep);
            }
            Task::Leave | Task::LeaveOn => {
                self.agenda.at(Task::Leave, now + self.grace / 2);
                self.act(Action::LookWhoLeft);
            }
            Task::Ask => {
                self.agenda.by(Task::Ask, now + self.ask_interval());
                self.wants.push(Want::AskForAll);
            }
            Task::Subuids => {
                self.names.read_subuids();
                self.ask_next(now);
            }
            Task::AskNext => {
                self.ask_next(now);
                self.after_names(News::None, in_force, now);
            }
        }
    }

    fn decide(&mut self, decision: Decision) {
        self.wants.push(Want::Done(decision));
    }

    fn act(&mut self, action: Action) {
        self.decide(Decision::Do(action));
    }

    fn say(&mut self, level: log::Level, line: String) {
        self.act(Action::Log(level, line));
    }
}

/// Processes.
impl People {
    /// Takes in process events, and then has processes placed for a while. Those that still wait
    /// are placed after other events were looked at.
    pub(super) fn told(
        &mut self,
        told: &[ProcEvent],
        heard: Result<Heard, SocketError>,
        matcher: &Matcher,
        now: Instant,
    ) {
        let units = &matcher.units;
        let programs = !units.is_empty() || !matcher.proxied.is_empty();
        let interest = Interest { programs, follows: !units.following.is_empty() };
        let roster = &self.roster;
        let taken = self.arrivals.take_in(told, interest, |pid| roster.is_waiting(pid), now);
        if taken.mutes {
            self.narrow(matcher);
            self.agenda.by(Task::Muted, now + muted::LOOK);
        }
        if taken.overflow || matches!(heard, Ok(Heard::Lost)) {
            self.wants.push(Want::Count(Deed::Lost));
        }
        match heard {
            Ok(Heard::All) if taken.overflow => self.sweep_soon(now),
            Ok(Heard::All) => {}
            Ok(Heard::Lost) => {
                if self.lost.may_be_said(now) {
                    let line = "process events were lost; looking at all processes";
                    self.say(log::Level::Warn, line.to_string());
                }
                self.sweep_soon(now);
            }
            Err(error) => {
                let line = format!(
                    "process events have ended ({error}); looking at all processes instead"
                );
                self.say(log::Level::Error, line);
                self.sweeps.are_all = true;
                self.agenda.at(Task::Sweep, now);
            }
        }
        // The turn begins once the events are taken in: in a storm that alone takes as long.
        self.decide(Decision::GoOnPlacing { until: None });
    }

    /// Has the next process placed that waits, until the given time; `None`: a turn begins now, and
    /// at least one process is placed in it.
    pub(super) fn place_next(&mut self, until: Option<Instant>, now: Instant) {
        let until = until.unwrap_or(now + AT_A_TIME);
        let next = if now < until { self.arrivals.next() } else { None };
        match next {
            Some(newcomer) => {
                self.act(Action::Place(newcomer));
                self.decide(Decision::GoOnPlacing { until: Some(until) });
            }
            None if self.arrivals.end_turn() => self.act(Action::HandOver),
            None => {}
        }
    }

    /// Handles that a process was looked at. `open`, `home`: see [`roster::Event::Looked`].
    pub(super) fn looked(
        &mut self,
        (newcomer, placed): (Newcomer, &PlacedOne),
        (open, home): (Option<u32>, Option<Owner>),
        in_force: &InForce,
        now: Instant,
    ) {
        self.arrivals.looked(newcomer, placed, now);
        if placed.placement.added + placed.placement.moved > 0 {
            let took = self.arrivals.waited(newcomer, now).map(Deed::Placed);
            self.wants.extend(took.map(Want::Count));
        }
        let (pid, lacks) = (newcomer.pid, lacking(&placed.placement));
        let event = roster::Event::Looked { pid, open, home, lacks: &lacks };
        self.tell_roster(event, in_force, now);
        if self.roster.is_waiting(pid) {
            self.arrivals.waits(newcomer);
        }
    }

    /// Handles that a process could not be read or moved.
    pub(super) fn not_placed(&mut self, pid: u32, why: &str, now: Instant) {
        if self.unplaced.may_be_said(now) {
            let line =
                format!("process {pid} cannot be placed: {why}; looking at all of them soon");
            self.say(log::Level::Error, line);
        }
        self.sweep_by(now + AFTER_FAILURE);
    }

    /// Handles that processes could not be looked at, and plans another try. Planned already is
    /// only the look after one that goes well, which is ten minutes away where process events come.
    pub(super) fn not_swept(&mut self, why: String, now: Instant) {
        if self.unswept.may_be_said(now) {
            self.say(log::Level::Error, why);
        }
        self.sweep_by(now + AFTER_FAILURE);
    }

    /// Handles that all processes were looked at.
    pub(super) fn swept(&mut self, swept: Swept, in_force: &InForce, now: Instant) {
        let Swept { start, mut running, open, placement, ended } = swept;
        // An owner that has a class keeps it for the grace time.
        running.extend(in_force.state.claims.keys().filter_map(Claim::uid));
        let lacks = lacking(&placement);
        let event = roster::Event::Swept { running, open, lacks: &lacks, ended };
        self.tell_roster(event, in_force, now);
        let roster = &self.roster;
        self.arrivals.forget_unless(|pid| roster.is_waiting(pid));
        self.agenda.at(Task::Sweep, self.sweeps.ended(start, now));
    }

    /// Plans a look at all processes by this time.
    pub(super) fn sweep_by(&mut self, by: Instant) {
        self.agenda.by(Task::Sweep, by);
    }

    /// Plans a look at all processes as soon as the last one allows.
    pub(super) fn sweep_soon(&mut self, now: Instant) {
        self.sweep_by(self.sweeps.soon(now));
    }

    /// Handles that not all owners were looked at yet: others have the processor meanwhile.
    pub(super) fn looks_on(&mut self, took: Duration, now: Instant) {
        self.agenda.at(Task::LeaveOn, now + took.saturating_mul(TURN_SHARE));
    }

    /// Handles that the directories of these owners are empty.
    pub(super) fn left(
        &mut self,
        mut empty: BTreeSet<Owner>,
        took: Duration,
        in_force: &InForce,
        now: Instant,
    ) {
        // Who has a guest keeps the class without a process.
        empty.retain(|owner| !in_force.accounts.has_guest(owner));
        self.tell_roster(roster::Event::Directories { empty }, in_force, now);
        let pace = Pace { least: self.grace / 2, share: LEFT_SHARE };
        self.agenda.drop(Task::LeaveOn);
        self.agenda.at(Task::Leave, now + pace.rest(took));
    }

    /// Handles that an apply came to rest: processes that waited for a class are placed.
    pub(super) fn have_classes(&mut self, in_force: &InForce, now: Instant) {
        let Accounts { running, running_ranges: ranges, .. } = &in_force.accounts;
        let event = roster::Event::InForce { running, ranges, state: &in_force.state };
        self.tell_roster(event, in_force, now);
    }

    fn tell_roster(&mut self, event: roster::Event<'_>, in_force: &InForce, now: Instant) {
        let whose = whose(in_force, &self.accounts);
        let orders = self.roster.on(event, &Registry { whose, names: &self.names }, now);
        let mut places = false;
        for order in orders {
            match order {
                roster::Order::Place(pid) => {
                    let newcomer = self.arrivals.newcomer(pid, 0);
                    self.act(Action::Place(newcomer));
                    places = true;
                }
                roster::Order::Ask(uid) => {
                    let subordinate = self.accounts.subuids.holding(uid).is_some();
                    self.names.ask_about(uid, subordinate);
                    self.ask_next(now);
                }
                roster::Order::Apply { by } => self.wants.push(Want::Apply { by }),
                roster::Order::LookAtAll => self.wants.push(Want::LookAtAll),
            }
        }
        if places {
            self.act(Action::HandOver);
        }
    }

    /// Handles that time has passed or NSS has answered.
    pub(super) fn admit(&mut self, in_force: &InForce, now: Instant) {
        self.names.forget(&mut self.accounts, now);
        self.tell_roster(roster::Event::Time, in_force, now);
    }
}

/// Names.
impl People {
    fn ask_interval(&self) -> Duration {
        // An account that the policy names may be made at any time.
        let unknown = self.accounts.by_name.values().any(Option::is_none);
        if self.accounts.unavailable.is_some() || unknown { ASK_AGAIN } else { ASK }
    }

    /// Has everything asked again at once.
    pub(super) fn ask_all_again(&mut self, now: Instant) {
        self.agenda.at(Task::Ask, now);
    }

    /// Asks about all names of the policies, all users of guests and all uids that run; the answer
    /// replaces what was known.
    pub(super) fn ask_all(&mut self, mut question: Question, in_force: &InForce, now: Instant) {
        let Accounts { named_by_guests, with_guests, .. } = &in_force.accounts;
        let (running, _) = self.roster.running();
        question.names.extend(named_by_guests.iter().cloned());
        question.running = &running | with_guests;
        self.names.ask_all(question);
        self.ask_next(now);
    }

    /// Asks about users of guests that NSS was not asked about.
    pub(super) fn ask_about_guests(&mut self, in_force: &InForce, now: Instant) {
        self.names.ask_about_guests(in_force.accounts.unasked_of_guests());
        self.ask_next(now);
    }

    /// Handles that `/etc/subuid` has changed.
    pub(super) fn subuids_changed(&mut self, now: Instant) {
        self.agenda.by(Task::Subuids, now + SETTLE);
    }

    /// Begins the next question, where there is one and none is under way.
    fn ask_next(&mut self, now: Instant) {
        if let Some(question) = self.names.next(now) {
            self.decide(Decision::Ask(question));
        }
        match self.names.due() {
            Some(due) => self.agenda.at(Task::AskNext, due),
            None => self.agenda.drop(Task::AskNext),
        }
    }

    /// Handles that no child could be started for a question.
    pub(super) fn not_asked(&mut self, why: &Unanswered, now: Instant) {
        self.names.put_off(why, now);
        self.ask_next(now);
    }

    /// Handles the outcome of a question.
    pub(super) fn answered(
        &mut self,
        answer: Result<Accounts, Unanswered>,
        in_force: &InForce,
        now: Instant,
    ) {
        (self.accounts.running, self.accounts.running_ranges) = self.roster.running();
        let news = self.names.answered(answer, &mut self.accounts, now);
        self.ask_next(now);
        self.after_names(news, in_force, now);
    }

    fn after_names(&mut self, news: News, in_force: &InForce, now: Instant) {
        if self.accounts.unavailable.is_some() {
            self.agenda.by(Task::Ask, now + ASK_AGAIN);
        }
        self.wants.push(Want::Named { asks: self.names.is_asking_about_all() });
        if news != News::None {
            // Another line may claim some process now.
            self.wants.extend((news == News::Everybody).then_some(Want::LookAtAll));
            self.wants.push(Want::Apply { by: now });
        }
        // A process whose class stands needs no apply to be placed.
        self.admit(in_force, now);
    }
}

/// The owners whose class a placement lacked.
fn lacking(placement: &Placement) -> Vec<Owner> {
    let owner = |claim: &Claim| match claim {
        Claim::Owner(owner) | Claim::Pinned(owner) => Some(owner.clone()),
        Claim::Retired(..) => None,
    };
    placement.waiting.keys().filter_map(owner).collect()
}

fn whose<'a>(in_force: &'a InForce, accounts: &'a Accounts) -> Whose<'a> {
    let asks_cgroups = in_force.state.asks_cgroups();
    Whose { matcher: &in_force.model.matcher, accounts, asks_cgroups }
}
