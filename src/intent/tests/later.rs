//! An apply of several rounds does what its plan has said, on hundreds of random pairs of policies:
//! lines that come, go, move to another group and get other numbers, accounts that log out.

use proptest::prelude::*;

use super::*;
use crate::plan::{Change, Plan, Step};
use crate::units::Minor;

/// One user's line.
#[derive(Clone, Debug)]
struct Line {
    ceil: u64,
    boost: bool,
    group: Option<usize>,
    pin: Option<u16>,
    only_eth0: bool,
}

#[derive(Clone, Debug)]
struct Written {
    /// Mbit/s of eth0, and of eth1 if that has a line.
    links: (u64, Option<u64>),
    down: bool,
    users: Vec<Option<Line>>,
    /// Which of the groups are there, and which is in the one before it.
    groups: [Option<bool>; 3],
    students: bool,
    everyone: bool,
    fq_codel: bool,
}

const USERS: [&str; 5] = ["u0", "u1", "u2", "u3", "u4"];

impl Written {
    fn text(&self) -> String {
        let Written { links: (first, second), users, groups, .. } = self;
        let down = if self.down { format!(", down: {first}mbit") } else { String::new() };
        let leaf = if self.fq_codel { ", leaf: fq_codel" } else { "" };
        let mut text = format!("links:\n  eth0: {{rate: {first}mbit{down}{leaf}}}\n");
        if let Some(second) = second {
            text += &format!("  eth1: {second}mbit\n");
        }
        text += "users:\n  gone: {uids: [9], ceil: 1mbit}\n";
        let (mut pins, mut members) = (BTreeSet::new(), [Vec::new(), Vec::new(), Vec::new()]);
        for (at, line) in users.iter().enumerate() {
            let Some(line) = line else { continue };
            text += &format!("  {}: {{uids: [{}], ceil: {}mbit", USERS[at], 100 + at, line.ceil);
            if line.boost {
                text += ", boost: 5MB";
            }
            if let Some(group) = line.group {
                members[group].push(USERS[at]);
            }
            if let Some(pin) = line.pin.filter(|pin| pins.insert(*pin)) {
                text += &format!(", classid: \"1:{pin:x}\"");
            }
            if line.only_eth0 && second.is_some() {
                text += ", links: {eth1: none}";
            }
            text += "}\n";
        }
        text += "groups:\n  none: {ceil: 90mbit}\n";
        let mut above = None;
        for (at, (group, members)) in groups.iter().zip(members).enumerate() {
            let Some(nested) = group else { continue };
            let within = above.filter(|_| *nested).map(|it| format!(", parent: g{it}"));
            let (within, members) = (within.unwrap_or_default(), members.join(", "));
            text += &format!("  g{at}: {{ceil: 80mbit{within}, users: [{members}]}}\n");
            above = Some(at);
        }
        if self.students {
            text += "  students: {gid: students, ceil: 20mbit}\n";
        }
        if self.everyone {
            text += "everyone: 5mbit\n";
        }
        text
    }
}

