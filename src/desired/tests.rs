//! The numbers of single classes: guarantees, bursts, quanta, leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::classes::GSO_PACKET;
use super::*;
use crate::classify;
use crate::facts::{Account, Facts, Features, Helpers, LinkFacts, RootQdisc};
use crate::model::{BuildOptions, build};
use crate::policy;
use crate::tree::{
    Class, Classifier, Clsact, Guarantee, LeafQdisc, LinkName, Pref, Program, Role, Side, Sockets,
    TagHelper, Tree,
};
use crate::units::{Bytes, ClassId, Minor, Shard};

fn observation(leaves: &[&'static str]) -> Observation {
    let eth0 = LinkFacts {
        speed: "1gbit".parse().ok(),
        default_route_v4: Some(0),
        root: RootQdisc::Kernel { kind: "fq_codel".to_string() },
        ..LinkFacts::ethernet(2)
    };
    let mut facts = Facts {
        links: [(LinkName::new("eth0").unwrap(), eth0)].into(),
        features: Features {
            tried: true,
            htb: true,
            classifiers: BTreeSet::from([Classifier::Cgroup]),
            helpers: Helpers::default(),
            clsact: true,
            no_net_cls: None,
            spared: None,
            leaves: leaves.iter().copied().collect(),
        },
        ..Facts::default()
    };
    for (uid, name) in [(1001, "ann"), (1002, "bob"), (1003, "carol"), (1004, "dan")] {
        facts.accounts.by_name.insert(name.to_string(), Some(uid));
        let account = Account { name: name.to_string(), gids: BTreeSet::from([uid]) };
        facts.accounts.by_uid.insert(uid, account);
    }
    Observation { facts, ..Observation::default() }
}

fn tree_on(observed: &Observation, text: &str) -> (KernelState, Tree) {
    let policy = policy::parse(text, "policies.yaml").unwrap_or_else(|report| panic!("{report}"));
    let (model, _) = build(&policy, &observed.facts, BuildOptions::default())
        .unwrap_or_else(|report| panic!("{report}"));
    let state = desired(&model, observed).unwrap();
    let tree = state.trees.values().next().unwrap().clone();
    (state, tree)
}

fn tree(text: &str) -> (KernelState, Tree) {
    tree_on(&observation(&["fq_codel", "bfifo"]), text)
}

/// The class of a claim, by its path.
fn class(found: &(KernelState, Tree), claim: &str) -> Class {
    let minor = found.0.claims[&claim.parse::<Claim>().unwrap()].our_class().unwrap();
    found.1.classes[&minor]
}

fn mbit(class: Class) -> (u64, u64) {
    (class.rate.bits_per_second() / 1_000_000, class.ceil.bits_per_second() / 1_000_000)
}

#[test]
fn written_rates_are_given_as_written() {
    let found = tree(
        "version: 1\nlinks: {eth0: 1gbit}\nusers:\n  ann: {rate: 10mbit, ceil: 200mbit}\n  bob: {rate: 5mbit}\n",
    );
    assert_eq!(mbit(class(&found, "user/ann")), (10, 200));
    assert_eq!(mbit(class(&found, "user/bob")), (5, 5), "a rate alone is the cap too");
}

#[test]
fn caps_share_what_is_not_promised_in_powers_of_two() {
    let text = "version: 1\nlinks: {eth0: {rate: 1gbit, default: {rate: 100mbit}}}\n\
                users: {ann: {rate: 100mbit}, bob: 800mbit, carol: 800mbit, dan: 50mbit}\n";
    let found = tree(text);
    // (1000 - 100 - 100) / 4: three sharers, rounded up to a power of two.
    assert_eq!(mbit(class(&found, "user/bob")), (200, 800));
    assert_eq!(mbit(class(&found, "user/dan")), (50, 50), "never above its cap");
    assert_eq!(class(&found, "user/bob").guarantee(), Guarantee::Derived);
    assert_eq!(class(&found, "user/ann").guarantee(), Guarantee::Written);
}

#[test]
fn rates_of_accounts_that_come_and_go_never_add_up_to_more_than_there_is() {
    let mut observed = observation(&["fq_codel"]);
    observed.facts.accounts.running.extend(2000..2008);
    let text = "version: 1\nlinks: {eth0: {rate: 1gbit, default: {rate: 200mbit}}}\n\
                everyone: {each: {rate: 300mbit, ceil: 500mbit}}\n";
    let found = tree_on(&observed, text);
    let given: u64 = (2000..2008).map(|uid| mbit(class(&found, &format!("uid/{uid}"))).0).sum();
    assert_eq!(given, 800);
}

#[test]
fn what_is_left_is_for_the_best_prio_and_a_worse_one_gets_a_token() {
    let bits =
        |found: &(KernelState, Tree), claim: &str| class(found, claim).rate.bits_per_second();
    let policy = |bob: &str, rest: &str| {
        tree(&format!(
            "version: 1\nlinks: {{eth0: {{rate: 1gbit, default: {{rate: 100mbit}}}}}}\n\
             users: {{ann: 100%, bob: {bob}, carol: {{ceil: 800mbit, prio: 3}}}}\n{rest}"
        ))
    };
    for bob in ["{ceil: 500mbit, prio: 7}", "{ceil: 500mbit, background: true}"] {
        let found = policy(bob, "");
        assert_eq!(bits(&found, "user/bob"), 1_000, "{bob}");
        assert_eq!(bits(&found, "user/carol"), 1_000);
        assert_eq!(mbit(class(&found, "user/ann")), (900, 1_000), "the one sharer");
        let bob = class(&found, "user/bob");
        assert!(matches!(bob.role, Role::Leaf { prio: 7, .. }));
        assert_eq!(bob.guarantee(), Guarantee::Derived, "status shows no rate that was asked for");
    }
    // A written rate is a promise at any prio.
    assert_eq!(mbit(class(&policy("{rate: 50mbit, prio: 7}", ""), "user/bob")), (50, 50));
    // Who writes a rate is served before a worse prio too.
    let one = tree(
        "version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: {rate: 10mbit, ceil: 100%}, bob: {ceil: 50%, prio: 7}}\n",
    );
    assert_eq!(bits(&one, "user/bob"), 1_000);
    // All alike share as ever, and a line alone in the background still gives way to the default
    // class.
    let alike = tree("version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: {ceil: 500mbit, prio: 1}}\n");
    assert_eq!(mbit(class(&alike, "user/ann")), (500, 500));
    let alone =
        tree("version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: {ceil: 500mbit, background: true}}\n");
    assert_eq!(bits(&alone, "user/ann"), 1_000);
}

#[test]
fn a_group_is_served_as_the_best_of_its_members() {
    let text = |bob: &str| {
        format!(
            "version: 1\nlinks: {{eth0: {{rate: 1gbit, default: {{rate: 200mbit}}}}}}\n\
             users: {{ann: 100%, bob: {bob}, carol: {{ceil: 50%, background: true}}}}\n\
             groups: {{outer: {{}}, jobs: {{users: [bob, carol], parent: outer}}}}\n"
        )
    };
    let last = tree(&text("{ceil: 50%, prio: 7}"));
    for claim in ["group/outer", "group/jobs"] {
        assert_eq!(class(&last, claim).rate.bits_per_second(), 1_000, "all of {claim} waits");
    }
    let mixed = tree(&text("50%"));
    assert_eq!(mbit(class(&mixed, "group/outer")), (400, 1_000));
    assert_eq!(mbit(class(&mixed, "user/bob")), (400, 500));
    assert_eq!(class(&mixed, "user/carol").rate.bits_per_second(), 1_000);
}

#[test]
fn accounts_in_the_background_take_no_share_from_users() {
    let mut observed = observation(&["fq_codel"]);
    observed.facts.accounts.running.extend(2000..2008);
    let text = "version: 1\nlinks: {eth0: {rate: 1gbit, default: {rate: 200mbit}}}\nusers: {ann: 100%}\n\
                everyone: {each: {ceil: 500mbit, background: true}}\n";
    let found = tree_on(&observed, text);
    assert_eq!(mbit(class(&found, "user/ann")), (800, 1_000));
    assert_eq!(class(&found, "uid/2007").rate.bits_per_second(), 1_000);
}

#[test]
fn a_group_without_a_rate_has_at_least_what_its_members_were_promised() {
    let text = "version: 1\nlinks: {eth0: {rate: 1gbit, default: {rate: 100mbit}}}\n\
                users: {ann: {rate: 300mbit}, bob: {rate: 100mbit}}\n\
                groups: {team: {users: [ann, bob], ceil: 450mbit}}\n";
    let found = tree(text);
    // The floor of 400 and a share of the 500 that are left, up to its ceil.
    assert_eq!(mbit(class(&found, "group/team")), (450, 450));
    let team = found.0.claims[&"group/team".parse::<Claim>().unwrap()].our_class();
    assert_eq!(class(&found, "user/ann").parent, team);
}

#[test]
fn the_best_leaf_that_the_kernel_has_is_taken() {
    let text = "version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: 10mbit}\n";
    let leaf = |leaves: &[&'static str]| {
        let found = tree_on(&observation(leaves), text);
        found.1.leaves[&ClassId::ours(Minor(0x10))]
    };
    assert_eq!(leaf(&["fq_codel", "sfq"]), LeafQdisc::FqCodel);
    assert_eq!(leaf(&["sfq"]), LeafQdisc::Sfq);
    // 50 ms of 10 Mbit are 62,500 bytes; one GSO packet and a little must fit.
    assert_eq!(leaf(&[]), LeafQdisc::Bfifo { limit: Bytes(68_536) });
}

#[test]
fn a_kernel_without_what_was_written_is_an_error_that_says_so() {
    let text = "version: 1\nlinks: {eth0: {rate: 1gbit, leaf: cake}}\n";
    let observed = observation(&["fq_codel"]);
    let policy = policy::parse(text, "policies.yaml").unwrap();
    let (model, _) = build(&policy, &observed.facts, BuildOptions::default()).unwrap();
    let error = desired(&model, &observed).unwrap_err();
    assert_eq!(error.to_string(), "link eth0: this kernel has no `cake` qdisc; write `leaf: auto`");
}

#[test]
fn the_default_class_keeps_its_part_and_may_use_the_rest() {
    let found = tree("version: 1\nlinks: {eth0: 1gbit}\nusers: {ann: 10mbit}\n");
    assert_eq!(mbit(found.1.classes[&ClassId::DEFAULT]), (50, 1000));
    assert_eq!(mbit(found.1.classes[&ClassId::UNSHAPED]), (1000, 1000));
    assert_eq!(found.1.classes[&ClassId::UNSHAPED].parent, None);
}

/// A policy with `count` users without a pinned number, one user with one, and one that a rule
/// names.
fn crowd(count: u32) -> String {
    let lines: String =
        (0..count).map(|n| format!("  c{n}: {{ceil: 5mbit, uids: [{}]}}\n", 10_000 + n)).collect();
    format!(
        "version: 1\nlinks: {{eth0: 1gbit}}\nusers:\n{lines}  ann: {{ceil: 5mbit, classid: \"1:20\"}}\n  bob: 5mbit\n\
         rules: [{{proto: tcp, dport: 80, to: bob}}]\n"
    )
}

fn with_bpf() -> Observation {
    let mut observed = observation(&["bfifo"]);
    observed.facts.features.classifiers.insert(Classifier::Bpf);
    observed
}

/// How many users each shard has.
fn fill(state: &KernelState) -> Vec<usize> {
    let mut shards: BTreeMap<Shard, usize> = BTreeMap::new();
    for shard in state.claims.values().filter_map(|id| id.shard()) {
        *shards.entry(shard).or_default() += 1;
    }
    shards.into_values().collect()
}

#[test]
fn beyond_a_thousand_users_are_spread_over_shards() {
    let (state, tree) = tree_on(&with_bpf(), &crowd(1_001));
    assert_eq!(fill(&state), [501, 500]);
    let of = |claim: &str| state.claims[&claim.parse().unwrap()];
    assert_eq!(of("user/ann"), ClassId::ours(Minor(0x20)), "a pin");
    assert_eq!(of("user/bob").shard(), None, "a rule's target");
    let minors: BTreeSet<Minor> = state.claims.values().map(|id| id.minor()).collect();
    assert_eq!(minors.len(), 1_003, "no number twice on the link");
    let program = |shards| {
        let (tag, sockets) = (Some(TagHelper::Task), Sockets::Mixed);
        Filter::Tag(Tag::Bpf(Program {
            shards,
            tag,
            cgroups: false,
            sockets,
            mptcp: None,
            labels: false,
        }))
    };
    assert_eq!(tree.filters[&Pref::TAG[0]], program(true));
    for (shard, filters) in &tree.shards {
        assert_eq!(filters.values().collect::<Vec<_>>(), [&program(false)]);
        let within = tree.classes.iter().filter(|(id, _)| id.shard() == Some(*shard));
        let users = within.filter(|(_, class)| class.parent == Some(shard.root()));
        let sum: u64 = users.map(|(_, class)| class.rate.bytes_per_second()).sum();
        let class = tree.classes[&shard.class()];
        assert_eq!((class.rate.bytes_per_second(), class.parent), (sum, Some(ClassId::LINK)));
        assert_eq!(class.ceil, tree.classes[&ClassId::LINK].ceil);
    }
}

#[test]
fn a_burst_in_a_shard_outlasts_the_turns_of_others() {
    let text = |users: u32, rate: &str| {
        let lines: String = (0..users)
            .map(|n| format!("  c{n}: {{rate: {rate}, ceil: 5mbit, uids: [{}]}}\n", 10_000 + n))
            .collect();
        format!("version: 1\nlinks: {{eth0: 60mbit}}\nusers:\n{lines}")
    };
    let observed = with_bpf();
    let (_, tree) = tree_on(&observed, &text(1_100, "16kbit"));
    let bytes = |class: Class| class.burst.bytes_at(class.rate, observed.facts.psched).0;
    let shard = *tree.shards.keys().next().expect("a shard");
    // 4 ms worth, what a seventh of the link earns while one packet of 64 kB is on the link, and 64
    // kB for one packet of its own.
    let class = tree.classes[&shard.class()];
    let link = tree.classes[&ClassId::LINK].rate.bytes_per_second();
    let earned = GSO_PACKET * class.rate.bytes_per_second() / link;
    let all = class.rate.bytes_in_ms(4).0 + earned + GSO_PACKET;
    assert!(bytes(class).abs_diff(all) <= 1, "{} {all}", bytes(class));
    let user = tree.classes.iter().find(|(id, class)| {
        let leaf = matches!(class.role, Role::Leaf { .. });
        leaf && id.shard() == Some(shard) && **id != shard.default()
    });
    let (_, user) = user.expect("a user");
    // 17 bytes that the user's rate earns while a packet is on the link, and 16 times as many while
    // one is in the shard.
    assert_eq!(bytes(*user), 3_036 + 17 * 17);
    // One user more changes nobody else's class.
    let (_, more) = tree_on(&observed, &text(1_102, "16kbit"));
    let same = more.classes.iter().filter(|(id, class)| tree.classes.get(id) == Some(*class));
    assert!(same.count() >= 1_100);
}

#[test]
fn who_has_a_class_keeps_it_whatever_becomes_of_the_others() {
    let mut observed = with_bpf();
    let (few, _) = tree_on(&observed, &crowd(900));
    assert_eq!(fill(&few), [0; 0]);
    observed.state = few.clone();
    let (many, _) = tree_on(&observed, &crowd(1_100));
    assert_eq!(fill(&many), [200]);
    assert!(few.claims.iter().all(|(claim, id)| many.claims[claim] == *id));
    observed.state = many.clone();
    let (more, _) = tree_on(&observed, &crowd(1_901));
    assert_eq!(fill(&more), [501, 500], "a second one was needed");
    assert!(many.claims.iter().all(|(claim, id)| more.claims[claim] == *id));
    // With fewer users again, those in shards stay there.
    observed.state = more.clone();
    let (fewer, _) = tree_on(&observed, &crowd(950));
    let stay = fewer.claims.iter().filter(|(claim, _)| matches!(claim, Claim::Owner(_)));
    assert!(stay.clone().all(|(claim, id)| more.claims[claim] == *id));
    assert_eq!(stay.count(), 952);
}

#[test]
fn without_ebpf_all_stay_in_one_qdisc() {
    let (state, tree) = tree_on(&observation(&["bfifo"]), &crowd(1_001));
    assert_eq!((fill(&state), tree.shards.len()), (vec![], 0));
    let cgroup = crowd(1_001).replace("eth0: 1gbit", "eth0: {rate: 1gbit, classifier: cgroup}");
    assert_eq!(fill(&tree_on(&with_bpf(), &cgroup).0), [0; 0], "a link where it is not wanted");
}

#[test]
fn a_packet_meets_few_of_a_thousand_ranges() {
    let ranges: String = (0..1_000)
        .map(|n| format!("  - {{proto: udp, dport: {}-{}, to: ann}}\n", n * 64 + 5, n * 64 + 51))
        .collect();
    let text =
        format!("version: 1\nlinks: {{eth0: 1gbit}}\nusers: {{ann: 5mbit}}\nrules:\n{ranges}");
    let (_, tree) = tree(&text);
    let Some(Filter::U32 { rules, .. }) = tree.filters.get(&Pref::RULES_V4[0]) else {
        panic!("no rules: {:?}", tree.filters.keys())
    };
    let parts = rules.rules().map(|rule| &rule.keys).collect::<BTreeSet<_>>().len();
    let nodes: usize =
        rules.tables.values().flat_map(|table| table.buckets.values()).map(Vec::len).sum();
    println!("{parts} parts of ranges are {nodes} nodes in {} tables", rules.tables.len());
    assert!(nodes <= 3 * parts, "{parts} parts of ranges are {nodes} nodes");
    for port in (0..=u16::MAX).step_by(7) {
        let mut frame = vec![2; 12];
        frame.extend([
            0x08, 0, 0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0, 7]);
        frame.extend(port.to_be_bytes());
        frame.extend([0; 8]);
        let (class, met) = classify::interpret::classify_frame(rules, &frame, 14);
        let within = port < 64_000 && (5..=51).contains(&(port % 64));
        assert_eq!(class.is_some(), within, "port {port}");
        assert!(met <= 40, "port {port} meets {met}");
    }
}

#[test]
fn a_program_at_clsact_takes_a_free_pref() {
    let mut observed = observation(&["bfifo"]);
    let eth0 = LinkName::new("eth0").unwrap();
    let at = |observed: &Observation| -> Vec<u16> {
        let (state, _) = tree_on(observed, "version: 1\nlinks: {eth0: 1gbit}\n");
        let clsact = state.clsact.get(&eth0);
        let filters = clsact.into_iter().flat_map(|clsact| &clsact.egress.filters);
        filters
            .map(|(pref, filter)| {
                assert_eq!(*filter, Filter::ClearPriority(Sockets::Mixed));
                pref.0
            })
            .collect()
    };
    assert_eq!(at(&observed), [1]);
    let stands = |pref: u16, sockets, foreign: &[u16]| {
        let filters = [(Pref(pref), Filter::ClearPriority(sockets))].into();
        let foreign = foreign.iter().copied().map(Pref).collect();
        Clsact { egress: Side { filters, foreign }, ..Clsact::default() }
    };
    for (standing, wanted) in [
        (stands(2, Sockets::Mixed, &[]), &[2][..]),
        (stands(1, Sockets::Cookie(1), &[]), &[2]),
        (stands(1, Sockets::Cookie(1), &[2]), &[1]),
        (stands(9, Sockets::Mixed, &[1]), &[2]),
        (stands(9, Sockets::Mixed, &[1, 2]), &[]),
    ] {
        observed.state.clsact.insert(eth0.clone(), standing.clone());
        assert_eq!(at(&observed), wanted, "{standing:?}");
    }
    observed.state.clsact.clear();
    observed.ingress.insert(eth0.clone());
    assert_eq!(at(&observed), [0; 0]);
    observed.ingress.clear();
    observed.facts.own_sockets_only = true;
    assert_eq!(at(&observed), [0; 0], "no such driver");
}
