//! The accounts that are here: the life of each account, and of each range of subordinate uids that
//! has one class together, is one state; and the processes that wait for a class or for NSS's
//! answer. Pure: [`Event`]s come in with the time at which they happened, and [`Order`]s go out.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transitions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::tree::{Claim, KernelState, Owner, UidRange};

/// How long NSS may take to answer about a newcomer before the newcomer gets a class by its uid.
pub(super) const INTRODUCTION: Duration = Duration::from_millis(200);
/// How long NSS is not asked again about a uid about which it could not answer.
const UNNAMED: Duration = Duration::from_secs(60);
/// How many applies may come to rest without making a class that an owner lacks before the next one
/// waits; each pause after that is twice as long.
const IN_VAIN: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The life of an account or of a range. One that is not in the roster has no process, or none that
/// was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// NSS is asked who this uid is. Until then no class is made for it.
    Stranger { until: Instant },
    /// NSS took too long, or could not answer: the class is made by the uid alone. The answer may
    /// still come.
    Unnamed { since: Instant },
    /// It has processes: the next apply makes its class, if the policy has one for it.
    Here,
    /// It has a class, and no process in its directory since then.
    Gone { since: Instant },
    /// Its grace time is over: the class goes once it is quiet and the directory still empty.
    Leaving,
}

impl Life {
    /// Whether it counts as running, so that the next apply makes the class that the policy has for
    /// it.
    fn runs(self) -> bool {
        matches!(self, Life::Here | Life::Gone { .. } | Life::Leaving)
    }
}

