//! Windows: which limits hold at which moment, why, and until when; and what is refused.

use super::*;
use crate::model::{Asked, By, Holds, LimitOf, LinkAt, Node, Position};
use crate::times::{TimeZone, Timestamp, Unknown, Zones};
use crate::tree::Owner;
use crate::units::{Bytes, Rate};

/// The host at this moment, where it is in Berlin.
pub(super) fn at(moment: &str) -> Facts {
    let zone = |name| (name, TimeZone::get(name).map_err(|_| Unknown::Name(None)));
    let mut named = [zone("Europe/Berlin"), zone("America/New_York")]
        .map(|(name, zone)| (name.to_string(), zone))
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>();
    named.insert("Berlin".into(), Err(Unknown::Name(Some("Europe/Berlin".into()))));
    named.insert("Mars/Base".into(), Err(Unknown::Name(None)));
    named.insert("Asia/Tokyo".into(), Err(Unknown::NoDatabase));
    let here = named["Europe/Berlin"].clone().unwrap();
    Facts { now: moment.parse().unwrap(), zones: Zones { here, named }, ..host() }
}

pub(super) const TIMES: &str = r#"
times:
  night: "22:00-06:00"
  work: {days: mon-fri, at: "08:00-18:00", tz: Europe/Berlin}
  weekend: {days: [sat, sun]}
"#;

/// On Wednesday, 2026-07-01, in Berlin's summer time.
pub(super) const NOON: &str = "2026-07-01T10:00:00Z";
pub(super) const NIGHT: &str = "2026-07-01T21:00:00Z";

/// Without what is said of windows that no line names.
fn model(moment: &str, policy: &str) -> Model {
    model_on(&at(moment), policy)
}

pub(super) fn model_on(facts: &Facts, policy: &str) -> Model {
    let head = if policy.contains("links:") { "" } else { "links: {eth0: {down: 500mbit}}\n" };
    let text = format!("version: 1\n{head}{policy}\n{TIMES}");
    let policy = policy::parse(&text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
    build(&policy, facts, BuildOptions::default()).unwrap_or_else(|e| panic!("{e}")).0
}

fn node<'a>(model: &'a Model, name: &str) -> &'a Node {
    let is = |owner: &Owner| matches!(owner, Owner::User(key) | Owner::Class(key) if key.as_str() == name);
    model.nodes.iter().find(|node| is(&node.owner)).unwrap()
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// The ceil of what is sent and of what arrives.
fn ceils(model: &Model, name: &str) -> [Rate; 2] {
    let limits = &node(model, name).limits;
    [0, 1].map(|link| limits[LinkAt::new(link)].unwrap().ceil)
}

