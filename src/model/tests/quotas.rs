//! Quotas: which cap follows from what was used, for whom, why and until when.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{built_with_a_note, host};
use crate::facts::{Facts, Used};
use crate::model::{Asked, By, LimitOf, Model, Node, counted};
use crate::policy;
use crate::quota::{Account, Bucket, Grant, Traffic};
use crate::times::Timestamp;
use crate::tree::{Group, Key, Owner};
use crate::units::Rate;

const NOW: &str = "2026-11-28T12:00:00Z";

fn owner(name: &str) -> Owner {
    let key = |name: &str| Key::new(name).unwrap();
    match (name.strip_prefix("group "), name.strip_prefix("uid ")) {
        (Some("everyone"), _) => Owner::Group(Group::Everyone),
        (Some(group), _) => Owner::Group(Group::Line(key(group))),
        (_, Some(uid)) => Owner::Uid(uid.parse().unwrap()),
        _ => Owner::User(key(name)),
    }
}

/// The host at noon, where these have used so many bytes two hours ago, half of them sent.
fn having_used(used: &[(&str, u64)]) -> Facts {
    let mut facts = host();
    facts.now = NOW.parse().unwrap();
    let at = facts.now.as_second() - 7_200;
    let account = |bytes: u64| {
        let traffic = Traffic { sent: bytes / 2, received: bytes - bytes / 2 };
        Account::kept(None, vec![Bucket { at, traffic }], Vec::new())
    };
    let accounts: BTreeMap<_, _> =
        used.iter().map(|(name, bytes)| (owner(name), account(*bytes))).collect();
    facts.used = Used { accounts: Arc::new(accounts), time: None, unread: None };
    facts
}

fn node<'a>(model: &'a Model, name: &str) -> &'a Node {
    model.nodes.iter().find(|node| node.owner == owner(name)).unwrap()
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// An owner's ceil on the first link, and what gives it.
fn held(model: &Model, name: &str) -> (Rate, By, Option<String>, Option<String>) {
    let node = node(model, name);
    let link = node.limits.positions().next().unwrap();
    let holds = &node.holds[link];
    let why = holds.why.as_deref().map(str::to_string);
    let until = holds.until.map(|until| until.to_string());
    (node.limits[link].unwrap().ceil, holds.by, why, until)
}

const STEPS: &str = "
version: 1
links: {eth0: 1gbit}
users:
  ann: {rate: 400mbit, ceil: 1gbit, quota: {month: 100GB, then: {75%: 500mbit, 100%: 10mbit}}}
";

#[test]
fn the_step_that_is_reached_holds_until_the_period_ends() {
    let month = Some("2026-12-01T00:00:00Z".to_string());
    let gigabyte = 1_000_000_000;
    for (used, ceil, why) in [
        (0, "1gbit", None),
        (75 * gigabyte - 1, "1gbit", None),
        (75 * gigabyte, "500mbit", Some("75% of 100GB this month is used".to_string())),
        (100 * gigabyte, "10mbit", Some("100GB this month is used".to_string())),
        (u64::MAX / 2, "10mbit", Some("100GB this month is used".to_string())),
    ] {
        let model = built_with_a_note(&having_used(&[("ann", used)]), STEPS);
        let until = why.is_some().then(|| month.clone()).flatten();
        let by = if why.is_some() { By::Quota } else { By::Ceil };
        assert_eq!(held(&model, "ann"), (rate(ceil), by, why, until.clone()), "{used}");
        assert_eq!(model.valid_until.map(|it| it.to_string()), until);
        let limits = node(&model, "ann").limits.iter().next().unwrap().unwrap();
        assert_eq!(limits.rate, Asked::Promised(rate("400mbit").min(rate(ceil))));
        let metered = &model.metered.owners[&owner("ann")];
        assert_eq!(metered.verdicts[0].used, used);
        assert_eq!(metered.pace, rate(ceil).bytes_per_second());
    }
}

#[test]
fn more_use_turns_and_less_is_looked_at_again_in_time() {
    let gigabyte = 1_000_000_000;
    let facts = having_used(&[("ann", 70 * gigabyte)]);
    let model = built_with_a_note(&facts, STEPS);
    let next = |used: u64| {
        let facts = having_used(&[("ann", used)]);
        model.metered.outlook(&facts.used.accounts, facts.now)
    };
    let outlook = next(74 * gigabyte + gigabyte / 2).expect("no step is reached");
    // Half a gigabyte at 125 MB a second.
    assert_eq!(outlook.first_rest().as_secs(), 4);
    assert_eq!(next(75 * gigabyte), None);
    let unused = model.metered.outlook(&BTreeMap::new(), facts.now).expect("nothing is used");
    assert_eq!(unused.first_rest().as_secs(), 30);
    // The month is over.
    let used = having_used(&[("ann", 100 * gigabyte)]);
    let model = built_with_a_note(&used, STEPS);
    let december: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    assert_eq!(model.metered.outlook(&used.used.accounts, december), None);
}

