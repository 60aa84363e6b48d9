//! A `down` that cannot be, and how it is said.

use super::bad_input::golden;

#[test]
fn what_arrives() {
    let text = golden(&[
        ("a down that is nothing", "users: {bob: {down: }}"),
        (
            "a down without rate and ceil",
            "version: 1\nlinks: {eth0: {down: 500mbit}}\nusers: {bob: {down: {prio: 1}}}",
        ),
        (
            "an unknown key of a down",
            "version: 1\nlinks: {eth0: {down: 500mbit}}\nusers: {bob: {down: {cel: 1mbit}}}",
        ),
        ("a user's down without a link's", "users: {bob: {ceil: 1mbit, down: 2mbit}}"),
        (
            "a group's down without a link's",
            "users: {bob: 1mbit}\ngroups: {g: {users: [bob], down: 2mbit}}",
        ),
        (
            "a down of each without a link's",
            "everyone: {ceil: 5mbit, each: {ceil: 1mbit, down: 1mbit}}",
        ),
        (
            "a down on a link that has none",
            "version: 1\nlinks: {eth0: {down: 500mbit}, eth1: }\nusers: {bob: {ceil: 1mbit, links: {eth1: {ceil: 1mbit, down: 2mbit}}}}",
        ),
        (
            "a down, and no class on the link that has one",
            "version: 1\nlinks: {eth0: {down: 500mbit}, eth1: }\nusers: {bob: {ceil: 1mbit, down: 2mbit, links: {eth0: none}}}",
        ),
        (
            "a default's down without the link's",
            "version: 1\nlinks: {eth0: {default: {down: 5mbit}}}",
        ),
        (
            "a down above the link's",
            "version: 1\nlinks: {eth0: {down: 50mbit}}\nusers: {bob: {ceil: 100mbit, down: 60mbit}}",
        ),
        (
            "downs that add up to too much",
            "version: 1\nlinks: {eth0: {down: 50mbit}}\nusers: {bob: {rate: 1mbit, down: {rate: 30mbit}}, ann: {rate: 1mbit, down: {rate: 30mbit}}}",
        ),
        ("a down above what the device receives at", "version: 1\nlinks: {eth0: {down: 2gbit}}"),
        (
            "a down of nearly all that the device receives at",
            "version: 1\nlinks: {eth0: {down: 990mbit}}",
        ),
        (
            "a down that is a part of an unknown speed",
            "version: 1\nlinks: {virt0: {rate: 1mbit, down: 95%}}",
        ),
        (
            "background with a guaranteed down",
            "version: 1\nlinks: {eth0: {down: 50mbit}}\nusers: {bob: {ceil: 5mbit, background: true, down: {rate: 1mbit}}}",
        ),
        (
            "background with other prios in both directions",
            "version: 1\nlinks: {eth0: {down: 50mbit}}\nusers: {bob: {ceil: 5mbit, background: true, prio: 3, down: {ceil: 1mbit, prio: 7}}}",
        ),
        (
            "a prio of what arrives for all together",
            "version: 1\nlinks: {eth0: {down: 50mbit}}\nusers: {bob: 1mbit}\ngroups: {g: {users: [bob], ceil: 5mbit, down: {ceil: 5mbit, prio: 3}}}\neveryone: {ceil: 9mbit, down: {ceil: 5mbit, prio: 3}, each: {ceil: 1mbit, down: {ceil: 1mbit, prio: 3}}}",
        ),
        ("ingress", "users: {bob: {ceil: 5mbit, ingress: 1mbit}}"),
    ]);
    insta::assert_snapshot!("arriving", text);
}
