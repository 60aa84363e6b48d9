//! Which links are shaped, and which stay as they stand.

use super::*;
use crate::tree::{Mark, Strange, StrangeFilter};

const POLICY: &str = "links: {eth0: 100mbit}\nusers: {ann: 10mbit}\n";

fn foreign(r2q: Option<u32>) -> RootQdisc {
    let (kind, handle) = ("htb".to_string(), ClassId(0x8001_0000));
    RootQdisc::Foreign { kind, handle, r2q, options: Vec::new() }
}

fn with_root(root: RootQdisc) -> Observation {
    let mut seen = host();
    seen.facts.links.get_mut(&name("eth0")).unwrap().root = root;
    seen
}

fn refused(intent: &Intent, seen: Observation) -> Refusal {
    match resolve(intent, seen) {
        Err(refusal) => refusal,
        Ok(resolved) => panic!("this was planned:\n{}", resolved.plan),
    }
}

#[test]
fn every_root_is_judged_in_every_way() {
    let other = Mark::for_instance("other").0;
    let mq = RootQdisc::Kernel { kind: "mq".to_string() };
    let roots = [
        (RootQdisc::Kernel { kind: "fq_codel".to_string() }, false),
        (mq, false),
        (foreign(None), true),
        (foreign(Some(10)), true),
        (foreign(Some(other)), true),
    ];
    for (root, is_in_the_way) in roots {
        for bits in 0..8 {
            let [takeover, reclaimed, lenient] = [1, 2, 4].map(|bit| bits & bit != 0);
            let mut intent = intent(POLICY);
            intent.options.takeover = takeover;
            intent.options.absent_links = lenient;
            intent.reclaimed.extend(reclaimed.then_some(2));
            let case = format!("{root:?}, takeover {takeover}, {reclaimed}, lenient {lenient}");
            let outcome = resolve(&intent, with_root(root.clone()));
            match (is_in_the_way && !takeover && !reclaimed, lenient) {
                (false, _) => {
                    let desired = outcome.unwrap_or_else(|why| panic!("{case}: {why}")).desired;
                    assert_eq!(desired.trees.len(), 1, "{case}");
                }
                (true, false) => {
                    assert!(matches!(outcome, Err(Refusal::InTheWay(_))), "{case}");
                }
                // The link that is passed over may be another instance's.
                (true, true) => match outcome {
                    Err(Refusal::OtherInstance { .. }) => panic!("{case}"),
                    Err(why) => panic!("{case}: {why}"),
                    Ok(Resolved { meaning, desired, plan, .. }) => {
                        assert_eq!(passed_over(&meaning), [2].into(), "{case}");
                        assert!(desired.trees.is_empty(), "{case}");
                        assert!(!meaning.warnings.is_empty(), "{case}");
                        let links = plan.steps.iter().filter_map(|it| it.step.link());
                        assert_eq!(links.count(), 0, "{case}");
                    }
                },
            }
        }
    }
}

#[test]
fn many_queues_are_in_the_way_only_beyond_what_one_lock_carries() {
    let at = |rate: &str, mtu: u32| {
        let mut seen = with_root(RootQdisc::Kernel { kind: "mq".to_string() });
        let link = seen.facts.links.get_mut(&name("eth0")).unwrap();
        (link.speed, link.mtu) = ("100gbit".parse().ok(), mtu);
        resolve(&intent(&format!("links: {{eth0: {rate}}}\n")), seen)
    };
    assert!(at("12gbit", 1_500).is_ok());
    assert!(at("70gbit", 9_000).is_ok());
    for (rate, mtu) in [("13gbit", 1_500), ("73gbit", 9_000)] {
        let refused = at(rate, mtu);
        assert!(matches!(refused, Err(Refusal::InTheWay(InTheWay::Queues { .. }))), "{rate}");
    }
}

