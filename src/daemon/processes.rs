//! Processes as they become their users, and the sweeps for what no event tells.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agenda::Task;
use super::names::Names;
use super::roster::{self, Event, Order};
use super::{IDLE_SHARE, Watch, muted};
use crate::cgroup;
use crate::facts::Accounts;
use crate::host::Kernel;
use crate::model::Matcher;
use crate::netlink::proc_event;
use crate::process::{self, Decision, InstanceView, Placement, Process, Verdict};
use crate::sys::listener::Heard;
use crate::tree::{Claim, Owner};

/// So long processes are placed before what else happens is looked at.
const AT_A_TIME: Duration = Duration::from_millis(1);
/// So often in a row a handover is put off because processes are left over.
const PATIENT: u32 = 5;
/// Between two complaints about lost events.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Between two sweeps where there are process events, at least: they tell almost everything.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Where there are none, at least; and of the time that a sweep takes, so many times.
const INSTEAD: Duration = Duration::from_secs(1);
const INSTEAD_SHARE: u32 = 10;
/// The same for looks at who has left.
const LEFT_SHARE: u32 = 300;

impl Watch {
    /// Asks for the events that the policy makes worth hearing.
    pub(super) fn narrow_events(&mut self) {
        let units = !self.in_force.model.matcher.units.is_empty();
        if let Some(Err(error)) =
            self.processes.as_ref().map(|it| it.narrow(units, &self.muted.pids()))
        {
            log::debug!("all process events will come: {error}");
        }
    }

    /// Takes in what was told, and then places for a while. Whoever is left over is placed after
    /// the next look at what else is to do.
    pub(super) fn hear_processes(&mut self) {
        self.take_in_events();
        let until = Instant::now() + AT_A_TIME;
        while let Some((uid, pid)) = self.queue.pop() {
            self.place(pid, uid);
            if Instant::now() >= until {
                break;
            }
        }
        // After all that came together, so that two users of one socket are seen; in a storm there
        // is always somebody left over, whom nobody waits for.
        self.handed_over_late += 1;
        if self.queue.is_empty() || self.handed_over_late > PATIENT {
            self.handed_over_late = 0;
            self.hand_over();
        }
    }

    fn take_in_events(&mut self) {
        let Some(listener) = &mut self.processes else { return };
        let mut events = Vec::new();
        let heard = listener.hear(|event| events.push(event));
        let units = &self.in_force.model.matcher.units;
        let (units, follows) = (!units.is_empty(), !units.following.is_empty());
        let mut overflow = false;
        let mut uids = HashMap::new();
        for told in events {
            self.clock.hear(told.at);
            let wanted = match told.event {
                proc_event::Event::Uid { pid, uid, effective } => {
                    self.muted.count(pid);
                    self.followed.became(pid, uid);
                    if let Some(user) = effective.filter(|user| follows && *user != 0) {
                        self.acted_for.insert(pid, user);
                    }
                    uids.insert(pid, uid);
                    Some((uid, pid))
                }
                proc_event::Event::Fork { parent, child } => {
                    self.followed.forked(parent, child);
                    let waits = self.roster.is_waiting(parent).then_some(0);
                    let uid = self.followed.includes(parent, told.at).or(waits);
                    uid.map(|uid| (uid, child))
                }
                // A service is in its unit's cgroup by the time it runs its program.
                proc_event::Event::Exec { pid } if units => Some((0, pid)),
                proc_event::Event::Exec { .. } | proc_event::Event::Subscribed(_) => None,
            };
            if let Some((uid, pid)) = wanted {
                self.followed.announce(pid, uid, told.at);
                overflow |= !self.queue.push(uid, pid);
            }
        }
        let now = Instant::now();
        if self.muted.decide(|pid| uids.get(&pid).copied().unwrap_or(0), now) {
            self.narrow_events();
            self.agenda.by(Task::Muted, now + muted::LOOK);
        }
        match heard {
            Ok(Heard::All) if overflow => self.sweep_soon(),
            Ok(Heard::All) => {}
            Ok(Heard::Lost) => {
                if self.lost.is_none_or(|last| last.elapsed() > SAY_AGAIN) {
                    log::warn!("process events were lost; looking at all processes");
                    self.lost = Some(Instant::now());
                }
                self.sweep_soon();
            }
            Err(error) => {
                log::error!(
                    "process events have ended ({error}); looking at all processes instead"
                );
                self.processes = None;
                self.agenda.at(Task::Sweep, Instant::now());
            }
        }
    }

