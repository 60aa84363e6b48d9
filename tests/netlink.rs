//! The kernel's side of `netlink` and `sys`: every kind of message sent to a real kernel and read
//! back, held against `tc` and an independent decoder. NEEDS ROOT: each test makes a network
//! namespace of its own on its own thread, and touches nothing outside it.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use shaper::netlink::request::{class, dump, filter, leaf, root};
use shaper::netlink::{Request, assemble, compile, decode};
use shaper::state::{
    Class, Family, Features, Filter, LeafQdisc, LinkName, Mark, Match, Pref, Role, RootQdisc, Tag,
    U32Rule,
};
use shaper::sys::{Netlink, bpf, ethtool, netns, probe};
use shaper::units::{Bytes, ClassId, Minor, Psched, Rate, Ticks};

const LO: u32 = 1;

/// A network namespace with `lo` up, and a socket in it.
fn in_a_namespace(test: impl FnOnce(&mut Netlink) + Send) {
    netns::private(|| {
        run("ip", "link set lo up");
        test(&mut Netlink::open().unwrap());
    })
    .expect("needs root: unshare(CLONE_NEWNET)");
}

/// Runs a program in this thread's namespace; its standard output.
fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn mark() -> Mark {
    Mark::for_instance("test")
}

fn done(netlink: &mut Netlink, requests: &[Request]) {
    let outcomes = netlink.transact(requests).unwrap();
    assert_eq!(outcomes.len(), requests.len());
    for outcome in outcomes {
        assert_eq!(outcome, Ok(None));
    }
}

fn refusal(netlink: &mut Netlink, request: &Request) -> String {
    netlink.change(request).unwrap().unwrap_err().to_string()
}

fn a_class(parent: Option<Minor>, rate: Rate, ceil: Rate, role: Role) -> Class {
    let ticks = |rate: Rate| Ticks::for_bytes(rate.bytes_in_ms(1), rate, Psched::default());
    Class { parent, rate, ceil, burst: ticks(rate), cburst: ticks(ceil), role }
}

/// Link, a group, an empty group, users (one beyond 32 bits), default, unshaped.
fn classes() -> BTreeMap<Minor, Class> {
    let leaf = |prio, quantum| Role::Leaf { prio, quantum };
    let (group, empty) = (Minor(0xf000), Minor(0xf001));
    let link = Some(Minor::LINK);
    BTreeMap::from([
        (Minor::LINK, a_class(None, rate("100gbit"), rate("100gbit"), Role::Inner)),
        (group, a_class(link, rate("1gbit"), rate("2gbit"), Role::Inner)),
        (empty, a_class(link, rate("8mbit"), rate("9mbit"), Role::Inner)),
        (Minor(0x10), a_class(Some(group), rate("10mbit"), rate("1gbit"), leaf(3, 61_234))),
        (Minor(0x11), a_class(link, rate("40gbit"), rate("100gbit"), leaf(7, 200_000))),
        (Minor(0x12), a_class(link, rate("8bit"), rate("999kbit"), leaf(0, 60_000))),
        (Minor::DEFAULT, a_class(link, rate("5gbit"), rate("100gbit"), leaf(0, 60_000))),
        (Minor::UNSHAPED, a_class(None, rate("100gbit"), rate("100gbit"), leaf(0, 60_000))),
    ])
}

/// Parents before children.
fn add_classes(classes: &BTreeMap<Minor, Class>) -> Vec<Request> {
    let depth = |class: &Class| match class.parent {
        None => 0,
        Some(Minor::LINK) => 1,
        Some(_) => 2,
    };
    let mut order: Vec<_> = classes.iter().collect();
    order.sort_by_key(|(_, class)| depth(class));
    order.into_iter().map(|(minor, value)| class::add(LO, *minor, value)).collect()
}

fn read_classes(netlink: &mut Netlink) -> BTreeMap<Minor, Class> {
    let records = netlink.dump(&dump::classes(LO), decode::class).unwrap();
    records.into_iter().map(|record| (record.classid.minor(), record.class)).collect()
}

