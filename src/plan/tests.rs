//! Properties of plans over random policies: what must hold for every transition, without a kernel.

mod cases;
mod returns;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::classify::interpret;
use crate::desired::{Impossible, Sharding, desired_with, nothing};
use crate::facts::{Accounts, Facts, Features, Helpers, LinkFacts, Observation};
use crate::model::{
    Asked, From, LeafChoice, Limits, Link, Matcher, Model, Node, Place, Rule, Target,
};
use crate::tree::{
    Claim, Classifier, Filter, Foreign, Group, KernelState, Key, LeafQdisc, LinkName, Match,
    NetCls, Packets, ProgramRule, Senders, Tag,
};
use crate::units::{Minor, Rate};

fn mbit(n: u64) -> Rate {
    Rate::from_bits_per_second(n * 1_000_000).unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

const PLACE: Place = Place { line: 1, column: 1 };

fn link(name: &str, rate: u64) -> Link {
    Link {
        port: LinkName::new(name).unwrap().egress(),
        rate: mbit(rate),
        speed: Some(mbit(10_000)),
        default: Limits { rate: Asked::Promised(mbit(1)), ceil: mbit(rate), prio: 0 },
        classifier: None,
        leaf: LeafChoice::Auto,
        place: PLACE,
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
            leaves: BTreeSet::from(["bfifo"]),
        },
        ..Facts::default()
    }
}

fn observe(state: KernelState, quiet: BTreeSet<ClassId>) -> Observation {
    Observation { state, facts: Facts { quiet, ..facts() }, ..Observation::default() }
}

/// The state that a model means, where a few users are many.
fn desired(model: &Model, observed: &Observation) -> Result<KernelState, Impossible> {
    desired_with(model, observed, Sharding { flat: 3, full: 2, few: 1 })
}

/// The plan between two states where the kernel's own root qdiscs stand beside them.
fn diff(from: &KernelState, to: &KernelState, foreign: &[Foreign]) -> Plan {
    let foreign = foreign.to_vec();
    super::diff(&Observation { foreign, ..observe(from.clone(), BTreeSet::new()) }, to)
}

/// What a random user or account is: which group, how limited, pinned or not, on which links.
#[derive(Clone, Debug)]
struct Seed {
    present: bool,
    group: Option<usize>,
    ceil: u64,
    promised: bool,
    prio: u8,
    pin: Option<u16>,
    second_link: bool,
}

