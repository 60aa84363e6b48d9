//! Lines that are called otherwise by now.

use std::time::Duration;

use super::{MB, apply, class, kept, send, shaper};
use crate::support::clock::soon;
use crate::support::harness::{On, tests};
use crate::support::program::policy;
use crate::support::rates::MBIT;
use crate::support::world::World;
use shaper::tree::{Key, Owner};

tests!(
    On::Host => a_line_under_another_name_keeps_its_use_and_a_stranger_under_its_name_has_none,
        a_policy_that_is_refused_or_taken_back_takes_nobodys_use;
);

fn text(lines: &[(&str, &str)]) -> String {
    let line = |(name, who): &(&str, &str)| {
        format!(
            "  {name}: {{{who}, ceil: 100mbit, quota: {{12h: 3MB, then: 16mbit, counts: sent}}}}\n"
        )
    };
    let lines: String = lines.iter().map(line).collect();
    format!("version: 1\nlinks: {{up0: 200mbit}}\nusers:\n{lines}")
}

fn owner(name: &str) -> Owner {
    Owner::User(Key::new(name).expect("a name"))
}

fn a_line_under_another_name_keeps_its_use_and_a_stranger_under_its_name_has_none() {
    let mut world = World::new();
    let before = text(&[("lodger", "uids: 2001"), ("bob", "accounts: [bob]")]);
    apply(&before);
    send(&mut world, 4 * MB);
    apply(&before);
    let held = 16 * MBIT;
    assert_eq!(class("user/lodger").ceil, held);
    let used = kept(&owner("lodger")).sent;
    assert!(used >= 4 * MB, "{used}");

    // She is called otherwise, and bob has the room.
    let after = text(&[("guest", "accounts: [ann]"), ("lodger", "uids: 2002")]);
    apply(&after);
    assert_eq!(class("user/guest").ceil, held, "by the first apply");
    assert_eq!(class("user/lodger").ceil, 100 * MBIT);
    assert!(kept(&owner("guest")).sent >= used, "{:?}", kept(&owner("guest")));
    assert!(kept(&owner("lodger")).sent < MB, "{:?}", kept(&owner("lodger")));
    shaper(&["plan", &policy(&after), "--exit-code", "-q"]).exits(0);
}

fn a_policy_that_is_refused_or_taken_back_takes_nobodys_use() {
    let mut world = World::new();
    let before = text(&[("lodger", "accounts: [ann]")]);
    apply(&before);
    send(&mut world, 4 * MB);
    apply(&before);
    let used = kept(&owner("lodger")).sent;
    assert!(used >= 4 * MB, "{used}");

    // A stranger's uid by mistake, beside another mistake; and her new line beside the old one.
    let mistakes = [("lodger", "uids: 2002"), ("bob", "accounts: [ann]"), ("x", "accounts: [ann]")];
    let both = [("lodger", "accounts: [ann]"), ("guest", "accounts: [ann]")];
    for refused in [&mistakes[..], &both[..]] {
        shaper(&["apply", &policy(&text(refused))]).exits(2);
        assert_eq!(kept(&owner("lodger")).sent, used, "{refused:?}");
    }

    shaper(&["apply", "--confirm", "5", &policy(&text(&[("lodger", "uids: 2002")]))]).exits(0);
    assert_eq!(class("user/lodger").ceil, 100 * MBIT);
    soon("it is taken back", Duration::from_secs(40), || class("user/lodger").ceil == 16 * MBIT);
    let used = kept(&owner("lodger")).sent;
    assert!(used >= 4 * MB, "{used}");

    apply(&text(&[("guest", "accounts: [ann]")]));
    assert!(kept(&owner("guest")).sent >= used, "{:?}", kept(&owner("guest")));
    assert_eq!(class("user/guest").ceil, 16 * MBIT);
}
