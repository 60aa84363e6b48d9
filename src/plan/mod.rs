//! From the observed state to the desired one: a list of steps so specific that the executor has no
//! choice left. Pure. The same diff is the dry run, the verification (nothing is left to do), undo
//! (a plan back) and `clear` (a plan towards nothing).

mod diff;
mod journal;
pub mod people;
mod print;
mod routine;
mod simulate;
mod step;

pub use diff::diff;
pub use journal::Journal;
pub use print::{Paths, Place, Tc};
pub use routine::Logins;
pub use simulate::perform;
pub use step::{
    Change, FilterChange, InPlace, LEARNT, LeafChange, LeftTables, Replaced, Step, Verb, Whole,
};

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Filter, KernelState, LinkName, Owner, Port};
use crate::units::{ClassId, Shard};

/// When a step is performed. Processes are placed between the two phases, so a process whose class
/// goes is in its next one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Steps that make or change objects, in an order in which nobody is without a class.
    Build,
    /// Steps that remove objects.
    TearDown,
}

/// A step of a plan, with what an administrator should know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What is done to which object.
    pub step: Step,
    /// The phase in which it is done.
    pub phase: Phase,
    /// Whom the step disturbs, and why; empty for almost all steps.
    pub disturbs: Vec<Disturbance>,
    /// The step follows from logins or from packets that have drained, and not from a change of the
    /// policy or from what somebody did to the kernel: cron need not hear of it.
    pub routine: bool,
}

/// Somebody whose packets a step loses or delays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// The owner's name, as `status` has it; `everybody on LINK` for a whole link.
    pub who: String,
    /// What becomes of the owner's packets.
    pub why: String,
}

/// Steps in an order in which every prefix is a safe state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are performed: [`Phase::Build`] first.
    pub steps: Vec<Planned>,
    /// The owners of the classes in this plan, for messages.
    pub names: BTreeMap<ClassId, Owner>,
}

/// The links that these steps shape, and that were not shaped before.
pub fn built<'p>(steps: impl IntoIterator<Item = &'p Planned>) -> BTreeSet<&'p LinkName> {
    let roots = steps.into_iter().filter_map(|planned| match &planned.step {
        Step::Root(port, Whole::Add(_)) => Some(&port.link),
        _ => None,
    });
    roots.collect()
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a step follows from a change of the policy or from what somebody did to the kernel.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|planned| !planned.routine)
    }

    /// The steps of one phase, in their order.
    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |planned| planned.phase == phase).map(|planned| &planned.step)
    }

    /// Removes the steps that disturb somebody from the plan, and the steps that depend on those;
    /// returns all of them. `from`: what stands.
    pub fn without_disruption(&mut self, from: &KernelState) -> Vec<Planned> {
        let stay = Stay::of(self.steps.iter(), from);
        let (keep, left) = std::mem::take(&mut self.steps)
            .into_iter()
            .partition(|planned| planned.disturbs.is_empty() && !stay.needs(&planned.step));
        self.steps = keep;
        left
    }

    /// Cuts off the plan where packets would be redirected for whose flows it waits
    /// ([`Step::Learn`]), and returns what is not in it any more: with a redirect goes the
    /// [`Filter::Pulse`] that it asks, since neither is for long without the other. What stands
    /// then is whole: without its redirect a link's ifb gets no packets, and what is to go stays.
    pub fn before_learning(&mut self) -> Vec<Planned> {
        let is_cut = |planned: &Planned| {
            planned.phase == Phase::TearDown && matches!(planned.step, Step::Learn(_))
        };
        let Some(at) = self.steps.iter().position(is_cut) else { return Vec::new() };
        let rest = self.steps.split_off(at);
        // Of links without traffic, too, for which alone nothing would wait.
        let redirected = rest.iter().filter_map(|planned| match &planned.step {
            Step::Filter(port, _, Whole::Add(Filter::Redirect)) => Some(port.link.clone()),
            _ => None,
        });
        let links: BTreeSet<LinkName> = redirected.collect();
        let asked = |planned: &mut Planned| match &planned.step {
            Step::Filter(port, _, Whole::Add(Filter::Pulse)) => links.contains(&port.link),
            _ => false,
        };
        self.steps.extract_if(.., asked).chain(rest).collect()
    }
}

/// What stays although the plan removes or replaces it, which other steps must then leave alone.
struct Stay {
    /// Links of which a root stays that was to go.
    links: BTreeSet<LinkName>,
    /// All links of which a root stands.
    shaped: BTreeSet<LinkName>,
    /// Shards whose qdisc is not made again, so that there is none for their new classes.
    shards: BTreeSet<(Port, Shard)>,
}

impl Stay {
    fn of<'a>(steps: impl Iterator<Item = &'a Planned>, from: &KernelState) -> Stay {
        let (links, shards) = (BTreeSet::new(), BTreeSet::new());
        let shaped = from.trees.keys().map(|port| port.link.clone()).collect();
        let mut stay = Stay { links, shaped, shards };
        for planned in steps {
            let is_left = !planned.disturbs.is_empty();
            match &planned.step {
                Step::Root(port, Whole::Remove(())) => {
                    stay.links.extend(is_left.then(|| port.link.clone()));
                }
                Step::Class(port, id, Change::Replace { .. })
                | Step::Leaf(port, id, Change::Replace { .. })
                    if is_left =>
                {
                    stay.shards.extend(Shard::of_class(*id).map(|shard| (port.clone(), shard)));
                }
                _ => {}
            }
        }
        stay
    }

    /// Whether something stays on this link. A link without a root of its own serves those that
    /// have one.
    fn holds(&self, link: &LinkName) -> bool {
        match self.shaped.contains(link) {
            true => self.links.contains(link),
            false => !self.links.is_empty(),
        }
    }

    fn needs(&self, step: &Step) -> bool {
        let shard = match step {
            Step::Filter(_, seat, Whole::Add(_)) => seat.parent.shard(),
            other => other.class().and_then(ClassId::shard),
        };
        let is_in_one = shard
            .zip(step.port())
            .is_some_and(|(shard, port)| self.shards.contains(&(port.clone(), shard)));
        // While a root stays, so does its link's other one, since what redirects packets to that
        // stays: the claims that say which of its classes are ours, the maps that its filter reads,
        // and the clsact that keeps others' priorities from naming its classes.
        let is_under_root = match step {
            Step::Mount(change) => change.after().is_none() && !self.links.is_empty(),
            Step::Claim(_, change) => change.after().is_none() && !self.links.is_empty(),
            Step::Owners(change) => change.after().is_none() && !self.links.is_empty(),
            Step::Ifb(name, change) => {
                let mut ifbs = self.links.iter().map(LinkName::ingress);
                change.after().is_none() && ifbs.any(|port| port.device() == *name)
            }
            Step::Root(port, change) => change.after().is_none() && self.holds(&port.link),
            Step::Clsact(link, change) => change.after().is_none() && self.holds(link),
            Step::Filter(port, seat, change) => {
                seat.parent.is_clsact() && change.after().is_none() && self.holds(&port.link)
            }
            _ => false,
        };
        is_in_one || is_under_root
    }
}

#[cfg(test)]
mod tests;