fn seed() -> impl Strategy<Value = Seed> {
    let pin = prop_oneof![4 => Just(None), 1 => (0x10..0x14_u16).prop_map(Some)];
    let group = prop_oneof![3 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    // Most are alike: those can share a shard.
    let prio = prop_oneof![4 => Just(0), 1 => 0..8_u8];
    let second_link = prop_oneof![3 => Just(true), 1 => Just(false)];
    (any::<bool>(), group, 1..90_u64, any::<bool>(), prio, pin, second_link).prop_map(
        |(present, group, ceil, promised, prio, pin, second_link)| Seed {
            present,
            group,
            ceil,
            promised,
            prio,
            pin,
            second_link,
        },
    )
}

/// Some rules are for users and accounts alone, and so in a program.
fn sender() -> impl Strategy<Value = Option<From>> {
    let owner = prop_oneof![
        2 => (0..5_usize).prop_map(|user| Owner::User(key(&format!("u{user}")))),
        1 => (1000..1003_u32).prop_map(Owner::Uid),
    ];
    let from = (any::<bool>(), vec(owner, 1..3)).prop_map(|(not, owners)| From { not, owners });
    proptest::option::weighted(0.1, from)
}

prop_compose! {
    fn model()(
        two_links in any::<bool>(),
        rate in 100..1000_u64,
        groups in vec((any::<bool>(), any::<bool>()), 3),
        users in vec(seed(), 5),
        accounts in vec(seed(), 3),
        // From 17 on they are hash tables.
        rules in prop_oneof![
            vec((0..5_usize, 1..100_u16, sender()), 0..4),
            vec((0..5_usize, 1..100_u16, sender()), 15..40),
        ],
        cgroup in any::<bool>(),
    ) -> Model {
        let mut links = vec![link("eth0", rate)];
        if two_links {
            links.push(link("eth1", 500));
        }
        links[0].classifier = cgroup.then_some(Classifier::Cgroup);
        let limits = |seed: &Seed, count: usize| -> Vec<Option<Limits>> {
            let rate = match seed.promised {
                true => Asked::Promised(mbit(1)),
                false => Asked::Derived { floor: None },
            };
            let limits = Limits { rate, ceil: mbit(seed.ceil), prio: seed.prio };
            (0..count).map(|i| (i == 0 || seed.second_link).then_some(limits)).collect()
        };
        let name = |i: usize| Group::Line(key(&format!("g{i}")));
        let mut nodes = Vec::new();
        let mut standing: Vec<usize> = Vec::new();
        for (i, (present, nested)) in groups.into_iter().enumerate() {
            if present {
                let group = standing.last().filter(|_| nested).map(|parent| name(*parent));
                let limits = Limits { rate: Asked::Derived { floor: None }, ceil: mbit(90), prio: 0 };
                nodes.push(Node {
                    owner: Owner::Group(name(i)),
                    group,
                    pin: None,
                    limits: vec![Some(limits); links.len()],
                    place: PLACE,
                });
                standing.push(i);
            }
        }
        let mut pins = BTreeSet::new();
        let mut member = |owner: Owner, seed: &Seed| {
            let pin = seed.pin.filter(|pin| pins.insert(*pin)).map(Minor);
            nodes.push(Node {
                owner,
                group: seed.group.filter(|i| standing.contains(i)).map(name),
                pin,
                limits: limits(seed, links.len()),
                place: PLACE,
            });
        };
        for (i, seed) in users.iter().enumerate().filter(|(_, seed)| seed.present) {
            member(Owner::User(key(&format!("u{i}"))), seed);
        }
        for (uid, seed) in (1000..).zip(&accounts).filter(|(_, seed)| seed.present) {
            member(Owner::Uid(uid), &Seed { pin: None, ..seed.clone() });
        }
        let rules = rules
            .into_iter()
            .zip((1..).filter_map(NonZeroU32::new))
            .map(|((user, port, from), line)| Rule {
                line,
                matches: vec![Match { dport: Some(port.into()), proto: Some(6_u8.into()), ..Match::default() }],
                packets: Packets {
                    proto: Some(vec![(6, 6)]),
                    dport: Some(vec![(port, port)]),
                    ..Packets::default()
                },
                from: from.filter(|_| !cgroup),
                to: Target::Owner(Owner::User(key(&format!("u{user}")))),
                links: None,
                place: PLACE,
            })
            .collect();
        // Each user's line names a uid and a range, so that the maps follow the classes.
        let users = (0..5_u32).map(|user| (key(&format!("u{user}")), 7_000 + user));
        let is_there = |key: &Key| nodes.iter().any(|node| node.owner == Owner::User(key.clone()));
        let uids = users.filter(|(key, _)| is_there(key)).flat_map(|(key, uid)| {
            let first = uid * 10;
            [(uid..=uid, key.clone()), (first..=first + 6, key)]
        });
        let mut uids: Vec<_> = uids.collect();
        uids.sort_by_key(|(range, _)| *range.start());
        let matcher = Matcher { uids, ..Matcher::default() };
        Model { links, nodes, matcher, rules }
    }
}

/// Runs a plan on a value, asking `check` about every prefix.
fn run(
    plan: &Plan,
    state: &KernelState,
    check: &mut dyn FnMut(&KernelState, &Step),
) -> KernelState {
    let mut state = state.clone();
    for planned in &plan.steps {
        assert_free_to_go(&state, &planned.step);
        perform(&planned.step, &mut state);
        check(&state, &planned.step);
    }
    state
}

/// HTB deletes no class that has children, or to which a rule is bound (`HTB class in use`).
fn assert_free_to_go(state: &KernelState, step: &Step) {
    let Step::Class(port, id, Change::Remove(_) | Change::Replace { .. }) = step else {
        return;
    };
    let tree = &state.trees[port];
    assert!(tree.left_tables.is_empty(), "rules in tables that are left may be bound at {step}");
    let child = tree.classes.values().any(|class| class.parent == Some(*id));
    assert!(!child, "the class has children at {step}");
    for filter in tree.filters.values() {
        let Filter::U32 { rules, .. } = filter else { continue };
        let bound = rules.rules().any(|rule| rule.to == *id);
        assert!(!bound, "a rule is bound to the class at {step}");
    }
}

/// What no prefix of a plan may break: no class without a claim (its minor could be given to
/// another), no rule that points nowhere, a default class under every root, and, where a claim
/// names a class that stood or will stand on a link, that class there, and the way to it.
fn assert_safe(state: &KernelState, before: &KernelState, after: &KernelState, step: &Step) {
    let claimed: BTreeSet<ClassId> =
        state.claims.values().filter_map(|id| id.our_class()).collect();
    let shards: BTreeSet<Shard> = claimed.iter().filter_map(|id| id.shard()).collect();
    let ours = |id: ClassId| match id.shard().or(Shard::of_class(id)) {
        None => matches!(id, ClassId::LINK | ClassId::DEFAULT | ClassId::UNSHAPED),
        Some(shard) => {
            let own = [shard.class(), shard.root(), shard.default()];
            own.contains(&id) && shards.contains(&shard)
        }
    };
    let table = state.owners.iter();
    for class in table.flat_map(|table| table.accounts.values().chain(table.ranges.values())) {
        assert!(claimed.contains(class), "{class}, which uids are in, is unclaimed after {step}");
        for (port, tree) in &state.trees {
            // A user may have no class on this link.
            let decides = |filter: &Filter| matches!(filter, Filter::Tag(Tag::Bpf(_)));
            if tree.classes.contains_key(class)
                && let Some(shard) = class.shard()
                && tree.filters.values().any(decides)
            {
                let knows =
                    |filter: &Filter| matches!(filter, Filter::Tag(it) if it.reads_shards());
                assert!(
                    tree.filters.values().any(knows),
                    "no way to {shard} on {port} after {step}"
                );
                let asks = |filter: &Filter| matches!(filter, Filter::Tag(_));
                let asked = tree.shards[&shard].values().any(asks);
                assert!(asked, "{shard} asks nobody after {step}");
            }
        }
    }
    for tree in state.trees.values() {
        let own = tree.leaves.iter().filter(|(_, leaf)| **leaf != LeafQdisc::Shard);
        let minors: Vec<Minor> = own.map(|(id, _)| id.minor()).collect();
        let handles: BTreeSet<Minor> = minors.iter().copied().collect();
        assert_eq!(handles.len(), minors.len(), "two leaves have one handle after {step}");
    }
    for port in state.trees.keys() {
        // Whatever a priority could name stands only beside what clears it.
        let guards = |state: &KernelState| {
            state.clsact.get(&port.link).is_some_and(|clsact| !clsact.filters.is_empty())
        };
        let wanted = guards(before) || !before.trees.contains_key(port);
        let stays = guards(after) || !after.trees.contains_key(port);
        assert!(guards(state) || !(wanted && stays), "nothing clears priorities after {step}");
    }
    for (port, tree) in &state.trees {
        let building = !before.trees.contains_key(port);
        for (id, class) in &tree.classes {
            assert!(ours(*id) || claimed.contains(id), "{id} unclaimed on {port} after {step}");
            let above = tree.above(*id);
            assert!(above.is_none_or(|id| tree.classes.contains_key(&id)), "orphan after {step}");
            let qdisc = class.parent.is_none_or(|parent| parent.major() == id.major());
            assert!(qdisc, "{id} hangs in another qdisc after {step}");
        }
        let default = tree.classes.contains_key(&ClassId::DEFAULT);
        assert!(default || building, "no default on {port} after {step}");
        for filter in tree.filters.values() {
            let Filter::U32 { rules, .. } = filter else { continue };
            for rule in rules.rules() {
                assert!(tree.classes.contains_key(&rule.to), "rule to nowhere after {step}");
                assert_eq!(rule.to.shard(), None, "a rule cannot lead into a shard");
            }
        }
        for (claim, classid) in &state.claims {
            let Claim::Owner(owner) = claim else { continue };
            if matches!(owner, Owner::Group(_) | Owner::Class(_)) {
                continue;
            }
            let stood_in = |state: &KernelState| {
                state.claims.get(claim).is_some_and(|id| {
                    state.trees.get(port).is_some_and(|tree| tree.classes.contains_key(id))
                })
            };
            // Whoever has a class on this link before and after has one at every moment between.
            if stood_in(before) && stood_in(after) {
                assert!(tree.classes.contains_key(classid), "{claim} lost its class after {step}");
                let is_tag = |filter: &Filter| matches!(filter, Filter::Tag(_));
                if let Some(shard) = classid.shard() {
                    let root = tree
                        .filters
                        .values()
                        .any(|f| matches!(f, Filter::Tag(tag) if tag.reads_shards()));
                    assert!(root, "{claim} is not found in {shard} after {step}");
                    let read = tree.shards[&shard].values().any(is_tag);
                    assert!(read, "{shard} does not know {claim} after {step}");
                }
                let read = tree.filters.values().any(is_tag);
                assert!(read, "nothing reads the tag on {port} after {step}");
            }
        }
    }
}

/// Where the rules send a TCP packet of `uid`'s to this port: the filters asked in their order.
fn rules_answer(state: &KernelState, at: &Port, port: u16, uid: u32) -> Option<ClassId> {
    let mut packet = vec![2; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1]);
    packet.extend(port.to_be_bytes());
    packet.extend([0; 16]);
    let class = state.owners.as_ref().and_then(|table| table.class(uid)).unwrap_or(ClassId::NONE);
    let matches = |rule: &&ProgramRule| {
        let ports = rule.packets.dport.iter().flatten();
        let is_to = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
        let sent = |from: &Senders| from.of.contains(&class) != from.not;
        ports.into_iter().any(is_to) && rule.from.as_ref().is_none_or(sent)
    };
    state.trees.get(at)?.filters.values().find_map(|filter| match filter {
        Filter::U32 { rules, .. } => interpret::classify_frame(rules, &packet, 14).0,
        Filter::Program(program) => program.rules.iter().find(matches).map(|rule| rule.to),
        _ => None,
    })
}