fn line() -> impl Strategy<Value = Line> {
    let group = prop_oneof![1 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let pin = prop_oneof![1 => Just(None), 1 => (0x10..0x15_u16).prop_map(Some)];
    let rarely = prop_oneof![3 => Just(false), 1 => Just(true)];
    (1..4_u64, any::<bool>(), group, pin, rarely).prop_map(
        |(ceil, boost, group, pin, only_eth0)| Line { ceil, boost, group, pin, only_eth0 },
    )
}

fn written() -> impl Strategy<Value = Written> {
    let users = proptest::collection::vec(proptest::option::weighted(0.7, line()), USERS.len());
    let group = || proptest::option::weighted(0.7, any::<bool>());
    let links = (prop_oneof![Just(100), Just(200)], proptest::option::of(Just(100_u64)));
    let rarely = || prop_oneof![3 => Just(false), 1 => Just(true)];
    let bits = (rarely(), any::<bool>(), any::<bool>(), rarely());
    (links, users, [group(), group(), group()], bits).prop_map(
        |(links, users, groups, (down, students, everyone, fq_codel))| Written {
            links,
            down,
            users,
            groups,
            students,
            everyone,
            fq_codel,
        },
    )
}

/// What a run does on a host on which every class is quiet as soon as it may go: the rounds of
/// `apply::Run`, each of which looks at the host anew.
fn run(intent: &Intent, seen: &mut Observation) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut rounds = Rounds::default();
    for _ in 0..MOST_ROUNDS {
        let mut resolved = resolved(intent, seen.clone());
        resolved.plan.without_disruption(&resolved.meaning.observation.state);
        *seen = after(&resolved, seen.clone());
        keep_flows(seen);
        let Resolved { meaning, desired, plan, .. } = resolved;
        seen.facts.quiet.clear();
        let next = rounds.after(&plan.steps, (&desired, &meaning.draining), (false, true));
        plans.push(plan);
        match next {
            Next::Quiet => seen.facts.quiet = seen.state.claims.values().copied().collect(),
            Next::Look => {}
            Next::Done => return plans,
        }
    }
    panic!("no end after {MOST_ROUNDS} rounds");
}

/// The maps of flows stay open, as those of links that stand are.
fn keep_flows(seen: &mut Observation) {
    let Observation { state, facts, .. } = seen;
    facts.flows = state.ifbs.keys().zip(1..).map(|(ifb, number)| (ifb.clone(), number)).collect();
    let links: Vec<LinkName> = state.trees.keys().map(|port| port.link.clone()).collect();
    let arrives = |link: &LinkName| state.ifbs.contains_key(&link.ifb());
    facts.flows = links.into_iter().filter(arrives).zip(1..).collect();
}

/// All that a plan says: its own steps, then those of later rounds.
fn said(intent: &Intent, seen: Observation) -> Vec<String> {
    let Resolved { meaning, desired, mut plan, .. } = resolved(intent, seen);
    let later = intent.later(&meaning, (&plan, &desired));
    plan.without_disruption(&meaning.observation.state);
    let plans = [plan].into_iter().chain(later.into_iter().map(|it| it.plan));
    steps(plans)
}