pub(super) fn moment(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn a_boost_goes_with_the_cap_that_holds() {
    let policy = "users:\n  ann: {ceil: 100mbit, boost: 700MB, when: {night: {ceil: 800mbit}, work: {boost: 1MiB}}, down: {ceil: 10mbit, boost: 75MB}}";
    let boosts = |moment: &str| {
        let limits = node(&model(moment, policy), "ann").limits.clone();
        [0, 1].map(|link| limits[LinkAt::new(link)].unwrap().boost.map(Bytes::to_volume))
    };
    let some = |text: &str| Some(text.to_string());
    assert_eq!(boosts(NIGHT), [some("700MB"), some("75MB")]);
    assert_eq!(boosts(NOON), [some("1MiB"), some("75MB")]);
    let without = "users:\n  ann: {ceil: 100mbit, boost: 700MB, down: 10mbit}";
    let ann = node(&model(NOON, without), "ann").limits[LinkAt::new(1)].unwrap();
    assert_eq!(ann.boost, None, "a boost of what is sent is none of what arrives");
}

#[test]
fn a_boost_that_a_lower_cap_cannot_save_up_is_an_error_before_its_window_begins() {
    let policy = "version: 1\nlinks: {eth0: }\nusers: {ann: {ceil: 100mbit, boost: 700MB, when: {night: 10mbit}}}\n";
    let report = said_on(&at(NOON), BuildOptions::default(), &format!("{policy}{TIMES}"));
    assert!(report.contains("write at most `75MB`"), "{report}");
    assert!(report.contains("while `night` holds"), "{report}");
}

#[test]
fn the_first_window_that_holds_replaces_what_it_writes() {
    let policy = "users:\n  ann: {rate: 10mbit, ceil: 100mbit, prio: 2, when: {night: {ceil: 800mbit}, work: {prio: 4, down: 50mbit}}}";
    let noon = model(NOON, policy);
    let ann = node(&noon, "ann").limits[LinkAt::new(0)].unwrap();
    assert_eq!(
        (ann.rate, ann.ceil, ann.prio),
        (Asked::Promised(rate("10mbit")), rate("100mbit"), 4)
    );
    assert_eq!(ceils(&noon, "ann"), [rate("100mbit"), rate("50mbit")]);
    let night = model(NIGHT, policy);
    let ann = node(&night, "ann").limits[LinkAt::new(0)].unwrap();
    assert_eq!(
        (ann.rate, ann.ceil, ann.prio),
        (Asked::Promised(rate("10mbit")), rate("800mbit"), 2)
    );
    assert_eq!(ceils(&night, "ann"), [rate("800mbit"), rate("500mbit")]);
}

#[test]
fn each_class_says_what_holds_why_and_until_when() {
    let policy = "users:\n  ann: {ceil: 100mbit, when: {night: {ceil: 800mbit}}}\n  bob: 1mbit";
    let noon = model(NOON, policy);
    let holds =
        |model: &Model, name: &str, link| node(model, name).holds[LinkAt::new(link)].clone();
    let until = moment("2026-07-01T20:00:00Z");
    let expected = Holds { until, ..Holds::default() };
    assert_eq!(holds(&noon, "ann", 0), expected);
    assert_eq!(holds(&noon, "bob", 0), Holds::default());
    assert_eq!(noon.valid_until, until);
    let night = model(NIGHT, policy);
    let until = moment("2026-07-02T04:00:00Z");
    let expected = Holds { by: By::When, why: Some("night".into()), until, ..Holds::default() };
    assert_eq!(holds(&night, "ann", 0), expected);
    assert_eq!(holds(&night, "ann", 1).by, By::Ceil, "the window says nothing of what arrives");
    assert_eq!(night.valid_until, until);
}

#[test]
fn a_window_behind_the_one_that_counts_changes_nothing() {
    // On Saturday the weekend counts, whether or not it is night.
    let policy = "users: {ann: {ceil: 1mbit, when: {weekend: 2mbit, night: 3mbit, work: 4mbit}}}";
    let model = model("2026-07-04T10:00:00Z", policy);
    assert_eq!(node(&model, "ann").limits[LinkAt::new(0)].unwrap().ceil, rate("2mbit"));
    // Until Sunday's midnight, when the night counts.
    assert_eq!(model.valid_until, moment("2026-07-05T22:00:00Z"));
}

#[test]
fn all_kinds_of_lines_have_windows() {
    let policy = "links: {eth0: {rate: 1gbit, down: 500mbit, when: {night: {rate: 400mbit, down: 300mbit}}}}
users:
  lim: {ceil: 900mbit, uids: 3001}
  own: {ceil: 100mbit, uids: 3002, links: {eth0: {ceil: 50mbit, when: {night: 60mbit}}}, when: {night: 70mbit}}
groups:
  staff: {gid: staff, ceil: 200mbit, when: {night: {ceil: 100mbit}}, each: {ceil: 20mbit, when: {night: 150mbit}}}
classes:
  nfs: {ceil: 10mbit, when: {night: {ceil: 20mbit}, work: 10mbit, weekend: 10mbit}}
everyone: {each: {ceil: 5mbit, when: {night: 6mbit}}}\n";
    let mut facts = at(NIGHT);
    facts.accounts.running.extend([1001, 1004]);
    let night = model_on(&facts, policy);
    let [leaves, arrives] = [0, 1].map(|link| &night.links[LinkAt::new(link)]);
    assert_eq!((leaves.rate, arrives.rate), (rate("400mbit"), rate("300mbit")));
    assert_eq!((leaves.holds.by, arrives.holds.by), (By::When, By::When));
    assert_eq!(ceils(&night, "lim")[0], rate("400mbit"), "lowered with the link");
    assert_eq!(ceils(&night, "own")[0], rate("60mbit"), "those of the link alone");
    assert_eq!(ceils(&night, "nfs")[0], rate("20mbit"));
    let group = night.nodes.iter().find(|node| matches!(&node.owner, Owner::Group(_)));
    assert_eq!(group.unwrap().limits[LinkAt::new(0)].unwrap().ceil, rate("100mbit"));
    let uid = |uid| {
        let is = |node: &&Node| node.owner == Owner::Uid(uid);
        night.nodes.iter().find(is).unwrap().limits[LinkAt::new(0)].unwrap().ceil
    };
    assert_eq!(uid(1001), rate("100mbit"), "what its group has at night, and no more");
    assert_eq!(uid(1004), rate("6mbit"));
}

#[test]
fn a_guarantee_is_lowered_to_the_cap_of_a_window() {
    let policy = "users:\n  ann: {rate: 50mbit, ceil: 100mbit, when: {night: {ceil: 20mbit}}}";
    let ann = node(&model(NIGHT, policy), "ann").limits[LinkAt::new(0)].unwrap();
    assert_eq!((ann.rate, ann.ceil), (Asked::Promised(rate("20mbit")), rate("20mbit")));
}

#[test]
fn the_class_of_everyone_together_is_there_at_all_times() {
    let policy = "everyone: {when: {night: {ceil: 10mbit}}, each: 5mbit}";
    for moment in [NOON, NIGHT] {
        let model = model(moment, policy);
        let is = |node: &&Node| node.owner == Owner::Group(Group::Everyone);
        assert_eq!(model.nodes.iter().filter(is).count(), 1, "{moment}");
    }
}

#[test]
fn a_window_that_says_nothing_of_a_direction_changes_nothing_there() {
    let policy = "links: {eth0: {down: 500mbit, when: {night: {down: 300mbit}}}}
users:
  ann: {ceil: 100mbit, when: {night: {down: 50mbit}}}
  bob: {ceil: 1mbit, when: {night: {prio: 3}}}";
    for moment in [NOON, NIGHT] {
        let model = model(moment, policy);
        let [leaves, arrives] = [0, 1].map(LinkAt::new);
        let holds = |name: &str, link| node(&model, name).holds[link].clone();
        assert_eq!(holds("ann", leaves), Holds::default(), "{moment}");
        assert_eq!(holds("ann", arrives).until, model.valid_until, "{moment}");
        assert_eq!(holds("bob", leaves), Holds::default(), "{moment}");
        let of_link = Holds { of: LimitOf::Link, ..model.links[arrives].holds.clone() };
        assert_eq!(holds("bob", arrives), of_link, "{moment}: its line says nothing of it");
        assert_eq!(model.links[leaves].holds, Holds::default(), "{moment}");
        assert_eq!(model.links[arrives].holds.until, model.valid_until, "{moment}");
        assert!(model.valid_until.is_some());
    }
}

#[test]
fn each_window_of_a_line_is_checked_however_many_there_are() {
    let times = (0..24).map(|hour| format!("  h{hour}: \"{hour:02}:00-{:02}:00\"\n", hour + 1));
    let times: String = times.collect();
    // The last one too; each build with 24 windows takes a second.
    for wrong in (3..24).step_by(4) {
        let ceil = |hour| if hour == wrong { "2gbit" } else { "2mbit" };
        let when = (0..24).map(|hour| format!("h{hour}: {{ceil: {}}}", ceil(hour)));
        let when = when.collect::<Vec<_>>().join(", ");
        let users = format!("users: {{ann: {{ceil: 1mbit, when: {{{when}}}}}}}");
        let policy = format!("version: 1\nlinks: {{eth0: }}\ntimes:\n{times}{users}");
        let said = said_on(&at(NOON), BuildOptions::default(), &policy);
        assert!(said.starts_with("error") && said.contains("above the 1gbit"), "{wrong}: {said}");
    }
}

#[test]
fn windows_are_checked_on_links_whose_rate_is_unknown_and_on_those_to_come() {
    let night = "version: 1\ntimes: {night: \"22:00-06:00\"}\n";
    let unrated = "links: {eth7: }
groups: {a: {ceil: 20mbit, users: [u]}}
users: {u: {ceil: 1mbit, when: {night: {ceil: 50mbit}}}}";
    let to_come = "links: {eth0: , eth9: {rate: 10mbit, optional: true}}
users: {ann: {ceil: 1mbit, links: {eth9: {ceil: 1mbit, when: {night: {ceil: 20mbit}}}}}}";
    for (moment, words) in [(NOON, ", while `night` holds"), (NIGHT, "")] {
        let Facts { now, zones, .. } = at(moment);
        let nowhere = Facts { now, zones, ..Facts::default() };
        let offline = BuildOptions { offline: true, ..BuildOptions::default() };
        let said = said_on(&nowhere, offline, &format!("{night}{unrated}"));
        let why = format!("above the 20mbit of its group `a`{words}\n");
        assert!(said.starts_with("error") && said.contains(&why), "{moment}: {said}");
        let said = said_on(&at(moment), BuildOptions::default(), &format!("{night}{to_come}"));
        let why = format!("above the 10mbit of the link eth9{words}\n");
        assert!(!said.contains("error"), "{moment}: {said}");
        assert_eq!(said.matches(&why).count(), 1, "{moment}: {said}");
    }
}

#[test]
fn what_is_wrong_with_windows_is_said_with_its_cure() {
    let night = "times: {night: \"22:00-06:00\"}\n";
    let with = |users: &str| format!("{night}users: {{{users}}}");
    let texts = [
        ("an unknown window", with("bob: {ceil: 1mbit, when: {nigth: 2mbit}}")),
        ("a window without times", "users: {bob: {ceil: 1mbit, when: {lunch: 2mbit}}}".to_string()),
        ("an empty when", with("bob: {ceil: 1mbit, when: {}}")),
        ("a window with nothing in it", with("bob: {ceil: 1mbit, when: {night: {}}}")),
        ("a when in a when", with("bob: {ceil: 1mbit, when: {night: {when: {night: 1mbit}}}}")),
        ("a cap in a window alone", with("bob: {when: {night: {ceil: 1mbit}}}")),
        ("a window that is never", "times: {x: 22:00-22:00}".to_string()),
        ("an end that is a start", "times: {x: 24:00-06:00}".to_string()),
        ("hours without minutes", "times: {x: 22-6}".to_string()),
        ("a window without an end", "times: {x: {at: \"22:00\"}}".to_string()),
        ("a window that is always", "times: {x: {}}".to_string()),
        ("a day in full", "times: {x: {days: Monday-Friday}}".to_string()),
        ("a day misspelt", "times: {x: {days: frt}}".to_string()),
        ("no days", "times: {x: {days: []}}".to_string()),
        ("a city", "times: {x: {days: fri, tz: Berlin}}".to_string()),
        ("an unknown zone", "times: {x: {days: fri, tz: Mars/Base}}".to_string()),
        ("no database of zones", "times: {x: {days: fri, tz: Asia/Tokyo}}".to_string()),
        ("a window that nobody uses", night.to_string()),
        (
            "windows that overlap",
            "times: {night: \"22:00-06:00\", sat: {days: sat}}\nusers: {bob: {ceil: 1mbit, when: {night: 2mbit, sat: 3mbit}}}".to_string(),
        ),
        (
            "a window within one before it",
            "times: {night: \"22:00-06:00\", late: \"23:00-02:00\"}\nusers: {bob: {ceil: 1mbit, when: {night: 2mbit, late: 3mbit}}}".to_string(),
        ),
        (
            "a window within one behind it",
            "times: {night: \"22:00-06:00\", late: \"23:00-02:00\"}\nusers: {bob: {ceil: 1mbit, when: {late: 3mbit, night: 2mbit}}}".to_string(),
        ),
        (
            "a window of all days and hours",
            "times: {x: {days: mon-sun, at: \"00:00-24:00\"}}\nusers: {bob: {ceil: 1mbit, when: {x: 2mbit}}}".to_string(),
        ),
        (
            "hours in the place of a window's name",
            "users: {bob: {ceil: 1mbit, when: {\"22:00-06:00\": 2mbit}}}".to_string(),
        ),
        (
            "windows that do not",
            "times: {night: \"22:00-06:00\", day: \"06:00-22:00\"}\nusers: {bob: {ceil: 1mbit, when: {night: 2mbit, day: 3mbit}}}".to_string(),
        ),
        (
            "a ceil of the night above the link's",
            with("bob: {ceil: 1mbit, when: {night: {ceil: 2gbit}}}"),
        ),
        (
            "a guarantee of the night that is too much",
            with("ann: 10mbit, bob: {rate: 500mbit, when: {night: {rate: 990mbit}}}"),
        ),
        (
            "a guarantee that the link of the night has not",
            format!("version: 1\nlinks: {{eth0: {{rate: 1gbit, when: {{night: 100mbit}}}}}}\n{}", with("bob: {rate: 200mbit, ceil: 500mbit}")),
        ),
        (
            "a down of the night alone",
            format!("version: 1\nlinks: {{eth0: {{rate: 1gbit, when: {{night: {{down: 100mbit}}}}}}}}\n{night}"),
        ),
        ("a down in a window and no link with one", with("bob: {ceil: 1mbit, when: {night: {down: 2mbit}}}")),
        ("background with a guarantee at night", with("bob: {ceil: 5mbit, background: true, when: {night: {rate: 2mbit}}}")),
    ];
    let said = |policy: &str| {
        let head =
            if policy.starts_with("version:") { "" } else { "version: 1\nlinks: {eth0: }\n" };
        said_on(&at(NOON), BuildOptions::default(), &format!("{head}{policy}"))
    };
    let mut text = String::new();
    for (name, policy) in &texts {
        text.push_str(&format!("=== {name}\n{}\n\n", said(policy)));
    }
    insta::assert_snapshot!("windows", text);
}

#[test]
fn a_window_as_people_write_it_has_the_line_to_write() {
    for (window, cure) in [
        ("{days: \"mon,tue\"}", "write `days: [mon, tue]`"),
        ("{days: mon-fri,sun}", "several days are a list: `days: [mon-wed, sun]`"),
        ("{days: 1-5}", "write `days: mon-fri`"),
        ("{days: daily, at: \"22:00-06:00\"}", "leave `days` out"),
        ("{days: \"*\"}", "leave `days` out"),
        ("{at: \"8-12, 13-17\"}", "write `at: [\"08:00-12:00\", \"13:00-17:00\"]`"),
        ("{at: 08:00-12:00,13:00-17:00}", "write `at: [\"08:00-12:00\", \"13:00-17:00\"]`"),
        ("{at: \"2200-0600\"}", "write `at: \"22:00-06:00\"`"),
        ("{at: \"18:00-24:30\"}", "write `at: \"18:00-00:30\"`"),
        ("{from: \"22:00\", to: \"06:00\"}", "write both ends in one"),
        ("{at: \"22:00-06:00\", timezone: Europe/Berlin}", "write `tz: Europe/Berlin`"),
    ] {
        let policy = format!("version: 1\nlinks: {{eth0: }}\ntimes: {{x: {window}}}\n");
        let said = said_on(&at(NOON), BuildOptions::default(), &policy);
        assert!(said.starts_with("error") && said.contains(cure), "{window}: {said}");
        assert!(said.contains("policies.yaml:3:"), "{window}: {said}");
    }
    for policy in ["tz: UTC", "links: {eth0: {tz: UTC}}", "users: {bob: {ceil: 1mbit, tz: UTC}}"] {
        let said = said_on(&at(NOON), BuildOptions::default(), &format!("version: 1\n{policy}\n"));
        assert!(said.contains("a window and a quota have one"), "{policy}: {said}");
    }
}
