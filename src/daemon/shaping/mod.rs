//! The daemon's own life is one state. Pure: [`Event`]s come in with the time at which they
//! happened, and [`Order`]s go out. `P` is a policy, of which only the text matters here.

mod again;
mod drain;
mod event;
mod repairs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::policy::Source;
use crate::tree::LinkName;
use again::{Refused, not_adopted, pause_after};
use drain::Drain;
pub(super) use event::{Attempt, Event, Found, Order, Outcome, Refusal, Text, Touched};

/// How often the kernel's objects and the policy file are looked at without an event, since some
/// changes cause none.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The longest time between two such looks, and how many times as long as a look takes the rest is.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);
const REST_SHARE: u32 = 2_000;
/// How long after an event the file is read, since an editor writes a file in several steps.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// How long a file must have stayed the same before it is adopted. Some writers close the file
/// between two parts (`cat a >file; cat b >>file`).
const CALM: Duration = Duration::from_millis(150);
/// After how long a file is looked at again that somebody has open for writing, or that does not
/// exist.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Another run holds the lock, or a change waits to be confirmed.
pub(super) const LOCKED: Duration = Duration::from_millis(500);
/// How long further notices are waited for: what changes one link often changes more.
const GATHER: Duration = Duration::from_millis(20);
/// How long after a link has come it is looked at: it is unshaped until then.
const COME: Duration = Duration::from_millis(1);
/// After a look, the rest is at least so many times as long as the look took, however many notices
/// come.
const NOTICE_SHARE: u32 = 4;
/// The longest such rest.
const LONGEST_GATHER: Duration = Duration::from_millis(500);
/// So much rest looks at links that have come may owe, which are then taken at once: a container's
/// link is told of some times while it is made, and only the last of these looks finds its owner.
const OWED: Duration = Duration::from_secs(2);

/// The daemon's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State<P> {
    /// The policy is in force, as far as events tell.
    Idle,
    /// A new policy was read and is to be applied. `asks`: NSS is being asked about its names.
    Adopting { policy: P, asks: bool },
    /// Applies failed, `tries` in a row: of the new policy, if there is one, or of the one in
    /// force. The next is not before `until`.
    Failing { tries: u32, until: Instant, why: String, policy: Option<P> },
    /// Another run holds the lock, or a change waits to be confirmed.
    Waiting { tries: u32, until: Instant, why: String, policy: Option<P> },
}

/// Why the policy file was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unread {
    Unreadable(String),
    BeingWritten(String),
}

/// The daemon's state, with all that transitions depend on.
#[derive(Debug)]
pub(super) struct Shaping<P> {
    /// The policy file, as the command line names it.
    file: String,
    state: State<P>,
    /// What the files said when they were last read whole, if that is refused.
    refused: Option<Refused<P>>,
    unread: Option<Unread>,
    /// What was read and is being parsed.
    reading: Option<Source>,
    /// The file is read by this time.
    read_by: Instant,
    /// The kernel's objects are looked at by this time.
    look_by: Instant,
    /// A repair failed, and the next one is not before this time.
    not_before: Instant,
    drain: Option<Drain>,
    /// How long the last look took that found nothing to do, and when the last look ended.
    took: Duration,
    looked: Instant,
    /// When all looks so far have had their rests.
    rested: Instant,
    /// Links whose traffic control somebody else changed since the last look.
    touched: Touched,
    backoff: Backoff,
    /// The last complaint about each attempt, so that each is logged once.
    complaints: BTreeMap<Attempt, String>,
    /// What is to be done about the event that is being heard.
    orders: Vec<Order>,
}

impl<P: Text + PartialEq> Shaping<P> {
    /// The state after the first apply. `drains`: some classes are not quiet yet.
    pub(super) fn new(file: String, drains: bool, now: Instant) -> (Shaping<P>, Vec<Order>) {
        let mut shaping = Shaping {
            file,
            state: State::Idle,
            refused: None,
            unread: None,
            reading: None,
            // The file may have changed during the first apply.
            read_by: now,
            look_by: now + LOOK_INTERVAL,
            not_before: now,
            drain: None,
            took: Duration::ZERO,
            looked: now,
            rested: now,
            touched: Touched::new(),
            backoff: Backoff::default(),
            complaints: BTreeMap::new(),
            orders: Vec::new(),
        };
        shaping.drain(drains, now);
        let orders = std::mem::take(&mut shaping.orders);
        (shaping, orders)
    }

