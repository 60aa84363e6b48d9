//! Links and routes, what probing finds, and what others read of what we sent.

use std::collections::BTreeMap;

use netlink_bindings::tc::{OpNewtclassDo, OptionsMsg};
use shaper::netlink::decode;
use shaper::netlink::request::{dump, leaf, root};
use shaper::sys::{Netlink, ethtool, netns, probe};
use shaper::tree::{Family, LeafQdisc, LinkName, Pref, Role};
use shaper::units::{Bytes, ClassId, InWholeUnits, Minor};

use super::*;

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
        let next_hops = "nexthop via 10.9.0.2 dev v1 nexthop via 10.9.0.3 dev v1 onlink";
        run("ip", &format!("route replace default metric 77 {next_hops}"));
        let v1 = by_name["v1"].ifindex;
        assert_eq!(routes(netlink, Family::V4), [(77, vec![v1, v1])]);
        let speed =
            |name: &str| ethtool::speed(&LinkName::new(name).unwrap()).expect("it is asked");
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
    in_a_namespace(|netlink| {
        done(netlink, &[root::add(LO, mark())]);
        let classes = classes();
        done(netlink, &add_classes(&classes));
        let default = LeafQdisc::Bfifo { limit: Bytes(31_250) };
        done(netlink, &[leaf::add(LO, ClassId::DEFAULT, &default)]);

        let text = run("tc", "-d class show dev lo");
        let field = |line: &str, name: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).map(str::to_string)
        };
        let mut seen = 0;
        for (id, class) in &classes {
            let id = format!("class htb {} ", id);
            let line = text.lines().find(|line| line.starts_with(&id)).unwrap();
            // `8bit`, `1Gbit`: a rate that tc would not round.
            let rate = |name| field(line, name).map(|text| text.to_lowercase());
            assert_eq!(rate("rate"), Some(InWholeUnits(class.rate).to_string()), "{line}");
            assert_eq!(rate("ceil"), Some(InWholeUnits(class.ceil).to_string()), "{line}");
            let parent = class.parent.map(|id| id.to_string());
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
            let class = &classes[&ClassId(header.handle)];
            let OptionsMsg::Htb(htb) = attributes.get_options().unwrap() else { panic!() };
            let parms = htb.get_parms().unwrap();
            let wide = |narrow: u32, wide: Option<u64>| wide.unwrap_or(u64::from(narrow));
            let rate = wide(parms.rate.rate, htb.get_rate64().ok());
            let ceil = wide(parms.ceil.rate, htb.get_ceil64().ok());
            assert_eq!(rate, class.rate.bytes_per_second());
            assert_eq!(ceil, class.ceil.bytes_per_second());
            assert_eq!((parms.buffer, parms.cbuffer), (class.burst.0, class.cburst.0));
            if let Role::Leaf { prio, quantum } = class.role {
                assert_eq!((parms.prio, parms.quantum), (u32::from(prio), quantum.0));
            }
        }
    });
}

#[test]
fn needs_root_tc_reads_the_same_qdiscs_and_filters() {
    in_a_namespace(|netlink| {
        done(netlink, &small_tree());
        done(
            netlink,
            &[leaf::add(
                LO,
                ClassId::ours(Minor(0x10)),
                &LeafQdisc::Bfifo { limit: Bytes(62_500) },
            )],
        );
        let web = matching(Some("1.2.3.4/32"), None, None, Some(80));
        let set = rules(Family::V4, &[web], 0x10);
        done(netlink, &add_rules(Pref(101), Family::V4, &set));
        done(netlink, &[Deciding::load().add(Pref(200))]);
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
            "filter protocol all pref 200 bpf chain 0 handle 0x1 flowid 1: shaper-decide ",
        ] {
            assert!(filters.contains(line), "{line}\nis not in\n{filters}");
        }
    });
}

#[test]
fn needs_root_probing_finds_what_the_kernel_has_and_leaves_nothing() {
    let before = netns::current().unwrap();
    let start = std::time::Instant::now();
    let features = probe::features().expect("features");
    println!("probed in {:?}: {features:?}", start.elapsed());
    assert!(features.htb && !features.classifiers.is_empty(), "{features:?}");
    assert!(features.leaves.contains("bfifo") && features.leaves.contains("pfifo"));
    assert_eq!(netns::current().unwrap(), before);
}
