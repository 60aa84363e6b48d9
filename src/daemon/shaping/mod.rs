//! The daemon's own life: one state, and what follows from what happens. Pure: what happens comes
//! in as an [`Event`], with the time at which it happened, and what is to be done goes out as
//! [`Order`]s. `P` is a policy, of which nothing but its text matters here.

mod drain;
mod event;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::tree::LinkName;
use drain::Drain;
pub(super) use event::{Attempt, Event, Found, Order, Outcome, Refusal, Text};

/// How often the kernel's objects are looked at, and the policy file, although nothing was told:
/// not everything is.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Between two such looks at most, and a rest of so many times the time that a look takes.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);
const REST_SHARE: u32 = 2_000;
/// An editor writes a file in several steps.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// For how long a file must have stayed as it is. Some write it in several goes, and have it closed
/// between two of them (`cat a >file; cat b >>file`).
const CALM: Duration = Duration::from_millis(150);
/// A file that somebody has open for writing, or that is not there, is looked at again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Another run holds the lock, or a change waits to be confirmed.
pub(super) const LOCKED: Duration = Duration::from_millis(500);
/// After a failure; doubled for each one that follows.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// What changes one link often changes more: wait so long for the rest.
const GATHER: Duration = Duration::from_millis(20);
/// A link that has come is unshaped until it is looked at, and nothing of it is half done.
const COME: Duration = Duration::from_millis(1);
/// After a look, rest at least so many times as long as it took, however much is told of links.
const NOTICE_SHARE: u32 = 4;
/// But no longer.
const LONGEST_GATHER: Duration = Duration::from_millis(500);

/// What the daemon is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State<P> {
    /// What is in force stands, as far as was told.
    Idle,
    /// A policy was read and is on its way in. `asks`: NSS is being asked for its names.
    Adopting { policy: P, asks: bool },
    /// An apply failed so many times in a row: of the policy on its way in, if there is one, or of
    /// the one in force. The next is not before `until`.
    Failing { tries: u32, until: Instant, why: String, policy: Option<P> },
    /// Another run holds the lock, or a change waits to be confirmed.
    Waiting { tries: u32, until: Instant, why: String, policy: Option<P> },
}

/// A text that is no policy, or none that can hold here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    text: String,
    why: String,
}

/// Why the policy file was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unread {
    Unreadable(String),
    BeingWritten(String),
}

/// The daemon's life, with what it depends on.
#[derive(Debug)]
pub(super) struct Shaping<P> {
    /// As the command line names the policy file.
    file: String,
    state: State<P>,
    /// What the file held when it was last read whole, if that cannot be adopted.
    refused: Option<Refused>,
    unread: Option<Unread>,
    /// The text that was read and is being parsed.
    reading: Option<String>,
    /// The file is read by then.
    read_by: Instant,
    /// What is in force is looked at by then.
    look_by: Instant,
    /// A repair failed, and the next is not before.
    not_before: Instant,
    drain: Option<Drain>,
    /// How long the last look took in which nothing was to be done, and when the last one ended.
    took: Duration,
    looked: Instant,
    /// Links whose traffic control somebody else changed since the last look.
    touched: BTreeSet<LinkName>,
    backoff: Backoff,
    /// The last complaint about each attempt, so that it is said once.
    complaints: BTreeMap<Attempt, String>,
    /// What is to be done about the event that is being heard.
    orders: Vec<Order>,
}

