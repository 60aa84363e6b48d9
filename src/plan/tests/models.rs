//! Random policies, as they are meant.

use super::*;

/// What a random user or account is: which group, how limited, pinned or not, on which links.
#[derive(Clone, Debug)]
struct Seed {
    present: bool,
    group: Option<usize>,
    ceil: u64,
    promised: bool,
    /// In MB.
    boost: Option<u64>,
    prio: u8,
    pin: Option<u16>,
    second_link: bool,
}

fn seed() -> impl Strategy<Value = Seed> {
    let pin = prop_oneof![4 => Just(None), 1 => (0x10..0x14_u16).prop_map(Some)];
    let group = prop_oneof![3 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    // Most users are alike, so that they can share a shard.
    let prio = prop_oneof![4 => Just(0), 1 => 0..8_u8];
    let second_link = prop_oneof![3 => Just(true), 1 => Just(false)];
    let boost = proptest::option::weighted(0.25, 1..7_u64);
    (any::<bool>(), group, 1..90_u64, any::<bool>(), boost, prio, pin, second_link).prop_map(
        |(present, group, ceil, promised, boost, prio, pin, second_link)| Seed {
            present,
            group,
            ceil,
            promised,
            boost,
            prio,
            pin,
            second_link,
        },
    )
}

/// Some rules are for the packets of users and accounts only, and so are in a program.
fn sender() -> impl Strategy<Value = Option<From>> {
    let owner = prop_oneof![
        2 => (0..5_usize).prop_map(|user| Owner::User(key(&format!("u{user}")))),
        1 => (1000..1003_u32).prop_map(Owner::Uid),
    ];
    let from = (any::<bool>(), vec(owner, 1..3)).prop_map(|(not, owners)| From { not, owners });
    proptest::option::weighted(0.1, from)
}

prop_compose! {
    pub(super) fn model()(
        two_links in any::<bool>(),
        down in any::<bool>(),
        rate in 100..1000_u64,
        groups in vec((any::<bool>(), any::<bool>()), 3),
        users in vec(seed(), 5),
        accounts in vec(seed(), 3),
        // 17 rules or more become hash tables.
        rules in prop_oneof![
            vec((0..5_usize, 1..100_u16, sender()), 0..4),
            vec((0..5_usize, 1..100_u16, sender()), 15..40),
        ],
        cgroup in any::<bool>(),
    ) -> Model {
        let first = Link { classifier: cgroup.then_some(Classifier::Cgroup), ..link("eth0", rate) };
        let second = two_links.then(|| link("eth1", 500));
        let port = first.port.link.ingress();
        let arrives = down.then(|| Link { port, ..link("eth0", rate / 2) });
        let links = Per::new([first].into_iter().chain(second).chain(arrives).collect());
        let limits = |seed: &Seed| -> Per<LinkAt, Option<Limits>> {
            let rate = match seed.promised {
                true => Asked::Promised(mbit(1)),
                false => Asked::Derived { floor: None },
            };
            let boost = seed.boost.map(|mega| Bytes(mega * 1_000_000));
            let limits = Limits { rate, ceil: mbit(seed.ceil), boost, prio: seed.prio };
            links.along(|at, _: &Link| {
                (at == LinkAt::new(0) || seed.second_link).then_some(limits)
            })
        };
        let name = |i: usize| Group::Line(key(&format!("g{i}")));
        let mut nodes = Vec::new();
        let mut standing: Vec<usize> = Vec::new();
        for (i, (present, nested)) in groups.into_iter().enumerate() {
            if present {
                let group = standing.last().filter(|_| nested).map(|parent| name(*parent));
                let limits = Limits { rate: Asked::Derived { floor: None }, ceil: mbit(90), boost: None, prio: 0 };
                nodes.push(Node {
                    owner: Owner::Group(name(i)),
                    group,
                    pin: None,
                    limits: links.along(|_, _| Some(limits)),
                    holds: Per::new(Vec::new()),
                    at: PLACE,
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
                limits: limits(seed),
                holds: Per::new(Vec::new()),
                at: PLACE,
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
                at: PLACE,
            })
            .collect();
        // Each user's line names a uid and a range, so that the maps change with the classes.
        let users = (0..5_u32).map(|user| (key(&format!("u{user}")), 7_000 + user));
        let is_there = |key: &Key| nodes.iter().any(|node| node.owner == Owner::User(key.clone()));
        let uids = users.filter(|(key, _)| is_there(key)).flat_map(|(key, uid)| {
            let first = uid * 10;
            [(uid..=uid, key.clone()), (first..=first + 6, key)]
        });
        let mut uids: Vec<_> = uids.collect();
        uids.sort_by_key(|(range, _)| *range.start());
        let matcher = Matcher { uids, ..Matcher::default() };
        let classifiers = [None].into();
        Model { links, classifiers, nodes, matcher, inner: None, rules, metered: Default::default(), valid_until: None, unfit: BTreeMap::new() }
    }
}
