//! The root, the classes and the leaves.

use std::collections::BTreeMap;

use shaper::facts::RootQdisc;
use shaper::netlink::decode;
use shaper::netlink::request::{class, dump, filter, leaf, root};
use shaper::sys::{Netlink, probe};
use shaper::tree::{Classifier, Family, LeafQdisc, Pref, Quantum, Role};
use shaper::units::{Bytes, ClassId, Minor};

use super::*;

#[test]
fn needs_root_classes_read_back_as_they_were_sent() {
    in_a_namespace(|netlink| {
        done(netlink, &[root::add(LO, mark())]);
        let mut wanted = classes();
        done(netlink, &add_classes(&wanted));
        assert_eq!(read_classes(netlink), wanted);

        let role = Role::Leaf { prio: 1, quantum: Quantum(77_777) };
        let changed = a_class(Some(ClassId::LINK), rate("41gbit"), rate("50mbit"), role);
        wanted.insert(ClassId::ours(Minor(0x11)), changed);
        done(netlink, &[class::change(LO, ClassId::ours(Minor(0x11)), &changed)]);
        assert_eq!(read_classes(netlink), wanted);

        done(netlink, &[class::delete(LO, ClassId::ours(Minor(0x12)))]);
        wanted.remove(&ClassId::ours(Minor(0x12)));
        assert_eq!(read_classes(netlink), wanted);
        assert_eq!(netlink.changes_sent(), 1 + 8 + 1 + 1);
    });
}

#[test]
fn needs_root_the_kernel_refuses_in_its_own_words() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let link = a_class(None, rate("1gbit"), rate("1gbit"), Role::Inner);
        // Linux 6.1 has no sentence for it.
        let busy = refusal(netlink, &class::delete(LO, ClassId::LINK));
        assert!(["HTB class in use (EBUSY)", "Device or resource busy (EBUSY)"].contains(&&*busy));
        let again = refusal(netlink, &class::add(LO, ClassId::LINK, &link));
        assert_eq!(again, "File exists (EEXIST)");
        let absent = refusal(netlink, &class::change(LO, ClassId::ours(Minor(0x99)), &link));
        assert_eq!(absent, "No such file or directory (ENOENT)");
        let set = rules(Family::V4, &[matching(Some("10.0.0.1/32"), None, None, None)], 0x10);
        done(netlink, &add_rules(Pref(100), Family::V4, &set));
        let protocols = [
            "Protocol mismatch for filter with specified priority (EINVAL)",
            "Filter with specified priority/protocol not found (EINVAL)",
        ];
        let other_family = refusal(netlink, &add_rules(Pref(100), Family::V6, &set)[0]);
        assert!(protocols.contains(&&*other_family), "{other_family}");
        if probe::features().expect("features").classifiers.contains(&Classifier::Cgroup) {
            done(netlink, &[Deciding::load().add(Pref(200))]);
            assert_eq!(
                refusal(netlink, &filter::add_cgroup(LO, ClassId::ROOT, Pref(200))),
                "Specified filter kind does not match existing one (EINVAL)"
            );
        }
        let number_taken = &add_rules(Pref(100), Family::V4, &set)[0];
        assert_eq!(refusal(netlink, number_taken), "No space left on device (ENOSPC)");
    });
}

#[test]
fn needs_root_a_refused_request_is_told_apart_from_its_neighbours() {
    in_a_namespace(|netlink| {
        let mut requests = small_tree();
        requests.insert(3, root::add(LO, mark()));
        let outcomes = netlink.transact(&requests).unwrap();
        let refused: Vec<_> = (0..outcomes.len()).filter(|i| outcomes[*i].is_err()).collect();
        assert_eq!(refused, [3]);
        assert_eq!(outcomes.len(), 7);
    });
}