fn read_filters(netlink: &mut Netlink) -> BTreeMap<Pref, Filter> {
    let records = netlink.dump(&dump::filters(LO, ClassId::ROOT), decode::filter).unwrap();
    assemble::filters(records)
}

fn rules(family: Family, matches: &[Match], minor: u16) -> Vec<U32Rule> {
    compile::compile(family, matches, ClassId::ours(Minor(minor)))
}

fn add_rules(pref: Pref, family: Family, set: &[U32Rule]) -> Vec<Request> {
    filter::add_rules(LO, pref, family, set).unwrap()
}

fn matching(src: Option<&str>, dst: Option<&str>, sport: Option<u16>, dport: Option<u16>) -> Match {
    let net = |text: &str| text.parse().unwrap();
    Match { src: src.map(net), dst: dst.map(net), sport, dport, proto: None }
}

/// The first requests of every test: root, 1:1, and two users.
fn small_tree() -> Vec<Request> {
    let leaf = Role::Leaf { prio: 0, quantum: 60_000 };
    let user = a_class(Some(Minor::LINK), rate("100mbit"), rate("1gbit"), leaf);
    vec![
        root::add(LO, mark()),
        class::add(LO, Minor::LINK, &a_class(None, rate("1gbit"), rate("1gbit"), Role::Inner)),
        class::add(LO, Minor(0x10), &user),
        class::add(LO, Minor(0x11), &user),
        class::add(LO, Minor(0x12), &user),
        class::add(LO, Minor::DEFAULT, &user),
    ]
}

