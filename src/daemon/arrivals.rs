//! Processes that events told of and that wait to be placed: which of them are looked at, in the
//! turn of which uid, and in which order. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::Newcomer;
use super::followed::Followed;
use super::muted::Muted;
use super::queue::Queue;
use crate::netlink::proc_event::{Event, Moment, ProcEvent};
use crate::process::PlacedOne;

/// How often in a row a handover is put off because processes still wait.
const PATIENT: u32 = 5;

/// Which events the policy needs beside forks and changes of the real uid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interest {
    /// Programs that are run, because a line names units, or somebody has a container that may get
    /// a proxy.
    pub programs: bool,
    /// Changes of the effective uid, because a line follows them.
    pub follows: bool,
}

/// What follows from events beside new processes that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TakenIn {
    /// The queue was full and left some out, so all processes must be looked at.
    pub overflow: bool,
    /// Further processes are to be muted.
    pub mutes: bool,
}

/// The processes that wait, and what is known of earlier ones.
#[derive(Debug)]
pub(super) struct Arrivals {
    clock: EventClock,
    /// By which it is known how long an event is past; `None`: no events come.
    moment: Option<Moment>,
    followed: Followed,
    queue: Queue,
    /// Processes whose events the kernel is to drop.
    muted: Muted,
    /// For each process that waits, the last user as whom it acted.
    acted_for: HashMap<u32, u32>,
    /// For each process that waits elsewhere, the time of the event that told of it.
    told: HashMap<u32, u64>,
    /// How often in a row a handover was put off.
    handed_over_late: u32,
}

impl Arrivals {
    /// `moment`: one by both clocks, where events come.
    pub(super) fn new(moment: Option<Moment>, now: Instant) -> Arrivals {
        Arrivals {
            clock: EventClock { at: 0, heard: now },
            moment,
            followed: Followed::default(),
            queue: Queue::default(),
            muted: Muted::default(),
            acted_for: HashMap::new(),
            told: HashMap::new(),
            handed_over_late: 0,
        }
    }

    /// Takes in events, in the kernel's order. `is_waiting`: whether a process waits for a class or
    /// for NSS's answer.
    pub(super) fn take_in(
        &mut self,
        told: &[ProcEvent],
        interest: Interest,
        is_waiting: impl Fn(u32) -> bool,
        now: Instant,
    ) -> TakenIn {
        let mut overflow = false;
        let mut uids = HashMap::new();
        for told in told {
            self.clock.hear(told.at, now);
            let wanted = match told.event {
                Event::Uid { pid, uid, effective } => {
                    self.muted.count(pid);
                    self.followed.became(pid, uid);
                    if let Some(user) = effective.filter(|user| interest.follows && *user != 0) {
                        self.acted_for.insert(pid, user);
                    }
                    uids.insert(pid, uid);
                    Some((uid, pid))
                }
                Event::Fork { parent, child } => {
                    self.followed.forked(parent, child);
                    let waits = is_waiting(parent).then_some(0);
                    let uid = self.followed.includes(parent, told.at).or(waits);
                    uid.map(|uid| (uid, child))
                }
                // A service is in its unit's cgroup by the time it runs its program.
                Event::Exec { pid } if interest.programs => Some((0, pid)),
                Event::Exec { .. } | Event::Subscribed(_) => None,
            };
            if let Some((uid, pid)) = wanted {
                self.followed.announce(pid, uid, told.at);
                overflow |= !self.queue.push(uid, pid, Some(told.at));
            }
        }
        let mutes = self.muted.decide(|pid| uids.get(&pid).copied().unwrap_or(0), now);
        TakenIn { overflow, mutes }
    }

    /// Whether no process waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next process to be placed.
    pub(super) fn next(&mut self) -> Option<Newcomer> {
        let (uid, pid, told) = self.queue.pop()?;
        let newcomer = self.newcomer(pid, uid);
        Some(Newcomer { told: newcomer.told.or(told), ..newcomer })
    }

