//! Whose limit a class has where groups and links have windows, too.

use std::fmt::Write;

use proptest::prelude::*;

use super::windows::{NIGHT, NOON, TIMES, at, model_on, moment};
use super::*;
use crate::model::{By, Holds, LimitOf, LinkAt, Node, Per, Position};
use crate::tree::Owner;

const HERE: fn() -> LinkAt = || LinkAt::new(0);

fn node<'a>(model: &'a Model, owner: &str) -> &'a Node {
    let is = |node: &&Node| node.owner.to_string() == owner;
    let known = || model.nodes.iter().map(|node| node.owner.to_string()).collect::<Vec<_>>();
    model.nodes.iter().find(is).unwrap_or_else(|| panic!("{owner} of {:?}", known()))
}

fn holds(model: &Model, owner: &str) -> Holds {
    node(model, owner).holds[HERE()].clone()
}

#[test]
fn what_a_window_gives_a_group_or_a_link_is_named_as_that_of_those_below() {
    let policy = "links: {eth0: {rate: 1gbit, when: {weekend: 300mbit}}}
groups:
  staff: {ceil: 200mbit, gid: students, when: {night: {ceil: 100mbit}}}
users:
  ann: {ceil: 150mbit, group: staff}
  bob: {ceil: 50mbit, group: staff}
  cy: {ceil: 1gbit, uids: 3001}
  di: {ceil: 10%, uids: 3002}
";
    let mut facts = at(NOON);
    facts.accounts.running.insert(1003);
    let (noon, mut by_night) = (model_on(&facts, policy), at(NIGHT));
    by_night.accounts.running.insert(1003);
    let (night, saturday) = (model_on(&by_night, policy), at("2026-07-04T10:00:00Z"));
    let saturday = model_on(&saturday, policy);
    let staff = LimitOf::Group(Group::of("staff").unwrap());
    let evening = moment("2026-07-01T20:00:00Z");
    let weekend = moment("2026-07-03T22:00:00Z");
    // By day each has its own, and those whose cap is above the group's at night not for long.
    assert_eq!(holds(&noon, "ann"), Holds { until: evening, ..Holds::default() });
    assert_eq!(holds(&noon, "bob"), Holds::default(), "below what the group ever has");
    assert_eq!(holds(&noon, "cy"), Holds { until: weekend, ..Holds::default() });
    assert_eq!(holds(&noon, "di").until, weekend, "a share of what the link has");
    let of_staff = Holds { of: staff.clone(), until: evening, ..Holds::default() };
    assert_eq!(holds(&noon, "uid 1003"), of_staff, "it writes no cap");
    // By night the group's window is what ann and the account have.
    let by_night = Holds {
        by: By::When,
        why: Some("night".into()),
        of: staff,
        until: moment("2026-07-02T04:00:00Z"),
    };
    assert_eq!(holds(&night, "ann"), by_night);
    assert_eq!(holds(&night, "uid 1003"), by_night);
    assert_eq!(holds(&night, "group staff"), Holds { of: LimitOf::Own, ..by_night });
    assert_eq!(holds(&night, "bob"), Holds::default());
    let cy = holds(&saturday, "cy");
    assert_eq!((cy.by, cy.of, cy.until), (By::When, LimitOf::Link, moment("2026-07-05T22:00:00Z")));
    assert_eq!(holds(&saturday, "di").of, LimitOf::Own);
}

#[test]
fn a_window_that_writes_more_than_the_group_has_gives_nothing() {
    let policy = "links: {eth0: {rate: 20mbit}}
groups:
  staff: {ceil: 1mbit, gid: students, each: {ceil: 500kbit, when: {night: {ceil: 2mbit}}}}
";
    let mut facts = at(NIGHT);
    facts.accounts.running.insert(1003);
    let holds = holds(&model_on(&facts, policy), "uid 1003");
    let of = LimitOf::Group(Group::of("staff").unwrap());
    assert_eq!(holds, Holds { of, until: moment("2026-07-02T04:00:00Z"), ..Holds::default() });
}

/// A cap that is written, and the caps of its windows.
type Caps = (Option<u32>, [Option<u32>; 3]);

fn caps() -> impl Strategy<Value = Caps> {
    let cap = || prop::option::of(1..=20_u32);
    (cap(), [cap(), cap(), cap()])
}