#[test]
fn what_was_granted_is_more_of_the_volume_until_it_ends() {
    let gigabyte = 1_000_000_000;
    let mut facts = having_used(&[("ann", 100 * gigabyte)]);
    let at = facts.now.as_second() - 60;
    let grant = Grant { bytes: 100 * gigabyte, at, until: Some(at + 3_600) };
    let accounts = Arc::make_mut(&mut facts.used.accounts);
    accounts.get_mut(&owner("ann")).unwrap().grants.push(grant);
    let model = built_with_a_note(&facts, STEPS);
    assert_eq!(held(&model, "ann").0, rate("1gbit"), "half of 200GB");
    assert_eq!(model.valid_until.unwrap().as_second(), at + 3_600);
    // Where the moment is another one, as for `plan --at`.
    facts.now = Timestamp::from_second(at + 3_600).unwrap();
    assert_eq!(held(&built_with_a_note(&facts, STEPS), "ann").0, rate("10mbit"));
    facts.now = "2026-12-02T00:00:00Z".parse().unwrap();
    assert_eq!(held(&built_with_a_note(&facts, STEPS), "ann").0, rate("1gbit"));
    // A clock that is wrong is not believed.
    facts.used.time = Some(NOW.parse().unwrap());
    facts.used.accounts = having_used(&[("ann", 100 * gigabyte)]).used.accounts;
    assert_eq!(held(&built_with_a_note(&facts, STEPS), "ann").0, rate("10mbit"));
}

