//! What single classes get: guarantees, bursts, quanta, leaves.

use std::collections::BTreeSet;

use super::*;
use crate::model::{BuildOptions, build};
use crate::policy;
use crate::state::{Account, Facts, Features, LinkFacts, RootQdisc, Tag};
use crate::units::Minor;

fn observation(leaves: &[&'static str]) -> Observation {
    let eth0 = LinkFacts {
        ifindex: 2,
        mtu: 1500,
        speed: "1gbit".parse().ok(),
        kind: None,
        master: None,
        lower: None,
        loopback: false,
        up: true,
        default_route_v4: Some(0),
        default_route_v6: None,
        root: RootQdisc::Kernel { kind: "fq_codel".to_string() },
    };
    let mut facts = Facts {
        links: [(LinkName::new("eth0").unwrap(), eth0)].into(),
        features: Features {
            htb: true,
            tags: BTreeSet::from([Tag::Cgroup]),
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
    let tree = state.links.values().next().unwrap().clone();
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
    let Role::Leaf { quantum, .. } = class(&found, "user/bob").role else { panic!("a leaf") };
    assert!(guarantee_is_derived(quantum));
    let Role::Leaf { quantum, .. } = class(&found, "user/ann").role else { panic!("a leaf") };
    assert!(!guarantee_is_derived(quantum));
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
fn quantum_follows_the_rate_between_one_gso_packet_and_the_kernels_limit() {
    let at = |rate: &str| quantum(rate.parse().unwrap(), "50mbit".parse().unwrap(), true);
    assert_eq!(
        (at("1mbit"), at("5mbit"), at("15mbit"), at("50mbit")),
        (60_000, 60_000, 180_000, 200_000)
    );
}

#[test]
fn a_burst_is_4_ms_of_the_rate_and_at_least_two_frames() {
    let psched = Psched::default();
    let bytes = |rate: &str| {
        let rate: Rate = rate.parse().unwrap();
        burst(rate, 1500, psched).bytes_at(rate, psched).0
    };
    assert_eq!(bytes("1gbit"), 500_000);
    assert_eq!(bytes("64kbit"), 3_036);
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