/// Who has the class that the uid is in.
fn whose(state: &KernelState, uid: u32) -> Option<&Claim> {
    let class = state.owners.as_ref()?.class(uid)?;
    let is_his =
        |(claim, id): &(&Claim, &ClassId)| matches!(claim, Claim::Owner(_)) && **id == class;
    state.claims.iter().find(is_his).map(|(claim, _)| claim)
}

/// Each packet meets the rules as they were or as they will be, while rules move between u32 and
/// the program and senders between classes. Not where a class is made again in place: u32 lets it
/// go first.
fn assert_rules_old_or_new(
    state: &KernelState,
    before: &KernelState,
    after: &KernelState,
    step: &Step,
) {
    let concerns = matches!(step, Step::Filter(..) | Step::Entries(_));
    let ports = before.trees.keys().filter(|port| after.trees.contains_key(*port));
    for at in ports.filter(|_| concerns) {
        for port in (1..100).step_by(5) {
            for uid in [7_000, 7_002, 0] {
                // Whoever becomes another's while the rules change meets one change before the
                // other.
                if whose(before, uid) != whose(after, uid) {
                    continue;
                }
                let answer = |state| rules_answer(state, at, port, uid);
                let (old, new, now) = (answer(before), answer(after), answer(state));
                assert!(
                    now == old || now == new,
                    "port {port} of {uid}: {now:?}, not {old:?} nor {new:?}, after {step}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn every_transition_reaches_its_goal_through_safe_states(models in vec(model(), 2..5)) {
        let mut state = KernelState::default();
        for model in &models {
            let start = state.clone();
            // A pin waits until what held its minor is retired and quiet: a few rounds.
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
                // A run's rounds are undone together.
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
        let mut killed = state.clone();
        let steps = plan.steps.len();
        let mut journal = Journal::default();
        let index = |name: &LinkName| name.as_str().bytes().map(u32::from).sum::<u32>();
        for planned in plan.steps.iter().take(cut.index(steps + 1)) {
            perform(&planned.step, &mut killed);
            journal.note(&planned.step, planned.step.link().map_or(0, index));
        }
        // Taken back, it is as before; and what others made meanwhile stays.
        let back = |now: &KernelState| journal.undone(&state, now, |name| Some(index(name)));
        prop_assert_eq!(&back(&killed), &state);
        let mut others = killed.clone();
        let stranger = Claim::Owner(Owner::Uid(4_000_000_000));
        others.claims.insert(stranger.clone(), ClassId::ours(Minor(0xdead)));
        others.trees.insert(LinkName::new("later0").unwrap().egress(), crate::tree::Tree::default());
        let back = back(&others);
        prop_assert!(back.claims.contains_key(&stranger));
        prop_assert_eq!(back.trees.len(), state.trees.len() + 1);
        // A pin that the killed run held in reserve is free one round later.
        for round in 0.. {
            let again = desired(&b, &observe(killed.clone(), BTreeSet::new())).unwrap();
            let repair = diff(&killed, &again, &[]);
            if repair.is_empty() {
                break;
            }
            prop_assert!(round < 3, "no fixed point");
            killed = run(&repair, &killed, &mut |_, _| ());
            prop_assert_eq!(&killed, &again);
        }
    }

    #[test]
    fn a_login_changes_nobody_who_was_promised_a_rate(model in model(), uid in 5000..6000_u32) {
        let before = desired(&model, &observe(KernelState::default(), BTreeSet::new())).unwrap();
        let mut with = model.clone();
        let limits = Limits { rate: Asked::Derived { floor: None }, ceil: mbit(50), prio: 0 };
        with.nodes.push(Node {
            owner: Owner::Uid(uid),
            group: None,
            pin: None,
            limits: vec![Some(limits); with.links.len()],
            place: PLACE,
        });
        let after = desired(&with, &observe(before.clone(), BTreeSet::new())).unwrap();
        let mut plan = diff(&before, &after, &[]);
        let derived = with
            .nodes
            .iter()
            .filter(|node| matches!(node.owner, Owner::Group(_)))
            .map(|node| &node.owner)
            .collect();
        let accounts = Accounts { running: BTreeSet::from([uid]), ..Accounts::default() };
        plan.mark_routine(&before, &Logins { accounts: &accounts, derived });
        prop_assert!(!plan.changes(), "{plan}");
    }
}