#[test]
fn the_lowest_of_all_limits_holds() {
    let policy = |own: &str, quota: &str| {
        format!(
            "
version: 1
links: {{eth0: {{rate: 1gbit, down: 900mbit}}}}
times: {{noon: {{at: \"11:00-13:00\", tz: UTC}}}}
users:
  ann: {{ceil: {own}, down: 200mbit, when: {{noon: {{ceil: 50mbit}}}}, quota: {quota}}}
"
        )
    };
    let used = having_used(&[("ann", 10_000)]);
    for (quota, ceil, by, counts) in [
        ("{day: 20kB, then: 10mbit}", "50mbit", By::When, "half of it"),
        ("{day: 10kB, then: 10mbit}", "10mbit", By::Quota, "both"),
        ("{day: 10kB, then: 60mbit}", "50mbit", By::When, "above the window's"),
        ("{day: 5kB, then: 10mbit, counts: sent}", "10mbit", By::Quota, "sent"),
        ("{day: 5001B, then: 10mbit, counts: received}", "50mbit", By::When, "received"),
        ("[{day: 9kB, then: 20mbit}, {30d: 9kB, then: 12mbit}]", "12mbit", By::Quota, "two"),
        ("{1h: 9kB, then: 20mbit}", "50mbit", By::When, "too long ago"),
        ("{day: 9kB, then: 20mbit, tz: Pacific/Tongatapu}", "50mbit", By::When, "yesterday there"),
    ] {
        let mut facts = used.clone();
        let tonga = crate::times::TimeZone::get("Pacific/Tongatapu").unwrap();
        facts.zones.named.insert("Pacific/Tongatapu".into(), Ok(tonga));
        facts.zones.named.insert("UTC".into(), Ok(crate::times::TimeZone::UTC));
        let model = built_with_a_note(&facts, &policy("100mbit", quota));
        let (is, holds, ..) = held(&model, "ann");
        assert_eq!((is, holds), (rate(ceil), by), "{quota}: {counts}");
        let down = node(&model, "ann").limits.iter().nth(1).unwrap().unwrap().ceil;
        let cap = if by == By::Quota { rate(ceil) } else { rate("200mbit") };
        assert_eq!(down, if quota.contains("60mbit") { rate("60mbit") } else { cap }, "each way");
    }
}

#[test]
fn each_account_has_its_own_and_all_together_have_theirs() {
    let text = "
version: 1
links: {eth0: 1gbit}
groups: {students: {gid: students, ceil: 500mbit, each: {ceil: 100mbit, quota: {day: 1kB, then: 1mbit}}}}
everyone: {quota: {day: 5kB, then: 20mbit}, each: {quota: {day: 2kB, then: 2mbit}}}
";
    let used = [("uid 1003", 1_500), ("uid 1004", 1_500), ("uid 1002", 2_000)];
    let mut facts = having_used(&used);
    facts.accounts.running = [1002, 1003, 1004].into();
    let model = built_with_a_note(&facts, text);
    assert_eq!(held(&model, "uid 1003").0, rate("1mbit"), "of students");
    assert_eq!(held(&model, "uid 1004").0, rate("1gbit"));
    assert_eq!(held(&model, "uid 1002").0, rate("2mbit"));
    let mut facts = having_used(&[("group everyone", 5_000), ("uid 1002", 2_000)]);
    facts.accounts.running = [1002, 1004].into();
    let model = built_with_a_note(&facts, text);
    assert_eq!(held(&model, "group everyone").0, rate("20mbit"));
    let (ceil, by, why, _) = held(&model, "uid 1004");
    assert_eq!((ceil, by), (rate("20mbit"), By::Quota));
    assert_eq!(why.as_deref(), Some("5kB today is used"));
    let of = node(&model, "uid 1004").holds.iter().next().unwrap().of.clone();
    assert_eq!(of, LimitOf::Group(Group::Everyone));
    assert_eq!(held(&model, "uid 1002").0, rate("2mbit"), "his own is lower");
}

#[test]
fn a_zone_that_does_not_exist_is_an_error() {
    let text = "version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: {ceil: 1mbit, quota: {day: 1GB, then: 64kbit, tz: Mars/Base}}}";
    let mut facts = host();
    facts.zones.named.insert("Mars/Base".into(), Err(crate::times::Unknown::Name(None)));
    let said = super::said_on(&facts, super::BuildOptions::default(), text);
    assert!(said.contains("there is no zone `Mars/Base`"), "{said}");
}

#[test]
fn whose_use_is_counted_depends_on_lines_and_not_on_who_runs() {
    let text = "
version: 1
links: {eth0: 1gbit}
users: {ann: {ceil: 1gbit, quota: {day: 1GB, then: 1mbit}}, max: 1gbit}
groups: {a: {ceil: 1gbit, quota: {day: 1GB, then: 1mbit}}, b: {ceil: 1mbit}}
everyone: {each: {quota: {day: 1GB, then: 1mbit}}}
";
    let policy = policy::parse(text, "p.yaml").unwrap();
    let names = ["ann", "max", "group a", "group b", "group everyone", "uid 7", "gone"];
    let owners = names.map(owner);
    let found: Vec<_> = counted(&policy, &owners).into_iter().cloned().collect();
    let mut expected = vec![owner("ann"), owner("group a"), owner("uid 7")];
    expected.sort();
    assert_eq!(found, expected);
}

/// A group of a tree: its parent, its quota's cap if that holds, and its members' guarantees.
type Seed = (usize, Option<u64>, Vec<u64>);

proptest! {
    /// Whatever groups in groups have used: nobody has a higher ceil than what he is in, and where
    /// a quota holds a group, its members' promises fit into it.
    #[test]
    fn a_held_group_keeps_all_below_it(
        seeds in prop::collection::vec(
            (0_usize..5, prop::option::of(1_u64..50), prop::collection::vec(1_u64..15, 1..4)), 1..5)
    ) {
        let mut text = "version: 1\nlinks: {eth0: 1gbit}\nusers:\n  ann: 1mbit\n".to_string();
        let mut groups = String::from("groups:\n");
        let mut used = Vec::new();
        for (index, (parent, cap, members)) in seeds.iter().enumerate() {
            let (parent, cap, members): &Seed = &(*parent, *cap, members.clone());
            let parent = match parent.checked_rem(index) {
                Some(parent) => format!("parent: g{parent}, "),
                None => String::new(),
            };
            let quota = cap.unwrap_or(5);
            groups.push_str(&format!(
                "  g{index}: {{{parent}ceil: 1gbit, quota: {{day: 1kB, then: {quota}mbit}}}}\n"
            ));
            if cap.is_some() {
                used.push((format!("group g{index}"), 1_000));
            }
            for (number, rate) in members.iter().enumerate() {
                text.push_str(&format!(
                    "  m{index}x{number}: {{rate: {rate}mbit, ceil: 900mbit, group: g{index}, uids: {}}}\n",
                    5_000 + index * 10 + number
                ));
            }
        }
        let used: Vec<(&str, u64)> = used.iter().map(|(name, it)| (name.as_str(), *it)).collect();
        let model = built_with_a_note(&having_used(&used), &(text + &groups));
        let limits = |node: &Node| node.limits.iter().next().unwrap().unwrap();
        for parent in model.nodes.iter().filter(|it| matches!(it.owner, Owner::Group(_))) {
            let Owner::Group(group) = &parent.owner else { continue };
            let of_quota = parent.holds.iter().all(|it| it.by == By::Quota);
            let children = model.nodes.iter().filter(|node| node.group.as_ref() == Some(group));
            let mut promised = 0;
            for child in children {
                if of_quota {
                    prop_assert!(limits(child).ceil <= limits(parent).ceil);
                }
                promised += match limits(child).rate {
                    Asked::Promised(rate) | Asked::Derived { floor: Some(rate) } => {
                        rate.bytes_per_second()
                    }
                    _ => 0,
                };
            }
            prop_assert!(promised <= limits(parent).ceil.bytes_per_second());
        }
    }
}