#[test]
fn another_instance_is_named_by_its_mark_where_its_directory_is_seen() {
    let mut seen = with_root(foreign(Some(Mark::for_instance("other").0)));
    let said = |seen: &Observation| refused(&intent(POLICY), seen.clone()).to_string();
    assert!(said(&seen).starts_with("another instance of shaper shapes eth0: "));
    assert!(said(&seen).contains("--cgroup NAME"));
    seen.neighbours = ["docker".to_string(), "other".to_string()].into();
    assert!(said(&seen).starts_with("the instance `other` of shaper shapes eth0: "));
    assert!(said(&seen).contains("(shaper clear --cgroup other)"));
}

#[test]
fn there_is_one_instance_in_a_namespace() {
    let mut seen = host();
    let eth1 = seen.facts.links.get_mut(&name("eth1")).unwrap();
    eth1.root = foreign(Some(Mark::for_instance("other").0));
    for takeover in [false, true] {
        let mut intent = intent(POLICY);
        intent.options.takeover = takeover;
        let refusal = refused(&intent, seen.clone());
        assert!(matches!(refusal, Refusal::OtherInstance { .. }), "{refusal}");
    }
    // Anybody else's root on a link that the policy does not name is nobody's business.
    seen.facts.links.get_mut(&name("eth1")).unwrap().root = foreign(Some(10));
    resolved(&intent(POLICY), seen);
}

const TWO: &str = "links: {eth0: 100mbit, eth1: 100mbit}\nusers: {ann: 10mbit, bob: 20mbit}\n";

#[test]
fn a_held_link_stays_as_it_stands_and_the_others_do_not() {
    let mut intent = intent(TWO);
    let mut seen = shaped(&intent, &[]);
    for link in ["eth0", "eth1"] {
        let tree = seen.state.trees.get_mut(&name(link).egress()).unwrap();
        tree.filters.clear();
    }
    intent.held.insert(name("eth0"));
    let then = resolved(&intent, seen.clone());
    let touched: BTreeSet<&LinkName> =
        then.plan.steps.iter().filter_map(|planned| planned.step.link()).collect();
    assert_eq!(touched, [&name("eth1")].into());
    // Somebody took its root: it is not made again.
    seen.state.trees.remove(&name("eth0").egress());
    seen.facts.links.get_mut(&name("eth0")).unwrap().root =
        RootQdisc::Kernel { kind: "noqueue".to_string() };
    let then = resolved(&intent, seen);
    assert!(then.plan.steps.iter().all(|planned| planned.step.link() != Some(&name("eth0"))));
}

#[test]
fn a_class_on_a_held_link_keeps_its_owner_though_the_line_is_gone() {
    let first = intent(TWO);
    let seen = shaped(&first, &[]);
    let mut without_bob = intent("links: {eth0: 100mbit, eth1: 100mbit}\nusers: {ann: 10mbit}\n");
    let bob = claim("user/bob");
    let retired = resolved(&without_bob, seen.clone());
    assert!(!retired.desired.claims.contains_key(&bob), "it is retired");
    without_bob.held.insert(name("eth0"));
    let then = resolved(&without_bob, seen.clone());
    let classid = seen.state.claims[&bob];
    let owners = then.desired.claims.values().filter(|id| **id == classid);
    assert_eq!(owners.count(), 1, "a class has one owner");
    assert!(then.desired.trees[&name("eth0").egress()].classes.contains_key(&classid));
}

#[test]
fn while_auto_finds_no_link_what_stands_stays() {
    let mut intent = intent("links: {auto: 100mbit}\nusers: {ann: 10mbit}\n");
    let mut seen = shaped(&intent, &[]);
    assert!(seen.state.trees.contains_key(&name("eth0").egress()));
    seen.facts.links.get_mut(&name("eth0")).unwrap().default_route_v4 = None;
    assert!(matches!(refused(&intent, seen.clone()), Refusal::Policy(_)));
    intent.options.absent_links = true;
    let then = resolved(&intent, seen.clone());
    assert!(then.plan.is_empty(), "{}", then.plan);
    // The default route comes back by another link, which is not shaped yet: `auto` moves there.
    seen.facts.links.get_mut(&name("eth1")).unwrap().default_route_v4 = Some(1);
    let then = resolved(&intent, seen);
    assert!(then.desired.trees.contains_key(&name("eth1").egress()));
}

