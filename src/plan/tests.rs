//! Properties of plans over random policies: what must hold for every transition, without a kernel.

mod cases;
mod kept;
mod models;
mod returns;
mod safe;
mod strange;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::classify::interpret;
use crate::desired::{Impossible, Sharding, desired_with, nothing};
use crate::facts::{Accounts, Facts, Features, Helpers, LinkFacts, Observation};
use crate::model::{
    Asked, From, Holds, LeafChoice, Limits, Link, LinkAt, Matcher, Model, Node, Per, Position,
    Rule, Span, Target,
};
use crate::tree::{
    Claim, Classifier, Filter, Foreign, Group, KernelState, Key, LeafQdisc, LinkName, Match,
    NetCls, Packets, ProgramRule, Senders, Strange, Tag,
};
use crate::units::{Bytes, Minor, Rate};
use models::model;
use safe::{assert_free_to_go, assert_rules_old_or_new, assert_safe};

/// A link with one user, pinned to 1:10.
fn bob() -> Model {
    let node = Node {
        owner: Owner::User(key("bob")),
        group: None,
        pin: Some(Minor(0x10)),
        limits: Per::new(vec![Some(Limits {
            rate: Asked::Promised(mbit(1)),
            ceil: mbit(5),
            boost: None,
            prio: 0,
        })]),
        holds: Per::new(Vec::new()),
        at: PLACE,
    };
    let (links, matcher) = (Per::new(vec![link("eth0", 100)]), Matcher::default());
    Model {
        links,
        classifiers: [None].into(),
        nodes: vec![node],
        matcher,
        inner: None,
        rules: Vec::new(),
        metered: Default::default(),
        valid_until: None,
        unfit: BTreeMap::new(),
    }
}