#[test]
fn needs_root_classes_read_back_as_they_were_sent() {
    in_a_namespace(|netlink| {
        done(netlink, &[root::add(LO, mark())]);
        let mut wanted = classes();
        done(netlink, &add_classes(&wanted));
        assert_eq!(read_classes(netlink), wanted);

        let role = Role::Leaf { prio: 1, quantum: 77_777 };
        let changed = a_class(Some(Minor::LINK), rate("41gbit"), rate("50mbit"), role);
        wanted.insert(Minor(0x11), changed);
        done(netlink, &[class::change(LO, Minor(0x11), &changed)]);
        assert_eq!(read_classes(netlink), wanted);

        done(netlink, &[class::delete(LO, Minor(0x12))]);
        wanted.remove(&Minor(0x12));
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
        let busy = refusal(netlink, &class::delete(LO, Minor::LINK));
        assert!(["HTB class in use (EBUSY)", "Device or resource busy (EBUSY)"].contains(&&*busy));
        let again = refusal(netlink, &class::add(LO, Minor::LINK, &link));
        assert_eq!(again, "File exists (EEXIST)");
        let absent = refusal(netlink, &class::change(LO, Minor(0x99), &link));
        assert_eq!(absent, "No such file or directory (ENOENT)");
        let set = rules(Family::V4, &[matching(Some("10.0.0.1/32"), None, None, None)], 0x10);
        done(netlink, &add_rules(Pref(100), Family::V4, &set));
        let program = bpf::load_tag().unwrap();
        assert_eq!(
            refusal(netlink, &filter::add_bpf(LO, Pref(100), program.as_fd())),
            "Protocol mismatch for filter with specified priority (EINVAL)"
        );
        let clash = &add_rules(Pref(100), Family::V6, &set)[0];
        assert_eq!(
            refusal(netlink, clash),
            "Protocol mismatch for filter with specified priority (EINVAL)"
        );
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
        let foreign =
            RootQdisc::Foreign { kind: "pfifo".into(), handle: ClassId::qdisc(7), r2q: None };
        assert_eq!(roots(netlink), foreign);
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
            (Minor(0x10), LeafQdisc::Bfifo { limit: Bytes(62_500) }),
            (Minor(0x11), LeafQdisc::Pfifo { limit: 50 }),
        ]);
        let features = probe::features();
        for qdisc in [LeafQdisc::FqCodel, LeafQdisc::Sfq, LeafQdisc::Cake] {
            if features.leaves.contains(qdisc.kind()) {
                done(netlink, &[leaf::add(LO, Minor(0x12), &qdisc)]);
                assert_eq!(read_leaves(netlink).get(&Minor(0x12)), Some(&qdisc));
                done(netlink, &[leaf::delete(LO, Minor(0x12), ClassId::qdisc(0x12))]);
            }
        }
        for (minor, qdisc) in &wanted {
            done(netlink, &[leaf::add(LO, *minor, qdisc)]);
        }
        assert_eq!(read_leaves(netlink), wanted);
        let longer = LeafQdisc::Bfifo { limit: Bytes(70_000) };
        wanted.insert(Minor(0x10), longer);
        done(netlink, &[leaf::change(LO, Minor(0x10), &longer)]);
        assert_eq!(read_leaves(netlink), wanted);
        let other_kind = refusal(netlink, &leaf::change(LO, Minor(0x11), &longer));
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

fn read_leaves(netlink: &mut Netlink) -> BTreeMap<Minor, LeafQdisc> {
    let all = netlink.dump(&dump::qdiscs(), decode::qdisc).unwrap();
    let below = all.into_iter().filter_map(|q| Some((q.parent?.our_minor()?, q.leaf?)));
    below.collect()
}

#[test]
fn needs_root_filters_read_back_in_the_order_of_the_file_at_two_prefs() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let v4 = |minor| {
            let matches: Vec<_> = (1..=300_u16)
                .map(|port| matching(Some("10.0.0.0/8"), None, None, Some(port)))
                .collect();
            Filter::U32 { family: Family::V4, rules: rules(Family::V4, &matches, minor) }
        };
        let net = "fd00:1::/64";
        let six = [
            matching(None, Some(net), None, Some(111)),
            matching(Some("fd00::1/128"), Some(net), Some(1), Some(2)),
            matching(None, None, None, None),
        ];
        let v6 = Filter::U32 { family: Family::V6, rules: rules(Family::V6, &six, 0x10) };
        let program = bpf::load_tag().unwrap();
        let add = |netlink: &mut Netlink, pref: Pref, filter: &Filter| match filter {
            Filter::U32 { family, rules } => done(netlink, &add_rules(pref, *family, rules)),
            Filter::Tag(Tag::Cgroup) => done(netlink, &[filter::add_cgroup(LO, pref)]),
            _ => done(netlink, &[filter::add_bpf(LO, pref, program.as_fd())]),
        };
        let mut wanted = BTreeMap::from([
            (Pref::RULES_V4[0], v4(0x10)),
            (Pref::RULES_V6[1], v6),
            (Pref::TAG[1], Filter::Tag(Tag::Bpf)),
        ]);
        if probe::features().tags.contains(&Tag::Cgroup) {
            wanted.insert(Pref::TAG[0], Filter::Tag(Tag::Cgroup));
        }
        for (pref, filter) in &wanted {
            add(netlink, *pref, filter);
        }
        assert_eq!(read_filters(netlink), wanted);

        // Swapped to the other pref and back, several times: the tables' numbers go round.
        for round in 0..4_usize {
            let (old, new) = (Pref::RULES_V4[round % 2], Pref::RULES_V4[(round + 1) % 2]);
            let next = v4(0x11 + round as u16 % 2);
            add(netlink, new, &next);
            wanted.insert(new, next);
            assert_eq!(read_filters(netlink), wanted);
            let gone = wanted.remove(&old).unwrap();
            done(netlink, &[filter::delete(LO, old, filter::protocol(&gone))]);
            assert_eq!(read_filters(netlink), wanted);
        }
        for (pref, filter) in wanted {
            done(netlink, &[filter::delete(LO, pref, filter::protocol(&filter))]);
        }
        assert_eq!(read_filters(netlink), BTreeMap::new());
    });
}

#[test]
fn needs_root_what_we_would_not_write_is_read_as_unknown() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let foreign = [
            "100 u32 match ip dst 10.0.0.1 action drop",
            "101 u32 ht 800:: match ip dst 10.0.0.1 at nexthdr+0 flowid 1:10",
            "102 u32 divisor 4",
            "103 bpf bytecode 1,6 0 0 0 classid 1:10",
        ];
        let mut tried = 0;
        for line in foreign {
            let line = format!("filter add dev lo parent 1: protocol ip pref {line}");
            tried += usize::from(
                Command::new("tc").args(line.split(' ')).output().unwrap().status.success(),
            );
        }
        let found = read_filters(netlink);
        assert!(tried >= 2 && found.len() >= 2, "{found:?}");
        assert!(found.values().all(|f| matches!(f, Filter::Unknown { .. })), "{found:?}");
    });
}

