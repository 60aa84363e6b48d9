//! Processes to where they belong: one that an event told of, or all of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Event, Newcomer, Swept};
use super::registry::Whose;
use crate::cgroup;
use crate::host::Kernel;
use crate::process::{self, Decision, Handover, InstanceView, Process, Verdict};
use crate::tree::{Claim, Owner};

/// How old the knowledge of other instances may be.
const OTHERS: Duration = Duration::from_secs(1);

/// What placing keeps from one process to the next.
#[derive(Default)]
pub(super) struct Placing {
    view: View,
    /// The sockets of root's in processes that became users lately.
    handover: Handover,
    /// It was logged that some of these sockets cannot be given.
    told_of_handover: bool,
}

impl Placing {
    /// Moves one process to where it belongs.
    pub(super) fn one(
        &mut self,
        kernel: &Kernel,
        newcomer: Newcomer,
        whose: Whose<'_>,
    ) -> Option<Event> {
        let instance = kernel.instance()?;
        let Newcomer { pid, acted_for, .. } = newcomer;
        let (open, owner) = (Cell::new(None), Cell::new(None));
        let placed = self.view.get(kernel).and_then(|view| {
            process::place_one(&kernel.proc_root, &instance, pid, |process| {
                let process = &still_acting(process, acted_for);
                let decision = kernel.decide(process, whose.matcher, whose.accounts, view);
                give_unit(kernel, process, whose, &decision);
                open.set(whose.uid_to_ask_about(process, &decision));
                if let Decision::MoveTo(Claim::Owner(home)) = &decision {
                    owner.set(Some(home.clone()));
                }
                Verdict { decision, acts_for: process::acts_for(process, whose.matcher) }
            })
        });
        let mut placed = match placed {
            Ok(placed) => placed,
            Err(error) => return Some(Event::NotPlaced { pid, why: error.to_string() }),
        };
        self.handover.merge(std::mem::take(&mut placed.handover));
        for failed in &placed.placement.failed {
            log::warn!(
                "process {} ({}) cannot be moved: {}",
                failed.pid,
                failed.comm,
                failed.message
            );
        }
        let (open, owner): (Option<u32>, Option<Owner>) = (open.get(), owner.take());
        Some(Event::Looked { newcomer, placed, open, owner })
    }

    /// Gives the sockets of root's in processes that have just become users to these users.
    pub(super) fn hand_over(&mut self) {
        if self.handover.is_empty() {
            return;
        }
        let done = std::mem::take(&mut self.handover).give();
        log::debug!("{} connections of root's are their users' now", done.given);
        self.not_handed_over(done.refused);
    }

    /// Logs once why sockets are not given: what is missing then is missing each time.
    fn not_handed_over(&mut self, why: Option<String>) {
        if let Some(why) = why.filter(|_| !self.told_of_handover) {
            log::warn!(
                "connections that root accepted stay root's and count by their tag alone: {why}"
            );
            self.told_of_handover = true;
        }
    }

    /// Moves every process to where it belongs, and finds out who runs. `waiting`: processes that
    /// wait to be looked at again.
    pub(super) fn all(
        &mut self,
        kernel: &Kernel,
        whose: Whose<'_>,
        waiting: impl Iterator<Item = u32>,
    ) -> Option<Event> {
        let start = Instant::now();
        let instance = kernel.instance()?;
        let view = match kernel.view() {
            Ok(view) => view,
            Err(error) => {
                let why = format!("cannot look at the other instances: {error}");
                return Some(Event::NotSwept { why });
            }
        };
        let (running, open) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeMap::new()));
        let decide = |process: &Process| {
            if process.is_alive() && view.may_claim(process) {
                let (uid, _) = process::counts_as(process, whose.matcher);
                running.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
            }
            let decision = kernel.decide(process, whose.matcher, whose.accounts, &view);
            give_unit(kernel, process, whose, &decision);
            let asks = whose.uid_to_ask_about(process, &decision).map(|uid| (process.pid, uid));
            open.lock().unwrap_or_else(PoisonError::into_inner).extend(asks);
            Verdict { decision, acts_for: process::acts_for(process, whose.matcher) }
        };
        let placement = match process::place(&kernel.proc_root, &instance, decide) {
            Ok(placement) => placement,
            Err(error) => {
                return Some(Event::NotSwept {
                    why: format!("cannot look at the processes: {error}"),
                });
            }
        };
        self.not_handed_over(placement.handed_over.refused.clone());
        // No event tells that a process ended while it waited.
        let has_ended = |pid: &u32| !kernel.proc_root.join(pid.to_string()).exists();
        let ended = waiting.filter(has_ended).collect();
        log::debug!(
            "looked at all processes in {:?}: {} placed, {} moved, {} released",
            start.elapsed(),
            placement.added,
            placement.moved,
            placement.gone
        );
        let running = running.into_inner().unwrap_or_else(PoisonError::into_inner);
        let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(Event::Swept(Swept { start, running, open, placement, ended }))
    }
}

/// Where a process is its unit's, its unit's cgroup has the class from now on.
fn give_unit(kernel: &Kernel, process: &Process, whose: Whose<'_>, decision: &Decision) {
    if whose.asks_cgroups && matches!(decision, Decision::Stay | Decision::MoveTo(_)) {
        kernel.give_unit(process, whose.matcher);
    }
}

impl Whose<'_> {
    /// The uid about which NSS must still be asked before it is certain who claims a process.
    fn uid_to_ask_about(self, process: &Process, decision: &Decision) -> Option<u32> {
        let (uid, unit) = process::counts_as(process, self.matcher);
        let is_open = || self.matcher.is_open(uid, unit, self.accounts);
        (decision.may_be_ours() && is_open()).then_some(uid)
    }
}

/// A process of root's that acts as root again when it is looked at counts as acting for the user
/// of whom the event told.
fn still_acting(process: &Process, acted_for: Option<u32>) -> Process {
    let acting_uid = match (process.uid, process.acting_uid, acted_for) {
        (0, 0, Some(user)) => user,
        (_, acting, _) => acting,
    };
    Process { acting_uid, ..process.clone() }
}

/// The instance as placement sees it, with the other instances as they were a moment ago.
#[derive(Default)]
struct View(Option<(Instant, InstanceView)>);

impl View {
    /// # Errors
    /// The other instances cannot be listed, and never could be.
    fn get(&mut self, kernel: &Kernel) -> Result<&InstanceView, cgroup::Error> {
        let known = match self.0.take() {
            Some(known) if known.0.elapsed() < OTHERS => known,
            old => match (kernel.view(), old) {
                (Ok(view), _) => (Instant::now(), view),
                (Err(_), Some(old)) => old,
                (Err(error), None) => return Err(error),
            },
        };
        Ok(&self.0.insert(known).1)
    }
}
