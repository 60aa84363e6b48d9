//! Who is here, who comes, and what NSS is asked about them: what happens to processes and to
//! accounts goes in, and what is wanted comes out. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::agenda::{Agenda, Task};
use super::arrivals::{Arrivals, Interest};
use super::event::{Action, Decision, Newcomer, Swept};
use super::muted;
use super::names::{Names, News};
use super::registry::{Registry, Whose};
use super::roster::{self, Roster};
use super::shaping::SETTLE;
use super::sweeps::{Complaint, Sweeps};
use crate::accounts::Question;
use crate::accounts::asking::Unanswered;
use crate::apply::InForce;
use crate::facts::Accounts;
use crate::model::Matcher;
use crate::netlink::proc_event::ProcEvent;
use crate::process::{PlacedOne, Placement};
use crate::sys::listener::Heard;
use crate::sys::route::SocketError;
use crate::tree::{Claim, Owner};

/// So long processes are placed before what else happens is looked at.
const AT_A_TIME: Duration = Duration::from_millis(1);
/// After a process could not be placed all are looked at, so much later.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// After a look at who has left, rest at least so many times as long as it took.
const LEFT_SHARE: u32 = 300;
/// How often NSS is asked who everybody is now.
const ASK: Duration = Duration::from_secs(600);
/// The same while it does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What is wanted.
pub(super) enum Want {
    /// Have this done.
    Done(Decision),
    /// An apply by then.
    Apply { by: Instant },
    /// The next apply is to look at all processes.
    LookAtAll,
    /// NSS has answered, or was given up. `asks`: names of the policy are still asked for.
    Named { asks: bool },
    /// All that the policies want to know of NSS is asked for.
    AskForAll,
}

/// Everybody.
pub(super) struct People {
    /// How long an account without processes keeps its class.
    grace: Duration,
    /// What NSS says of everybody; who runs is as the roster said when it was last asked.
    accounts: Accounts,
    roster: Roster,
    arrivals: Arrivals,
    names: Names,
    sweeps: Sweeps,
    agenda: Agenda,
    /// That events were lost.
    lost: Complaint,
    /// That a process could not be placed.
    unplaced: Complaint,
    /// What is wanted because of what is being heard.
    wants: Vec<Want>,
}

