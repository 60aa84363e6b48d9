//! When the kernel is tried, and what counts beside what the trial finds.

use std::convert::Infallible;

use super::*;
use crate::facts::NoNetCls;
use crate::tree::{
    Clsact, LeafQdisc, MptcpLayout, NamespaceLayout, Program, Side, Sockets, Strange, Tag,
};

/// A policy in force on eth0, whose classes have `fq_codel` leaves and whose packets an eBPF
/// program decides.
fn standing() -> Observation {
    shaped(&intent("links: {eth0: 100mbit}\nusers: {ann: 10mbit}\n"), &[])
}

fn filters(seen: &mut Observation) -> &mut BTreeMap<Pref, Filter> {
    &mut seen.state.trees.get_mut(&name("eth0").egress()).unwrap().filters
}

/// Replaces the filter that decides whose a packet is.
fn decide_by(seen: &mut Observation, tag: Tag) {
    filters(seen).values_mut().filter(|it| matches!(it, Filter::Tag(_))).for_each(|it| {
        *it = Filter::Tag(tag);
    });
}

/// The result where the trial finds nothing, and what the trial was told; `None`: nothing was
/// tried.
fn tried(seen: &Observation) -> (Features, Option<Option<Helpers>>) {
    let mut told = None;
    let features = Evidence::of(seen).or_tried(|known| {
        told = Some(known);
        Ok::<_, Infallible>(Features { tried: true, ..Features::default() })
    });
    let Ok(features) = features;
    (features, told)
}

#[test]
fn the_best_that_stands_is_believed_untried() {
    let (features, told) = tried(&standing());
    assert_eq!(told, None);
    assert!(!features.tried && features.htb);
    assert_eq!(features.classifiers, [Classifier::Bpf, Classifier::Uid].into());
    assert!(features.leaves.contains("fq_codel") && features.helpers.socket_tag);
}

#[test]
fn whatever_lesser_stands_leaves_the_rest_to_be_tried_and_counts_beside_it() {
    let nothing = host();
    let mut by_tag_alone = standing();
    decide_by(&mut by_tag_alone, Tag::Cgroup);
    let mut plain_leaves = standing();
    let tree = plain_leaves.state.trees.get_mut(&name("eth0").egress()).unwrap();
    tree.leaves.values_mut().for_each(|leaf| *leaf = LeafQdisc::Sfq);
    let mut unguarded = standing();
    unguarded.facts.own_sockets_only = false;
    for (case, seen) in [
        ("nothing", &nothing),
        ("cls_cgroup", &by_tag_alone),
        ("sfq", &plain_leaves),
        ("no clsact where a macvlan may come", &unguarded),
    ] {
        let (features, told) = tried(seen);
        assert!(told.is_some() && features.tried, "{case}");
        assert_eq!(features.htb, !seen.state.trees.is_empty(), "{case}");
    }
    assert_eq!(tried(&by_tag_alone).0.classifiers, [Classifier::Cgroup].into());
    assert_eq!(tried(&plain_leaves).0.leaves, ["sfq"].into());
    // With a filter of ours at clsact that is the best, too, where no program can tell whose a
    // socket is.
    let Some(Filter::Tag(Tag::Bpf(program))) =
        filters(&mut unguarded).values().find(|it| matches!(it, Filter::Tag(_))).cloned()
    else {
        panic!("no program decides");
    };
    decide_by(&mut unguarded, Tag::Bpf(Program { sockets: Sockets::Mixed, ..program }));
    let guard = [(Pref::PRIORITY[0], Filter::ClearPriority(Sockets::Mixed))];
    let egress = Side { filters: guard.into(), ..Side::default() };
    let clsact = Clsact { egress, ..Clsact::default() };
    unguarded.state.clsact.insert(name("eth0"), clsact);
    let (features, told) = tried(&unguarded);
    assert!(told.is_none() && features.clsact);
}

#[test]
fn a_program_without_a_tag_is_the_best_only_where_there_are_no_tags() {
    let mut seen = standing();
    let Some(Filter::Tag(Tag::Bpf(program))) =
        filters(&mut seen).values().find(|it| matches!(it, Filter::Tag(_))).cloned()
    else {
        panic!("no program decides");
    };
    let untagged = Program { tag: None, cgroups: true, ..program };
    decide_by(&mut seen, Tag::Bpf(untagged));
    let (features, told) = tried(&seen);
    assert!(told.is_some());
    assert_eq!(features.classifiers, [Classifier::Uid].into());
    seen.facts.features.no_net_cls = Some(NoNetCls::Forbidden);
    let (features, told) = tried(&seen);
    assert_eq!(told, None);
    assert_eq!(features.no_net_cls, Some(NoNetCls::Forbidden));
    assert!(features.helpers.ancestor_cgroup);
    // An older version's, which asked for no cgroup: whether one can ask is not known.
    decide_by(&mut seen, Tag::Bpf(Program { cgroups: false, ..untagged }));
    assert!(tried(&seen).1.is_some());
}

#[test]
fn a_leaf_that_is_not_ours_shows_nothing() {
    let mut seen = standing();
    let tree = seen.state.trees.get_mut(&name("eth0").egress()).unwrap();
    let handle = ClassId(0x8001_0000);
    let leaves = std::mem::take(&mut tree.leaves).into_keys().map(|id| (id, handle)).collect();
    let strange = Strange { leaves, ..Strange::default() };
    seen.strange.insert(name("eth0").egress(), strange);
    let (features, told) = tried(&seen);
    assert!(told.is_some() && features.leaves.is_empty());
}

#[test]
fn a_program_that_asks_all_that_one_can_ask_spares_that_trial() {
    let layout = MptcpLayout { owner: 8, tag: 16 };
    let mut seen = standing();
    let Some(Filter::Tag(Tag::Bpf(program))) =
        filters(&mut seen).values().find(|it| matches!(it, Filter::Tag(_))).cloned()
    else {
        panic!("no program decides");
    };
    let all = Program { sockets: Sockets::Cookie(1), mptcp: Some(layout), ..program };
    // Another program than the standing one is needed, so the kernel must be tried.
    seen.facts.own_sockets_only = false;
    for (program, is_told) in [(program, false), (all, true)] {
        decide_by(&mut seen, Tag::Bpf(program));
        let (features, told) = tried(&seen);
        assert_eq!(told.map(|known| known.is_some()), Some(is_told));
        assert_eq!(features.helpers.mptcp, program.mptcp);
    }
    // Of those that stand where all sockets were ours none shows whether one can tell.
    let layout = NamespaceLayout { namespace: 48, inode: 136 };
    for (sockets, is_tried, namespace) in [
        (Sockets::All, true, None),
        (Sockets::Mixed, false, None),
        (Sockets::Inode(7, layout), false, Some(layout)),
    ] {
        let mut seen = seen.clone();
        let guard = [(Pref::PRIORITY[0], Filter::ClearPriority(sockets))];
        let egress = Side { filters: guard.into(), ..Side::default() };
        let clsact = Clsact { egress, ..Clsact::default() };
        seen.state.clsact.insert(name("eth0"), clsact);
        decide_by(&mut seen, Tag::Bpf(Program { sockets, ..program }));
        let (features, told) = tried(&seen);
        assert_eq!((told.is_some(), features.helpers.namespace), (is_tried, namespace));
    }
    // A process that may not read the kernel's values loads no program that does.
    seen.facts.may_not_read_kernel = true;
    let (features, told) = tried(&seen);
    assert_eq!((told, features.helpers.mptcp), (Some(None), None));
}