#[test]
fn a_link_that_was_fit_is_taken_to_be_so_still() {
    let mut intent = intent("links: {eth0: , eth1: 100mbit}\nusers: {ann: 10mbit}\n");
    let seen = shaped(&intent, &[]);
    let mut without_speed = seen.clone();
    without_speed.facts.links.get_mut(&name("eth0")).unwrap().speed = None;
    assert!(matches!(refused(&intent, without_speed.clone()), Refusal::Policy(_)));
    intent.options.absent_links = true;
    intent.good = resolved(&intent, seen).meaning.good_links();
    let then = resolved(&intent, without_speed.clone());
    assert!(then.plan.is_empty(), "{}", then.plan);
    assert!(!then.meaning.warnings.is_empty(), "it is said");
    // The link is shaped and not only left alone: a new account has a class there.
    let with_bob = super::intent("links: {eth0: , eth1: 100mbit}\nusers: {ann: 1mbit, bob: 2mbit}");
    let with_bob = Intent { options: intent.options, good: intent.good, ..with_bob };
    let then = resolved(&with_bob, without_speed);
    let bob = then.desired.claims[&claim("user/bob")];
    assert!(then.desired.trees[&name("eth0").egress()].classes.contains_key(&bob));
}

#[test]
fn auto_goes_to_no_other_link_while_none_is_fit() {
    let mut intent = intent("links: {auto: }\nusers: {ann: 10mbit}\n");
    let mut seen = shaped(&intent, &[]);
    intent.options.absent_links = true;
    intent.good = resolved(&intent, seen.clone()).meaning.good_links();
    let eth1 = seen.facts.links.get_mut(&name("eth1")).unwrap();
    (eth1.default_route_v4, eth1.speed) = (Some(1), None);
    let then = resolved(&intent, seen);
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth0").egress()]);
    assert!(then.plan.is_empty(), "{}", then.plan);
}

#[test]
fn a_new_link_that_is_unfit_keeps_no_other_from_being_shaped() {
    let mut intent = intent("links: {eth0: , eth1: 100mbit}\nusers: {ann: 10mbit}\n");
    let mut seen = host();
    seen.facts.links.get_mut(&name("eth0")).unwrap().speed = None;
    assert!(matches!(refused(&intent, seen.clone()), Refusal::Policy(_)));
    intent.options.absent_links = true;
    let then = resolved(&intent, seen);
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth1").egress()]);
    assert_eq!(then.meaning.passed_over.keys().collect::<Vec<_>>(), [&name("eth0")]);
    let warnings: Vec<_> = then.meaning.warnings.iter().map(|it| it.message.as_str()).collect();
    assert!(warnings.iter().any(|it| it.ends_with("`eth0` is passed over")), "{warnings:?}");
    assert!(warnings.iter().all(|it| !it.contains("is not there")), "{warnings:?}");
}

#[test]
fn of_new_links_those_are_shaped_with_which_the_policy_can_hold() {
    let text = "links: {eth0: , 'eth*': {rate: 95%, optional: true}}\nusers: {ann: {rate: 50mbit, ceil: 60mbit}}";
    let mut intent = intent(text);
    let mut seen = host();
    for (index, name) in ["eth2", "eth3", "eth4"].into_iter().enumerate() {
        let speed = if name == "eth3" { "10mbit" } else { "1gbit" };
        let facts = LinkFacts { speed: speed.parse().ok(), ..link(10 + index as u32) };
        seen.facts.links.insert(LinkName::new(name).unwrap(), facts);
    }
    // Nothing was shaped before, as at a boot, and ann's line is what the error is about.
    intent.options.absent_links = true;
    let shaped = |then: &Resolved| {
        then.desired.trees.keys().map(|port| port.link.to_string()).collect::<Vec<_>>()
    };
    let then = resolved(&intent, seen.clone());
    assert_eq!(shaped(&then), ["eth0", "eth1", "eth2", "eth4"]);
    let passed_over = then.meaning.passed_over.iter().map(|(name, it)| (name.as_str(), &it.why));
    let passed_over: Vec<_> = passed_over.collect();
    assert!(
        matches!(&passed_over[..], [("eth3", why)] if why.contains("`ann`")),
        "{passed_over:?}"
    );
    // A link that was fit and has another speed now counts as it was.
    intent.good = then.meaning.good_links();
    let before = seen.clone();
    seen.facts.links.get_mut(&name("eth1")).unwrap().speed = "10mbit".parse().ok();
    let then = resolved(&intent, seen);
    assert_eq!(shaped(&then), ["eth0", "eth1", "eth2", "eth4"]);
    assert_eq!(then.meaning.passed_over.len(), 1);
    // With a speed at which the policy holds it has that one, whatever is wrong with others.
    let mut seen = before;
    seen.facts.links.get_mut(&name("eth1")).unwrap().speed = "100mbit".parse().ok();
    let then = resolved(&intent, seen);
    let root = then.desired.trees[&name("eth1").egress()].classes[&ClassId::LINK];
    assert_eq!(root.ceil.to_string(), "95mbit");
    assert_eq!(then.meaning.passed_over.len(), 1);
}

