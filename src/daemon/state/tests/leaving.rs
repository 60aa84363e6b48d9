//! Who keeps a class without a process, and how long a look at that takes others.

use super::*;

#[test]
fn who_has_a_guest_and_no_process_stays_and_costs_no_apply() {
    let now = Instant::now();
    let dan = Owner::Uid(1000);
    for with_guests in [BTreeSet::from([1000]), BTreeSet::new()] {
        let mut state = rested(now);
        let has_guest = !with_guests.is_empty();
        let claims = [(Claim::Owner(dan.clone()), ClassId::ours(Minor(0x10)))].into();
        let accounts = Accounts { running: [1000].into(), with_guests, ..Accounts::default() };
        let kernel = KernelState { claims, ..KernelState::default() };
        let stands = InForce { accounts, state: kernel, ..in_force() };
        state.on(applied(Attempt::Repair, stands, now), now);
        for at in [now, now + 60 * SECOND] {
            let empty = BTreeSet::from([dan.clone()]);
            state.on(Event::Directories { empty, took: Duration::ZERO }, at);
        }
        assert_eq!(state.people.leaving().is_empty(), has_guest);
    }
}

#[test]
fn a_look_at_who_left_goes_on_in_turns_between_which_others_are_placed() {
    let now = Instant::now();
    let mut state = rested(now);
    // The other tasks of that time.
    let mut at = now + 30 * SECOND;
    let looks = |it: &Decision| matches!(it, Decision::Do(Action::LookWhoLeft));
    assert!((0..5).any(|_| state.on(Event::Time, at).iter().any(looks)));
    let took = Duration::from_millis(2);
    let login = proc_event::Event::Uid { pid: 7, uid: 1000, effective: None };
    for _ in 0..40 {
        assert!(state.on(Event::SomeDirectories { took }, at).is_empty());
        assert!(!state.on(Event::Time, at + took).iter().any(looks), "others have their turn");
        first_of_a_turn(&mut state, vec![ProcEvent { at: 1, event: login }], at + took);
        assert!(state.due(at + took) <= at + 10 * took);
        at += 10 * took;
        assert!(state.on(Event::Time, at).iter().any(looks), "and it goes on");
    }
    // The rest is in proportion to all turns together.
    let took = 40 * took;
    state.on(Event::Directories { empty: BTreeSet::new(), took }, at);
    assert_eq!(state.people.due(at), Some(at + 30 * SECOND));
    let took = SECOND;
    state.on(Event::Directories { empty: BTreeSet::new(), took }, at);
    assert_eq!(state.people.due(at), Some(at + 300 * SECOND));
}