impl<P: Text + PartialEq> Shaping<P> {
    /// After the first apply. `drains`: some classes have still to become quiet.
    pub(super) fn new(file: String, drains: bool, now: Instant) -> (Shaping<P>, Vec<Order>) {
        let mut shaping = Shaping {
            file,
            state: State::Idle,
            refused: None,
            unread: None,
            reading: None,
            // It may have changed while the first apply went on.
            read_by: now,
            look_by: now + LOOK_INTERVAL,
            not_before: now,
            drain: None,
            took: Duration::ZERO,
            looked: now,
            touched: BTreeSet::new(),
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

    /// How many applies in a row failed.
    pub(super) fn failures(&self) -> u32 {
        match &self.state {
            State::Failing { tries, .. } | State::Waiting { tries, .. } => *tries,
            _ => 0,
        }
    }

    /// The state as one word, and why.
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
        let adopt = self.adoption_due().into_iter();
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

    /// When what is in force is looked at. `None`: a policy on its way in may be what stands
    /// already.
    fn look_due(&self) -> Option<Instant> {
        let by = self.drain.map_or(self.look_by, |drain| drain.until.min(self.look_by));
        (!matches!(self.state, State::Adopting { .. })).then_some(by.max(self.not_before))
    }

    pub(super) fn on(&mut self, event: Event<P>, now: Instant) -> Vec<Order> {
        match event {
            Event::Time => {
                let next = self.next(now);
                self.orders.extend(next);
            }
            // What else happens until then is looked at with it.
            Event::FileTold => self.read_by = self.read_by.min(now + SETTLE),
            Event::FileRead { found, watched } => self.read(found, watched, now),
            Event::Parsed(parsed) => self.parsed(parsed, now),
            Event::Named { asks } => {
                if let State::Adopting { asks: asked, .. } = &mut self.state {
                    *asked &= asks;
                }
            }
            Event::LinksTold { touched, has_come } => {
                self.touched.extend(touched);
                let pause = self.took.saturating_mul(NOTICE_SHARE).clamp(GATHER, LONGEST_GATHER);
                // Where they come one after the other, looks keep their distance all the same.
                let by = match has_come {
                    true => (self.looked + pause).clamp(now + COME, now + pause),
                    false => now + pause,
                };
                self.look(by);
            }
            Event::Wanted { by } => self.look(by),
            Event::Applied { attempt, outcome } => {
                self.looked = now;
                self.applied(attempt, outcome, now);
            }
            Event::Hangup => self.hang_up(now),
        }
        std::mem::take(&mut self.orders)
    }

    /// One thing that is due: the policy on its way in before what is in force, and that before the
    /// file.
    fn next(&mut self, now: Instant) -> Option<Order> {
        if self.adoption_due().is_some_and(|due| due <= now) {
            return Some(Order::Adopt);
        }
        if self.look_due().is_some_and(|due| due <= now) {
            let old = self.drain.as_mut().filter(|drain| drain.is_old_enough(now));
            let collects = old.map(|drain| drain.is_compared = true).is_some();
            return Some(Order::Repair { held: self.backoff.held(now), collects });
        }
        if self.read_by <= now {
            // Not every way to change a file is told: folders between links, network file systems.
            self.read_by = now + LOOK_INTERVAL;
            return Some(Order::Read);
        }
        None
    }

    /// A look at the kernel by this time, but not before a failure has had its pause.
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
                (self.unread, self.refused) = (None, None);
                if self.candidate().is_some() {
                    self.orders.push(Order::Inform(format!("{file} is as it was")));
                    self.rest(now);
                }
            }
            Found::Text(text) => {
                self.unread = None;
                let is_known = self.refused.as_ref().is_some_and(|refused| refused.text == text)
                    || self.candidate().is_some_and(|policy| policy.text() == text);
                if !is_known {
                    self.orders.push(Order::Parse(text.clone()));
                    self.reading = Some(text);
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
        let text = self.reading.take().unwrap_or_default();
        match parsed {
            // Its names are asked for first, off the loop; those in force stay known.
            Ok(policy) => {
                self.refused = None;
                self.state = State::Adopting { policy, asks: true };
                self.orders.push(Order::AskForNames);
            }
            Err(why) => {
                self.refuse(text, why);
                // What the file held before is not in it any more.
                if self.candidate().is_some() {
                    self.rest(now);
                }
            }
        }
    }

    fn refuse(&mut self, text: String, refusal: Refusal) {
        self.orders.push(Order::Complain(not_adopted(&refusal.text)));
        self.refused = Some(Refused { text, why: refusal.brief });
    }

    fn applied(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) {
        let tries = self.failures();
        match outcome {
            Outcome::InForce { took, repaired, drains } => {
                self.took = took.unwrap_or(self.took);
                self.in_force(attempt, &repaired, drains, now);
            }
            Outcome::Refused(why) if attempt == Attempt::Adopt => {
                let text = self.candidate().map(|policy| policy.text().to_string());
                self.refuse(text.unwrap_or_default(), why);
                self.rest(now);
            }
            Outcome::Locked(why) => {
                let (until, policy) = (now + LOCKED, self.take_candidate());
                self.put_off(attempt, until);
                self.state = State::Waiting { tries, until, why, policy };
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
                let pause = RETRY.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_RETRY);
                let (until, policy) = (now + pause, self.take_candidate());
                self.put_off(attempt, until);
                self.state = State::Failing { tries: tries.saturating_add(1), until, why, policy };
            }
        }
    }

    /// What failed is tried again then; where that is a policy on its way in, what is in force is
    /// still looked at when it is time.
    fn put_off(&mut self, attempt: Attempt, until: Instant) {
        if attempt == Attempt::Repair {
            (self.look_by, self.not_before) = (until, until);
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
                // What we changed for reasons of our own (a class that moves to its group) is no
                // fight.
                for link in repaired.intersection(&self.touched) {
                    if let Some(pause) = self.backoff.repaired(link, now) {
                        self.orders.push(Order::Warn(format!(
                            "{link} keeps being changed by somebody else; it is left alone for {} s",
                            pause.as_secs_f32()
                        )));
                    }
                }
                let rest = self.took.saturating_mul(REST_SHARE);
                let rest = rest.clamp(LOOK_INTERVAL, LONGEST_INTERVAL);
                let next = self.backoff.next(now);
                self.look_by = next.map_or(now + rest, |next| next.min(now + rest));
                // A policy that fails to come in waits for its next try all the same.
                if self.candidate().is_none() {
                    self.state = State::Idle;
                }
            }
        }
        self.touched.clear();
    }

    /// Nothing is on its way in any more: what is in force is looked at.
    fn rest(&mut self, now: Instant) {
        self.state = State::Idle;
        self.look_by = now;
    }

    /// Whether some classes have still to become quiet, after an apply.
    fn drain(&mut self, drains: bool, now: Instant) {
        let drain = match self.drain {
            _ if !drains => {
                self.drain = None;
                return;
            }
            // One that became old enough meanwhile is for the next repair: others may be wanted so
            // regularly that each begins a moment too early.
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

fn not_adopted(why: &str) -> String {
    format!("the policy is not adopted, and the one before stays in force: {why}")
}