fn steps(plans: impl IntoIterator<Item = Plan>) -> Vec<String> {
    plans.into_iter().flat_map(|plan| plan.steps).map(|it| it.step.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_apply_does_what_its_plan_has_said(
        policies in proptest::collection::vec(written(), 2..4),
        runs in proptest::collection::vec(any::<bool>(), 4),
        busy in any::<bool>(),
        shards in any::<bool>(),
    ) {
        let mut seen = host();
        seen.facts.down = Some(true);
        seen.facts.accounts.running = [2001, 2002, 2003, 2004].into();
        for (at, policy) in policies.iter().enumerate() {
            let mut intent = intent(&policy.text());
            if shards {
                intent.options.sharding = Sharding { flat: 3, full: 2, few: 1 };
            }
            let wanted = said(&intent, seen.clone());
            if at == 0 && busy {
                // A run that was cut short after its first round: what it has retired stands.
                let first = resolved(&intent, seen.clone());
                seen = after(&first, seen);
                keep_flows(&mut seen);
            } else {
                let done = steps(run(&intent, &mut seen));
                prop_assert_eq!(&done, &wanted, "what apply does is what plan has said");
                // Nothing is left to do, nobody waits, and whoever has a number of his own has it.
                prop_assert_eq!(said(&intent, seen.clone()), [""; 0]);
                let pins = intent.policy.users.iter().filter_map(|line| {
                    Some((line.key.value.as_str(), line.classid.as_ref()?.value))
                });
                for (user, pin) in pins {
                    let class = seen.state.claims[&claim(&format!("user/{user}"))];
                    prop_assert_eq!(class.minor(), pin, "{}", user);
                }
            }
            let running = runs.iter().zip(2001..).filter(|(runs, _)| **runs).map(|(_, uid)| uid);
            seen.facts.accounts.running = running.collect();
        }
    }
}

/// A line that gets a number and a group at once has a spare number first, since its class cannot
/// move and its number is taken until that is gone.
#[test]
fn a_pin_and_a_group_that_change_at_once_take_a_second_move_that_the_plan_has() {
    let text = |group: &str| {
        let ann = "ann: {ceil: 1mbit, classid: \"1:20\"}";
        format!("links: {{eth0: 100mbit}}\ngroups: {{g: {{{group}}}}}\nusers: {{{ann}}}\n")
    };
    let mut seen = shaped(&intent(&text("ceil: 50mbit")), &[]);
    let intent = intent(&text("ceil: 50mbit, users: [ann]"));
    let Resolved { meaning, desired, plan, .. } = resolved(&intent, seen.clone());
    let later = intent.later(&meaning, (&plan, &desired));
    let classes = |plan: &Plan| -> Vec<String> {
        let step = |step: &Step| match step {
            Step::Class(_, id, Change::Add(_)) => Some(format!("+ {id}")),
            Step::Class(_, id, Change::Remove(_)) => Some(format!("- {id}")),
            _ => None,
        };
        plan.steps.iter().filter_map(|planned| step(&planned.step)).collect()
    };
    assert_eq!(classes(&plan), ["+ 1:21"]);
    let later: Vec<_> = later.iter().map(|it| (it.waits, classes(&it.plan))).collect();
    let wanted = [(true, vec!["- 1:20"]), (false, vec!["+ 1:20"]), (true, vec!["- 1:21"])];
    assert_eq!(later, wanted.map(|(waits, it)| (waits, it.into_iter().map(Into::into).collect())));
    assert_eq!(classes_of(&run(&intent, &mut seen)), 4);
    assert_eq!(seen.state.claims[&claim("user/ann")], ClassId::ours(Minor(0x20)));
}

/// How many steps of all the plans are about classes that come or go.
fn classes_of(plans: &[Plan]) -> usize {
    let is_one = |step: &Step| matches!(step, Step::Class(.., Change::Add(_) | Change::Remove(_)));
    plans.iter().flat_map(|plan| &plan.steps).filter(|it| is_one(&it.step)).count()
}

/// The class of an account that has logged out goes too, and the plan says so.
#[test]
fn a_plan_has_what_goes_of_accounts_that_have_logged_out() {
    let intent = intent("links: {eth0: 100mbit}\neveryone: 5mbit\n");
    let mut seen = shaped(&intent, &[2001]);
    seen.facts.accounts.running.clear();
    let Resolved { meaning, desired, plan, .. } = resolved(&intent, seen.clone());
    assert!(plan.is_empty());
    let later = intent.later(&meaning, (&plan, &desired));
    assert!(!later.is_empty());
    let wanted = steps(later.into_iter().map(|it| it.plan));
    assert_eq!(steps(run(&intent, &mut seen)), wanted);
    assert!(!seen.state.claims.contains_key(&claim("uid/2001")));
}

/// A run that is cut short in its wait leaves a line on a spare number: what is still to do for it
/// is a change, although nothing can be done at once; that a class goes is none.
#[test]
fn a_pin_that_waits_for_its_number_is_a_change_of_a_later_round() {
    let text = |pin: &str| {
        let ann = format!("ann: {{ceil: 1mbit, classid: \"1:{pin}\"}}");
        let bob =
            format!("bob: {{ceil: 1mbit{}}}", if pin == "20" { ", classid: \"1:30\"" } else { "" });
        format!("links: {{eth0: 100mbit}}\nusers: {{{ann}, {bob}}}\n")
    };
    let seen = shaped(&intent(&text("20")), &[]);
    let intent = intent(&text("30"));
    let cut_short = after(&resolved(&intent, seen.clone()), seen);
    let Resolved { meaning, desired, plan, .. } = resolved(&intent, cut_short);
    let later = intent.later(&meaning, (&plan, &desired));
    let changes: Vec<_> = later.iter().map(|it| it.plan.changes()).collect();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(changes, [false, true, false], "then its spare number is free again");
}
