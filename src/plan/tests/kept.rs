//! What stays where a step is left undone because it would disturb somebody.

use super::models::model;
use super::*;
use crate::tree::{Clsact, Pref, Tree};

/// What we have on a link: both trees, the ifb, our filters.
fn on(state: &KernelState, link: &LinkName) -> impl PartialEq + std::fmt::Debug + use<> {
    let ports = [link.egress(), link.ingress()];
    let trees = ports.clone().map(|port| state.trees.get(&port).cloned());
    (trees, state.ifbs.get(&ports[1].device()).copied(), state.clsact.get(link).cloned())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Somebody has put a class under one of our roots.
    #[test]
    fn a_link_is_cleared_in_both_directions_or_in_none(model in model(), which in any::<prop::sample::Index>()) {
        let state = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
        let ports: Vec<Port> = state.trees.keys().cloned().collect();
        let port = which.get(&ports).clone();
        let foreign = Foreign::Class { port: port.clone(), classid: ClassId::ours(Minor(0xabc)) };
        let nothing = KernelState { net_cls: NetCls::Ours, ..KernelState::default() };
        let mut plan = diff(&state, &nothing, &[foreign]);
        let left = plan.without_disruption(&state);
        prop_assert!(!left.is_empty());
        let after = run(&plan, &state, &mut |_, _| ());
        prop_assert_eq!(on(&after, &port.link), on(&state, &port.link));
        prop_assert_eq!(&after.claims, &state.claims);
        prop_assert_eq!(&after.owners, &state.owners);
        for other in ports.iter().filter(|other| other.link != port.link) {
            prop_assert_eq!(on(&after, &other.link), on(&nothing, &other.link));
        }
    }
}

/// What somebody has on one link keeps nothing old on another that is shaped without it.
#[test]
fn a_link_that_stays_shaped_loses_what_it_no_longer_has() {
    let ports = ["eth0", "eth1"].map(|name| LinkName::new(name).unwrap().egress());
    let learns = |tag| {
        let mut clsact = Clsact::default();
        clsact.egress.filters.insert(Pref::LEARN[usize::from(tag)], Filter::Pulse);
        clsact
    };
    let mut from = KernelState { net_cls: NetCls::Ours, ..KernelState::default() };
    from.trees.extend(ports.clone().map(|port| (port, Tree::default())));
    from.clsact.extend(ports.clone().map(|port| (port.link, learns(false))));
    let mut to = from.clone();
    to.trees.remove(&ports[0]);
    to.clsact.remove(&ports[0].link);
    to.clsact.insert(ports[1].link.clone(), learns(true));
    let classid = ClassId::ours(Minor(0xabc));
    let mut plan = diff(&from, &to, &[Foreign::Class { port: ports[0].clone(), classid }]);
    plan.without_disruption(&from);
    let after = run(&plan, &from, &mut |_, _| ());
    assert_eq!(on(&after, &ports[0].link), on(&from, &ports[0].link));
    assert_eq!(on(&after, &ports[1].link), on(&to, &ports[1].link));
}