#[test]
fn auto_follows_the_default_route_while_another_link_is_unfit() {
    let mut intent = intent("links: {auto: , 'tap*': 20mbit}\nusers: {ann: {ceil: 30mbit}}\n");
    intent.options.absent_links = true;
    let mut seen = host();
    seen.facts.links.insert(name("tap0"), LinkFacts { default_route_v4: None, ..link(9) });
    let then = resolved(&intent, seen.clone());
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth0").egress()]);
    intent.good = then.meaning.good_links();
    seen.facts.links.get_mut(&name("eth0")).unwrap().default_route_v4 = None;
    seen.facts.links.get_mut(&name("eth1")).unwrap().default_route_v4 = Some(100);
    let then = resolved(&intent, seen);
    assert!(then.desired.trees.contains_key(&name("eth1").egress()));
    assert_eq!(then.meaning.passed_over.keys().collect::<Vec<_>>(), [&name("tap0")]);
}

#[test]
fn a_link_of_a_pattern_that_is_unfit_by_itself_is_passed_over_too() {
    let mut intent = intent("links: {'eth*': 50%}\nusers: {ann: 1mbit}\n");
    intent.options.absent_links = true;
    let mut seen = host();
    seen.facts.links.get_mut(&name("eth1")).unwrap().speed = None;
    let then = resolved(&intent, seen.clone());
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth0").egress()]);
    assert_eq!(passed_over(&then.meaning), [3].into());
    // One that is shaped one way is shaped.
    let mut one_way =
        self::intent("links: {'eth*': {rate: 10mbit, down: 50%}}\nusers: {ann: 1mbit}");
    one_way.options.absent_links = true;
    let mut able = seen.clone();
    able.facts.down = Some(true);
    let then = resolved(&one_way, able);
    assert!(then.desired.trees.contains_key(&name("eth1").egress()));
    assert!(then.meaning.passed_over.is_empty(), "{:?}", then.meaning.passed_over);
    seen.facts.links.get_mut(&name("eth0")).unwrap().speed = None;
    assert_eq!(passed_over(&resolved(&intent, seen.clone()).meaning), [2, 3].into());
    intent.options.none_fits = NoneFits::Refused;
    assert!(matches!(refused(&intent, seen), Refusal::Policy(_)));
}

#[test]
fn a_policy_that_can_hold_on_no_link_is_refused_at_a_start() {
    let mut without_speed = host();
    without_speed.facts.links.values_mut().for_each(|link| link.speed = None);
    let of_users = ["links: {eth0: 10mbit}", "links: {auto: 10mbit}", "links: {'eth*': 10mbit}"];
    for (seen, links, is_the_links) in of_users
        .map(|links| (host(), links, false))
        .into_iter()
        .chain([(without_speed, "links: {eth0: }", true)])
    {
        let mut intent = intent(&format!("{links}\nusers: {{ann: 25mbit}}"));
        intent.options.absent_links = true;
        let mut is_refused = |none_fits| {
            intent.options.none_fits = none_fits;
            match resolve(&intent, seen.clone()) {
                Err(Refusal::Policy(_)) => true,
                Err(refusal) => panic!("{refusal}"),
                Ok(then) => {
                    assert!(then.desired.trees.is_empty() && !then.meaning.passed_over.is_empty());
                    false
                }
            }
        };
        assert!(is_refused(NoneFits::Refused), "{links}");
        assert_eq!(is_refused(NoneFits::RefusedUnlessTheirs), !is_the_links, "{links}");
        assert!(!is_refused(NoneFits::PassedOver), "{links}");
    }
}