#[test]
fn needs_root_packets_go_where_the_interpreter_says() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        let first = matching(Some("127.0.0.2/32"), None, None, Some(5001));
        let second = matching(None, Some("127.0.0.0/24"), Some(5005), None);
        let mut set = rules(Family::V4, &[first], 0x10);
        set.extend(rules(Family::V4, &[second], 0x11));
        set.extend(rules(Family::V4, &[matching(Some("127.0.0.2/31"), None, None, None)], 0x12));
        done(netlink, &add_rules(Pref(100), Family::V4, &set));
        let six = rules(Family::V6, &[matching(None, Some("::1/128"), None, Some(7000))], 0x10);
        done(netlink, &add_rules(Pref(102), Family::V6, &six));
        for (from, to) in [
            ("127.0.0.2:4000", "127.0.0.1:5001"),
            ("127.0.0.2:4000", "127.0.0.1:5002"),
            ("127.0.0.3:5005", "127.0.0.9:5001"),
            ("127.0.0.3:5004", "127.0.0.9:5001"),
            ("127.0.0.4:5005", "127.0.1.9:5001"),
            ("[::1]:4000", "[::1]:7000"),
            ("[::1]:7000", "[::1]:4000"),
        ] {
            let packet = udp(from.parse().unwrap(), to.parse().unwrap());
            let set = if from.starts_with('[') { &six } else { &set };
            let expected = compile::classify(set, &packet).unwrap_or(ClassId::ours(Minor::DEFAULT));
            let before = packets(netlink);
            UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let after = packets(netlink);
            let moved: Vec<_> =
                after.iter().filter(|(id, n)| before[id] != **n).map(|(id, _)| *id).collect();
            // Nobody listens: the answer (ICMP port unreachable) goes where its own bytes say.
            assert!(moved.contains(&expected), "{from} > {to}: {moved:?}, not {expected}");
        }
    });
}

/// Packets sent by each leaf class.
fn packets(netlink: &mut Netlink) -> BTreeMap<ClassId, u64> {
    let records = netlink.dump(&dump::classes(LO), decode::class).unwrap();
    let leaves = records.into_iter().filter(|record| record.parms.level == 0);
    leaves.map(|record| (record.classid, record.counters.sent_packets)).collect()
}

/// An IP packet with a UDP header, as far as rules look.
fn udp(from: std::net::SocketAddr, to: std::net::SocketAddr) -> Vec<u8> {
    use std::net::IpAddr::{V4, V6};
    let mut packet = match (from.ip(), to.ip()) {
        (V4(src), V4(dst)) => {
            let mut header = vec![0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        (V6(src), V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 9, 17, 64];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        _ => panic!("two families"),
    };
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 9, 0, 0, b'x']);
    packet
}

#[test]
fn needs_root_links_and_routes_are_described() {
    in_a_namespace(|netlink| {
        run("ip", "link add v0 mtu 1400 type veth peer name v1");
        for line in ["link set v1 up", "link set v0 up", "addr add 10.9.0.1/24 dev v1"] {
            run("ip", line);
        }
        run("ip", "route add default via 10.9.0.2 dev v1 metric 77");
        run("ip", "route add default via 10.9.0.3 dev v1 table 9");
        run("ip", "-6 route add default dev v1 metric 5");
        let links = netlink.dump(&dump::links(), decode::link).unwrap();
        let by_name: BTreeMap<_, _> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        assert!(by_name["lo"].loopback && by_name["lo"].up && by_name["lo"].kind.is_none());
        assert_eq!(by_name["v0"].kind.as_deref(), Some("veth"));
        assert_eq!((by_name["v0"].master, by_name["v0"].mtu), (None, 1400));
        assert_eq!(by_name["v0"].lower, None, "the peer is beside");
        assert!(by_name["v1"].up);
        let routes = |netlink: &mut Netlink, family| {
            let all = netlink.dump(&dump::routes(family), decode::default_route).unwrap();
            all.into_iter().map(|route| (route.metric, route.links)).collect::<Vec<_>>()
        };
        assert_eq!(routes(netlink, Family::V4), [(77, vec![by_name["v1"].ifindex])]);
        assert_eq!(routes(netlink, Family::V6), [(5, vec![by_name["v1"].ifindex])]);
        let speed = |name: &str| ethtool::speed(&LinkName::new(name).unwrap());
        assert_eq!(speed("v1"), Some(rate("10gbit")), "what veth says");
        assert_eq!(speed("lo"), None);
    });
}