    /// What processes that have just become users hold of root's goes to them.
    fn hand_over(&mut self) {
        if self.handover.is_empty() {
            return;
        }
        let done = std::mem::take(&mut self.handover).give();
        log::debug!("{} connections of root's are their users' now", done.given);
        self.not_handed_over(done.refused);
    }

    /// Said once: what is missing then is missing each time.
    fn not_handed_over(&mut self, why: Option<String>) {
        if let Some(why) = why.filter(|_| !self.told_of_handover) {
            log::warn!(
                "connections that root accepted stay root's and count by their tag alone: {why}"
            );
            self.told_of_handover = true;
        }
    }

    /// Those whose events do not come are placed as they are found.
    pub(super) fn look_at_muted(&mut self, now: Instant) {
        let (all, heard_again) = self.muted.due(now);
        // Before the last look at those, so that what they do after it is told.
        if heard_again {
            self.narrow_events();
        }
        for (pid, uid) in all {
            self.queue.push(uid, pid);
        }
        if !self.muted.is_empty() {
            self.agenda.by(Task::Muted, now + muted::LOOK);
        }
    }

    /// A look at all processes; where it takes so long that events are lost meanwhile, not one
    /// after the other.
    fn sweep_soon(&mut self) {
        let (ended, took) = self.swept;
        self.agenda.by(Task::Sweep, (ended + took).max(Instant::now()));
    }

    /// One process to where it belongs. `uid`: on whose account it was looked at.
    fn place(&mut self, pid: u32, uid: u32) {
        let kernel = &self.session.kernel;
        let Some(instance) = kernel.instance() else { return };
        let view = self.view.get(kernel);
        let matcher = &self.in_force.model.matcher;
        let (unasked, home) = (Cell::new(None), Cell::new(None));
        let acted_for = self.acted_for.remove(&pid);
        let one = view.and_then(|view| {
            process::place_one(&kernel.proc_root, &instance, pid, |process| {
                let process = &still_acting(process, acted_for);
                let decision = kernel.decide(process, matcher, &self.accounts, view);
                unasked.set(to_ask_about(process, &decision, matcher, &self.accounts));
                if let Decision::MoveTo(Claim::Owner(owner)) = &decision {
                    home.set(Some(owner.clone()));
                }
                Verdict { decision, acts_for: process::acts_for(process, matcher) }
            })
        });
        let one = match one {
            Ok(one) => one,
            Err(error) => {
                if self.unread.is_none_or(|last| last.elapsed() > SAY_AGAIN) {
                    log::error!(
                        "process {pid} cannot be placed: {error}; looking at all of them soon"
                    );
                    self.unread = Some(Instant::now());
                }
                self.agenda.by(Task::Sweep, Instant::now() + INSTEAD);
                return;
            }
        };
        self.handover.merge(one.handover);
        if let Some(uid) = one.home {
            self.followed.at_home(pid, uid);
        }
        match one.stayed {
            true => self.followed.stayed(pid),
            false => self.followed.follow(pid, one.parent, uid, self.clock.now()),
        }
        let lacks = lacking(&one.placement);
        let (open, home) = (unasked.get(), home.take());
        self.tell_roster(Event::Looked { pid, open, home, lacks: &lacks });
        if self.roster.is_waiting(pid) {
            self.acted_for.extend(acted_for.map(|user| (pid, user)));
        }
        for failed in &one.placement.failed {
            log::warn!(
                "process {} ({}) cannot be moved: {}",
                failed.pid,
                failed.comm,
                failed.message
            );
        }
    }

