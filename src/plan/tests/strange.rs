//! What somebody else put in the place of an object of ours.

use super::*;
use crate::tree::{FoundFilter, FoundLeaf, Parent, Pref, StrangeFilter};

/// What was seen after somebody changed a state by hand: each leaf and each filter for which
/// `by_hand` says so is somebody else's now, and there may be tables that a pref has left.
fn changed(state: KernelState, mut by_hand: impl FnMut() -> bool) -> Observation {
    let mut seen = observe(state, BTreeSet::new());
    let somebodys = ClassId(0x8001_0000);
    for (port, tree) in &mut seen.state.trees {
        let mut strange = Strange::default();
        let leaves = std::mem::take(&mut tree.leaves);
        for (id, leaf) in leaves {
            match leaf != LeafQdisc::Shard && by_hand() {
                true => drop(strange.leaves.insert(id, somebodys)),
                false => drop(tree.leaves.insert(id, leaf)),
            }
        }
        let parents = tree.shards.iter_mut().map(|(it, filters)| (Parent::Shard(*it), filters));
        for (parent, filters) in parents.chain([(Parent::Root, &mut tree.filters)]) {
            for (pref, filter) in std::mem::take(filters) {
                if !by_hand() {
                    filters.insert(pref, filter);
                    continue;
                }
                let (kind, tables) = match filter.is_u32() {
                    true => ("u32", vec![pref.tables().start]),
                    false => ("flower", Vec::new()),
                };
                let (protocol, kind) = (filter.protocol(), kind.to_string());
                let filter = StrangeFilter { protocol, kind, tables };
                strange.filters.insert(parent.at(pref), filter);
            }
        }
        // The kernel has them only for as long as there is another set of rules.
        let others = Pref::RULES.iter().find(|pref| tree.filters.contains_key(*pref));
        if others.is_some() && by_hand() {
            strange.tables.insert(0x3fe);
        }
        seen.strange.insert(port.clone(), strange);
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_is_strange_goes_and_ours_comes(
        before in model(),
        after in model(),
        by_hand in vec(any::<bool>(), 61),
    ) {
        let state = desired(&before, &observe(KernelState::default(), BTreeSet::new())).unwrap();
        let mut by_hand = by_hand.into_iter().cycle();
        let seen = changed(state, || by_hand.next().unwrap_or_default());
        let wanted = desired(&after, &seen).unwrap();
        let plan = super::super::diff(&seen, &wanted);
        let then = run_from(&plan, &seen, &mut |_, _| ());
        prop_assert_eq!(&then.state, &wanted);
        prop_assert!(super::super::diff(&then, &wanted).is_empty());
    }
}

#[test]
fn tables_that_are_left_go_also_where_nothing_else_is_to_do() {
    let model = bob();
    let state = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
    let mut seen = observe(state.clone(), BTreeSet::new());
    let port = LinkName::new("eth0").unwrap().egress();
    let strange = Strange { tables: [0x3fe, 0x3ff].into(), ..Strange::default() };
    seen.strange.insert(port.clone(), strange);
    // Somebody's own rules are a way to them.
    let (through, protocol, kind) = (Pref(7), 0x0800, "u32".to_string());
    let (at, parent) = (port.clone(), ClassId::ROOT);
    seen.foreign = vec![Foreign::Filter { port: at, parent, pref: through, protocol, kind }];
    let left = LeftTables { tables: vec![0x3ff, 0x3fe], through, protocol };
    let plan = super::super::diff(&seen, &state);
    let steps: Vec<_> = plan.steps.iter().map(|planned| &planned.step).collect();
    assert_eq!(steps, [&Step::Tables(port, left)]);
}

#[test]
fn each_strange_object_is_named_by_the_step_that_removes_it() {
    let model = bob();
    let state = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
    let mut seen = observe(state.clone(), BTreeSet::new());
    let port = LinkName::new("eth0").unwrap().egress();
    let (bob, tag) = (ClassId::ours(Minor(0x10)), Parent::Root.at(Pref::TAG[0]));
    let handle = ClassId(0x8001_0000);
    let filter = StrangeFilter { protocol: 0x0800, kind: "flower".to_string(), tables: vec![] };
    let tree = seen.state.trees.get_mut(&port).unwrap();
    let leaf = tree.leaves.remove(&bob).unwrap();
    let ours = tree.filters.remove(&tag.pref).unwrap();
    let strange = Strange {
        leaves: [(bob, handle)].into(),
        filters: [(tag, filter.clone())].into(),
        tables: BTreeSet::new(),
    };
    seen.strange.insert(port.clone(), strange);
    let steps = |plan: Plan| plan.steps.into_iter().map(|planned| planned.step).collect::<Vec<_>>();
    let other = Parent::Root.at(Pref::TAG[1]);
    let (at, from) = (port.clone(), FoundLeaf::Strange { handle });
    let leaf = Step::Leaf(at.clone(), bob, Change::Replace { from, to: leaf, below: () });
    let gone = Whole::Remove(FoundFilter::Strange(filter));
    let gone = Step::Filter(at.clone(), tag, gone);
    assert_eq!(
        steps(super::super::diff(&seen, &state)),
        [
            leaf.clone(),
            Step::Filter(at.clone(), other, Whole::Add(ours.clone())),
            gone.clone(),
            Step::Filter(at.clone(), tag, Whole::Add(ours.clone())),
            Step::Filter(at.clone(), other, Whole::Remove(FoundFilter::Ours(ours.clone()))),
        ],
        "without anything of ours to read the tag, one comes beside what goes"
    );
    // The decision takes the other pref.
    let wanted = desired(&model, &seen).unwrap();
    let added = Step::Filter(at, other, Whole::Add(ours));
    assert_eq!(steps(super::super::diff(&seen, &wanted)), [leaf, added, gone]);
}
