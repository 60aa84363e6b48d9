//! Every way to write a bad `boost` that we know of, and the exact text that answers it.

use super::bad_input::golden;

#[test]
fn boosts_that_cannot_be() {
    let text = golden(&[
        ("in bits", "users: {bob: {ceil: 10mbit, boost: 8mbit}}"),
        ("perhaps in bits", "users: {bob: {ceil: 10mbit, boost: 8Mb}}"),
        ("without a unit", "users: {bob: {ceil: 10mbit, boost: 500}}"),
        ("a share", "users: {bob: {ceil: 10mbit, boost: 50%}}"),
        ("none", "users: {bob: {ceil: 10mbit, boost: 0}}"),
        ("next to nothing", "users: {bob: {ceil: 10mbit, boost: 1kB}}"),
        ("more than a minute", "users: {bob: {ceil: 10mbit, boost: 75.1MB}}"),
        ("a minute (no word)", "users: {bob: {ceil: 10mbit, boost: 75MB}}"),
        ("more than a minute of a rate", "users: {bob: {rate: 10mbit, boost: 75.1MB}}"),
        ("more than a minute of a share", "users: {bob: {ceil: 1%, boost: 1GB}}"),
        (
            "more than a minute of each account",
            "groups: {g: {gid: staff, each: {ceil: 10mbit, boost: 1GB}}}",
        ),
        (
            "more than a minute of what the group leaves each (no word)",
            "groups: {g: {gid: staff, ceil: 10mbit, each: {ceil: 100mbit, boost: 700MB}}}\neveryone: 10mbit",
        ),
        ("more than a minute of all together", "everyone: {ceil: 10mbit, boost: 1GB}"),
        (
            "more than a minute of what arrives",
            "version: 1\nlinks: {eth0: {down: 500mbit}}\nusers: {bob: {ceil: 100mbit, down: {ceil: 10mbit, boost: 1GB}}}",
        ),
        ("of a group without a cap", "groups: {g: {gid: staff, rate: 10mbit, boost: 1MB}}"),
        ("of each without a cap", "everyone: {each: {prio: 2, boost: 1MB}}"),
        ("of the default", "version: 1\nlinks: {eth0: {default: {ceil: 10mbit, boost: 1MB}}}"),
        ("of a link", "version: 1\nlinks: {eth0: {boost: 1MB}}"),
    ]);
    insta::assert_snapshot!("boosts", text);
}
