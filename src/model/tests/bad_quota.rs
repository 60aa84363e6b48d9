//! A quota that cannot be, and how it is said.

use super::bad_input::golden;

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
