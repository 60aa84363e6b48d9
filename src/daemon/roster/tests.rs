//! The roster against a small model of the world: processes come and end, with events or without,
//! NSS answers late, with an error or not at all, applies fail, the policy changes, and in between
//! everything is looked at again.

use super::super::chance::Chance;
use super::*;
use crate::tree::Key;
use crate::units::{ClassId, Minor};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(30);
/// How often the daemon looks at links, classes and all processes without an event.
const RECONCILE: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(600);
/// After how long a question without an answer is given up.
const LIMIT: Duration = Duration::from_secs(10);

/// A member of a group, an account of nobody's, a uid that NSS does not know, and three subordinate
/// uids, of which the last is an account.
const UIDS: [u32; 6] = [2_000, 2_001, 3_000, 100_001, 100_002, 100_003];
const RANGE: UidRange = UidRange { first: 100_000, last: 165_535 };

fn is_member(uid: u32) -> bool {
    uid == 2_000
}

fn is_account(uid: u32) -> bool {
    [2_000, 2_001, 100_003].contains(&uid)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nss {
    Answers(Duration),
    Fails,
    Hangs,
}

#[derive(Clone, Debug)]
struct Process {
    uid: u32,
    /// The owner in whose directory the process is.
    seat: Option<Owner>,
    /// Whether the process's events come.
    is_told: bool,
    since: Instant,
}

/// What the roster asks the registry for.
#[derive(Debug)]
struct Outside {
    has_everyone: bool,
    answered: BTreeSet<u32>,
    asked: BTreeMap<u32, Instant>,
}

impl Registry for Outside {
    fn has_answer(&self, uid: u32) -> bool {
        self.answered.contains(&uid)
    }

    fn is_account(&self, uid: u32) -> bool {
        self.answered.contains(&uid) && is_account(uid)
    }

    fn is_subordinate(&self, uid: u32) -> bool {
        RANGE.contains(uid)
    }

    fn is_asked_about(&self, uid: u32) -> bool {
        self.asked.contains_key(&uid)
    }

    fn may_be_asked_about(&self, uid: u32) -> bool {
        // Two subordinate uids wait at most.
        !RANGE.contains(uid) || self.asked.keys().filter(|uid| RANGE.contains(**uid)).count() < 2
    }

    fn owner_of(&self, uid: u32) -> Option<Owner> {
        let known = self.is_account(uid);
        match (known && is_member(uid), self.has_everyone, RANGE.contains(uid) && !known) {
            (true, ..) | (false, true, false) => Some(Owner::Uid(uid)),
            (false, true, true) => Some(Owner::Subuids(RANGE)),
            (false, false, _) => None,
        }
    }
}

struct World {
    now: Instant,
    outside: Outside,
    nss: Nss,
    applies_fail: bool,
    roster: Roster,
    processes: BTreeMap<u32, Process>,
    next_pid: u32,
    classes: BTreeSet<Owner>,
    /// When the last process with events left an owner's directory.
    emptied: BTreeMap<Owner, Instant>,
    apply_at: Instant,
    sweep_at: Instant,
    directories_at: Instant,
    looks_at_all: bool,
    applies: usize,
    questions: usize,
    looks: usize,
}

impl World {
    fn new(has_everyone: bool) -> World {
        let now = Instant::now();
        World {
            now,
            outside: Outside { has_everyone, answered: BTreeSet::new(), asked: BTreeMap::new() },
            nss: Nss::Answers(5 * MILLISECOND),
            applies_fail: false,
            roster: Roster::new(GRACE, &BTreeSet::new(), &BTreeSet::new()),
            processes: BTreeMap::new(),
            next_pid: 1,
            classes: BTreeSet::new(),
            emptied: BTreeMap::new(),
            apply_at: now + RECONCILE,
            sweep_at: now + SWEEP,
            directories_at: now + GRACE / 2,
            looks_at_all: false,
            applies: 0,
            questions: 0,
            looks: 0,
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        let orders = self.roster.on(event, &self.outside, self.now);
        self.follow(orders);
    }

    fn follow(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Place(pid) => self.look_at(pid),
                Order::Ask(uid) => {
                    assert!(!self.outside.answered.contains(&uid), "{uid} is known");
                    self.questions += 1;
                    let takes = match self.nss {
                        Nss::Answers(takes) => takes,
                        Nss::Fails => MILLISECOND,
                        Nss::Hangs => LIMIT,
                    };
                    self.outside.asked.entry(uid).or_insert(self.now + takes);
                }
                Order::Apply { by } => self.apply_at = self.apply_at.min(by.max(self.now)),
                Order::LookAtAll => self.looks_at_all = true,
            }
        }
    }

    /// Moves a process where it can be. The uid to ask about, and the class that it lacks.
    fn place(&mut self, pid: u32) -> (Option<u32>, Option<Owner>, Option<Owner>) {
        let Some(process) = self.processes.get_mut(&pid) else { return (None, None, None) };
        let open = (!self.outside.has_answer(process.uid)).then_some(process.uid);
        let owner = self.outside.owner_of(process.uid);
        if open.is_some() && process.seat.is_some() && !self.outside.has_everyone {
            return (open, None, None);
        }
        match owner {
            Some(owner) if !self.classes.contains(&owner) => (open, None, Some(owner)),
            owner => {
                process.seat.clone_from(&owner);
                (open, owner, None)
            }
        }
    }

    fn look_at(&mut self, pid: u32) {
        self.looks += 1;
        let (open, home, lacks) = self.place(pid);
        self.tell(Event::Looked { pid, open, home, lacks: lacks.as_slice() });
    }

    fn comes(&mut self, uid: u32, is_told: bool) {
        let pid = self.next_pid;
        self.next_pid += 1;
        self.processes.insert(pid, Process { uid, seat: None, is_told, since: self.now });
        if is_told {
            self.look_at(pid);
        }
    }

    fn ends(&mut self, pid: u32) {
        let Some(process) = self.processes.remove(&pid) else { return };
        if let (Some(owner), true) = (process.seat, process.is_told) {
            self.emptied.insert(owner, self.now);
        }
    }

    fn is_occupied(&self, owner: &Owner) -> bool {
        self.processes.values().any(|process| process.seat.as_ref() == Some(owner))
    }

    fn sweep(&mut self) {
        let (mut open, mut lacks) = (BTreeMap::new(), BTreeSet::new());
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            let (about, _, lacked) = self.place(pid);
            open.extend(about.map(|uid| (pid, uid)));
            lacks.extend(lacked);
        }
        let mut running: BTreeSet<u32> = self.processes.values().map(|it| it.uid).collect();
        running.extend(self.classes.iter().filter_map(|owner| match owner {
            Owner::Uid(uid) => Some(*uid),
            _ => None,
        }));
        let ended = self.roster.waiting().filter(|pid| !self.processes.contains_key(pid));
        let ended = ended.collect();
        let lacks: Vec<Owner> = lacks.into_iter().collect();
        self.tell(Event::Swept { running, open, lacks: &lacks, ended });
    }

    fn look_into_directories(&mut self) {
        let owners = self.classes.iter().cloned();
        let empty = owners.filter(|owner| !self.is_occupied(owner)).collect();
        self.tell(Event::Directories { empty });
    }

    /// As `Session` does: owners that have a class keep it, but for those that leave.
    fn apply(&mut self) {
        self.applies += 1;
        self.tell(Event::Time);
        self.apply_at = self.now + RECONCILE;
        if self.applies_fail {
            self.apply_at = self.now + SECOND;
            return;
        }
        let (mut running, mut ranges) = self.roster.running();
        let leaving = self.roster.leaving();
        for look in 0.. {
            assert!(look < 3, "an apply comes to rest");
            if self.looks_at_all {
                running.extend(self.processes.values().map(|process| process.uid));
            }
            for owner in self.classes.clone() {
                let leaves = leaving.contains(&owner) && !self.is_occupied(&owner);
                if leaves && let Some(since) = self.emptied.get(&owner) {
                    let without = self.now - *since;
                    assert!(without >= GRACE, "{owner:?} had {without:?} to come back");
                }
                match (&owner, leaves) {
                    (Owner::Uid(uid), true) => drop(running.remove(uid)),
                    (Owner::Uid(uid), false) => drop(running.insert(*uid)),
                    (Owner::Subuids(range), true) => drop(ranges.remove(range)),
                    (Owner::Subuids(range), false) => drop(ranges.insert(*range)),
                    _ => {}
                }
            }
            let owners = running.iter().filter_map(|uid| self.outside.owner_of(*uid));
            let shared = ranges.iter().map(|range| Owner::Subuids(*range));
            let has_everyone = self.outside.has_everyone;
            self.classes = owners.chain(shared.filter(|_| has_everyone)).collect();
            for process in self.processes.values_mut() {
                process.seat = process.seat.take().filter(|owner| self.classes.contains(owner));
            }
            if !std::mem::take(&mut self.looks_at_all) {
                break;
            }
            for pid in self.processes.keys().copied().collect::<Vec<_>>() {
                self.place(pid);
            }
        }
        let minors = (0x10..).map(|minor| ClassId::ours(Minor(minor)));
        let claims = self.classes.iter().cloned().map(Claim::Owner).zip(minors).collect();
        let state = KernelState { claims, ..KernelState::default() };
        self.tell(Event::InForce { running: &running, ranges: &ranges, state: &state });
    }

    fn answer(&mut self, uid: u32) {
        self.outside.asked.remove(&uid);
        if let Nss::Answers(_) = self.nss {
            self.outside.answered.insert(uid);
            if is_account(uid) {
                self.apply_at = self.now;
            }
        }
        self.tell(Event::Time);
    }

    /// Whatever is due until then happens in its turn.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let asked = self.outside.asked.iter().map(|(uid, at)| (*at, *uid)).min();
            let answer_at = asked.map_or(until, |(at, _)| at);
            let next = answer_at.min(self.apply_at).min(self.sweep_at).min(self.directories_at);
            if next >= until {
                break;
            }
            self.now = self.now.max(next);
            match asked {
                Some((at, uid)) if at == next => self.answer(uid),
                _ if self.apply_at == next => self.apply(),
                _ if self.sweep_at == next => {
                    self.sweep_at = self.now + SWEEP;
                    self.sweep();
                }
                _ => {
                    self.directories_at = self.now + GRACE / 2;
                    self.look_into_directories();
                }
            }
        }
        self.now = until;
    }

    fn something_happens(&mut self, chance: &mut Chance) {
        match chance.below(16) {
            0..=5 => {
                let (uid, is_told) = (chance.of(&UIDS), chance.below(4) > 0);
                self.comes(uid, is_told);
            }
            6..=8 if self.next_pid > 1 => {
                let pid = 1 + chance.below(self.next_pid as usize - 1);
                self.ends(u32::try_from(pid).unwrap());
            }
            9 => self.sweep(),
            10 => self.look_into_directories(),
            11 => {
                self.nss = chance.of(&[
                    Nss::Answers(5 * MILLISECOND),
                    Nss::Answers(500 * MILLISECOND),
                    Nss::Fails,
                    Nss::Hangs,
                ]);
            }
            12 => self.applies_fail = chance.below(3) == 0,
            13 => {
                self.outside.has_everyone = chance.below(2) == 0;
                self.looks_at_all = true;
                self.apply_at = self.now;
            }
            14 => drop(self.outside.answered.pop_first()),
            _ => self.pass(chance.of(&[MILLISECOND, 100 * MILLISECOND, SECOND, 7 * SECOND, GRACE])),
        }
    }

    /// Checks that each of these processes that a line claims is in its class.
    fn all_are_placed(&self, which: impl Fn(&Process) -> bool) -> Result<(), String> {
        for (pid, process) in self.processes.iter().filter(|(_, process)| which(process)) {
            let owner = self.outside.owner_of(process.uid);
            if process.seat != owner {
                let life = self.roster.lives.get(&Owner::Uid(process.uid));
                let waits = self.roster.waiting.get(pid);
                return Err(format!("{pid} {process:?} of {owner:?}: {life:?}, waits {waits:?}"));
            }
        }
        Ok(())
    }
}