    /// What has happened to accounts, and what follows from it.
    pub(super) fn tell_roster(&mut self, event: roster::Event<'_>) {
        let Watch { roster, accounts, names, in_force, .. } = self;
        let registry = Registry { accounts, names, matcher: &in_force.model.matcher };
        let orders = roster.on(event, &registry, Instant::now());
        self.follow(orders);
    }

    /// The roster as an apply found it; whoever waited for a class is placed.
    pub(super) fn tell_roster_of_what_is_in_force(&mut self) {
        let Watch { roster, accounts, names, in_force, .. } = self;
        let registry = Registry { accounts, names, matcher: &in_force.model.matcher };
        let Accounts { running, running_ranges: ranges, .. } = &in_force.accounts;
        let event = Event::InForce { running, ranges, state: &in_force.state };
        let orders = roster.on(event, &registry, Instant::now());
        self.follow(orders);
    }

    fn follow(&mut self, orders: Vec<Order>) {
        let mut placed = false;
        for order in orders {
            match order {
                Order::Place(pid) => {
                    self.place(pid, 0);
                    placed = true;
                }
                Order::Ask(uid) => {
                    let subordinate = self.accounts.subuids.holding(uid).is_some();
                    self.names.ask_about(uid, subordinate);
                    self.after_asking();
                }
                Order::Apply { by } => self.soon(by),
                Order::LookAtAll => self.everybody = true,
            }
        }
        if placed {
            self.hand_over();
        }
    }

    /// Brings what is known of the accounts up to date with the roster.
    pub(super) fn count_running(&mut self) {
        let accounts = &mut self.accounts;
        (accounts.running, accounts.running_ranges) = self.roster.running();
    }

    /// Time has passed, or NSS has answered.
    pub(super) fn admit(&mut self, now: Instant) {
        self.names.forget(&mut self.accounts, now);
        self.tell_roster(Event::Time);
    }

    /// Every process to where it belongs; and who runs at all.
    pub(super) fn sweep(&mut self) {
        let start = Instant::now();
        self.schedule_sweep(Duration::ZERO);
        let kernel = &self.session.kernel;
        let Some(instance) = kernel.instance() else { return };
        let view = match kernel.view() {
            Ok(view) => view,
            Err(error) => {
                log::error!("cannot look at the other instances: {error}");
                return;
            }
        };
        let matcher = &self.in_force.model.matcher;
        let (running, unasked) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeMap::new()));
        let decide = |process: &Process| {
            if process.is_alive() && view.may_claim(process) {
                let (uid, _) = process::counts_as(process, matcher);
                running.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
            }
            let decision = kernel.decide(process, matcher, &self.accounts, &view);
            let uid = to_ask_about(process, &decision, matcher, &self.accounts);
            let open = uid.map(|uid| (process.pid, uid));
            unasked.lock().unwrap_or_else(PoisonError::into_inner).extend(open);
            Verdict { decision, acts_for: process::acts_for(process, matcher) }
        };
        let placement = match process::place(&kernel.proc_root, &instance, decide) {
            Ok(placement) => placement,
            Err(error) => {
                log::error!("cannot look at the processes: {error}");
                return;
            }
        };
        self.not_handed_over(placement.handed_over.refused.clone());
        // Who has a class keeps it for the time of grace.
        let mut running = running.into_inner().unwrap_or_else(PoisonError::into_inner);
        running.extend(self.state().claims.keys().filter_map(Claim::uid));
        let proc_root = &self.session.kernel.proc_root;
        // Who ended while waiting is not told.
        let has_ended = |pid: &u32| !proc_root.join(pid.to_string()).exists();
        let ended = self.roster.waiting().filter(has_ended).collect();
        let open = unasked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lacks = lacking(&placement);
        self.tell_roster(Event::Swept { running, open, lacks: &lacks, ended });
        self.acted_for.retain(|pid, _| self.roster.is_waiting(*pid));
        log::debug!(
            "looked at all processes in {:?}: {} placed, {} moved, {} released",
            start.elapsed(),
            placement.added,
            placement.moved,
            placement.gone
        );
        self.swept = (Instant::now(), start.elapsed());
        self.schedule_sweep(start.elapsed());
    }

    pub(super) fn schedule_sweep(&mut self, took: Duration) {
        let pause = match self.processes {
            Some(_) => SWEEP_INTERVAL.max(took.saturating_mul(IDLE_SHARE)),
            None => INSTEAD.max(took.saturating_mul(INSTEAD_SHARE)),
        };
        self.agenda.at(Task::Sweep, Instant::now() + pause);
    }

    /// Looks which accounts have no process any more.
    pub(super) fn look_who_left(&mut self) {
        let start = Instant::now();
        self.agenda.at(Task::Leave, start + self.settings.grace / 2);
        let Some(instance) = self.session.kernel.instance() else { return };
        let claims = self.state().claims.keys();
        let owners = claims.filter_map(Claim::comes_and_goes).cloned();
        // One that cannot be looked into may hold somebody.
        let empty = owners.filter(|owner| !instance.is_occupied(owner).unwrap_or(true)).collect();
        self.tell_roster(Event::Directories { empty });
        let pause = (self.settings.grace / 2).max(start.elapsed().saturating_mul(LEFT_SHARE));
        self.agenda.at(Task::Leave, Instant::now() + pause);
    }
}