#[test]
fn needs_root_the_root_takes_the_place_of_the_kernels_default_only() {
    in_a_namespace(|netlink| {
        let roots = |netlink: &mut Netlink| {
            let all = netlink.dump(&dump::qdiscs(), decode::qdisc).unwrap();
            let ours: Vec<_> = all.into_iter().filter(|q| q.ifindex == LO).collect();
            decode::root(&ours, None, mark())
        };
        assert_eq!(roots(netlink), RootQdisc::Kernel { kind: "noqueue".into() });
        done(netlink, &[root::add(LO, mark())]);
        assert_eq!(roots(netlink), RootQdisc::Ours);
        let taken = refusal(netlink, &root::add(LO, mark()));
        assert!(taken.ends_with("(EEXIST)"), "{taken}");
        assert!(refusal(netlink, &root::replace(LO, mark())).contains("(E"));
        let other = refusal(netlink, &root::delete(LO, ClassId::qdisc(2)));
        assert!(other.contains("(E"), "{other}");
        done(netlink, &[root::delete(LO, ClassId::ROOT)]);
        assert_eq!(roots(netlink), RootQdisc::Kernel { kind: "noqueue".into() });

        run("tc", "qdisc add dev lo root handle 7: pfifo");
        let root = roots(netlink);
        let RootQdisc::Foreign { kind, handle, r2q: None, options } = &root else {
            panic!("{root:?}")
        };
        assert_eq!((kind.as_str(), *handle), ("pfifo", ClassId::qdisc(7)));
        // What was dumped is taken back as it is.
        done(netlink, &[root::delete(LO, *handle)]);
        done(netlink, &[root::restore(LO, kind, *handle, options)]);
        assert_eq!(roots(netlink), root);
        let taken = refusal(netlink, &root::add(LO, mark()));
        assert!(taken.ends_with("(EEXIST)"), "{taken}");
        done(netlink, &[root::replace(LO, mark())]);
        assert_eq!(roots(netlink), RootQdisc::Ours);
        done(netlink, &[root::delete(LO, ClassId::ROOT)]);

        // A link with a queue has the default qdisc, one with several has mq, all with handle 0.
        for (name, queues, kinds) in
            [("i0", 1, &["pfifo_fast", "fq_codel"][..]), ("i1", 4, &["mq"][..])]
        {
            run("ip", &format!("link add {name} numtxqueues {queues} type ifb"));
            run("ip", &format!("link set {name} up"));
            let links = netlink.dump(&dump::links(), decode::link).unwrap();
            let link = links.iter().find(|link| link.name.as_str() == name).unwrap();
            let root_of = |netlink: &mut Netlink| {
                let all = netlink.dump(&dump::qdiscs(), decode::qdisc).unwrap();
                let here: Vec<_> = all.into_iter().filter(|q| q.ifindex == link.ifindex).collect();
                decode::root(&here, link.qdisc.as_deref(), mark())
            };
            let RootQdisc::Kernel { kind } = root_of(netlink) else { panic!("{name}") };
            assert!(kinds.contains(&kind.as_str()), "{kind}");
            done(netlink, &[root::add(link.ifindex, mark())]);
            assert_eq!(root_of(netlink), RootQdisc::Ours);
            done(netlink, &[root::delete(link.ifindex, ClassId::ROOT)]);
            assert_eq!(root_of(netlink), RootQdisc::Kernel { kind });
        }
    });
}

#[test]
fn needs_root_leaves_read_back_as_they_were_sent() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let mut wanted = BTreeMap::from([
            (ClassId::ours(Minor(0x10)), LeafQdisc::Bfifo { limit: Bytes(62_500) }),
            (ClassId::ours(Minor(0x11)), LeafQdisc::Pfifo { limit: 50 }),
        ]);
        let features = probe::features().expect("features");
        for qdisc in [LeafQdisc::FqCodel, LeafQdisc::Sfq, LeafQdisc::Cake] {
            if features.leaves.contains(qdisc.kind()) {
                done(netlink, &[leaf::add(LO, ClassId::ours(Minor(0x12)), &qdisc)]);
                assert_eq!(read_leaves(netlink).get(&ClassId::ours(Minor(0x12))), Some(&qdisc));
                done(
                    netlink,
                    &[leaf::delete(LO, ClassId::ours(Minor(0x12)), ClassId::qdisc(0x12))],
                );
            }
        }
        for (minor, qdisc) in &wanted {
            done(netlink, &[leaf::add(LO, *minor, qdisc)]);
        }
        assert_eq!(read_leaves(netlink), wanted);
        let longer = LeafQdisc::Bfifo { limit: Bytes(70_000) };
        wanted.insert(ClassId::ours(Minor(0x10)), longer);
        done(netlink, &[leaf::change(LO, ClassId::ours(Minor(0x10)), &longer)]);
        assert_eq!(read_leaves(netlink), wanted);
        let other_kind = refusal(netlink, &leaf::change(LO, ClassId::ours(Minor(0x11)), &longer));
        assert!(other_kind.starts_with("Invalid qdisc name"), "{other_kind}");
        let tied: BTreeMap<_, _> = netlink
            .dump(&dump::classes(LO), decode::class)
            .unwrap()
            .into_iter()
            .map(|record| (record.classid.minor().0, record.leaf))
            .collect();
        assert_eq!(tied[&0x10], ClassId::qdisc(0x10));
        assert_eq!(tied[&0x12], ClassId::NONE);
    });
}

#[test]
fn needs_root_ten_thousand_classes_go_in_and_come_back() {
    in_a_namespace(|netlink| {
        let role = Role::Leaf { prio: 0, quantum: Quantum(60_000) };
        let user = a_class(Some(ClassId::LINK), rate("1mbit"), rate("1gbit"), role);
        let top = a_class(None, rate("1gbit"), rate("1gbit"), Role::Inner);
        let mut requests = vec![root::add(LO, mark()), class::add(LO, ClassId::LINK, &top)];
        requests
            .extend((0x10..0x10 + 10_000).map(|m| class::add(LO, ClassId::ours(Minor(m)), &user)));
        let start = std::time::Instant::now();
        done(netlink, &requests);
        let added = start.elapsed();
        assert_eq!(read_classes(netlink).len(), 10_001);
        println!("10,000 classes: added in {added:?}, read in {:?}", start.elapsed() - added);
    });
}

fn read_leaves(netlink: &mut Netlink) -> BTreeMap<ClassId, LeafQdisc> {
    let all = netlink.dump(&dump::qdiscs(), decode::qdisc).unwrap();
    let below = all.into_iter().filter_map(|q| Some((q.parent?.our_class()?, q.leaf?)));
    below.collect()
}
