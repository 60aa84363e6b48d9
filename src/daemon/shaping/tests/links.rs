//! How soon links that come are looked at.

use super::*;

/// How long it takes until the look begins that a link wants.
fn comes(world: &mut World) -> Duration {
    let (before, told) = (world.repairs, world.now);
    world.tell(Event::LinksTold { touched: BTreeSet::new(), has_come: true });
    while world.repairs == before {
        world.pass(MILLISECOND);
    }
    world.now - told - world.takes
}

#[test]
fn a_link_that_comes_after_a_storm_of_looks_is_looked_at_at_once() {
    let mut world = World::new();
    world.takes = 125 * MILLISECOND;
    // Of accounts, whose looks do not rest; and of links.
    for _ in 0..1_000 {
        world.tell(Event::Wanted { by: world.now });
        world.pass(MILLISECOND);
        comes(&mut world);
    }
    world.pass(SECOND);
    let waited = comes(&mut world);
    assert!(waited <= 2 * MILLISECOND, "{waited:?}");
}

/// As a machine is whose processors are busy: a look takes long, and so would its rest.
#[test]
fn a_few_links_that_come_are_looked_at_at_once_and_many_leave_time_for_others() {
    let mut world = World::new();
    world.takes = 125 * MILLISECOND;
    assert!((0..4).all(|_| comes(&mut world) <= 2 * MILLISECOND));
    let (before, end) = (world.repairs, world.now + MINUTE);
    while world.now < end {
        comes(&mut world);
    }
    let looks = world.repairs - before;
    assert!((80..=110).contains(&looks), "{looks} of an eighth of a second each");
}
