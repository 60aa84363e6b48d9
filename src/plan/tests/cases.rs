//! Single plans: which of their steps are routine, and whom they disturb.

use super::*;

/// One link, and an account that has no line of its own.
fn account(ceil: u64, boost: Option<Bytes>) -> Model {
    Model {
        links: Per::new(vec![link("eth0", 100)]),
        classifiers: [None].into(),
        nodes: vec![Node {
            owner: Owner::Uid(1000),
            group: None,
            pin: None,
            limits: Per::new(vec![Some(Limits {
                rate: Asked::Derived { floor: None },
                ceil: mbit(ceil),
                boost,
                prio: 0,
            })]),
            holds: Per::new(Vec::new()),
            at: PLACE,
        }],
        matcher: Matcher::default(),
        inner: None,
        rules: Vec::new(),
        metered: Default::default(),
        valid_until: None,
        unfit: BTreeMap::new(),
    }
}

fn wanted(model: &Model, from: &KernelState) -> KernelState {
    desired(model, &observe(from.clone(), BTreeSet::new())).unwrap()
}

/// The plan, where these accounts run something.
fn with_running(from: &KernelState, to: &KernelState, running: &[u32]) -> Plan {
    let mut plan = diff(from, to, &[]);
    let running = running.iter().copied().collect();
    let accounts = Accounts { running, ..Accounts::default() };
    let derived = BTreeSet::new();
    plan.mark_routine(
        from,
        &Logins {
            accounts: &accounts,
            derived,
            unit_cgroups: None,
            pinned_cgroups: &Default::default(),
        },
    );
    plan
}

#[test]
fn a_changed_line_for_accounts_is_a_change_and_a_logout_is_none() {
    let changes = |from: &KernelState, to: &KernelState, running: &[u32]| {
        let plan = with_running(from, to, running);
        assert!(!plan.is_empty());
        plan.changes()
    };
    let before = wanted(&account(50, None), &KernelState::default());
    assert!(
        changes(&before, &wanted(&account(20, None), &before), &[1000]),
        "everyone: 50 -> 20mbit"
    );
    let nobody = Model { nodes: Vec::new(), ..account(50, None) };
    let without = wanted(&nobody, &before);
    assert!(changes(&before, &without, &[1000]), "the line was removed, the account still runs");
    assert!(!changes(&before, &without, &[]), "the account logged out");
}

#[test]
fn a_new_class_gets_its_boost_afterwards_and_that_is_routine() {
    let nothing = KernelState::default();
    let nobody = wanted(&Model { nodes: Vec::new(), ..account(50, None) }, &nothing);
    let boosted = wanted(&account(50, Some(Bytes(5_000_000))), &nobody);
    // A new class has no boost yet, however often it is made again; and gets it at once.
    let plan = with_running(&nobody, &boosted, &[1000]);
    let of_classes = plan.steps.iter().filter(|planned| planned.step.class().is_some());
    let news: Vec<_> = of_classes.clone().filter(|planned| !planned.routine).collect();
    assert!(news.is_empty(), "the account logged in: {news:?}");
    let classes: Vec<String> = of_classes.map(|planned| planned.step.to_string()).collect();
    assert_eq!(
        classes,
        [
            "+ eth0 class 1:10 in 1:1: rate 50mbit ceil 50mbit",
            "+ eth0 qdisc 10: bfifo in 1:10",
            "~ eth0 class 1:10: cburst 25001b -> 5000000b",
        ]
    );
    let without = wanted(&account(50, None), &nothing);
    let plan = with_running(&boosted, &without, &[1000]);
    assert!(plan.changes(), "the policy has no boost any more");
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
