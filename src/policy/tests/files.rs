//! A policy of several files: what they say together, and where each mistake is.

use crate::policy::{MAX_BYTES, Policy, Source, may_change, parse, read};

const FIRST: &str = "version: 1\nlinks: {eth0: {rate: 1gbit}}\nusers: {ann: 10mbit}\n";

fn source(first: &str, others: &[(&str, &str)]) -> Source {
    let others = others.iter().map(|(name, text)| (format!("p.d/{name}"), *text));
    Source::new("p.yaml", first).with(others)
}

fn refused(first: &str, others: &[(&str, &str)]) -> String {
    match read(source(first, others)) {
        Ok(policy) => panic!("{policy:?}"),
        Err(report) => report.to_string(),
    }
}

fn names(policy: &Policy) -> Vec<&str> {
    policy.users.iter().map(|user| user.key.value.as_str()).collect()
}

#[test]
fn files_say_together_what_one_file_would() {
    let others = [
        ("10-bob.yaml", "version: 1\nusers:\n  bob: 20mbit\nrules: [{dport: 1, to: bob}]"),
        ("20-empty.yaml", "# nothing yet\n"),
        ("30-null.yaml", "users:\nclasses:\n"),
        ("40-x.yaml", "x-a: &a {ceil: 5mbit}\nusers: {cid: *a}\nclasses: {nfs: 1mbit}\n"),
        ("50-y.yaml", "x-a: {}\nrules: [{dport: 2, to: ann}]\neveryone: 1mbit\n"),
    ];
    let policy = read(source(FIRST, &others)).unwrap();
    assert_eq!(names(&policy), ["ann", "bob", "cid"]);
    let one = "version: 1\nlinks: {eth0: {rate: 1gbit}}\nusers: {ann: 10mbit, bob: 20mbit, \
               cid: {ceil: 5mbit}}\nclasses: {nfs: 1mbit}\neveryone: 1mbit\n\
               rules: [{dport: 1, to: bob}, {dport: 2, to: ann}]\n";
    let one = parse(one, "p.yaml").unwrap();
    let meant = |policy: &Policy| {
        let users = policy.users.iter().map(|user| (user.key.value.clone(), user.limits.ceil));
        let users: Vec<_> = users.map(|(key, ceil)| (key, ceil.map(|ceil| ceil.value))).collect();
        let rules =
            policy.rules.iter().map(|rule| (rule.to.value.clone(), rule.dport.values.len()));
        (users, rules.collect::<Vec<_>>(), policy.classes.len(), policy.everyone.is_some())
    };
    assert_eq!(meant(&policy), meant(&one));
    let at = |key: usize| {
        let at = policy.users[key].key.at;
        format!("{}:{}:{}", policy.source.file_at(at), at.place.line, at.place.column)
    };
    assert_eq!([0, 1, 2].map(at), ["p.yaml:3:9", "p.d/10-bob.yaml:3:3", "p.d/40-x.yaml:2:9"]);
}

#[test]
fn what_two_files_say_of_one_thing_is_an_error_with_both_places() {
    let twice =
        refused(FIRST, &[("a.yaml", "users: {bob: 1mbit}"), ("b.yaml", "users: {ann: 2mbit}")]);
    assert!(twice.starts_with("error: `ann` stands twice in `users`"), "{twice}");
    assert!(twice.contains("--> p.d/b.yaml:1:9") && twice.contains("::: p.yaml:3:9"), "{twice}");
    let twice = refused(FIRST, &[("a.yaml", "everyone: 1mbit"), ("b.yaml", "\neveryone: 1mbit")]);
    assert!(twice.contains("`everyone` stands twice in the policy"), "{twice}");
    assert!(twice.contains("p.d/b.yaml:2:1") && twice.contains("p.d/a.yaml:1:1"), "{twice}");
    let link = refused(FIRST, &[("a.yaml", "links: {eth0: {down: 1mbit}}")]);
    assert!(link.contains("`eth0` stands twice in `links`"), "{link}");
    let version = refused(FIRST, &[("a.yaml", "version: 2")]);
    assert!(version.contains("p.d/a.yaml:1:1"), "{version}");
}

