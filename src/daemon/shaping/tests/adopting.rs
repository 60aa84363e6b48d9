//! A policy on its way in.

use super::*;

#[test]
fn what_the_file_does_not_hold_any_more_is_not_adopted() {
    for text in ["bad", "good"] {
        let mut world = World::new();
        world.kernel = Kernel::RefusesNew;
        world.write(Some("better"));
        world.tell(Event::FileTold);
        world.pass(3 * SECOND);
        assert_eq!(world.shaping.candidate(), Some(&source("better")));
        // Looks at what is in force do not hide that.
        world.tell(Event::Wanted { by: world.now + 30 * SECOND });
        world.pass(30 * SECOND);
        assert_eq!(world.word(), "failing");
        world.write(Some(text));
        world.tell(Event::FileTold);
        world.pass(SECOND);
        assert_eq!(world.shaping.candidate(), None);
        let adoptions = world.adoptions;
        world.kernel = Kernel::Obeys;
        world.pass(5 * MINUTE);
        assert_eq!((world.adoptions, world.in_force.as_str()), (adoptions, "good"));
    }
}

#[test]
fn a_hangup_reads_asks_and_looks_at_once() {
    let mut world = World::new();
    world.pass(SECOND);
    // Untold.
    world.write(Some("better"));
    let before = world.repairs;
    world.tell(Event::Hangup);
    world.pass(SECOND);
    assert_eq!(world.in_force, "better");
    assert!(world.repairs > before + 1, "a look before, and one at what was adopted");
}

#[test]
fn while_names_are_asked_for_what_is_in_force_is_looked_at() {
    for kernel in [Kernel::Obeys, Kernel::Refuses] {
        let mut world = World::new();
        world.pass(SECOND);
        world.write(Some("better"));
        world.tell(Event::FileTold);
        while world.names_by.is_none() {
            world.pass(10 * MILLISECOND);
        }
        let before = world.repairs;
        world.kernel = kernel;
        world.tell(Event::LinksTold { touched: Touched::new(), has_come: false });
        world.pass(100 * MILLISECOND);
        assert!(world.names_by.is_some() && world.repairs > before);
        assert_eq!(world.word(), "adopting");
        world.kernel = Kernel::Obeys;
        world.pass(5 * SECOND);
        assert_eq!((world.word(), world.in_force.as_str()), ("idle", "better"));
    }
}