#[test]
fn needs_root_a_slave_names_its_bridge() {
    in_a_namespace(|netlink| {
        for line in ["br0 type bridge", "v0 type veth peer name v1"] {
            run("ip", &format!("link add {line}"));
        }
        run("ip", "link set v0 master br0");
        let links = netlink.dump(&dump::links(), decode::link).unwrap();
        let by_name: BTreeMap<_, _> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        assert_eq!(links.len(), 4, "no port is listed twice");
        assert_eq!(by_name["v0"].master, Some(by_name["br0"].ifindex));
        assert!(!by_name["br0"].up);
    });
}

#[test]
fn needs_root_tc_and_an_independent_decoder_read_the_same_classes() {
    use netlink_bindings::tc::{OpNewtclassDo, OptionsMsg};
    in_a_namespace(|netlink| {
        done(netlink, &[root::add(LO, mark())]);
        let classes = classes();
        done(netlink, &add_classes(&classes));
        let default = LeafQdisc::Bfifo { limit: Bytes(31_250) };
        done(netlink, &[leaf::add(LO, Minor::DEFAULT, &default)]);

        let text = run("tc", "-d class show dev lo");
        let field = |line: &str, name: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).map(str::to_string)
        };
        let mut seen = 0;
        for (minor, class) in &classes {
            let id = format!("class htb {} ", ClassId::ours(*minor));
            let line = text.lines().find(|line| line.starts_with(&id)).unwrap();
            // `8bit`, `1Gbit`: a rate that tc would not round prints the same.
            assert_eq!(field(line, "rate"), Some(class.rate.to_string()), "{line}");
            assert_eq!(field(line, "ceil"), Some(class.ceil.to_string()), "{line}");
            let parent = class.parent.map(|minor| ClassId::ours(minor).to_string());
            assert_eq!(field(line, "parent"), parent, "{line}");
            if let Role::Leaf { prio, quantum } = class.role {
                assert_eq!(field(line, "prio"), Some(prio.to_string()), "{line}");
                assert_eq!(field(line, "quantum"), Some(quantum.to_string()), "{line}");
            }
            seen += 1;
        }
        assert_eq!(seen, classes.len());
        assert!(text.contains(" leaf fffe: "), "{text}");

        let raw = netlink.dump(&dump::classes(LO), |m| Ok(Some(m.payload.to_vec()))).unwrap();
        assert_eq!(raw.len(), classes.len());
        for payload in raw {
            let (header, attributes) = OpNewtclassDo::decode_request(&payload);
            let class = &classes[&ClassId(header.handle).minor()];
            let OptionsMsg::Htb(htb) = attributes.get_options().unwrap() else { panic!() };
            let parms = htb.get_parms().unwrap();
            let wide = |narrow: u32, wide: Option<u64>| wide.unwrap_or(u64::from(narrow));
            let rate = wide(parms.rate.rate, htb.get_rate64().ok());
            let ceil = wide(parms.ceil.rate, htb.get_ceil64().ok());
            assert_eq!(rate, class.rate.bytes_per_second());
            assert_eq!(ceil, class.ceil.bytes_per_second());
            assert_eq!((parms.buffer, parms.cbuffer), (class.burst.0, class.cburst.0));
            if let Role::Leaf { prio, quantum } = class.role {
                assert_eq!((parms.prio, parms.quantum), (u32::from(prio), quantum));
            }
        }
    });
}