/// Three thousand histories. Each ends in calm: then processes with events are placed within
/// seconds, all others after a sweep, none waits any more, and there is next to nothing to do.
#[test]
fn whoever_runs_and_is_claimed_is_placed_whatever_happens() {
    for seed in 1..=3_000_u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new(chance.below(2) == 0);
        for _ in 0..chance.below(80) {
            world.something_happens(&mut chance);
        }
        world.applies_fail = false;
        // Questions that hang are given up, and newcomers of meanwhile are asked about.
        world.pass(LIMIT + SECOND);
        world.nss = Nss::Answers(5 * MILLISECOND);
        let calm = world.now;
        world.comes(chance.of(&UIDS), true);
        world.pass(2 * SECOND);
        let came = |process: &Process| process.is_told && process.since >= calm;
        world.all_are_placed(came).unwrap_or_else(|why| panic!("{seed}: at once: {why}"));
        world.pass(2 * SWEEP);
        world.all_are_placed(|_| true).unwrap_or_else(|why| panic!("{seed}: in the end: {why}"));
        assert_eq!(world.roster.waiting().count(), 0, "{seed}: nobody waits for ever");
        let before = (world.applies, world.questions, world.looks);
        world.pass(SWEEP);
        let after = (world.applies, world.questions, world.looks);
        assert!(
            after.0 - before.0 <= 12 && after.1 - before.1 <= 12,
            "{seed}: {before:?} {after:?}"
        );
        assert!(after.2 - before.2 <= 24, "{seed}: {before:?} {after:?}");
        (1..world.next_pid).for_each(|pid| world.ends(pid));
        world.pass(3 * GRACE);
        assert!(world.classes.is_empty(), "{seed}: {:?} stay", world.classes);
    }
}