    /// The policy on its way in.
    pub(super) fn candidate(&self) -> Option<&P> {
        match &self.state {
            State::Idle => None,
            State::Adopting { policy, .. } => Some(policy),
            State::Failing { policy, .. } | State::Waiting { policy, .. } => policy.as_ref(),
        }
    }

    /// The policy that is refused here.
    pub(super) fn refused(&self) -> Option<&P> {
        self.refused.as_ref()?.policy.as_ref()
    }

    /// How many applies in a row have failed.
    pub(super) fn failures(&self) -> u32 {
        match &self.state {
            State::Failing { tries, .. } | State::Waiting { tries, .. } => *tries,
            _ => 0,
        }
    }

    /// The state as one word, and the reason.
    pub(super) fn word(&self) -> (&'static str, Option<String>) {
        let unread = self.unread.as_ref().map(|unread| match unread {
            Unread::Unreadable(why) | Unread::BeingWritten(why) => why,
        });
        let refused = self.refused.as_ref().map(|refused| &refused.why);
        match (&self.state, unread.or(refused)) {
            (State::Adopting { asks, .. }, _) => {
                ("adopting", asks.then(|| "NSS is asked for its names".to_string()))
            }
            (State::Failing { why, .. }, _) => ("failing", Some(why.clone())),
            (State::Waiting { why, .. }, _) => ("waiting", Some(why.clone())),
            (_, Some(why)) => ("refusing", Some(why.clone())),
            (State::Idle, _) if self.drain.is_some() => {
                ("draining", Some("retired classes have still to become quiet".to_string()))
            }
            (State::Idle, _) => ("idle", None),
        }
    }

    /// When there is something to do although nothing happens.
    pub(super) fn due(&self) -> Instant {
        let adopt = self.adoption_due().into_iter().chain(self.again_due());
        adopt.chain(self.look_due()).chain([self.read_by]).min().unwrap_or(self.read_by)
    }

    /// When the policy on its way in is applied.
    fn adoption_due(&self) -> Option<Instant> {
        match &self.state {
            State::Adopting { asks: false, .. } => Some(self.looked),
            State::Failing { until, policy: Some(_), .. }
            | State::Waiting { until, policy: Some(_), .. } => Some(*until),
            _ => None,
        }
    }

    /// When the policy that is refused is tried again.
    fn again_due(&self) -> Option<Instant> {
        self.refused.as_ref().filter(|_| matches!(self.state, State::Idle))?.due()
    }

    /// When the kernel's objects are looked at. `None`: a new policy is to be applied, and may
    /// stand already in part. While NSS is asked for its names, nothing of it stands.
    fn look_due(&self) -> Option<Instant> {
        let by = self.drain.map_or(self.look_by, |drain| drain.until.min(self.look_by));
        let is_begun = matches!(self.state, State::Adopting { asks: false, .. });
        (!is_begun).then_some(by.max(self.not_before))
    }

    pub(super) fn on(&mut self, event: Event<P>, now: Instant) -> Vec<Order> {
        match event {
            Event::Time => {
                let next = self.next(now);
                self.orders.extend(next);
            }
            // Further changes until then are read together.
            Event::FileTold => self.read_by = self.read_by.min(now + SETTLE),
            Event::FileRead { found, watched } => self.read(found, watched, now),
            Event::Parsed(parsed) => self.parsed(parsed, now),
            Event::Named { asks } => {
                if let State::Adopting { asks: asked, .. } = &mut self.state {
                    *asked &= asks;
                }
            }
            Event::LinksTold { touched, has_come } => {
                for (link, by) in touched {
                    repairs::add(self.touched.entry(link).or_default(), by);
                }
                let pause = self.pause();
                // Where links keep coming, looks still keep their distance.
                let owed = self.rested.saturating_duration_since(now);
                let rest = match has_come {
                    true => owed.saturating_sub(OWED).clamp(COME, pause),
                    false => pause,
                };
                self.look(now + rest);
            }
            Event::LinksDiffer => {
                if let Some(refused) = &mut self.refused {
                    refused.links_differ(now + GATHER);
                }
            }
            Event::Wanted { by } => self.look(by),
            Event::Applied { attempt, outcome } => {
                self.looked = now;
                self.applied(attempt, outcome, now);
                let (rested, pause) = (now.max(self.rested + self.took), self.pause());
                // Nobody waits for what a storm owed once it is over.
                self.rested = (rested + pause).min(now + OWED + pause);
            }
            Event::Hangup => self.hang_up(now),
        }
        std::mem::take(&mut self.orders)
    }

