//! What the kernel can do, what could not be read, and the warnings about both.

use super::*;
use crate::facts::Lack;
use crate::tree::{Foreign, MapIds, RuleMapIds, Strange, StrangeFilter, Tag};
use crate::units::Minor;

const POLICY: &str = "links: {eth0: 100mbit}\nusers: {ann: 10mbit}\n";

fn warnings(resolved: &Resolved) -> String {
    let warnings = &resolved.meaning.warnings;
    warnings.iter().map(|warning| format!("{}\n", warning.message)).collect()
}

#[test]
fn what_nobody_has_tried_is_asked_for_and_what_was_tried_is_believed() {
    let cake = "links: {eth0: {rate: 100mbit, leaf: cake}}\nusers: {ann: 10mbit}\n";
    let bpf = "links: {eth0: {rate: 100mbit, classifier: bpf}}\nusers: {ann: 10mbit}\n";
    for text in [cake, bpf] {
        for bits in 0..4 {
            let [tried, privileged] = [1, 2].map(|bit| bits & bit != 0);
            let mut seen = host();
            seen.facts.features.tried = tried;
            seen.facts.features.classifiers.remove(&Classifier::Bpf);
            seen.facts.lacks = (!privileged).then_some(Lack::Root);
            let outcome = resolve(&intent(text), seen);
            let is_as_it_should = match (tried, privileged) {
                (false, _) => matches!(outcome, Err(Refusal::Untried)),
                (true, false) => matches!(outcome, Err(Refusal::NeedsRoot)),
                (true, true) => matches!(outcome, Err(Refusal::Impossible(_))),
            };
            assert!(is_as_it_should, "{text}: tried {tried}, privileged {privileged}");
        }
    }
    let mut seen = host();
    seen.facts.features.tried = false;
    resolved(&intent(POLICY), seen);
}

#[test]
fn many_users_are_a_reason_to_try_for_ebpf_and_to_say_that_there_is_none() {
    let mut crowd = intent("links: {eth0: 100mbit}\nusers: {ann: 10mbit, bob: 10mbit}\n");
    crowd.options.sharding = Sharding { flat: 1, full: 2, few: 1 };
    let mut seen = host();
    seen.facts.features.classifiers.remove(&Classifier::Bpf);
    seen.facts.features.tried = false;
    assert!(matches!(resolve(&crowd, seen.clone()), Err(Refusal::Untried)));
    seen.facts.features.tried = true;
    let said = warnings(&resolved(&crowd, seen.clone()));
    assert!(said.contains("stay in one HTB qdisc") && said.contains("allow no eBPF"), "{said}");
    assert!(said.contains("tells users apart by their tag alone"), "{said}");
    crowd.options.sharding = Sharding::default();
    let said = warnings(&resolved(&crowd, seen));
    assert!(!said.contains("stay in one HTB qdisc"), "two are no crowd: {said}");
}

#[test]
fn a_kernel_without_htb_is_no_matter_of_trying() {
    let mut seen = host();
    seen.facts.features.htb = false;
    assert!(matches!(resolve(&intent(POLICY), seen.clone()), Err(Refusal::Impossible(_))));
    seen.facts.lacks = Some(Lack::NetAdmin);
    assert!(matches!(resolve(&intent(POLICY), seen), Err(Refusal::NeedsRoot)));
}

#[test]
fn what_no_trial_would_show_needs_no_root() {
    let mut seen = host();
    // Every number that a group can have is another program's.
    let port = name("eth0").egress();
    let inner = (0..=0xffff).map(Minor).filter(|minor| minor.is_inner());
    let class = |minor| Foreign::Class { port: port.clone(), classid: ClassId::ours(minor) };
    seen.foreign.extend(inner.map(class));
    let text = format!("{POLICY}groups: {{students: {{gid: students, ceil: 20mbit}}}}\n");
    for lacks in [None, Some(Lack::Root)] {
        seen.facts.lacks = lacks;
        let outcome = resolve(&intent(&text), seen.clone());
        assert!(matches!(outcome, Err(Refusal::Impossible(Impossible::Minors(_)))), "{lacks:?}");
    }
}

#[test]
fn who_asks_for_tags_is_not_warned_of_them() {
    let mut seen = host();
    seen.facts.features.classifiers.remove(&Classifier::Bpf);
    let asked = "links: {eth0: {rate: 100mbit, classifier: cgroup}}\nusers: {ann: 10mbit}\n";
    assert_eq!(warnings(&resolved(&intent(asked), seen.clone())), "");
    let said = warnings(&resolved(&intent(POLICY), seen));
    assert!(said.contains("tells users apart by their tag alone"), "{said}");
}