#[test]
fn a_policy_that_can_hold_on_no_link_is_not_taken_for_one_that_holds_on_another() {
    let mut instead = intent("links: {eth0: 10mbit}\nusers: {ann: 1mbit}");
    instead.options.absent_links = true;
    instead.good.extend([(name("eth1"), link(3))]);
    let theirs = with_root(foreign(None));
    assert!(resolved(&instead, theirs.clone()).desired.trees.is_empty());
    instead.options.none_fits = NoneFits::Refused;
    assert!(matches!(refused(&instead, theirs), Refusal::Policy(_)));
}

#[test]
fn where_a_new_link_does_not_fit_those_that_did_are_shaped() {
    let mut intent =
        intent("links: {eth0: , eth1: }\nusers: {ann: {rate: 500mbit, ceil: 600mbit}}");
    intent.options.absent_links = true;
    let mut seen = host();
    intent.good.extend([(name("eth0"), link(2))]);
    seen.facts.links.get_mut(&name("eth1")).unwrap().speed = "100mbit".parse().ok();
    let then = resolved(&intent, seen);
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth0").egress()]);
}

#[test]
fn a_link_that_is_only_warned_of_is_shaped_though_another_is_unfit() {
    let mut intent = intent("links: {eth0: , eth1: 10mbit}\nusers: {ann: 1mbit}\n");
    let mut seen = host();
    let warned = resolved(&intent, seen.clone()).meaning.warnings;
    assert!(warned.iter().any(|it| it.message.contains("eth1")), "{warned:?}");
    seen.facts.links.get_mut(&name("eth0")).unwrap().speed = None;
    intent.options.absent_links = true;
    let then = resolved(&intent, seen);
    assert_eq!(then.desired.trees.keys().collect::<Vec<_>>(), [&name("eth1").egress()]);
}

#[test]
fn where_no_link_is_there_the_policy_is_mistaken() {
    let mut none = host();
    none.facts.links.clear();
    let mut wanted = intent(TWO);
    assert!(matches!(refused(&wanted, none.clone()), Refusal::Policy(_)));
    let mut one = host();
    one.facts.links.remove(&name("eth0"));
    assert_eq!(resolved(&wanted, one).desired.trees.len(), 1);
    wanted.options.absent_links = true;
    assert!(resolved(&wanted, none).desired.trees.is_empty());
}

#[test]
fn what_is_strange_on_a_link_that_is_left_alone_stays_too() {
    let mut intent = intent(POLICY);
    let mut seen = shaped(&intent, &[]);
    let (port, ann) = (name("eth0").egress(), seen.state.claims[&claim("user/ann")]);
    seen.state.trees.get_mut(&port).unwrap().leaves.remove(&ann);
    let flower = StrangeFilter { protocol: 3, kind: "flower".to_string(), tables: Vec::new() };
    let strange = Strange {
        leaves: [(ann, ClassId(0x8001_0000))].into(),
        filters: [(Parent::Root.at(Pref::RULES_V4[0]), flower)].into(),
        ..Strange::default()
    };
    seen.strange.insert(port, strange);
    let then = resolved(&intent, seen.clone());
    for step in ["foreign -> fq_codel", "unknown (flower)"] {
        assert!(then.plan.to_string().contains(step), "{}", then.plan);
    }
    intent.held.insert(name("eth0"));
    let then = resolved(&intent, seen);
    assert!(then.plan.is_empty(), "{}", then.plan);
    assert_eq!(then.meaning.left_alone, [name("eth0")].into());
}