    /// The next order that is due: adopting a new policy goes before a look at the kernel's
    /// objects, and that before reading the file.
    fn next(&mut self, now: Instant) -> Option<Order> {
        if self.adoption_due().is_some_and(|due| due <= now) {
            return Some(Order::Adopt);
        }
        if self.look_due().is_some_and(|due| due <= now) {
            let old = self.drain.as_mut().filter(|drain| drain.is_old_enough(now));
            let collects = old.map(|drain| drain.is_compared = true).is_some();
            return Some(Order::Repair { held: self.backoff.held(now), collects });
        }
        if matches!(self.state, State::Idle)
            && let Some(policy) = self.refused.as_mut().and_then(|refused| refused.begins(now))
        {
            self.state = State::Adopting { policy, asks: true };
            return Some(Order::AskForNames);
        }
        if self.read_by <= now {
            // Not every change of a file causes an event: not those of folders between links, nor
            // those on network file systems.
            self.read_by = now + LOOK_INTERVAL;
            return Some(Order::Read);
        }
        None
    }

    /// The rest after a look.
    fn pause(&self) -> Duration {
        self.took.saturating_mul(NOTICE_SHARE).clamp(GATHER, LONGEST_GATHER)
    }

    /// Plans a look at the kernel's objects for this time, but not before the pause after a failure
    /// is over.
    fn look(&mut self, by: Instant) {
        let by = match &self.state {
            State::Failing { until, .. } | State::Waiting { until, .. } => by.max(*until),
            _ => by,
        };
        self.look_by = self.look_by.min(by);
    }

    fn read(&mut self, found: Found, watched: bool, now: Instant) {
        self.read_by = now + if watched { LOOK_INTERVAL } else { READ_AGAIN };
        let file = &self.file;
        match found {
            Found::Changing => self.read_by = self.read_by.min(now + CALM),
            Found::BeingWritten(since) => {
                self.read_by = now + READ_AGAIN;
                if since > READ_AGAIN {
                    let why = format!("{file} is open for writing; it is read once it is closed");
                    self.leave_unread(Unread::BeingWritten(why.clone()), why);
                }
            }
            Found::Unreadable(why) => {
                let complaint = not_adopted(&why);
                self.leave_unread(Unread::Unreadable(why), complaint);
            }
            Found::InForce => {
                let unreadable = matches!(self.unread.take(), Some(Unread::Unreadable(_)));
                let was_bad = self.refused.take().is_some() || unreadable;
                if self.candidate().is_some() {
                    self.orders.push(Order::Inform(format!("{file} is as it was")));
                    self.rest(now);
                } else if was_bad {
                    let news = format!("{file} is good again: it says what is in force");
                    self.orders.push(Order::Inform(news));
                }
            }
            Found::Text(source) => {
                self.unread = None;
                let refused = self.refused.as_ref().and_then(|refused| refused.source.as_ref());
                let is_known = refused == Some(&source)
                    || self.candidate().is_some_and(|policy| *policy.source() == source);
                if !is_known {
                    self.orders.push(Order::Parse(source.clone()));
                    self.reading = Some(source);
                }
            }
        }
    }

    fn leave_unread(&mut self, unread: Unread, complaint: String) {
        if self.unread.as_ref() != Some(&unread) {
            self.orders.push(Order::Complain(complaint));
            self.unread = Some(unread);
        }
    }

    fn parsed(&mut self, parsed: Result<P, Refusal>, now: Instant) {
        let source = self.reading.take();
        match parsed {
            // NSS is asked about the new policy's names first, by a child; the answers for the
            // policy in force stay known.
            Ok(policy) => {
                self.refused = None;
                self.state = State::Adopting { policy, asks: true };
                self.orders.push(Order::AskForNames);
            }
            Err(why) => {
                self.refuse((source, None), why, now);
                // A policy that the file had before is not in it any more.
                if self.candidate().is_some() {
                    self.rest(now);
                }
            }
        }
    }

    /// Notes that a text is refused, and the policy that it is, if it is one. Of one that is tried
    /// again only another reason is said.
    fn refuse(
        &mut self,
        (source, policy): (Option<Source>, Option<P>),
        why: Refusal,
        now: Instant,
    ) {
        let before = self.refused.take().filter(|before| before.source == source);
        if before.as_ref().is_none_or(|before| before.why != why.brief) {
            self.orders.push(Order::Complain(not_adopted(&why.text)));
        }
        self.refused = Some(Refused::new((source, policy), why.brief, before, now));
    }