fn mbit(n: u64) -> Rate {
    Rate::from_bits_per_second(n * 1_000_000).unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

const PLACE: Span = Span::START;

fn link(name: &str, rate: u64) -> Link {
    Link {
        port: LinkName::new(name).unwrap().egress(),
        rate: mbit(rate),
        holds: Holds::default(),
        speed: Some(mbit(10_000)),
        default: Limits { rate: Asked::Promised(mbit(1)), ceil: mbit(rate), boost: None, prio: 0 },
        classifier: None,
        bypass_firewall: false,
        leaf: LeafChoice::Auto,
        at: PLACE,
    }
}

fn facts() -> Facts {
    let facts = |ifindex| LinkFacts { speed: Some(mbit(10_000)), ..LinkFacts::ethernet(ifindex) };
    Facts {
        links: [("eth0", 2), ("eth1", 3)]
            .into_iter()
            .map(|(name, index)| (LinkName::new(name).unwrap(), facts(index)))
            .collect(),
        features: Features {
            tried: true,
            htb: true,
            classifiers: BTreeSet::from([Classifier::Bpf, Classifier::Cgroup]),
            helpers: Helpers::default(),
            clsact: true,
            no_net_cls: None,
            spared: None,
            leaves: BTreeSet::from(["bfifo"]),
        },
        down: Some(true),
        ..Facts::default()
    }
}

fn observe(state: KernelState, quiet: BTreeSet<ClassId>) -> Observation {
    Observation { state, facts: Facts { quiet, ..facts() }, ..Observation::default() }
}

/// The desired state of a model, with shards from a few users on.
fn desired(model: &Model, observed: &Observation) -> Result<KernelState, Impossible> {
    desired_with(model, observed, Sharding { flat: 3, full: 2, few: 1 })
}

/// The plan between two states on links that otherwise have the kernel's own root qdisc.
fn diff(from: &KernelState, to: &KernelState, foreign: &[Foreign]) -> Plan {
    let foreign = foreign.to_vec();
    super::diff(&Observation { foreign, ..observe(from.clone(), BTreeSet::new()) }, to)
}

/// Runs a plan on a value, asking `check` about every prefix.
fn run(
    plan: &Plan,
    state: &KernelState,
    check: &mut dyn FnMut(&KernelState, &Step),
) -> KernelState {
    run_from(plan, &observe(state.clone(), BTreeSet::new()), check).state
}

/// The same where more was seen than a state. Afterwards nothing is strange but what somebody put
/// below a class that is retired.
fn run_from(
    plan: &Plan,
    seen: &Observation,
    check: &mut dyn FnMut(&KernelState, &Step),
) -> Observation {
    let mut seen = seen.clone();
    for planned in &plan.steps {
        assert_free_to_go(&seen, &planned.step);
        perform(&planned.step, &mut seen);
        check(&seen.state, &planned.step);
    }
    let retired = |class: &ClassId| {
        let is_retired =
            |(claim, id): (&Claim, &ClassId)| matches!(claim, Claim::Retired(..)) && id == class;
        seen.state.claims.iter().any(is_retired)
    };
    for strange in seen.strange.values_mut() {
        strange.leaves.retain(|class, _| !retired(class));
    }
    assert!(seen.is_plain(), "left: {:?}", seen.strange);
    seen
}

/// Without ports at which nothing is strange.
fn plain(mut strange: BTreeMap<Port, Strange>) -> BTreeMap<Port, Strange> {
    strange.retain(|_, strange| !strange.is_empty());
    strange
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn every_transition_reaches_its_goal_through_safe_states(models in vec(model(), 2..5)) {
        let mut state = KernelState::default();
        for model in &models {
            let start = state.clone();
            // A pinned owner has to wait until the class with its minor is retired and quiet, which
            // takes a few rounds.
            for round in 0.. {
                let retired = state.claims.iter().filter_map(|(claim, classid)| match claim {
                    Claim::Retired(..) if round > 0 => Some(*classid),
                    _ => None,
                });
                let observed = observe(state.clone(), retired.collect());
                let wanted = desired(model, &observed).unwrap();
                let plan = diff(&state, &wanted, &[]);
                let lets_go = plan.steps.iter().any(|planned| match planned.step {
                    Step::Class(.., Change::Replace { .. }) => true,
                    Step::Class(.., Change::Remove(_)) => planned.phase == Phase::Build,
                    _ => false,
                });
                let after = run(&plan, &state, &mut |now, step| {
                    assert_safe(now, &state, &wanted, step);
                    if !lets_go {
                        assert_rules_old_or_new(now, &state, &wanted, step);
                    }
                });
                prop_assert_eq!(&after, &wanted);
                prop_assert!(diff(&after, &wanted, &[]).is_empty());
                let undo = diff(&after, &state, &[]);
                prop_assert_eq!(&run(&undo, &after, &mut |_, _| ()), &state);
                let done = state == after;
                state = after;
                // All rounds of a run are undone together.
                let undo = diff(&state, &start, &[]);
                prop_assert_eq!(&run(&undo, &state, &mut |_, _| ()), &start);
                if done && round > 0 {
                    break;
                }
                prop_assert!(round < 6, "no fixed point");
            }
            let pins = model.nodes.iter().filter_map(|node| Some((&node.owner, node.pin?)));
            for (owner, pin) in pins {
                let classid = state.claims[&Claim::Owner(owner.clone())];
                prop_assert_eq!(classid, ClassId::ours(pin), "{} is not at its pin", owner);
            }
        }
        let plan = diff(&state, &nothing(&observe(state.clone(), BTreeSet::new())), &[]);
        let after = run(&plan, &state, &mut |_, _| ());
        prop_assert_eq!(after, KernelState::default());
    }

    #[test]
    fn killed_after_any_step_the_next_apply_converges(a in model(), b in model(), cut in any::<prop::sample::Index>()) {
        let none = KernelState::default();
        let state = desired(&a, &observe(none, BTreeSet::new())).unwrap();
        let wanted = desired(&b, &observe(state.clone(), BTreeSet::new())).unwrap();
        let plan = diff(&state, &wanted, &[]);
        let mut killed = observe(state.clone(), BTreeSet::new());
        let steps = plan.steps.len();
        let mut journal = Journal::default();
        let index = |name: &LinkName| name.as_str().bytes().map(u32::from).sum::<u32>();
        for planned in plan.steps.iter().take(cut.index(steps + 1)) {
            perform(&planned.step, &mut killed);
            journal.note(&planned.step, planned.step.link().map_or(0, index));
        }
        // Undone, the state is as before the run, and what others made meanwhile stays.
        let back = |now: &KernelState| journal.undone(&state, now, |name| Some(index(name)));
        prop_assert_eq!(&back(&killed.state), &state);
        // What is left of it where nothing of the state differs goes as well.
        let strange = journal.strange(&killed.strange, |name| Some(index(name)));
        let named = strange.values().all(|it| it.leaves.is_empty() && it.filters.is_empty());
        prop_assert!(named, "a run makes nothing strange but tables: {strange:?}");
        prop_assert_eq!(&strange, &plain(killed.strange.clone()));
        let mut others = killed.state.clone();
        let stranger = Claim::Owner(Owner::Uid(4_000_000_000));
        others.claims.insert(stranger.clone(), ClassId::ours(Minor(0xdead)));
        others.trees.insert(LinkName::new("later0").unwrap().egress(), crate::tree::Tree::default());
        let back = back(&others);
        prop_assert!(back.claims.contains_key(&stranger));
        prop_assert_eq!(back.trees.len(), state.trees.len() + 1);
        // A minor that a retired claim of the killed run still has is free one round later.
        for round in 0.. {
            let again = desired(&b, &killed).unwrap();
            let repair = super::diff(&killed, &again);
            if repair.is_empty() {
                break;
            }
            prop_assert!(round < 3, "no fixed point");
            killed = run_from(&repair, &killed, &mut |_, _| ());
            prop_assert_eq!(&killed.state, &again);
        }
        prop_assert!(killed.is_plain(), "left: {:?}", killed.strange);
    }

    #[test]
    fn a_login_changes_nobody_who_was_promised_a_rate(model in model(), uid in 5000..6000_u32) {
        let before = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
        let mut with = model.clone();
        let limits = Limits { rate: Asked::Derived { floor: None }, ceil: mbit(50), boost: None, prio: 0 };
        with.nodes.push(Node {
            owner: Owner::Uid(uid),
            group: None,
            pin: None,
            limits: with.links.along(|_, _| Some(limits)),
            holds: Per::new(Vec::new()),
            at: PLACE,
        });
        let after = desired(&with, &observe(before.clone(), BTreeSet::new())).unwrap();
        let mut plan = diff(&before, &after, &[]);
        let groups = || with.nodes.iter().map(|node| &node.owner);
        let groups = || groups().filter(|owner| matches!(owner, Owner::Group(_)));
        let ports = with.links.iter().map(|link| &link.port);
        let derived = ports.flat_map(|port| groups().map(move |owner| (port, owner))).collect();
        let accounts = Accounts { running: BTreeSet::from([uid]), ..Accounts::default() };
        let logins = Logins { accounts: &accounts, derived, unit_cgroups: None, pinned_cgroups: &Default::default() };
        plan.mark_routine(&before, &logins);
        prop_assert!(!plan.changes(), "{plan}");
    }
}