/// Whatever becomes of questions and applies, the number of orders is bounded by that of events.
#[test]
fn orders_do_not_storm() {
    for (nss, applies_fail) in [
        (Nss::Fails, false),
        (Nss::Hangs, false),
        (Nss::Answers(300 * MILLISECOND), false),
        (Nss::Fails, true),
    ] {
        for has_everyone in [false, true] {
            let mut world = World::new(has_everyone);
            (world.nss, world.applies_fail) = (nss, applies_fail);
            UIDS.into_iter().for_each(|uid| world.comes(uid, true));
            world.pass(60 * SECOND);
            let applies = if applies_fail { 70 } else { 30 };
            assert!(world.applies <= applies, "{nss:?} {has_everyone}: {} applies", world.applies);
            let asked = if has_everyone { 2 } else { 70 } * UIDS.len();
            assert!(world.questions <= asked, "{nss:?}: {} questions", world.questions);
            assert!(world.looks <= 12 * UIDS.len(), "{nss:?}: {} looks", world.looks);
        }
    }
}

#[test]
fn an_outage_of_nss_keeps_nobody_from_a_class_by_his_number() {
    for (nss, within) in [(Nss::Fails, INTRODUCTION / 2), (Nss::Hangs, INTRODUCTION * 2)] {
        for uids in UIDS.iter().map(std::slice::from_ref).chain([&UIDS[..]]) {
            let mut world = World::new(true);
            world.nss = nss;
            uids.iter().for_each(|uid| world.comes(*uid, true));
            world.pass(within);
            world.all_are_placed(|_| true).unwrap_or_else(|why| panic!("{nss:?}: {why}"));
        }
    }
}

