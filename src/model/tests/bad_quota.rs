//! A quota that cannot be, and how it is said.

use super::bad_input::golden;
use super::{BuildOptions, host, said_on};

#[test]
fn quotas() {
    let of = |quota: &str| format!("users: {{bob: {{ceil: 100mbit, quota: {quota}}}}}");
    let cases = [
        ("an empty list", "[]"),
        ("nothing", ""),
        ("a volume alone", "1TB"),
        ("no period", "{then: 10mbit}"),
        ("an unknown period", "{mont: 1TB, then: 10mbit}"),
        ("a period of nothing", "{0d: 1TB, then: 10mbit}"),
        ("a period that is too long", "{90d: 1TB, then: 10mbit}"),
        ("two periods in one", "{day: 1TB, month: 2TB, then: 10mbit}"),
        ("two quotas of one period", "[{day: 1TB, then: 10mbit}, {day: 2TB, then: 5mbit}]"),
        ("no cap", "{month: 1TB}"),
        ("a volume in bits", "{month: 8tbit, then: 10mbit}"),
        ("a volume that may be bits", "{month: 8Tb, then: 10mbit}"),
        ("a volume without a unit", "{month: 1000, then: 10mbit}"),
        ("a volume of nothing", "{month: 0GB, then: 10mbit}"),
        ("a volume that is none", "{month: much, then: 10mbit}"),
        ("no volume", "{month: , then: 10mbit}"),
        ("a share as the cap", "{month: 1TB, then: 50%}"),
        ("a cap of nothing", "{month: 1TB, then: 0mbit}"),
        ("a cap that is too low", "{month: 1TB, then: 32kbit}"),
        ("no steps", "{month: 1TB, then: {}}"),
        ("steps that do not rise", "{month: 1TB, then: {100%: 50mbit, 75%: 10mbit}}"),
        ("caps that do not fall", "{month: 1TB, then: {75%: 10mbit, 100%: 10mbit}}"),
        ("a step beyond all", "{month: 1TB, then: {150%: 10mbit}}"),
        ("a step at nothing", "{month: 1TB, then: {0%: 10mbit}}"),
        ("a step without a unit", "{month: 1TB, then: {75: 10mbit}}"),
        ("a step that is no share", "{month: 1TB, then: {500GB: 10mbit}}"),
        ("a day that no month has", "{month: 1TB, starts: 32, then: 10mbit}"),
        ("a day of the week that is none", "{week: 1TB, starts: 5, then: 10mbit}"),
        ("a start of a day", "{day: 1TB, starts: 5, then: 10mbit}"),
        ("what counts", "{day: 1TB, counts: all, then: 10mbit}"),
    ];
    let mut text = String::new();
    for (name, quota) in cases {
        text.push_str(&golden(&[(name, &of(quota))]));
    }
    text.push_str(&golden(&[
        (
            "a quota on one link",
            "users: {bob: {ceil: 1mbit, links: {eth0: {ceil: 1mbit, quota: {day: 1GB, then: 64kbit}}}}}",
        ),
        ("a class's quota", "classes: {nfs: {ceil: 1mbit, quota: {day: 1GB, then: 64kbit}}}"),
        (
            "a good one",
            "users: {bob: {ceil: 1mbit, quota: [{day: 1.5GB, then: 64kbit}, {30d: 9GiB, then: 64kbit}]}}",
        ),
        (
            "a day that not each month has",
            "users: {bob: {ceil: 1mbit, quota: {month: 1GB, starts: 30, then: 64kbit}}}",
        ),
    ]));
    insta::assert_snapshot!("quota", text);
}