/// A host whose deciding programs' maps could not be read.
fn unread() -> Observation {
    let mut seen = shaped(&intent(POLICY), &[]);
    seen.state.owners = None;
    seen.unread.owners = Some("Operation not permitted".to_string());
    let tree = &seen.state.trees[&name("eth0").egress()];
    let prefs = tree.filters.iter().filter(|(_, it)| matches!(it, Filter::Tag(Tag::Bpf(_))));
    let seat = |(pref, _): (&_, &_)| (name("eth0").egress(), ClassId::ROOT, *pref);
    let maps = MapIds([7, 8, 9, 10]);
    seen.deciding = prefs.map(seat).map(|seat| (seat, maps)).collect();
    assert_eq!(seen.deciding.len(), 1);
    seen
}

#[test]
fn who_may_not_read_the_maps_takes_them_to_be_as_the_policy_says() {
    let mut seen = unread();
    seen.facts.lacks = Some(Lack::NetAdmin);
    let then = resolved(&intent(POLICY), seen);
    assert!(then.plan.is_empty(), "{}", then.plan);
    assert!(warnings(&then).contains("Operation not permitted"));
}

#[test]
fn who_may_change_things_replaces_programs_whose_maps_cannot_be_read() {
    let then = resolved(&intent(POLICY), unread());
    let has = |word: &str| then.plan.to_string().contains(word);
    assert!(has("owners") && has("filter pref"), "{}", then.plan);
    assert_eq!(warnings(&then), "");
}

#[test]
fn rules_that_may_not_be_read_are_known_by_their_programs_name() {
    let text = format!("{POLICY}rules: [{{vlan: 22, dport: 80, to: ann}}]\n");
    let mut seen = shaped(&intent(&text), &[]);
    let port = name("eth0").egress();
    let tree = seen.state.trees.get_mut(&port).unwrap();
    let found = tree.filters.iter().find(|(_, filter)| matches!(filter, Filter::Program(_)));
    let (pref, filter) = found.map(|(pref, filter)| (*pref, filter.clone())).unwrap();
    let Filter::Program(program) = &filter else { unreachable!() };
    let ids = RuleMapIds { text: 11, counts: 12 };
    let named = bpf_name::print_rules(program, ids, None);
    tree.filters.remove(&pref);
    let unread = StrangeFilter { protocol: 3, kind: "bpf".to_string(), tables: Vec::new() };
    let filters = [(Parent::Root.at(pref), unread)].into();
    seen.strange.insert(port.clone(), Strange { filters, ..Strange::default() });
    seen.unread.rules.insert((port.clone(), pref), named.clone());
    let as_root = resolved(&intent(&text), seen.clone());
    assert!(!as_root.plan.is_empty(), "root replaces what it cannot read");
    seen.facts.lacks = Some(Lack::Root);
    let then = resolved(&intent(&text), seen.clone());
    assert!(then.plan.is_empty(), "{}", then.plan);
    // Another program's name is another program.
    let other = text.replace("dport: 80", "dport: 81");
    assert!(!resolved(&intent(&other), seen).plan.is_empty());
}

#[test]
fn a_pin_that_somebody_else_has_waits_and_is_said() {
    let pinned =
        intent("links: {eth0: 100mbit}\nusers: {ann: {ceil: 10mbit, classid: \"1:1a\"}}\n");
    let mut seen = host();
    let (port, classid) = (name("eth0").egress(), ClassId::ours(Minor(0x1a)));
    assert_eq!(warnings(&resolved(&pinned, seen.clone())), "");
    seen.foreign.push(Foreign::Class { port, classid });
    let then = resolved(&pinned, seen);
    assert_ne!(then.desired.claims[&claim("user/ann")], classid);
    assert!(warnings(&then).contains("ann is pinned to 1:1a, but shaper did not make"));
}

#[test]
fn links_that_others_send_through_without_a_guard_are_said() {
    let mut seen = host();
    seen.facts.own_sockets_only = false;
    assert_eq!(warnings(&resolved(&intent(POLICY), seen.clone())), "");
    seen.facts.features.clsact = false;
    let said = warnings(&resolved(&intent(POLICY), seen.clone()));
    assert!(said.contains("eth0: a macvlan or ipvlan on it"), "{said}");
    seen.facts.own_sockets_only = true;
    assert_eq!(warnings(&resolved(&intent(POLICY), seen)), "");
}

#[test]
fn the_maps_in_force_are_those_that_are_open_here_and_else_the_latest() {
    let [old, new, gone] = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]].map(MapIds);
    let mut seen = Observation::default();
    assert_eq!(seen.maps_in_force(Some(old)), None, "no program reads them");
    // Half of an exchange.
    for (link, ids) in [("eth0", new), ("eth1", old)] {
        seen.deciding.insert((name(link).egress(), ClassId::ROOT, Pref::TAG[0]), ids);
    }
    assert_eq!(seen.maps_in_force(None), Some(new));
    assert_eq!(seen.maps_in_force(Some(old)), Some(old));
    assert_eq!(seen.maps_in_force(Some(gone)), Some(new), "nothing reads those any more");
}