    /// A process that waits elsewhere, as a newcomer.
    pub(super) fn newcomer(&mut self, pid: u32, uid: u32) -> Newcomer {
        let (acted_for, told) = (self.acted_for.remove(&pid), self.told.remove(&pid));
        Newcomer { pid, uid, acted_for, told }
    }

    /// Ends a turn in which processes were placed as far as there was time. Returns whether their
    /// sockets are handed over now. That is after all processes that came together, so that two
    /// users of one socket are noticed; but in a storm some process always still waits, and after a
    /// few turns it is not waited for.
    pub(super) fn end_turn(&mut self) -> bool {
        self.handed_over_late += 1;
        let is_time = self.queue.is_empty() || self.handed_over_late > PATIENT;
        if is_time {
            self.handed_over_late = 0;
        }
        is_time
    }

    /// How long before `now` the event was that told of a process; `None`: no event did.
    pub(super) fn waited(&self, newcomer: Newcomer, now: Instant) -> Option<Duration> {
        Some(self.moment?.since(newcomer.told?, now))
    }

    /// Notes that a process was looked at.
    pub(super) fn looked(&mut self, newcomer: Newcomer, placed: &PlacedOne, now: Instant) {
        let Newcomer { pid, uid, .. } = newcomer;
        if let Some(uid) = placed.home {
            self.followed.at_home(pid, uid);
        }
        match placed.stayed {
            true => self.followed.stayed(pid),
            false => self.followed.follow(pid, placed.parent, uid, self.clock.now(now)),
        }
    }

    /// Notes that a process will be looked at again: for whom it acted, and since when it waits, is
    /// remembered until then.
    pub(super) fn waits(&mut self, newcomer: Newcomer) {
        self.told.extend(newcomer.told.map(|at| (newcomer.pid, at)));
        self.acted_for.extend(newcomer.acted_for.map(|user| (newcomer.pid, user)));
    }

    /// Forgets what is known of processes that do not wait any more.
    pub(super) fn forget_unless(&mut self, is_waiting: impl Fn(u32) -> bool) {
        self.told.retain(|pid, _| is_waiting(*pid));
        self.acted_for.retain(|pid, _| is_waiting(*pid));
    }

    /// The pids of muted processes.
    pub(super) fn muted(&self) -> Vec<u32> {
        self.muted.pids()
    }

    /// Queues the muted processes that are due to be looked at. Whether the events of any of them
    /// are to come again.
    pub(super) fn look_at_muted(&mut self, now: Instant) -> bool {
        let (all, heard_again) = self.muted.due(now);
        for (pid, uid) in all {
            self.queue.push(uid, pid, None);
        }
        heard_again
    }
}

/// The clock by which the kernel stamps process events, which in a time namespace is not the
/// daemon's own.
#[derive(Debug)]
struct EventClock {
    /// The latest stamp, in nanoseconds.
    at: u64,
    heard: Instant,
}

impl EventClock {
    fn hear(&mut self, at: u64, now: Instant) {
        if at > self.at {
            *self = EventClock { at, heard: now };
        }
    }

    fn now(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.heard).as_nanos();
        self.at.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_in(arrivals: &mut Arrivals, events: &[Event], interest: Interest) -> Vec<Newcomer> {
        let told: Vec<_> = events.iter().map(|event| ProcEvent { at: 1, event: *event }).collect();
        let taken = arrivals.take_in(&told, interest, |pid| pid == 7, Instant::now());
        assert_eq!(taken, TakenIn::default());
        std::iter::from_fn(|| arrivals.next()).collect()
    }

    fn newcomer(pid: u32, uid: u32, acted_for: Option<u32>) -> Newcomer {
        Newcomer { pid, uid, acted_for, told: Some(1) }
    }

