//! Single plans: which of their steps are routine, and whom they disturb.

use super::*;

#[test]
fn a_changed_line_for_accounts_is_a_change_and_a_logout_is_none() {
    let account = |ceil: u64| Model {
        links: Per::new(vec![link("eth0", 100)]),
        classifiers: [None].into(),
        nodes: vec![Node {
            owner: Owner::Uid(1000),
            group: None,
            pin: None,
            limits: Per::new(vec![Some(Limits {
                rate: Asked::Derived { floor: None },
                ceil: mbit(ceil),
                prio: 0,
            })]),
            holds: Per::new(Vec::new()),
            at: PLACE,
        }],
        matcher: Matcher::default(),
        inner: None,
        rules: Vec::new(),
        valid_until: None,
    };
    let state = |model: &Model, from: &KernelState| {
        desired(model, &observe(from.clone(), BTreeSet::new())).unwrap()
    };
    let changes = |from: &KernelState, to: &KernelState, running: &[u32]| {
        let mut plan = diff(from, to, &[]);
        let running = running.iter().copied().collect();
        let accounts = Accounts { running, ..Accounts::default() };
        plan.mark_routine(from, &Logins { accounts: &accounts, derived: BTreeSet::new() });
        assert!(!plan.is_empty());
        plan.changes()
    };
    let before = state(&account(50), &KernelState::default());
    assert!(changes(&before, &state(&account(20), &before), &[1000]), "everyone: 50 -> 20mbit");
    let nobody = Model { nodes: Vec::new(), ..account(50) };
    let without = state(&nobody, &before);
    assert!(changes(&before, &without, &[1000]), "the line was removed, the account still runs");
    assert!(!changes(&before, &without, &[]), "the account logged out");
}

#[test]
fn a_foreign_class_keeps_its_minor_and_is_named_when_its_root_goes() {
    let foreign = Foreign::Class {
        port: LinkName::new("eth0").unwrap().egress(),
        classid: ClassId::ours(Minor(0x10)),
    };
    let model = bob();
    let observed = Observation {
        foreign: vec![foreign.clone()],
        ..observe(KernelState::default(), BTreeSet::new())
    };
    let state = desired(&model, &observed).unwrap();
    assert_eq!(state.claims[&"user/bob".parse::<Claim>().unwrap()], ClassId::ours(Minor(0x11)));

    let plan =
        diff(&state, &KernelState { net_cls: NetCls::Ours, ..KernelState::default() }, &[foreign]);
    let disturbing: BTreeMap<_, _> = plan
        .steps
        .iter()
        .filter(|planned| !planned.disturbs.is_empty())
        .map(|planned| (planned.step.op(), planned.disturbs[0].who.clone()))
        .collect();
    assert_eq!(disturbing, BTreeMap::from([("delete", "class 1:10 on eth0".to_string())]));
}