#[test]
fn needs_root_tc_reads_the_same_qdiscs_and_filters() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        done(netlink, &[leaf::add(LO, Minor(0x10), &LeafQdisc::Bfifo { limit: Bytes(62_500) })]);
        let web = matching(Some("1.2.3.4/32"), None, None, Some(80));
        let set = rules(Family::V4, &[web], 0x10);
        done(netlink, &add_rules(Pref(101), Family::V4, &set));
        let program = bpf::load_tag().unwrap();
        done(netlink, &[filter::add_bpf(LO, Pref(200), program.as_fd())]);
        let qdiscs: serde_json::Value =
            serde_json::from_str(&run("tc", "-j qdisc show dev lo")).unwrap();
        assert_eq!(qdiscs[0]["handle"], "1:");
        assert_eq!(qdiscs[0]["options"]["r2q"], mark().0);
        assert_eq!(qdiscs[0]["options"]["default"], "0xfffe");
        assert_eq!(qdiscs[1]["parent"], "1:10");
        assert_eq!(qdiscs[1]["handle"], "10:");
        assert_eq!(qdiscs[1]["options"]["limit"], 62_500);
        // tc's JSON repeats the key `match`, so the text.
        let filters = run("tc", "filter show dev lo parent 1:");
        for line in [
            "filter protocol ip pref 101 u32 chain 0 fh 800::1 order 1 key ht 800 bkt 0 *flowid 1:10",
            "filter protocol ip pref 101 u32 chain 0 fh 800::2 order 2 key ht 800 bkt 0 *flowid 1:10",
            "match 05000000/0f000000 at 0",
            "match 00000000/00001fff at 4",
            "match 00060000/00ff0000 at 8",
            "match 01020304/ffffffff at 12",
            "match 00000050/0000ffff at 20",
            "filter protocol all pref 200 bpf chain 0 handle 0x1 flowid 1: shaper-classid",
        ] {
            assert!(filters.contains(line), "{line}\nis not in\n{filters}");
        }
    });
}

#[test]
fn needs_root_the_tag_sends_packets_to_the_classid_of_their_process() {
    in_a_namespace(|netlink| {
        // Without a net_cls mount no process has a classid: nothing matches, all is default.
        done(netlink, &small_tree());
        let program = bpf::load_tag().unwrap();
        done(netlink, &[filter::add_bpf(LO, Pref(200), program.as_fd())]);
        drop(program);
        let before = packets(netlink);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        let after = packets(netlink);
        let default = ClassId::ours(Minor::DEFAULT);
        assert!(after[&default] > before[&default]);
        assert_eq!(read_filters(netlink)[&Pref(200)], Filter::Tag(Tag::Bpf));
    });
}

#[test]
fn needs_root_probing_finds_what_the_kernel_has_and_leaves_nothing() {
    let before = netns::current().unwrap();
    let start = std::time::Instant::now();
    let features: Features = probe::features();
    println!("probed in {:?}: {features:?}", start.elapsed());
    assert!(features.htb && !features.tags.is_empty(), "{features:?}");
    assert!(features.leaves.contains("bfifo") && features.leaves.contains("pfifo"));
    assert_eq!(netns::current().unwrap(), before);
}

#[test]
fn needs_root_ten_thousand_classes_go_in_and_come_back() {
    in_a_namespace(|netlink| {
        let role = Role::Leaf { prio: 0, quantum: 60_000 };
        let user = a_class(Some(Minor::LINK), rate("1mbit"), rate("1gbit"), role);
        let top = a_class(None, rate("1gbit"), rate("1gbit"), Role::Inner);
        let mut requests = vec![root::add(LO, mark()), class::add(LO, Minor::LINK, &top)];
        requests.extend((0x10..0x10 + 10_000).map(|m| class::add(LO, Minor(m), &user)));
        let start = std::time::Instant::now();
        done(netlink, &requests);
        let added = start.elapsed();
        assert_eq!(read_classes(netlink).len(), 10_001);
        println!("10,000 classes: added in {added:?}, read in {:?}", start.elapsed() - added);
    });
}
