use super::*;

#[test]
fn a_policy_that_was_refused_is_tried_again_when_links_differ_and_said_once() {
    let mut world = World::new();
    world.write(Some("unfit"));
    world.tell(Event::FileTold);
    world.pass(10 * MINUTE);
    assert_eq!((world.word(), world.adoptions, world.complaints.len()), ("refusing", 1, 1));
    for _ in 0..600 {
        world.links_differ();
        world.pass(SECOND);
    }
    // After 1, 2, 4 … seconds, and then once a minute.
    assert!((10..20).contains(&world.adoptions), "{} times", world.adoptions);
    assert_eq!((world.word(), world.complaints.len()), ("refusing", 1));
    world.pass(MINUTE);
    let before = world.adoptions;
    world.pass(10 * MINUTE);
    assert_eq!(world.adoptions, before, "nothing has changed");
    world.fits = true;
    world.links_differ();
    world.pass(SECOND);
    assert_eq!((world.word(), world.in_force.as_str()), ("idle", "unfit"));
}