impl People {
    /// `has_process_events`: the kernel tells of processes.
    pub(super) fn new(
        grace: Duration,
        accounts: Accounts,
        has_process_events: bool,
        now: Instant,
    ) -> People {
        let roster = Roster::new(grace, &accounts.running, &accounts.running_ranges);
        let mut people = People {
            grace,
            accounts,
            roster,
            arrivals: Arrivals::new(now),
            names: Names::default(),
            sweeps: Sweeps::new(!has_process_events, now),
            agenda: Agenda::default(),
            lost: Complaint::default(),
            unplaced: Complaint::default(),
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

    /// When there is something to do although nothing happens; `None`: there is nothing.
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

    /// Those whose time of grace is over.
    pub(super) fn leaving(&self) -> BTreeSet<Owner> {
        self.roster.leaving()
    }

    /// Who everybody is, and who runs now.
    pub(super) fn accounts(&self) -> Accounts {
        let (running, running_ranges) = self.roster.running();
        Accounts { running, running_ranges, ..self.accounts.clone() }
    }

    /// Whose a process is.
    pub(super) fn whose<'a>(&'a self, matcher: &'a Matcher) -> Whose<'a> {
        Whose { matcher, accounts: &self.accounts }
    }

    /// Has the kernel tell only what the policy makes worth hearing.
    pub(super) fn narrow(&mut self, matcher: &Matcher) {
        let exec = !matcher.units.is_empty();
        self.decide(Decision::Narrow { exec, muted: self.arrivals.muted() });
    }

    /// Does what is due, if something is.
    pub(super) fn on_time(&mut self, in_force: &InForce, now: Instant) {
        let Some(task) = self.agenda.take(now) else { return };
        match task {
            Task::Muted => {
                // Before the last look at those, so that what they do after it is told.
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
            Task::Leave => {
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
    /// Takes in what was told, and then has processes placed for a while. Whoever is left over is
    /// placed after the next look at what else is to do.
    pub(super) fn told(
        &mut self,
        told: &[ProcEvent],
        heard: Result<Heard, SocketError>,
        matcher: &Matcher,
        now: Instant,
    ) {
        let units = &matcher.units;
        let interest = Interest { units: !units.is_empty(), follows: !units.following.is_empty() };
        let roster = &self.roster;
        let taken = self.arrivals.take_in(told, interest, |pid| roster.is_waiting(pid), now);
        if taken.mutes {
            self.narrow(matcher);
            self.agenda.by(Task::Muted, now + muted::LOOK);
        }
        match heard {
            Ok(Heard::All) if taken.overflow => self.sweep_by(self.sweeps.soon(now)),
            Ok(Heard::All) => {}
            Ok(Heard::Lost) => {
                if self.lost.may_be_said(now) {
                    let line = "process events were lost; looking at all processes";
                    self.say(log::Level::Warn, line.to_string());
                }
                self.sweep_by(self.sweeps.soon(now));
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
        self.place_next(now + AT_A_TIME, now);
    }

    /// The next one of those who wait, until then.
    pub(super) fn place_next(&mut self, until: Instant, now: Instant) {
        let next = if now < until { self.arrivals.next() } else { None };
        match next {
            Some(newcomer) => {
                self.act(Action::Place(newcomer));
                self.decide(Decision::GoOnPlacing { until });
            }
            None if self.arrivals.end_turn() => self.act(Action::HandOver),
            None => {}
        }
    }

    /// One process was looked at. `open`, `home`: see [`roster::Event::Looked`].
    pub(super) fn looked(
        &mut self,
        (newcomer, placed): (Newcomer, &PlacedOne),
        (open, home): (Option<u32>, Option<Owner>),
        in_force: &InForce,
        now: Instant,
    ) {
        self.arrivals.looked(newcomer, placed, now);
        let (pid, lacks) = (newcomer.pid, lacking(&placed.placement));
        let event = roster::Event::Looked { pid, open, home, lacks: &lacks };
        self.tell_roster(event, in_force, now);
        if self.roster.is_waiting(pid) {
            self.arrivals.waits(newcomer);
        }
    }

    /// One could not be read, or not be moved.
    pub(super) fn not_placed(&mut self, pid: u32, why: &str, now: Instant) {
        if self.unplaced.may_be_said(now) {
            let line =
                format!("process {pid} cannot be placed: {why}; looking at all of them soon");
            self.say(log::Level::Error, line);
        }
        self.sweep_by(now + AFTER_FAILURE);
    }

    /// All were looked at.
    pub(super) fn swept(&mut self, swept: Swept, in_force: &InForce, now: Instant) {
        let Swept { start, mut running, open, placement, ended } = swept;
        // Who has a class keeps it for the time of grace.
        running.extend(in_force.state.claims.keys().filter_map(Claim::uid));
        let lacks = lacking(&placement);
        let event = roster::Event::Swept { running, open, lacks: &lacks, ended };
        self.tell_roster(event, in_force, now);
        let roster = &self.roster;
        self.arrivals.forget_unless(|pid| roster.is_waiting(pid));
        self.agenda.at(Task::Sweep, self.sweeps.ended(start, now));
    }

    /// A look at all processes by then.
    pub(super) fn sweep_by(&mut self, by: Instant) {
        self.agenda.by(Task::Sweep, by);
    }

    /// Nobody is in the directories of these.
    pub(super) fn left(
        &mut self,
        empty: BTreeSet<Owner>,
        took: Duration,
        in_force: &InForce,
        now: Instant,
    ) {
        self.tell_roster(roster::Event::Directories { empty }, in_force, now);
        let pause = (self.grace / 2).max(took.saturating_mul(LEFT_SHARE));
        self.agenda.at(Task::Leave, now + pause);
    }

    /// An apply came to rest: whoever waited for a class is placed.
    pub(super) fn have_classes(&mut self, in_force: &InForce, now: Instant) {
        let Accounts { running, running_ranges: ranges, .. } = &in_force.accounts;
        let event = roster::Event::InForce { running, ranges, state: &in_force.state };
        self.tell_roster(event, in_force, now);
    }

    fn tell_roster(&mut self, event: roster::Event<'_>, in_force: &InForce, now: Instant) {
        let whose = Whose { matcher: &in_force.model.matcher, accounts: &self.accounts };
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

    /// Time has passed, or NSS has answered.
    pub(super) fn admit(&mut self, in_force: &InForce, now: Instant) {
        self.names.forget(&mut self.accounts, now);
        self.tell_roster(roster::Event::Time, in_force, now);
    }
}

/// Names.
impl People {
    fn ask_interval(&self) -> Duration {
        // An account that the policy names may be made any time.
        let unknown = self.accounts.by_name.values().any(Option::is_none);
        if self.accounts.unavailable.is_some() || unknown { ASK_AGAIN } else { ASK }
    }

    /// Everything is to be asked again at once.
    pub(super) fn ask_all_again(&mut self, now: Instant) {
        self.agenda.at(Task::Ask, now);
    }

    /// Asks all that the policies want to know, and about everybody who runs: an answer takes the
    /// place of what was known.
    pub(super) fn ask_all(&mut self, question: Question, now: Instant) {
        let (running, _) = self.roster.running();
        self.names.ask_all(Question { running, ..question });
        self.ask_next(now);
    }

    /// `/etc/subuid` is another one.
    pub(super) fn subuids_changed(&mut self, now: Instant) {
        self.agenda.by(Task::Subuids, now + SETTLE);
    }

    /// The next question, where there is one and none is under way.
    fn ask_next(&mut self, now: Instant) {
        if let Some(question) = self.names.next(now) {
            self.decide(Decision::Ask(question));
        }
        match self.names.due() {
            Some(due) => self.agenda.at(Task::AskNext, due),
            None => self.agenda.drop(Task::AskNext),
        }
    }

    /// No child could be started that asks.
    pub(super) fn not_asked(&mut self, why: &Unanswered, now: Instant) {
        self.names.put_off(why, now);
        self.ask_next(now);
    }

    /// What came of a question.
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
            // Somebody may be another line's now.
            self.wants.extend((news == News::Everybody).then_some(Want::LookAtAll));
            self.wants.push(Want::Apply { by: now });
        }
        // Who has a class needs no look at the kernel to be placed.
        self.admit(in_force, now);
    }
}

/// The owners whose class a placement missed.
fn lacking(placement: &Placement) -> Vec<Owner> {
    let owner = |claim: &Claim| match claim {
        Claim::Owner(owner) | Claim::Pinned(owner) => Some(owner.clone()),
        Claim::Retired(..) => None,
    };
    placement.waiting.keys().filter_map(owner).collect()
}
