//! Single events whose effect the end of a whole history does not show, because the next look at
//! everything would make up for it.

use super::*;
use crate::units::{ClassId, Minor};

const UID: u32 = 2_001;

/// NSS, and a policy with a class for everyone.
#[derive(Default)]
struct Nss {
    asked: BTreeSet<u32>,
}

impl Registry for Nss {
    fn has_answer(&self, _: u32) -> bool {
        false
    }

    fn is_account(&self, _: u32) -> bool {
        false
    }

    fn is_subordinate(&self, _: u32) -> bool {
        false
    }

    fn is_asked_about(&self, uid: u32) -> bool {
        self.asked.contains(&uid)
    }

    fn may_be_asked_about(&self, _: u32) -> bool {
        true
    }

    fn owner_of(&self, uid: u32) -> Option<Owner> {
        Some(Owner::Uid(uid))
    }
}

fn empty() -> Roster {
    Roster::new(Duration::from_secs(60), &BTreeSet::new(), &BTreeSet::new())
}

fn looked(lacks: &[Owner]) -> Event<'_> {
    Event::Looked { pid: 7, open: Some(UID), home: None, lacks }
}

#[test]
fn no_class_is_made_for_a_stranger_until_nss_had_its_time() {
    let (mut roster, mut nss, now) = (empty(), Nss::default(), Instant::now());
    let lacks = [Owner::Uid(UID)];
    let until = now + INTRODUCTION;
    let asks = [Order::Ask(UID), Order::Apply { by: until }];
    assert_eq!(roster.on(looked(&lacks), &nss, now), asks);
    assert_eq!(roster.running().0, BTreeSet::new());
    nss.asked.insert(UID);
    assert_eq!(roster.on(looked(&lacks), &nss, now), asks[1..]);
    assert_eq!(roster.on(Event::Time, &nss, until), [Order::Place(7)]);
    assert_eq!(roster.on(looked(&lacks), &nss, until), [Order::Apply { by: until }]);
    assert_eq!(roster.running().0, BTreeSet::from([UID]));
}

#[test]
fn whom_nss_could_not_name_is_asked_about_again_after_a_while() {
    let (mut roster, nss, start) = (empty(), Nss::default(), Instant::now());
    let asks = |roster: &mut Roster, now| {
        let orders = roster.on(looked(&[]), &nss, now);
        let asks = orders.contains(&Order::Ask(UID));
        roster.on(Event::Time, &nss, now + INTRODUCTION);
        asks
    };
    assert!(asks(&mut roster, start));
    assert!(!asks(&mut roster, start + UNNAMED / 2));
    let later = start + INTRODUCTION + UNNAMED;
    roster.on(Event::Time, &nss, later);
    assert!(asks(&mut roster, later));
}

#[test]
fn a_stranger_who_has_a_class_is_here() {
    let (mut roster, nss, now) = (empty(), Nss::default(), Instant::now());
    roster.on(looked(&[]), &nss, now);
    let mut state = KernelState::default();
    let class = ClassId::ours(Minor(0x10));
    state.claims.insert(Claim::Owner(Owner::Uid(UID)), class);
    let (running, ranges) = (BTreeSet::from([UID]), BTreeSet::new());
    let event = Event::InForce { running: &running, ranges: &ranges, state: &state };
    assert_eq!(roster.on(event, &nss, now), [Order::Place(7)]);
    assert_eq!(roster.running().0, running);
}

#[test]
fn a_look_at_all_processes_finds_who_runs_who_waits_and_who_has_ended() {
    let (mut roster, nss, now) = (empty(), Nss::default(), Instant::now());
    roster.on(looked(&[]), &nss, now);
    assert!(roster.is_waiting(7));
    let event = Event::Swept {
        running: BTreeSet::from([UID, 5]),
        open: BTreeMap::from([(8, UID)]),
        lacks: &[],
        ended: BTreeSet::from([7]),
    };
    roster.on(event, &nss, now);
    assert_eq!(roster.waiting().collect::<Vec<_>>(), [8]);
    assert_eq!(roster.running().0, BTreeSet::from([5]));
}
