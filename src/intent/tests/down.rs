//! What arrives by a link with a `down`.

use super::*;
use crate::desired::{Impossible, NoDown};
use crate::facts::{Beside, Lack};
use crate::plan::{Phase, Step, Whole};
use crate::tree::{Asks, Clsact, Direction, Filter, Parent, Pref, Side, StrangeFilter};

const POLICY: &str = "links: {eth0: {rate: 100mbit, down: 50mbit}}
users: {ann: {ceil: 10mbit, down: 5mbit}, bob: {ceil: 10mbit}}
rules: [{dst: 10.0.0.1, dport: 80, to: bob}]
";

fn able() -> Observation {
    let mut seen = host();
    seen.facts.down = Some(true);
    seen
}

fn refused(seen: Observation) -> NoDown {
    match resolve(&intent(POLICY), seen) {
        Err(Refusal::Impossible(Impossible::Down { why, .. })) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_refused_where_it_cannot_be_shaped() {
    assert!(matches!(resolve(&intent(POLICY), host()), Err(Refusal::Untried)));
    let mut seen = able();
    seen.facts.down = Some(false);
    assert_eq!(refused(seen.clone()), NoDown::Kernel);
    seen.facts.lacks = Some(Lack::Root);
    assert!(matches!(resolve(&intent(POLICY), seen), Err(Refusal::NeedsRoot)));
    let mut seen = able();
    seen.facts.firewalls.insert(name("eth0"), "chain guard in".to_string());
    assert_eq!(refused(seen), NoDown::Firewall("chain guard in".to_string()));
    // Where the line says so it is well, and the chain is named all the same.
    let mut seen = able();
    seen.facts.firewalls.insert(name("eth0"), "chain guard in".to_string());
    let told = POLICY.replace("down: 50mbit", "down: 50mbit, bypass_firewall: true");
    let warnings = resolved(&intent(&told), seen).meaning.warnings;
    assert!(warnings.iter().any(|it| it.message.contains("nftables chain guard in sees nothing")));
    let filter = |what: &str| {
        let (side, pref, what) = (Direction::Ingress, Pref(10), what.to_string());
        let mut seen = able();
        seen.facts.beside.insert(name("eth0"), vec![Beside::Filter { side, pref, what }]);
        seen
    };
    let cilium = "bpf cil_from_netdev-eth0";
    let named = format!("filter {cilium} (pref 10)");
    assert_eq!(refused(filter(cilium)), NoDown::Cilium(named));
    let warnings = resolved(&intent(POLICY), filter("matchall")).meaning.warnings;
    assert!(warnings.iter().any(|it| it.message.contains("filter matchall (pref 10)")));
    let mut seen = able();
    seen.facts.links.insert(name("ifb-eth0"), link(9));
    assert_eq!(refused(seen), NoDown::Name(name("ifb-eth0")));
    let mut seen = able();
    seen.ingress.insert(name("eth0"));
    assert_eq!(refused(seen), NoDown::Ingress);
    for (egress, prefs, why) in
        [(true, Pref::LEARN, NoDown::Learn), (false, Pref::REDIRECT, NoDown::Redirect)]
    {
        let mut seen = able();
        let side = Side { foreign: prefs.into(), ..Side::default() };
        let clsact = match egress {
            true => Clsact { egress: side, ..Clsact::default() },
            false => Clsact { ingress: side, ..Clsact::default() },
        };
        seen.state.clsact.insert(name("eth0"), clsact);
        assert_eq!(refused(seen), why);
    }
}

#[test]
fn without_a_down_nothing_is_made_for_it() {
    let without = POLICY.replace(", down: 50mbit", "").replace(", down: 5mbit", "");
    let desired = resolved(&intent(&without), able()).desired;
    assert!(desired.ifbs.is_empty() && desired.clsact.is_empty());
    assert_eq!(desired.trees.keys().collect::<Vec<_>>(), [&name("eth0").egress()]);
}

#[test]
fn a_user_has_one_class_in_both_directions_with_limits_of_its_own_in_each() {
    let desired = resolved(&intent(POLICY), able()).desired;
    let ceil = |port: &Port, who: &str| {
        let class = desired.trees[port].classes[&desired.claims[&claim(who)]];
        class.ceil.to_string()
    };
    let (up, down) = (name("eth0").egress(), name("eth0").ingress());
    assert_eq!((ceil(&up, "user/ann"), ceil(&down, "user/ann")), ("10mbit".into(), "5mbit".into()));
    assert_eq!(ceil(&down, "user/bob"), "50mbit", "no cap but the link's");
    // A rule is about what answers there.
    let rules = |port: &Port| match &desired.trees[port].filters[&Pref::RULES_V4[0]] {
        Filter::U32 { rules, .. } => rules.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(rules(&up).count(), rules(&down).count());
    assert_ne!(rules(&up), rules(&down));
}

/// Whoever may change nothing says what root does, who has the map.
#[test]
fn a_map_of_flows_that_root_alone_may_open_stays_in_a_plan_of_others() {
    let mut seen = able();
    let link = name("eth0");
    seen.state = resolved(&intent(POLICY), seen.clone()).desired;
    seen.facts.features.helpers.socket_tag = false;
    seen.facts.flows.insert(link.clone(), 7);
    let with_map = resolved(&intent(POLICY), seen.clone()).plan.to_string();
    seen.unread.flows.insert(link);
    assert_ne!(resolved(&intent(POLICY), seen.clone()).plan.to_string(), with_map);
    seen.facts.lacks = Some(crate::facts::Lack::NetAdmin);
    assert_eq!(resolved(&intent(POLICY), seen).plan.to_string(), with_map);
}

/// Its packets come to the ifb all the while.
#[test]
fn what_finds_flows_waits_also_where_another_version_made_what_redirects() {
    let mut seen = able();
    let link = name("eth0");
    seen.state = resolved(&intent(POLICY), seen.clone()).desired;
    seen.facts.features.helpers.socket_tag = false;
    seen.unread.flows.insert(link.clone());
    seen.facts.busy.insert(link.clone());
    let redirect = Parent::Ingress.at(Pref::REDIRECT[0]);
    seen.state.clsact.get_mut(&link).unwrap().ingress.filters.clear();
    let kind = "bpf".to_string();
    let strange = StrangeFilter { protocol: 3, kind, tables: Vec::new() };
    seen.strange.entry(link.ingress()).or_default().filters.insert(redirect, strange);
    let mut waits = resolved(&intent(POLICY), seen.clone()).plan;
    let at = |what: &str| waits.to_string().find(what).unwrap_or_else(|| panic!("{what}\n{waits}"));
    let steps = [
        "egress pref 4",
        "~ wait 1 s: whose the flows are that run on eth0 is learnt",
        "+ eth0 ingress filter pref 201",
        "+ eth0 ingress filter at clsact ingress pref 65001",
        "- eth0 ingress filter at clsact ingress pref 65000",
    ];
    assert!(steps.map(at).is_sorted(), "{waits}");
    assert!(waits.before_learning().is_empty(), "nor does a daemon postpone it");
    seen.state.ifbs.clear();
    waits = resolved(&intent(POLICY), seen).plan;
    assert!(!waits.before_learning().is_empty(), "nothing comes to an ifb that is gone");
}

#[test]
fn a_second_run_finds_nothing_to_do_and_what_notes_flows_changes_with_what_finds_them() {
    let mut seen = able();
    let first = resolved(&intent(POLICY), seen.clone());
    let link = name("eth0");
    seen.state = first.desired;
    assert!(resolved(&intent(POLICY), seen.clone()).plan.is_empty());
    // Another program notes flows from now on, with a map of its own.
    seen.facts.features.helpers.socket_tag = false;
    let plan = resolved(&intent(POLICY), seen.clone()).plan.to_string();
    let places = [
        "+ eth0 filter at clsact egress pref 4",
        "+ eth0 ingress filter pref 201",
        "- eth0 ingress filter pref 200",
        "- eth0 filter at clsact egress pref 3",
    ]
    .map(|line| plan.find(line).unwrap_or_else(|| panic!("{line}\n{plan}")));
    assert!(places.is_sorted(), "{plan}");
    assert!(!plan.contains("clsact ingress"), "{plan}");
    // With the map that stands, where this process has it: what finds flows goes on.
    seen.facts.flows.insert(link.clone(), 7);
    let with_map = resolved(&intent(POLICY), seen.clone()).plan.to_string();
    assert!(with_map.contains("+ eth0 filter at clsact egress pref 4"), "{with_map}");
    assert!(!with_map.contains("eth0 ingress filter"), "{with_map}");
    seen.unread.flows.insert(link.clone());
    assert_eq!(resolved(&intent(POLICY), seen.clone()).plan.to_string(), plan);
    // Where connections run it waits for what says whose they are.
    seen.facts.busy.insert(link.clone());
    let waits = resolved(&intent(POLICY), seen.clone()).plan;
    let at = |what: &str| waits.to_string().find(what).unwrap_or_else(|| panic!("{what}\n{waits}"));
    let wait = at("~ wait 1 s: whose the flows are that run on eth0 is learnt");
    assert!(at("egress pref 4") < wait && wait < at("ingress filter pref 201"), "{waits}");
    seen.facts.busy.clear();
    // And so where a filter that finds them was taken away.
    seen.facts.features.helpers.socket_tag = true;
    let tree = seen.state.trees.get_mut(&link.ingress()).unwrap();
    tree.filters.remove(&Pref::TAG[0]);
    let plan = resolved(&intent(POLICY), seen.clone()).plan.to_string();
    assert!(plan.contains("+ eth0 filter at clsact egress pref 4"), "{plan}");
    seen.unread.flows.clear();
    let plan = resolved(&intent(POLICY), seen).plan.to_string();
    assert!(plan.contains("+ eth0 ingress filter pref 200"), "{plan}");
    assert!(!plan.contains("egress"), "{plan}");
    // A first one waits as well, once all stands and processes are placed.
    let mut seen = able();
    seen.facts.busy.insert(link.clone());
    let plan = resolved(&intent(POLICY), seen).plan;
    let late: Vec<&Step> = plan.phase(Phase::TearDown).collect();
    let redirects = |step: &Step| matches!(step, Step::Filter(_, _, Whole::Add(Filter::Redirect)));
    let [Step::Learn(_), redirect] = late[..] else { panic!("{plan}") };
    assert!(redirects(redirect), "{plan}");
    // And where the plan is made again in between, although this process has the map by then.
    let mut seen = able();
    seen.state = resolved(&intent(POLICY), seen.clone()).desired;
    seen.facts.flows.insert(link.clone(), 7);
    let again = |seen: &Observation| resolved(&intent(POLICY), seen.clone()).plan.to_string();
    assert_eq!(again(&seen), "", "nothing is to be done");
    seen.facts.busy.insert(link.clone());
    assert_eq!(again(&seen), "", "nor does anything wait that stands");
    seen.state.clsact.get_mut(&link).unwrap().ingress.filters.clear();
    let waits = |plan: &str| {
        let redirect = plan.find("+ eth0 ingress filter at clsact ingress").unwrap();
        plan.find("~ wait 1 s").is_some_and(|wait| wait < redirect)
    };
    assert!(waits(&again(&seen)), "{}", again(&seen));
    seen.facts.busy.clear();
    assert!(!waits(&again(&seen)), "{}", again(&seen));
}

/// Whatever waits, each link has its redirect and the pulse that this one asks, or neither.
#[test]
fn no_pulse_comes_before_its_redirect() {
    let text = "links: {eth0: {rate: 100mbit, down: 50mbit}, eth1: {rate: 100mbit, down: 50mbit}}
users: {ann: {ceil: 10mbit, down: 5mbit}}
";
    for busy in [vec![], vec!["eth0"], vec!["eth1"], vec!["eth0", "eth1"]] {
        let mut seen = able();
        seen.facts.links.insert(name("eth1"), link(9));
        seen.facts.busy.extend(busy.iter().map(|link| name(link)));
        let mut plan = resolved(&intent(text), seen).plan;
        let rest = plan.before_learning();
        assert_eq!(rest.is_empty(), busy.is_empty(), "{busy:?}");
        let said = plan.to_string();
        let made = |what: fn(&Filter) -> bool| {
            let steps = plan.phase(Phase::Build).chain(plan.phase(Phase::TearDown));
            let made = steps.filter_map(|step| match step {
                Step::Filter(port, _, Whole::Add(filter)) if what(filter) => Some(&port.link),
                _ => None,
            });
            made.cloned().collect::<Vec<_>>()
        };
        let pulses = made(|filter| matches!(filter, Filter::Pulse));
        let redirects = made(|filter| matches!(filter, Filter::Redirect));
        assert_eq!(pulses, redirects, "{busy:?}\n{said}");
        assert_eq!(redirects.len(), if busy.is_empty() { 2 } else { 0 }, "{said}");
    }
}

#[test]
fn a_rule_that_asks_who_sends_asks_for_the_flow_of_what_arrives() {
    let asks = POLICY.replace("dport: 80,", "from: ann,");
    let then = resolved(&intent(&asks), able());
    assert!(then.meaning.warnings.is_empty(), "{:?}", then.meaning.warnings);
    let link = LinkName::new("eth0").unwrap();
    let filters = |port| &then.desired.trees[&port].filters;
    let program = |port| match &filters(port)[&Pref::PROGRAM[0]] {
        Filter::Program(program) => program.clone(),
        other => panic!("{other:?}"),
    };
    let (sent, arrives) = (program(link.egress()), program(link.ingress()));
    assert_eq!(sent.rules[0].from, arrives.rules[0].from);
    assert_eq!(arrives.asks, Some(Asks::Flow));
    let find = Filter::Find { shards: false, for_rules: true };
    assert_eq!(filters(link.ingress()).get(&Pref::FIND[0]), Some(&find));
    assert!(!filters(link.egress()).contains_key(&Pref::FIND[0]));
    let quiet = resolved(&intent(POLICY), able());
    assert!(!quiet.desired.trees[&link.ingress()].filters.contains_key(&Pref::FIND[0]));
}
