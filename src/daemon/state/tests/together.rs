//! How often an idle daemon wakes up.

use super::*;
use crate::model::{Metered, Next};

/// Who looks each half second, each second and each two does so together with the others.
#[test]
fn an_idle_daemon_wakes_up_twice_a_second_however_much_it_looks_at() {
    let start = Instant::now();
    let mut state = rested(start);
    let mut busy = in_force();
    busy.state.trees.insert(LinkName::new("eth0").unwrap().ingress(), Tree::default());
    let metered = Metered {
        quotas: Arc::from([]),
        verdicts: Vec::new(),
        together: Default::default(),
        pace: 1,
        boost: 0,
        fastest: 1,
    };
    busy.model.metered.owners.insert(Owner::Uid(1000), metered);
    state.on(applied(Attempt::Repair, busy, start), start);
    let (mut now, mut wakes) = (start + SECOND / 3, 0);
    let (mut counted, mut listened, mut passed) = (0, 0, 0);
    let took = Duration::from_micros(700);
    while now < start + 60 * SECOND {
        now = now.max(state.due(now)) + Duration::from_millis(1);
        wakes += 1;
        let mut left = state.on(Event::Time, now);
        while let Some(decision) = left.pop() {
            let Decision::Do(action) = decision else { continue };
            now += took;
            let outcome = match action {
                Action::Count => {
                    counted += 1;
                    Event::Counted { next: Some(Next::Look(SECOND / 2)), took }
                }
                Action::LookWhoListens => {
                    listened += 1;
                    Event::Listening { took, why: None }
                }
                Action::ReadPassages => {
                    passed += 1;
                    Event::Passed { reading: Reading::default(), took }
                }
                _ => continue,
            };
            left.extend(state.on(outcome, now));
        }
    }
    assert!((115..=125).contains(&counted), "{counted}");
    assert!((57..=63).contains(&listened) && (28..=31).contains(&passed), "{listened} {passed}");
    assert!(wakes <= counted + 4, "{wakes} for {counted} looks");
}