    fn applied(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) {
        let tries = self.failures();
        match outcome {
            Outcome::InForce { took, repaired, drains } => {
                self.took = took.unwrap_or(self.took);
                self.in_force(attempt, &repaired, drains, now);
            }
            Outcome::Refused(why) if attempt == Attempt::Adopt => {
                let policy = self.take_candidate();
                let source = policy.as_ref().map(|policy| policy.source().clone());
                self.refuse((source, policy), why, now);
                self.rest(now);
            }
            Outcome::Locked(why) => {
                let until = now + LOCKED;
                self.put_off(attempt, until, |policy| State::Waiting { tries, until, why, policy });
            }
            Outcome::Refused(Refusal { text: why, .. }) | Outcome::Failed(why) => {
                let what = match attempt {
                    Attempt::Repair => "links and classes cannot be brought into order".to_string(),
                    Attempt::Adopt => format!("{} cannot be adopted", self.file),
                };
                let why = format!("{what}: {why}");
                if self.complaints.get(&attempt) != Some(&why) {
                    self.orders.push(Order::Complain(why.clone()));
                    self.complaints.insert(attempt, why.clone());
                }
                let (until, tries) = (now + pause_after(tries), tries.saturating_add(1));
                self.put_off(attempt, until, |policy| State::Failing { tries, until, why, policy });
            }
        }
    }

    /// Plans the next try of what failed. Where that is a new policy, the kernel's objects are
    /// still looked at meanwhile; where it is a look, names are still asked for.
    fn put_off(
        &mut self,
        attempt: Attempt,
        until: Instant,
        state: impl FnOnce(Option<P>) -> State<P>,
    ) {
        if attempt == Attempt::Repair {
            (self.look_by, self.not_before) = (until, until);
        }
        if !matches!(self.state, State::Adopting { asks: true, .. }) {
            self.state = state(self.take_candidate());
        }
    }

    fn take_candidate(&mut self) -> Option<P> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => None,
            State::Adopting { policy, .. } => Some(policy),
            State::Failing { policy, .. } | State::Waiting { policy, .. } => policy,
        }
    }

    fn in_force(
        &mut self,
        attempt: Attempt,
        repaired: &BTreeSet<LinkName>,
        drains: bool,
        now: Instant,
    ) {
        self.drain(drains, now);
        self.not_before = now;
        self.complaints.remove(&Attempt::Repair);
        match attempt {
            Attempt::Adopt => {
                self.orders.push(Order::Inform(format!("{} is in force", self.file)));
                self.complaints.clear();
                self.refused = None;
                self.rest(now);
            }
            Attempt::Repair => {
                // A change for reasons of the policy's own (a class that moves to its group) is no
                // repair of somebody's change.
                for (link, by) in self.touched.iter().filter(|(link, _)| repaired.contains(*link)) {
                    self.orders.push(repairs::counted(link, by));
                    let pause = self.backoff.repaired(link, now);
                    self.orders.push(repairs::said(link, by, pause));
                }
                let rest = self.took.saturating_mul(REST_SHARE);
                let rest = rest.clamp(LOOK_INTERVAL, LONGEST_INTERVAL);
                let next = self.backoff.next(now);
                self.look_by = next.map_or(now + rest, |next| next.min(now + rest));
                // A new policy that failed still waits for its next try.
                if self.candidate().is_none() {
                    self.state = State::Idle;
                }
            }
        }
        self.touched.clear();
    }

    /// There is no new policy any more: the kernel's objects are looked at.
    fn rest(&mut self, now: Instant) {
        self.state = State::Idle;
        self.look_by = now;
    }

    /// Notes after an apply whether some classes are not quiet yet.
    fn drain(&mut self, drains: bool, now: Instant) {
        let drain = match self.drain {
            _ if !drains => {
                self.drain = None;
                return;
            }
            // A look that became old enough meanwhile is kept for the next repair: repairs may come
            // so regularly that each begins a moment too early.
            Some(drain) if !drain.is_compared => return,
            Some(drain) => drain.again(now),
            None => Drain::begin(now),
        };
        self.orders.push(Order::LookAtRetired);
        self.drain = Some(drain);
    }

    fn hang_up(&mut self, now: Instant) {
        self.complaints.clear();
        (self.unread, self.refused) = (None, None);
        (self.read_by, self.look_by, self.not_before) = (now, now, now);
        if let Some(policy) = self.take_candidate() {
            self.state = State::Adopting { policy, asks: true };
            self.orders.push(Order::AskForNames);
        }
    }
}