/// What the policy and NSS say.
struct Registry<'a> {
    accounts: &'a Accounts,
    names: &'a Names,
    matcher: &'a Matcher,
}

impl roster::Registry for Registry<'_> {
    fn has_answer(&self, uid: u32) -> bool {
        self.accounts.has_answer(uid)
    }

    fn is_account(&self, uid: u32) -> bool {
        self.accounts.by_uid.contains_key(&uid)
    }

    fn is_subordinate(&self, uid: u32) -> bool {
        self.accounts.subuids.holding(uid).is_some()
    }

    fn is_asked_about(&self, uid: u32) -> bool {
        self.names.is_asking_about(uid)
    }

    fn may_be_asked_about(&self, uid: u32) -> bool {
        self.names.has_room(self.is_subordinate(uid))
    }

    fn owner_of(&self, uid: u32) -> Option<Owner> {
        self.matcher.claim(uid, None, self.accounts).map(|claimed| claimed.owner())
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

/// The uid about which NSS has still to be asked before it is certain whose a process is.
fn to_ask_about(
    process: &Process,
    decision: &Decision,
    matcher: &Matcher,
    accounts: &Accounts,
) -> Option<u32> {
    let (uid, unit) = process::counts_as(process, matcher);
    (decision.may_be_ours() && matcher.is_open(uid, unit, accounts)).then_some(uid)
}

/// A process of root's that is root again by the time it is looked at acted for the user of whom
/// the kernel told.
fn still_acting(process: &Process, acted_for: Option<u32>) -> Process {
    let acting_uid = match (process.uid, process.acting_uid, acted_for) {
        (0, 0, Some(user)) => user,
        (_, acting, _) => acting,
    };
    Process { acting_uid, ..process.clone() }
}

/// The clock by which the kernel stamps process events: not ours in a time namespace.
pub(super) struct EventClock {
    at: u64,
    heard: Instant,
}

impl Default for EventClock {
    fn default() -> EventClock {
        EventClock { at: 0, heard: Instant::now() }
    }
}

impl EventClock {
    fn hear(&mut self, at: u64) {
        if at > self.at {
            *self = EventClock { at, heard: Instant::now() };
        }
    }

    fn now(&self) -> u64 {
        let since = u64::try_from(self.heard.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.at.saturating_add(since)
    }
}

/// The instance as placement knows it, with the other instances as they were a moment ago.
#[derive(Default)]
pub(super) struct View(Option<(Instant, InstanceView)>);

impl View {
    /// # Errors
    /// The other instances cannot be listed, and never could be.
    fn get(&mut self, kernel: &Kernel) -> Result<&InstanceView, cgroup::Error> {
        let known = match self.0.take() {
            Some(known) if known.0.elapsed() < INSTEAD => known,
            old => match (kernel.view(), old) {
                (Ok(view), _) => (Instant::now(), view),
                (Err(_), Some(old)) => old,
                (Err(error), None) => return Err(error),
            },
        };
        Ok(&self.0.insert(known).1)
    }
}
