//! Windows that begin and end: what changes then, and when the plan is to be made again.

use super::*;
use crate::plan::{Change, Step};

const POLICY: &str = "links: {eth0: {rate: 900mbit, down: 500mbit, when: {night: {rate: 600mbit, down: 300mbit}}}}
times: {night: \"22:00-06:00\"}
users:
  ann: {rate: 10mbit, ceil: 100mbit, down: 50mbit, when: {night: {ceil: 800mbit, prio: 3, down: 5mbit}}}
  bob: {ceil: 700mbit}
groups:
  students: {gid: students, ceil: 200mbit, when: {night: 300mbit}, each: {ceil: 20mbit, when: {night: 30mbit}}}
classes: {nfs: {rate: 20mbit, when: {night: {rate: 40mbit}}}}
everyone: {when: {night: {ceil: 100mbit}}, each: {ceil: 10mbit, when: {night: 20mbit}}}
";

/// The host's zone is UTC.
fn at(moment: &str, mut seen: Observation) -> Observation {
    seen.facts.now = moment.parse().unwrap();
    seen.facts.down = Some(true);
    seen
}

#[test]
fn a_window_changes_classes_where_they_stand_and_nothing_else() {
    let intent = intent(POLICY);
    let mut seen = at("2026-07-01T12:00:00Z", host());
    seen.facts.accounts.running.extend([2001, 2003, 2004]);
    let mut resolution = resolved(&intent, seen.clone());
    assert_eq!(resolution.valid_until, Some("2026-07-01T22:00:00Z".parse().unwrap()));
    seen = after(&resolution, seen);
    for (moment, until) in [
        ("2026-07-01T22:00:00Z", "2026-07-02T06:00:00Z"),
        ("2026-07-02T06:00:00Z", "2026-07-02T22:00:00Z"),
    ] {
        seen = at(moment, seen);
        resolution = resolved(&intent, seen.clone());
        assert_eq!(resolution.valid_until, Some(until.parse().unwrap()));
        let steps = &resolution.plan.steps;
        assert!(steps.len() > 10, "{moment}: {}", steps.len());
        for planned in steps {
            assert!(
                matches!(planned.step, Step::Class(_, _, Change::Alter { .. })),
                "{moment}: {}",
                planned.step
            );
            assert!(planned.disturbs.is_empty(), "{moment}: {}", planned.step);
        }
        seen = after(&resolution, seen);
        assert!(resolved(&intent, seen.clone()).plan.is_empty(), "{moment}");
    }
}

#[test]
fn a_policy_without_windows_is_valid_for_ever() {
    let plain =
        intent("links: {eth0: 1gbit}\nusers: {ann: 1mbit}\ntimes: {night: \"22:00-06:00\"}");
    assert_eq!(resolved(&plain, host()).valid_until, None);
}
