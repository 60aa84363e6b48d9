//! Processes as they become their users, and the sweeps for what no event tells.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::agenda::Task;
use super::{IDLE_SHARE, Watch};
use crate::netlink::proc_event::Event;
use crate::process::{self, Placement, Process};
use crate::state::{Claim, Owner};
use crate::sys::listener::Heard;

/// How long NSS may take to say which groups a newcomer is in, before he gets a class by his uid.
const INTRODUCTION: Duration = Duration::from_millis(200);
/// Between two complaints about lost events.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Between two sweeps where there are process events, at least: they tell almost everything.
const SAFETY: Duration = Duration::from_secs(600);
/// Where there are none, at least; and of the time that a sweep takes, so many times.
const INSTEAD: Duration = Duration::from_secs(1);
const INSTEAD_SHARE: u32 = 10;
/// The same for looks at who has left.
const LEFT_SHARE: u32 = 300;

impl Watch {
    /// Asks for the events that the policy makes worth hearing.
    pub(super) fn narrow_events(&mut self) {
        let units = !self.stands.model.matcher.units.is_empty();
        if let Some(Err(error)) = self.processes.as_ref().map(|listener| listener.narrow(units)) {
            log::debug!("all process events will come: {error}");
        }
    }

    pub(super) fn hear_processes(&mut self) {
        let Some(listener) = &mut self.processes else { return };
        let mut events = Vec::new();
        let heard = listener.hear(|event| events.push(event));
        let units = !self.stands.model.matcher.units.is_empty();
        for told in events {
            match told.event {
                Event::Uid { pid } => self.place(pid),
                Event::Fork { parent, child } => {
                    if self.waiting.contains(&parent) || self.followed.includes(parent, told.at) {
                        self.place(child);
                    }
                }
                // A service is in its unit's cgroup by the time it runs its program.
                Event::Exec { pid } if units => self.place(pid),
                Event::Exec { .. } | Event::Subscribed(_) => {}
            }
        }
        self.hand_over();
        match heard {
            Ok(Heard::All) => {}
            Ok(Heard::Lost) => {
                // Where a sweep takes so long that events are lost meanwhile, not one after the other.
                let (ended, took) = self.swept;
                let at = (ended + took).max(Instant::now());
                if self.lost.is_none_or(|last| last.elapsed() > SAY_AGAIN) {
                    log::warn!("process events were lost; looking at all processes");
                    self.lost = Some(Instant::now());
                }
                self.agenda.by(Task::Sweep, at);
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

    /// One process to where it belongs.
    pub(super) fn place(&mut self, pid: u32) {
        let kernel = &self.session.kernel;
        let Some(instance) = kernel.instance() else { return };
        let view = kernel.view();
        let matcher = &self.stands.model.matcher;
        let one = process::place_one(&kernel.proc_root, &instance, pid, |process| {
            kernel.decide(process, matcher, &self.accounts, &view)
        });
        self.handover.merge(one.handover);
        if !one.stayed {
            self.followed.follow(pid, monotonic());
        }
        self.waiting.remove(&pid);
        if !one.placement.waiting.is_empty() {
            self.waiting.insert(pid);
            self.welcome(&one.placement);
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

    /// Classes for those who have none: at once, but that NSS may first say who they are.
    fn welcome(&mut self, placement: &Placement) {
        let now = Instant::now();
        for claim in placement.waiting.keys() {
            let mut by = now;
            if let Some(uid) = claim.uid() {
                // Groups, and whether it is a subordinate uid that counts for somebody else.
                if !self.accounts.by_uid.contains_key(&uid) {
                    if !self.strangers.contains_key(&uid) {
                        self.names.ask_about(uid);
                        self.after_asking();
                    }
                    by = *self.strangers.entry(uid).or_insert(now + INTRODUCTION);
                } else {
                    self.accounts.running.insert(uid);
                }
            }
            self.soon(by);
        }
    }

    /// Strangers who were introduced, or have waited long enough, are among those who run.
    pub(super) fn admit(&mut self, now: Instant) {
        let (names, accounts) = (&self.names, &mut self.accounts);
        self.strangers.retain(|uid, until| {
            let waits =
                *until > now && !accounts.by_uid.contains_key(uid) && names.is_asking_about(*uid);
            if !waits {
                accounts.running.insert(*uid);
            }
            waits
        });
    }

    /// Those whose class was made meanwhile.
    pub(super) fn place_waiting(&mut self) {
        for pid in std::mem::take(&mut self.waiting) {
            self.place(pid);
        }
        self.hand_over();
    }

    /// Every process to where it belongs; and who runs at all.
    pub(super) fn sweep(&mut self) {
        let start = Instant::now();
        self.schedule_sweep(Duration::ZERO);
        let kernel = &self.session.kernel;
        let Some(instance) = kernel.instance() else { return };
        let view = kernel.view();
        let matcher = &self.stands.model.matcher;
        let running = RefCell::new(BTreeSet::new());
        let decide = |process: &Process| {
            if process.is_alive() && view.may_claim(process) {
                running.borrow_mut().insert(process.uid);
            }
            kernel.decide(process, matcher, &self.accounts, &view)
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
        let mut running = running.into_inner();
        running.extend(self.state().claims.keys().filter_map(Claim::uid));
        self.accounts.running = running;
        // Who ended while waiting is not told.
        let proc_root = &self.session.kernel.proc_root;
        self.waiting.retain(|pid| proc_root.join(pid.to_string()).exists());
        if !placement.waiting.is_empty() {
            // All are looked at again once they have a class.
            self.session.processes = true;
            self.welcome(&placement);
        }
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
            Some(_) => SAFETY.max(took.saturating_mul(IDLE_SHARE)),
            None => INSTEAD.max(took.saturating_mul(INSTEAD_SHARE)),
        };
        self.agenda.at(Task::Sweep, Instant::now() + pause);
    }

    /// An account without processes gives its class back after a while: who logs in again soon finds
    /// it as it was.
    pub(super) fn look_who_left(&mut self) {
        let start = Instant::now();
        self.agenda.at(Task::Leave, start + self.settings.grace / 2);
        let Some(instance) = self.session.kernel.instance() else { return };
        let mut left = std::mem::take(&mut self.left);
        let mut leaving = BTreeSet::new();
        let stand: BTreeSet<u32> = self.state().claims.keys().filter_map(Claim::uid).collect();
        left.retain(|uid, _| stand.contains(uid));
        for uid in stand {
            // One that cannot be looked into may hold somebody.
            if instance.is_occupied(&Owner::Uid(uid)).unwrap_or(true) {
                left.remove(&uid);
                continue;
            }
            let since = *left.entry(uid).or_insert(start);
            if start.saturating_duration_since(since) >= self.settings.grace {
                leaving.insert(uid);
            }
        }
        self.left = left;
        if !leaving.is_empty() {
            self.accounts.running.retain(|uid| !leaving.contains(uid));
            self.leaving = leaving;
            self.soon(start);
        }
        let pause = (self.settings.grace / 2).max(start.elapsed().saturating_mul(LEFT_SHARE));
        self.agenda.at(Task::Leave, Instant::now() + pause);
    }
}

/// The clock by which the kernel stamps process events.
fn monotonic() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let now = Duration::from(now);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
