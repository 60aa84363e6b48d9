//! Mistakes that people make, each with the line that its error says to write.

use crate::policy;

const LINK: &str = "version: 1\nlinks: {eth0: {rate: 1gbit}}\n";

/// What is written, what the error says, and what whoever does that has then.
const MISTAKES: [[&str; 3]; 31] = [
    ["users: {ann: {ceiling: 9mbit}}", "`ceil`", "users: {ann: {ceil: 9mbit}}"],
    ["users: {ann: {max: 9mbit}}", "`ceil`", "users: {ann: {ceil: 9mbit}}"],
    ["users: {ann: {min: 9mbit}}", "`rate`", "users: {ann: {rate: 9mbit}}"],
    ["users: {ann: {ceil=9mbit}}", "`ceil: 9mbit`", "users: {ann: {ceil: 9mbit}}"],
    ["users: {ann: {ceil:9mbit}}", "`ceil: 9mbit`", "users: {ann: {ceil: 9mbit}}"],
    ["users:\n  - ann: 9mbit", "`ann: 9mbit`", "users:\n  ann: 9mbit"],
    ["users:\n  ann 9mbit", "`ann: 9mbit`", "users:\n  ann: 9mbit"],
    ["users:\n  ann = 9mbit\n  bob = 9mbit", "`ann: 9mbit`", "users:\n  ann: 9mbit"],
    ["users:\n  ann=9mbit", "`ann: 9mbit`", "users:\n  ann: 9mbit"],
    ["users:\n  ann:9mbit", "`ann: 9mbit`", "users:\n  ann: 9mbit"],
    ["users:\nevryone: 9mbit", "did you mean `everyone`", "users:\neveryone: 9mbit"],
    ["users:\nann: 9mbit", "in `users`, begin its line with two spaces", "users:\n  ann: 9mbit"],
    ["users: {ann: up to 9mbit}", "`9mbit`", "users: {ann: 9mbit}"],
    [
        "users: {ann: 2-9mbit}",
        "`{rate: 2mbit, ceil: 9mbit}`",
        "users: {ann: {rate: 2mbit, ceil: 9mbit}}",
    ],
    [
        "users: {ann: {ceil: 2mbit 9mbit}}",
        "`{rate: 2mbit, ceil: 9mbit}`",
        "users: {ann: {rate: 2mbit, ceil: 9mbit}}",
    ],
    ["users: {ann: full}", "`100%`", "users: {ann: 100%}"],
    [
        "users: {ann: {ceil: 9mbit, classid: 1a}}",
        "`1:1a`",
        "users: {ann: {ceil: 9mbit, classid: 1:1a}}",
    ],
    [
        "users: {ann: {ceil: 9mbit, classid: 2:10}}",
        "`1:10`",
        "users: {ann: {ceil: 9mbit, classid: 1:10}}",
    ],
    [
        "users: {ann: {rate: 2mbit ceil: 9mbit}}",
        "a comma before `ceil`",
        "users: {ann: {rate: 2mbit, ceil: 9mbit}}",
    ],
    [
        "users:\n  ann: {ceil: 9mbit\n  bob: 9mbit",
        "`}` or `,` at the end of the line above `bob`",
        "users:\n  ann: {ceil: 9mbit}\n  bob: 9mbit",
    ],
    ["users:\n  ann: ceil: 9mbit", "`ann: {ceil: 9mbit}`", "users:\n  ann: {ceil: 9mbit}"],
    [
        "users:\n  ann: rate: 2mbit, ceil: 9mbit # both",
        "`ann: {rate: 2mbit, ceil: 9mbit}`",
        "users:\n  ann: {rate: 2mbit, ceil: 9mbit}",
    ],
    [
        "users:\n  ann:\n    rate: 2mbit\n      ceil: 9mbit",
        "begin `ceil` below `rate`, in the same column",
        "users:\n  ann:\n    rate: 2mbit\n    ceil: 9mbit",
    ],
    [
        "users:\n  ann: 9mbit\n  // bob",
        "a comment begins with `#`",
        "users:\n  ann: 9mbit\n  # bob",
    ],
    ["users:\n  @ann: 9mbit", "`\"@ann\"`", "users:\n  \"@ann\": 9mbit"],
    ["default: 9mbit", "`links: {eth0: {default: ", "users: {}"],
    ["groups: {a: {members: [], ceil: 9mbit}}", "`users`", "groups: {a: {users: [], ceil: 9mbit}}"],
    ["rules: [{dport: https, to: default}]", "`443`", "rules: [{dport: 443, to: default}]"],
    [
        "rules: [{proto: all, dst: 10.0.0.0/8, to: default}]",
        "leave `proto` out",
        "rules: [{dst: 10.0.0.0/8, to: default}]",
    ],
    ["rules: [{protocol: tcp, to: default}]", "`proto`", "rules: [{proto: tcp, to: default}]"],
    ["user: {ann: 9mbit}", "`users`", "users: {ann: 9mbit}"],
];

/// Of the line of a link itself.
const LINKS: [[&str; 3]; 4] = [
    ["links: eth0", "`links: {eth0: …}`", "links: {eth0: 1gbit}"],
    ["links: [eth0, eth1]", "`links: {eth0: …}`", "links: {eth0: 1gbit}"],
    ["links: {eth0: {up: 9mbit}}", "`rate`", "links: {eth0: {rate: 9mbit}}"],
    ["links: {eth0: {speed: 9mbit}}", "`rate`", "links: {eth0: {rate: 9mbit}}"],
];

#[track_caller]
fn says(bad: &str, cure: &str, good: &str) {
    let Err(report) = policy::parse(bad, "policies.yaml") else { panic!("no error: {bad}") };
    let help = report.first().and_then(|it| it.help.clone()).unwrap_or_default();
    assert!(help.contains(cure), "{bad}: {help}");
    if let Err(report) = policy::parse(good, "policies.yaml") {
        panic!("{bad}: {report}");
    }
}

#[test]
fn a_mistake_gets_the_line_to_write() {
    for [bad, cure, good] in MISTAKES {
        says(&format!("{LINK}{bad}\n"), cure, &format!("{LINK}{good}\n"));
    }
    for [bad, cure, good] in LINKS {
        says(&format!("version: 1\n{bad}\n"), cure, &format!("version: 1\n{good}\n"));
    }
}