#[test]
fn a_class_that_no_apply_makes_is_asked_for_less_and_less() {
    let mut roster = Roster::new(GRACE, &BTreeSet::new(), &BTreeSet::new());
    let outside = Outside { has_everyone: true, answered: UIDS.into(), asked: BTreeMap::new() };
    let (now, none, state) = (Instant::now(), BTreeSet::new(), KernelState::default());
    let lacks = [Owner::User(Key::new("ann").unwrap())];
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let event = Event::Looked { pid: 7, open: None, home: None, lacks: &lacks };
        let orders = roster.on(event, &outside, now);
        let [Order::Apply { by }] = orders[..] else { panic!("{orders:?}") };
        pauses.push((by - now).as_millis());
        let (running, ranges) = (&none, &BTreeSet::new());
        let orders = roster.on(Event::InForce { running, ranges, state: &state }, &outside, now);
        assert_eq!(orders, [Order::Place(7)]);
    }
    assert_eq!(pauses, [0, 0, 0, 20, 40, 80, 160, 320]);
}

#[test]
fn who_comes_back_within_the_time_of_grace_has_all_of_it_again() {
    let mut world = World::new(true);
    let owner = Owner::Uid(2_001);
    world.comes(2_001, true);
    world.pass(SECOND);
    let class = |world: &World| world.classes.contains(&owner);
    for pid in 1..20 {
        world.ends(pid);
        world.pass(GRACE - SECOND);
        assert!(class(&world), "{pid}");
        world.comes(2_001, true);
        world.pass(MILLISECOND);
    }
    world.ends(20);
    world.pass(3 * GRACE);
    assert!(!class(&world));
    assert_eq!(world.roster.running().0, BTreeSet::new());
}
