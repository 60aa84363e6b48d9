//! An owner that comes back while a class of his drains has that class again.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Lines that go and come back while their classes drain, some of them in between under another
    /// parent or on fewer links.
    #[test]
    fn who_comes_back_while_his_class_drains_has_it_again(
        model in model(),
        gone in vec(any::<bool>(), 8),
        between in model(),
    ) {
        let mut state = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
        // A pinned owner waits for a minor that another line has had.
        let first = loop {
            let next = desired(&model, &observe(state.clone(), BTreeSet::new())).unwrap();
            if next == state {
                break next;
            }
            state = next;
        };
        let mut fewer = model.clone();
        let mut gone = gone.iter();
        fewer.nodes.retain(|node| matches!(node.owner, Owner::Group(_)) || !gone.next().unwrap());
        let mut state = first.clone();
        for wanted in [&fewer, &model] {
            let next = desired(wanted, &observe(state.clone(), BTreeSet::new())).unwrap();
            let plan = diff(&state, &next, &[]);
            let after = run(&plan, &state, &mut |now, step| assert_safe(now, &state, &next, step));
            prop_assert_eq!(&after, &next);
            let undo = diff(&next, &state, &[]);
            prop_assert_eq!(&run(&undo, &next, &mut |_, _| ()), &state);
            state = next;
        }
        prop_assert_eq!(&state.claims, &first.claims);
        prop_assert_eq!(&state.trees.keys().collect::<Vec<_>>(), &first.trees.keys().collect::<Vec<_>>());
        // Whatever policy comes in between, no owner of a class that drains has a second class
        // under the same parent.
        for wanted in [&between, &model] {
            let next = desired(wanted, &observe(state.clone(), BTreeSet::new())).unwrap();
            let plan = diff(&state, &next, &[]);
            let after = run(&plan, &state, &mut |now, step| assert_safe(now, &state, &next, step));
            prop_assert_eq!(&after, &next);
            state = next;
        }
    }
}

/// A user on the first link, and with `both` on the second one too.
fn user(name: &str, both: bool) -> Node {
    let limits =
        Limits { rate: Asked::Derived { floor: None }, ceil: mbit(1), boost: None, prio: 0 };
    Node {
        owner: Owner::User(key(name)),
        group: None,
        pin: None,
        limits: Per::new(vec![Some(limits), both.then_some(limits)]),
        holds: Per::new(Vec::new()),
        at: PLACE,
    }
}

/// The maps send a user's uids to a shard that one link has; when another link gets that shard too,
/// its first packet must already find the user's class.
#[test]
fn a_shard_that_comes_to_another_link_is_read_before_anybody_has_a_class_in_it() {
    let model = |nodes: Vec<Node>| Model {
        links: Per::new(vec![link("eth0", 100), link("eth1", 500)]),
        classifiers: [None].into(),
        matcher: Matcher { uids: vec![(7_000..=7_000, key("u0"))], ..Matcher::default() },
        nodes,
        inner: None,
        rules: Vec::new(),
        metered: Default::default(),
        valid_until: None,
        unfit: BTreeMap::new(),
    };
    let few = [user("u0", false), user("u1", false), user("u2", true), user("u3", true)];
    let more = [user("u0", true), user("u1", true), user("u2", true), user("u3", true)];
    let first = desired(&model(few.into()), &observe(KernelState::default(), BTreeSet::new()));
    let state = first.unwrap();
    let shard = state.claims[&"user/u0".parse::<Claim>().unwrap()].shard().expect("a shard");
    let eth1 = LinkName::new("eth1").unwrap().egress();
    assert!(!state.trees[&eth1].shards.contains_key(&shard));
    let wanted = desired(&model(more.into()), &observe(state.clone(), BTreeSet::new())).unwrap();
    assert!(wanted.trees[&eth1].shards.contains_key(&shard), "it comes to the other link");
    let plan = diff(&state, &wanted, &[]);
    let after = run(&plan, &state, &mut |now, step| assert_safe(now, &state, &wanted, step));
    assert_eq!(after, wanted);
}
