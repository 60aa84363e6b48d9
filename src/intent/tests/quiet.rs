//! Which classes may go.

use super::*;
use crate::facts::Tags;
use crate::tree::{Counted, Counters};
use crate::units::Minor;

const EVERYONE: &str = "links: {eth0: 1gbit, eth1: 1gbit}\neveryone: 5mbit\n";

/// Bob has a class and no process, carol has both; a class of ann's is retired.
fn left() -> (Intent, Observation, [ClassId; 3]) {
    let intent = intent(EVERYONE);
    let mut seen = shaped(&intent, &[2002, 2003]);
    seen.facts.accounts.running.remove(&2002);
    let [bob, carol] = ["uid/2002", "uid/2003"].map(|path| seen.state.claims[&claim(path)]);
    let ann = ClassId::ours(Minor(0x77));
    seen.state.claims.insert(claim("retired/77:uid:2001"), ann);
    (intent, seen, [ann, bob, carol])
}

/// On both links, each class with the counters that are given.
fn counted(classes: &[(ClassId, Counters)]) -> Counted {
    let classes: BTreeMap<_, _> = classes.iter().copied().collect();
    ["eth0", "eth1"].map(|link| (name(link).egress(), classes.clone())).into()
}

fn sent(packets: u64) -> Counters {
    Counters { sent_packets: packets, sent_bytes: 100 * packets, ..Counters::default() }
}

#[test]
fn retired_classes_and_of_those_who_leave_are_silent_that_sent_nothing() {
    let (intent, seen, [ann, bob, carol]) = left();
    let earlier = counted(&[(ann, sent(7)), (bob, sent(9)), (carol, sent(1))]);
    let silent = |now: &Counted| intent.silent(&seen, &earlier, now);
    assert_eq!(silent(&earlier), [ann, bob].into(), "carol runs");
    let bytes = Counters { backlog_bytes: 1, ..sent(9) };
    let packets = Counters { backlog_packets: 1, ..sent(9) };
    for busy in [sent(10), bytes, packets] {
        let mut now = earlier.clone();
        // On one link of two.
        now.get_mut(&name("eth1").egress()).unwrap().insert(bob, busy);
        assert_eq!(silent(&now), [ann].into(), "{busy:?}");
    }
}

#[test]
fn a_class_that_nobody_saw_earlier_is_not_known_to_be_silent() {
    let (intent, seen, [ann, bob, _]) = left();
    let (earlier, now) = (counted(&[(ann, sent(7))]), counted(&[(ann, sent(7)), (bob, sent(0))]));
    assert_eq!(intent.silent(&seen, &earlier, &now), [ann].into());
    // A class that is on no link any more cannot send.
    assert_eq!(intent.silent(&seen, &earlier, &counted(&[])), [ann, bob].into());
}

#[test]
fn a_class_that_a_socket_carries_as_its_tag_is_not_quiet() {
    let (_, _, [ann, bob, carol]) = left();
    let silent = || BTreeSet::from([ann, bob]);
    assert_eq!(super::super::quiet(silent(), &Tags::Known([bob, carol].into())), [ann].into());
    assert_eq!(super::super::quiet(silent(), &Tags::Known(BTreeSet::new())), silent());
    assert_eq!(super::super::quiet(silent(), &Tags::Hidden), BTreeSet::new());
}