    #[test]
    fn who_becomes_a_user_is_placed_and_so_is_what_he_forks() {
        let mut arrivals = Arrivals::new(None, Instant::now());
        let login = [
            Event::Uid { pid: 10, uid: 1000, effective: None },
            Event::Fork { parent: 10, child: 11 },
            Event::Fork { parent: 20, child: 21 },
            Event::Fork { parent: 7, child: 8 },
            Event::Exec { pid: 30 },
        ];
        let placed = taken_in(&mut arrivals, &login, Interest::default());
        // Uids take turns; process 8 is the child of one that waits.
        let expected = [newcomer(10, 1000, None), newcomer(8, 0, None), newcomer(11, 1000, None)];
        assert_eq!(placed, expected);
        let units = Interest { programs: true, follows: false };
        assert_eq!(taken_in(&mut arrivals, &login[4..], units), [newcomer(30, 0, None)]);
    }

    #[test]
    fn whom_a_server_acted_for_is_known_until_it_is_placed() {
        let mut arrivals = Arrivals::new(None, Instant::now());
        let acts = [
            Event::Uid { pid: 10, uid: 0, effective: Some(1000) },
            Event::Uid { pid: 10, uid: 0, effective: Some(0) },
        ];
        let follows = Interest { programs: true, follows: true };
        let served = newcomer(10, 0, Some(1000));
        assert_eq!(taken_in(&mut arrivals, &acts, follows), [served]);
        assert_eq!(taken_in(&mut arrivals, &acts[1..], follows), [newcomer(10, 0, None)]);
        arrivals.waits(served);
        assert_eq!(arrivals.newcomer(10, 0), served, "he waits for his class");
        arrivals.waits(served);
        arrivals.forget_unless(|_| false);
        let unknown = Newcomer { told: None, ..newcomer(10, 0, None) };
        assert_eq!(arrivals.newcomer(10, 0), unknown);
        assert_eq!(taken_in(&mut arrivals, &acts, Interest::default()), [newcomer(10, 0, None)]);
    }

    #[test]
    fn what_is_held_is_handed_over_once_all_are_placed_and_in_a_storm_in_the_end() {
        let mut arrivals = Arrivals::new(None, Instant::now());
        assert!(arrivals.end_turn());
        arrivals.queue.push(1000, 10, None);
        assert_eq!([(); 12].map(|()| arrivals.end_turn()).map(u8::from).iter().sum::<u8>(), 2);
    }

    #[test]
    fn one_who_changes_without_end_is_muted_and_looked_at() {
        let (mut arrivals, now) = (Arrivals::new(None, Instant::now()), Instant::now());
        let change = Event::Uid { pid: 10, uid: 1000, effective: None };
        let storm = vec![ProcEvent { at: 1, event: change }; 1_000];
        let taken = arrivals.take_in(&storm, Interest::default(), |_| false, now);
        assert_eq!(taken, TakenIn { overflow: false, mutes: true });
        assert_eq!(arrivals.muted(), [10]);
        assert_eq!(arrivals.next(), Some(newcomer(10, 1000, None)));
        assert!(arrivals.is_empty());
        assert!(!arrivals.look_at_muted(now));
        let untold = Newcomer { told: None, ..newcomer(10, 1000, None) };
        assert_eq!(arrivals.next(), Some(untold));
    }

    #[test]
    fn a_process_waits_since_its_first_event_until_it_is_placed() {
        let (ours, at) = (Instant::now(), 1_000_000_000);
        let mut arrivals = Arrivals::new(Some(Moment { at, ours }), ours);
        let login =
            |at| ProcEvent { at, event: Event::Uid { pid: 10, uid: 1000, effective: None } };
        let told = [login(at + 5_000), login(at + 9_000)];
        arrivals.take_in(&told, Interest::default(), |_| false, ours);
        let newcomer = arrivals.next().unwrap();
        let micros = Duration::from_micros;
        assert_eq!(arrivals.waited(newcomer, ours + micros(15)), Some(micros(10)));
        // Its class is made first.
        arrivals.waits(newcomer);
        let again = arrivals.newcomer(10, 0);
        assert_eq!(arrivals.waited(again, ours + micros(105)), Some(micros(100)));
        let untold = arrivals.newcomer(10, 0);
        assert_eq!(arrivals.waited(untold, ours), None);
    }
}