#[test]
fn a_quota_as_people_write_it_has_the_line_to_write() {
    for (quota, message, cure) in [
        ("{month: 1TB, then: {\"75\": 10mbit}}", "`75` is no share", "write `75%`"),
        ("{month: 1TB, then: {0.75: 10mbit}}", "`0.75` is no share", "write `75%`"),
        ("{month: 1TB, then: {101%: 10mbit}}", "`101%` is more than 100%", "75%: 500mbit"),
        ("{month: 1TB, then: {-5%: 10mbit}}", "`-5%` is no share", "write shares in percent"),
        ("{month: 1TB, then: {100%%: 10mbit}}", "`100%%` is no share", "write shares in percent"),
        ("{month: 1TB, then: {0.0001%: 10mbit}}", "is too small a share", "write `0.001%`"),
        ("{month: 1TB, then: {75%: 20mbit, 75.0%: 10mbit}}", "the shares do not rise", "75%"),
        ("{month: 1TB, then: {ceil: 10mbit}}", "`ceil` is no share", "write the cap itself"),
        ("{month: 1TB, then: [10mbit]}", "but this is a list", "write `then: 10mbit`"),
        (
            "{month: 1TB, then: stop}",
            "`stop` is not a number",
            "such as `10mbit`: at least `64kbit`",
        ),
        ("{month: 1TB, starts: 15th, then: 1mbit}", "cannot start on `15th`", "`starts: 15`"),
        ("{month: 1TB, starts: last, then: 1mbit}", "cannot start on `last`", "`starts: 31`"),
        ("{month: 1TB, starts: 0, then: 1mbit}", "cannot start on `0`", "1 to 31"),
        ("{week: 1TB, starts: Monday, then: 1mbit}", "cannot start on `Monday`", "`starts: mon`"),
        ("{week: 1TB, starts: 1, then: 1mbit}", "cannot start on `1`", "`starts: mon`"),
        ("{month: 1TB, counts: in, then: 1mbit}", "cannot be `in`", "`counts: received`"),
        ("{month: 1TB, counts: [sent, received], then: 1mbit}", "a list", "`counts: both`"),
        ("{period: month, volume: 1TB, then: 1mbit}", "unknown key `period`", "{month: 1TB"),
        ("{30: 1TB, then: 1mbit}", "`30` is no period", "write `30d`"),
        ("{120min: 1TB, then: 1mbit}", "`120min` is no period", "write `2h`"),
        ("{year: 1TB, then: 1mbit}", "unknown key `year`", "a year is longer than the 62 days"),
        ("{1000y: 1TB, then: 1mbit}", "`1000y` is no period", "a year is longer than the 62 days"),
        ("{month: 1PB, then: 1mbit}", "unknown unit", "write `1000TB`"),
        ("{month: 1.5PiB, then: 1mbit}", "unknown unit", "write `1536TiB`"),
        ("{month: 1e12, then: 1mbit}", "unknown unit", "write all digits: `1TB`"),
        ("{month: \"1,000GB\", then: 1mbit}", "unknown unit", "write all digits: `1TB`"),
        ("{month: 1_000GB, then: 1mbit}", "unknown unit", "write all digits: `1TB`"),
    ] {
        let policy = format!(
            "version: 1\nlinks: {{eth0: }}\nusers: {{bob: {{ceil: 1gbit, quota: {quota}}}}}"
        );
        let said = said_on(&host(), BuildOptions::default(), &policy);
        assert!(said.starts_with("error") && said.contains(message), "{quota}: {said}");
        assert!(said.contains(cure) && said.contains("policies.yaml:3:"), "{quota}: {said}");
    }
}

#[test]
fn a_step_that_lowers_nothing_is_warned_of() {
    let with = |lines: &str| {
        let policy = format!("version: 1\nlinks: {{eth0: {{rate: 1gbit}}}}\n{lines}");
        said_on(&host(), BuildOptions::default(), &policy)
    };
    for (lines, found) in [
        ("users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: 200mbit}}}", 1),
        ("users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: 100mbit}}}", 1),
        ("users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: 99mbit}}}", 0),
        ("users: {bob: {rate: 100mbit, quota: {day: 1GiB, then: 100mbit}}}", 1),
        ("users: {bob: {ceil: 10%, quota: {day: 1GiB, then: 100mbit}}}", 1),
        ("users: {bob: {ceil: 10%, quota: {day: 1GiB, then: 99mbit}}}", 0),
        (
            "users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: {20%: 300mbit, 50%: 200mbit, 100%: 1mbit}}}}",
            2,
        ),
        (
            "times: {night: \"22:00-06:00\"}\nusers: {bob: {ceil: 100mbit, when: {night: {ceil: 800mbit}}, quota: {day: 1GiB, then: 200mbit}}}",
            0,
        ),
        (
            "users: {bob: {ceil: 100mbit, links: {eth0: {ceil: 900mbit}}, quota: {day: 1GiB, then: 200mbit}}}",
            0,
        ),
        ("everyone: {quota: {day: 1GiB, then: 1gbit}}", 1),
        ("everyone: {quota: {day: 1GiB, then: 999mbit}}", 0),
        ("everyone: {ceil: 500mbit, each: {quota: {day: 1GiB, then: 500mbit}}}", 1),
        ("groups: {g: {gid: students, ceil: 50mbit, quota: {day: 1GiB, then: 50mbit}}}", 1),
        ("groups: {g: {gid: students, each: {ceil: 50mbit, quota: {day: 1GiB, then: 60mbit}}}}", 1),
    ] {
        let said = with(lines);
        assert_eq!(said.matches("lowers nothing").count(), found, "{lines}: {said}");
        assert_eq!(said.matches("warning").count(), found, "{lines}: {said}");
        assert!(!said.contains("error"), "{lines}: {said}");
    }
    let said = with("users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: 200mbit}}}");
    assert!(said.contains("`bob` has at most 100mbit, so 200mbit lowers nothing"), "{said}");
    assert!(said.contains("policies.yaml:3:55"), "{said}");
    // What arrives has no cap of his own, so the step lowers that.
    for (link, found) in [("{rate: 1gbit, down: 1gbit}", 0), ("{rate: 1gbit, down: 150mbit}", 1)] {
        let user = "users: {bob: {ceil: 100mbit, quota: {day: 1GiB, then: 200mbit}}}";
        let policy = format!("version: 1\nlinks: {{eth0: {link}}}\n{user}");
        let said = said_on(&host(), BuildOptions::default(), &policy);
        assert_eq!(said.matches("lowers nothing").count(), found, "{link}: {said}");
    }
    // A link whose rate is the device's may have any.
    let policy = "version: 1\nlinks: {eth0: }\neveryone: {quota: {day: 1GiB, then: 1gbit}}";
    let said = said_on(&host(), BuildOptions::default(), policy);
    assert!(!said.contains("lowers nothing"), "{said}");
}