/// What NSS was asked, or is to be asked, about the uid of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing for which the process has to wait.
    No,
    /// Who a stranger is, of whom nothing is known.
    OfAStranger,
    /// Who a uid is that has a class by its number meanwhile.
    OfOneWhoIsKnown,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event<'a> {
    /// A process was looked at, and moved to its class if that stands. `open`: the uid about which
    /// NSS must still be asked before it is certain who claims the process. `home`: the owner to
    /// whose directory it was moved. `lacks`: the owners whose class it would be in if that stood.
    Looked { pid: u32, open: Option<u32>, home: Option<Owner>, lacks: &'a [Owner] },
    /// All processes were looked at and moved. `running`: all uids that have one. `open`: by pid,
    /// as above. `ended`: pids of processes that waited and have ended.
    Swept {
        running: BTreeSet<u32>,
        open: BTreeMap<u32, u32>,
        lacks: &'a [Owner],
        ended: BTreeSet<u32>,
    },
    /// An apply came to rest: who runs, as it found, and the state in force.
    InForce { running: &'a BTreeSet<u32>, ranges: &'a BTreeSet<UidRange>, state: &'a KernelState },
    /// The directories of all owners that come and go were read, and these are empty.
    Directories { empty: BTreeSet<Owner> },
    /// Time has passed, or a question to NSS was answered or given up.
    Time,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Look at this process, and place it.
    Place(u32),
    /// Ask NSS about this uid.
    Ask(u32),
    /// Apply the policy in force, by this time.
    Apply { by: Instant },
    /// The next apply looks at all processes.
    LookAtAll,
}

/// What the policy and NSS say at this moment.
pub(super) trait Registry {
    /// Whether NSS has answered about the uid.
    fn has_answer(&self, uid: u32) -> bool;
    /// Whether the uid is an account's.
    fn is_account(&self, uid: u32) -> bool;
    /// Whether the uid lies in somebody's range of subordinate uids.
    fn is_subordinate(&self, uid: u32) -> bool;
    /// Whether a question about the uid is under way, or waits for its turn.
    fn is_asked_about(&self, uid: u32) -> bool;
    /// Whether there is room for a question about the uid.
    fn may_be_asked_about(&self, uid: u32) -> bool;
    /// The owner whose class processes of the uid belong in.
    fn owner_of(&self, uid: u32) -> Option<Owner>;
}

/// The accounts and ranges that are here, and the processes that wait.
#[derive(Debug)]
pub(super) struct Roster {
    /// How long an account without processes keeps its class.
    grace: Duration,
    lives: BTreeMap<Owner, Life>,
    /// Processes that wait for a class; those with a uid wait for NSS's answer about it, too.
    waiting: BTreeMap<u32, Option<u32>>,
    /// Owners that lack a class, and how many applies have come to rest without making it.
    lacking: BTreeMap<Owner, u32>,
}

impl Roster {
    pub(super) fn new(
        grace: Duration,
        running: &BTreeSet<u32>,
        ranges: &BTreeSet<UidRange>,
    ) -> Roster {
        let uids = running.iter().map(|uid| Owner::Uid(*uid));
        let owners = uids.chain(ranges.iter().map(|range| Owner::Subuids(*range)));
        let lives = owners.map(|owner| (owner, Life::Here)).collect();
        Roster { grace, lives, waiting: BTreeMap::new(), lacking: BTreeMap::new() }
    }

    /// The uids and ranges that count as running.
    pub(super) fn running(&self) -> (BTreeSet<u32>, BTreeSet<UidRange>) {
        let (mut uids, mut ranges) = (BTreeSet::new(), BTreeSet::new());
        for owner in self.lives.iter().filter(|(_, life)| life.runs()).map(|(owner, _)| owner) {
            match owner {
                Owner::Uid(uid) => drop(uids.insert(*uid)),
                Owner::Subuids(range) => drop(ranges.insert(*range)),
                _ => {}
            }
        }
        (uids, ranges)
    }

    /// The owners whose grace time is over.
    pub(super) fn leaving(&self) -> BTreeSet<Owner> {
        let leave = self.lives.iter().filter(|(_, life)| **life == Life::Leaving);
        leave.map(|(owner, _)| owner.clone()).collect()
    }

    pub(super) fn is_waiting(&self, pid: u32) -> bool {
        self.waiting.contains_key(&pid)
    }

    /// The processes that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.waiting.keys().copied()
    }

    pub(super) fn on(
        &mut self,
        event: Event<'_>,
        registry: &dyn Registry,
        now: Instant,
    ) -> Vec<Order> {
        match event {
            Event::Looked { pid, open, home, lacks } => {
                // An owner that comes back has all of its grace time again.
                if let Some(life) = home.and_then(|owner| self.lives.get_mut(&owner))
                    && matches!(life, Life::Gone { .. } | Life::Leaving)
                {
                    *life = Life::Here;
                }
                self.looked(pid, open, lacks, (registry, now))
            }
            Event::Swept { running, open, lacks, ended } => {
                self.waiting.retain(|pid, _| !ended.contains(pid));
                self.swept(&running, &open, lacks, (registry, now))
            }
            Event::Time => self.answered(registry, now),
            Event::InForce { running, ranges, state } => {
                self.in_force(running, ranges, state);
                std::mem::take(&mut self.waiting).into_keys().map(Order::Place).collect()
            }
            Event::Directories { empty } => self.directories(empty, registry, now),
        }
    }

    fn looked(
        &mut self,
        pid: u32,
        open: Option<u32>,
        lacks: &[Owner],
        (registry, now): (&dyn Registry, Instant),
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        self.waiting.remove(&pid);
        let asked = open.map_or(Asked::No, |uid| self.ask(uid, registry, now, &mut orders));
        let asked_about = open.filter(|_| asked != Asked::No);
        if asked_about.is_some() || !lacks.is_empty() {
            self.waiting.insert(pid, asked_about);
        }
        // Until NSS has answered about a stranger it is unknown which class to make.
        if asked != Asked::OfAStranger {
            self.welcome(lacks, now, &mut orders);
        }
        orders
    }

    /// Has NSS asked about a uid, unless it was asked already.
    fn ask(
        &mut self,
        uid: u32,
        registry: &dyn Registry,
        now: Instant,
        orders: &mut Vec<Order>,
    ) -> Asked {
        let (owner, mut is_asked) = (Owner::Uid(uid), registry.is_asked_about(uid));
        let (life, is_subordinate) = (self.lives.get(&owner), registry.is_subordinate(uid));
        let may_ask = !is_asked && registry.may_be_asked_about(uid);
        match life {
            Some(Life::Stranger { until }) if *until > now => {
                orders.push(Order::Apply { by: *until });
                return Asked::OfAStranger;
            }
            Some(Life::Stranger { .. } | Life::Unnamed { .. }) => {}
            None if is_asked || may_ask => {
                let until = now + INTRODUCTION;
                self.lives.insert(owner, Life::Stranger { until });
                orders.extend(may_ask.then_some(Order::Ask(uid)));
                orders.push(Order::Apply { by: until });
                return Asked::OfAStranger;
            }
            None => {}
            Some(life) => {
                orders.extend(may_ask.then_some(Order::Ask(uid)));
                is_asked |= may_ask;
                if is_asked && is_subordinate && *life == Life::Here {
                    self.lives.insert(owner, Life::Unnamed { since: now });
                }
            }
        }
        // Questions about subordinate uids wait for one another, too long for the processes to wait
        // for them.
        match is_asked && !is_subordinate {
            true => Asked::OfOneWhoIsKnown,
            false => Asked::No,
        }
    }

    /// Orders an apply for owners that lack a class.
    fn welcome(&mut self, lacks: &[Owner], now: Instant, orders: &mut Vec<Order>) {
        for owner in lacks {
            if matches!(owner, Owner::Uid(_) | Owner::Subuids(_)) {
                self.lives.insert(owner.clone(), Life::Here);
            }
            let applies = *self.lacking.entry(owner.clone()).or_default();
            let pause = match applies.checked_sub(IN_VAIN) {
                Some(more) => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(more)),
                None => Duration::ZERO,
            };
            orders.push(Order::Apply { by: now + pause.min(LONGEST_PAUSE) });
        }
    }

    fn swept(
        &mut self,
        running: &BTreeSet<u32>,
        open: &BTreeMap<u32, u32>,
        lacks: &[Owner],
        (registry, now): (&dyn Registry, Instant),
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        // An owner that has a class keeps it for the grace time; a range is in no list of uids.
        self.lives.retain(|owner, life| match owner {
            Owner::Uid(uid) => *life != Life::Here || running.contains(uid),
            _ => true,
        });
        self.welcome(lacks, now, &mut orders);
        let mut asked = BTreeMap::new();
        for (pid, uid) in open {
            let mut ask = || self.ask(*uid, registry, now, &mut orders);
            if *asked.entry(*uid).or_insert_with(&mut ask) != Asked::No {
                self.waiting.insert(*pid, Some(*uid));
            }
        }
        for uid in running {
            self.lives.entry(Owner::Uid(*uid)).or_insert(Life::Here);
        }
        // The processes are looked at again once their class stands.
        if !lacks.is_empty() {
            orders.push(Order::LookAtAll);
        }
        orders
    }

    /// Ends the state of strangers that NSS has answered about. Those about which it takes too long
    /// get a class by their uid.
    fn answered(&mut self, registry: &dyn Registry, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut settled = BTreeSet::new();
        self.lives.retain(|owner, life| {
            let (Owner::Uid(uid), Life::Stranger { .. } | Life::Unnamed { .. }) = (owner, *life)
            else {
                return true;
            };
            if registry.has_answer(*uid) {
                // Until now the uid counted by the range that it lies in.
                let was_unnamed = match *life {
                    Life::Stranger { until } => until <= now,
                    _ => true,
                };
                if was_unnamed && registry.is_account(*uid) && registry.is_subordinate(*uid) {
                    orders.push(Order::LookAtAll);
                }
                settled.insert(*uid);
                return false;
            }
            match *life {
                Life::Stranger { until } if until <= now || !registry.is_asked_about(*uid) => {
                    *life = Life::Unnamed { since: now };
                    settled.insert(*uid);
                    true
                }
                Life::Unnamed { since } => {
                    registry.is_asked_about(*uid) || now.duration_since(since) < UNNAMED
                }
                _ => true,
            }
        });
        self.waiting.retain(|pid, asked_about| {
            let waits =
                asked_about.is_none_or(|uid| !settled.contains(&uid) && !registry.has_answer(uid));
            if !waits {
                orders.push(Order::Place(*pid));
            }
            waits
        });
        orders
    }

    fn in_force(
        &mut self,
        running: &BTreeSet<u32>,
        ranges: &BTreeSet<UidRange>,
        state: &KernelState,
    ) {
        let has_class = |owner: &Owner| state.claims.contains_key(&Claim::Owner(owner.clone()));
        self.lacking.retain(|owner, applies| {
            *applies += 1;
            !has_class(owner) && self.lives.get(owner).is_none_or(|life| life.runs())
        });
        let runs = |owner: &Owner| match owner {
            Owner::Uid(uid) => running.contains(uid),
            Owner::Subuids(range) => ranges.contains(range),
            _ => false,
        };
        self.lives.retain(|owner, life| {
            if !has_class(owner) && matches!(life, Life::Gone { .. } | Life::Leaving) {
                *life = Life::Here;
            }
            if has_class(owner) && matches!(life, Life::Stranger { .. } | Life::Unnamed { .. }) {
                *life = Life::Here;
            }
            *life != Life::Here || runs(owner)
        });
        let uids = running.iter().map(|uid| Owner::Uid(*uid));
        for owner in uids.chain(ranges.iter().map(|range| Owner::Subuids(*range))) {
            self.lives.entry(owner).or_insert(Life::Here);
        }
    }

    /// An account without processes loses its class after the grace time; one that logs in before
    /// that has it as it was.
    fn directories(
        &mut self,
        empty: BTreeSet<Owner>,
        registry: &dyn Registry,
        now: Instant,
    ) -> Vec<Order> {
        // For all others: the directory has a process, or is gone.
        for (owner, life) in &mut self.lives {
            if matches!(life, Life::Gone { .. } | Life::Leaving) && !empty.contains(owner) {
                *life = Life::Here;
            }
        }
        for owner in empty {
            let life = self.lives.entry(owner).or_insert(Life::Here);
            let since = match *life {
                Life::Gone { since } => since,
                Life::Leaving => continue,
                _ => now,
            };
            *life = match now.saturating_duration_since(since) >= self.grace {
                true => Life::Leaving,
                false => Life::Gone { since },
            };
        }
        let leaving = self.leaving();
        if leaving.is_empty() {
            return Vec::new();
        }
        // A subordinate uid runs for the owner of its range, and that one leaves.
        self.lives.retain(|owner, life| match owner {
            Owner::Uid(uid) if *life == Life::Here => {
                registry.owner_of(*uid).is_none_or(|owner| !leaving.contains(&owner))
            }
            _ => true,
        });
        vec![Order::Apply { by: now }]
    }
}