#[test]
fn each_mistake_is_shown_in_its_own_file_and_in_the_order_of_the_files() {
    let others = [
        ("a.yaml", "users: {bob: 5mbps}"),
        ("b.yaml", "# one line\nusers:\n  cid: {cel: 1mbit}\n"),
    ];
    let report = refused(&FIRST.replace("10mbit", "10"), &others);
    let at: Vec<_> = ["p.yaml:3:14", "p.d/a.yaml:1:14", "p.d/b.yaml:3:9"]
        .map(|place| report.find(&format!("--> {place}")).unwrap_or_else(|| panic!("{report}")))
        .into();
    assert!(at.is_sorted(), "{report}");
    for (text, place) in [
        ("users: [", "p.d/a.yaml:1:"),
        ("users:\n\tb: 1", "p.d/a.yaml:2:1"),
        ("--- {}\n--- {}\n", "p.d/a.yaml:2:5"),
        ("users: {a: *nobody}", "p.d/a.yaml:1:12"),
        ("just a word", "p.d/a.yaml:1:1"),
        ("[a, list]", "p.d/a.yaml:1:1"),
        ("users: [a, list]", "p.d/a.yaml:1:1"),
        ("include: other.yaml", "p.d/a.yaml:1:1"),
        ("x: &a 1", "p.d/a.yaml:1:1"),
        ("? {a: b}\n: c", "p.d/a.yaml:1:3"),
        ("users: {~: {cel: 1mbit}}", "p.d/a.yaml:1:13"),
    ] {
        let report = refused(FIRST, &[("a.yaml", text)]);
        assert!(report.contains(place), "{text}: {report}");
    }
}

/// An anchor is its own file's, so that what a file means does not depend on its neighbours.
#[test]
fn an_alias_does_not_reach_into_another_file() {
    let first = format!("{FIRST}x-a: &a 1mbit\n");
    let report = refused(&first, &[("a.yaml", "users: {bob: *a}")]);
    assert!(report.contains("without an anchor") && report.contains("a.yaml:1:14"), "{report}");
}

/// All files together are no larger than one may be.
#[test]
fn the_limits_of_a_policy_are_for_all_its_files() {
    let half = format!("# {}\n", "x".repeat(MAX_BYTES / 2));
    let report = refused(FIRST, &[("a.yaml", &half), ("b.yaml", &half)]);
    assert!(report.contains("bytes that a policy may have"), "{report}");
    let list = format!("x-a: [{}]\n", "x, ".repeat(600_000));
    assert!(read(source(FIRST, &[("a.yaml", &list)])).is_ok());
    let report = refused(FIRST, &[("a.yaml", &list), ("b.yaml", &list)]);
    assert!(report.contains("too many values") && report.contains("b.yaml"), "{report}");
}

/// However a key is written.
#[test]
fn a_text_whose_limits_can_change_is_known_by_its_letters() {
    let of = |limits: &str| {
        let text = format!("version: 1\nlinks: {{eth0: 1gbit}}\nusers:\n  ann: {limits}\n");
        let source = Source::new("policy.yaml", &text);
        let may = may_change(&source);
        let policy = read(source).unwrap();
        (may, policy.quotas().next().is_some() || !policy.times.is_empty())
    };
    for limits in [
        "{ceil: 5mbit, quota: {month: 1TB, then: 1mbit}}",
        "{ceil: 5mbit, \"quota\": {month: 1TB, then: 1mbit}}",
        "{ceil: 5mbit, 'quota': {month: 1TB, then: 1mbit}}",
        "{ceil: 5mbit, \"\\u0071uota\": {month: 1TB, then: 1mbit}}",
        "{ceil: 5mbit, \"quo\\\n    ta\": {month: 1TB, then: 1mbit}}",
        "\n    ceil: 5mbit\n    ? quota\n    : {month: 1TB, then: 1mbit}",
        "{ceil: 5mbit}\ntimes: {night: \"22:00-06:00\"}",
        "{ceil: 5mbit}\n\"t\\u0069mes\": {night: \"22:00-06:00\"}",
    ] {
        assert_eq!(of(limits), (true, true), "{limits}");
    }
    assert_eq!(of("{ceil: 5mbit}"), (false, false));
}