/// `{ceil: 5mbit, when: {…}}`; `most`: what it is in has no more. Where no cap is written, there is
/// none in a window.
fn written((cap, windows): &Caps, most: u32) -> (String, u32) {
    let Some(cap) = cap.map(|cap| cap.min(most)) else { return (String::new(), most) };
    let mut text = format!(", ceil: {cap}mbit");
    let names = ["night", "work", "weekend"].into_iter().zip(windows);
    let windows =
        names.filter_map(|(name, cap)| Some(format!("{name}: {{ceil: {}mbit}}", (*cap)?)));
    let windows = windows.collect::<Vec<_>>().join(", ");
    if !windows.is_empty() {
        let _ = write!(text, ", when: {{{windows}}}");
    }
    (text, cap)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A limit is what it is said to be: that of the group or link that is named; and until the
    /// moment that is named, nothing changes.
    #[test]
    fn a_limit_is_whose_it_is_said_to_be_and_stays_until_then(
        link in [prop::option::of(1..=20_u32), prop::option::of(1..=20_u32)],
        outer in caps(), inner in caps(), ann in caps(), bob in caps(), each in caps(),
        hour in 0..168_i64,
    ) {
        let windows = ["night", "weekend"].into_iter().zip(link);
        let windows = windows.filter_map(|(name, rate)| Some(format!("{name}: {}mbit", rate?)));
        let windows = windows.collect::<Vec<_>>().join(", ");
        let (outer, most) = written(&outer, 20);
        let (inner, inner_most) = written(&inner, most);
        let (ann, _) = written(&(ann.0.or(Some(20)), ann.1), inner_most);
        let (bob, _) = written(&(bob.0.or(Some(20)), bob.1), 20);
        let (each, _) = written(&each, most);
        let when = if windows.is_empty() { String::new() } else { format!(", when: {{{windows}}}") };
        let text = format!("links: {{eth0: {{rate: 20mbit{when}}}}}
groups:
  outer: {{gid: students{outer}, each: {{prio: 1{each}}}}}
  inner: {{parent: outer{inner}, users: [ann]}}
users:
  ann: {{prio: 1{ann}}}
  bob: {{prio: 1{bob}}}
");
        // What no window may have is refused, and no subject here.
        let whole = format!("version: 1\n{text}{TIMES}");
        let mut facts = at(NOON);
        facts.accounts.running.insert(1003);
        facts.now += jiff::SignedDuration::from_hours(hour);
        let policy = policy::parse(&whole, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
        prop_assume!(build(&policy, &facts, BuildOptions::default()).is_ok());
        let model = model_on(&facts, &text);
        let later = (1..=24).map(|turn| {
            let now = facts.now + jiff::SignedDuration::from_hours(7 * turn);
            (now, model_on(&Facts { now, ..facts.clone() }, &text))
        });
        let later: Vec<_> = later.collect();
        let ceil = |model: &Model, owner: &str| {
            let limits: &Per<LinkAt, _> = &node(model, owner).limits;
            limits[HERE()].unwrap().ceil
        };
        for owner in ["ann", "bob", "uid 1003", "group outer", "group inner"] {
            let holds = holds(&model, owner);
            let has = ceil(&model, owner);
            match &holds.of {
                LimitOf::Own => {}
                LimitOf::Link => prop_assert_eq!(has, model.links[HERE()].rate, "{}", owner),
                LimitOf::Group(group) => {
                    let of = node(&model, &Owner::Group(group.clone()).to_string());
                    prop_assert_eq!(of.holds[HERE()].of.clone(), LimitOf::Own, "{}", owner);
                    prop_assert_eq!(has, of.limits[HERE()].unwrap().ceil, "{}", owner);
                }
            }
            if holds.by == By::When {
                let why = holds.why.clone().unwrap();
                let mbit: u64 = has.bits_per_second() / 1_000_000;
                let cap = format!("{mbit}mbit");
                prop_assert!(text.contains(&format!("{why}: {{ceil: {cap}}}"))
                    || text.contains(&format!("{why}: {cap}")), "{owner} {holds:?} {has}");
            }
            // Before its end all is the same; without an end, for the week.
            for later in later.iter().filter(|(at, _)| holds.until.is_none_or(|end| *at < end)) {
                prop_assert_eq!(ceil(&later.1, owner), has, "{} at {}: {:?}", owner, later.0, &holds);
            }
        }
    }
}
