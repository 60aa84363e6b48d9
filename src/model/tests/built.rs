//! What policies mean.

use super::*;
use crate::facts::Subuids;
use crate::model::{Asked, Limits, LinkAt, Node, Position, Target};
use crate::tree::{Family, Key, Owner, UidRange};
use crate::units::Rate;

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn node<'a>(model: &'a Model, owner: &str) -> &'a Node {
    model.nodes.iter().find(|node| node.owner.to_string() == owner).unwrap()
}

/// The limits on the first link.
fn limits(model: &Model, owner: &str) -> Limits {
    node(model, owner).limits[LinkAt::new(0)].unwrap()
}

/// Limits without a boost.
fn limits_of(asked: Asked, ceil: &str, prio: u8) -> Limits {
    Limits { rate: asked, ceil: rate(ceil), boost: None, prio }
}

const PROMISED: fn(&str) -> Asked = |text| Asked::Promised(rate(text));
const DERIVED: Asked = Asked::Derived { floor: None };

#[test]
fn a_rate_alone_is_also_the_ceil_and_a_ceil_alone_promises_nothing() {
    let model = built(
        "version: 1\nlinks: {eth0: }\nusers: {ann: {rate: 5mbit}, bob: 10%, cat: {rate: 1mbit, ceil: 50%, prio: 3}}",
    );
    assert_eq!(limits(&model, "ann"), limits_of(PROMISED("5mbit"), "5mbit", 0));
    assert_eq!(limits(&model, "bob"), limits_of(DERIVED, "100mbit", 0));
    assert_eq!(limits(&model, "cat"), limits_of(PROMISED("1mbit"), "500mbit", 3));
}

#[test]
fn the_default_is_5_percent_and_at_least_1_mbit_but_never_above_the_link() {
    let default =
        |link: &str| built(&format!("version: 1\nlinks: {{{link}}}")).links[LinkAt::new(0)].default;
    assert_eq!(default("eth0: "), limits_of(PROMISED("50mbit"), "1gbit", 0));
    let mut facts = host();
    device(&mut facts, "eth0").speed = None;
    let small = |text: &str| {
        built_on(&facts, &format!("version: 1\nlinks: {{eth0: {text}}}")).links[LinkAt::new(0)]
            .default
    };
    assert_eq!(small("10mbit").rate, PROMISED("1mbit"));
    assert_eq!(small("500kbit").rate, PROMISED("500kbit"));
    assert_eq!(default("eth0: {default: 2%}").rate, PROMISED("20mbit"), "not above its own ceil");
}

#[test]
fn auto_is_the_default_route_with_the_lowest_metric_ipv4_before_ipv6() {
    let mut facts = host();
    let auto = "version: 1\nlinks: {auto: 50mbit}";
    device(&mut facts, "eth1").default_route_v6 = Some(1);
    device(&mut facts, "eth1").speed = Some(rate("100mbit"));
    assert_eq!(built_on_any(&facts, auto), "eth0", "IPv4 first");
    device(&mut facts, "eth1").default_route_v4 = Some(50);
    assert_eq!(built_on_any(&facts, auto), "eth1", "50 is better than 100");
    device(&mut facts, "eth0").default_route_v4 = None;
    device(&mut facts, "eth1").default_route_v4 = None;
    device(&mut facts, "lo").default_route_v4 = Some(0);
    assert_eq!(built_on_any(&facts, auto), "eth1", "never the loopback");
}

/// The name of the first shaped link, whatever the notes are.
fn built_on_any(facts: &Facts, text: &str) -> String {
    let policy = policy::parse(text, "policies.yaml").unwrap();
    build(&policy, facts, BuildOptions::default()).unwrap().0.links[LinkAt::new(0)]
        .port
        .link
        .to_string()
}

#[test]
fn an_optional_link_that_is_absent_is_left_out() {
    let text = "version: 1\nlinks: {eth9: {optional: true, rate: 1gbit}, eth0: }\nusers: {bob: {ceil: 1mbit, links: {eth9: none}}}\nrules: [{dport: 80, link: eth9, to: bob}]";
    let policy = policy::parse(text, "policies.yaml").unwrap();
    let (model, notes) = build(&policy, &host(), BuildOptions::default()).unwrap();
    assert_eq!(model.links.len(), 1);
    assert_eq!(node(&model, "bob").limits.len(), 1);
    assert_eq!(model.rules, [], "a rule of that link has nowhere to stand");
    assert_eq!(notes.len(), 1);
}

/// The host, and links that come and go there.
fn host_with(links: &[(&str, Option<&str>)]) -> Facts {
    let mut facts = host();
    for (index, (name, kind)) in (20..).zip(links) {
        let mut device = device(&mut facts, "wg0").clone();
        (device.ifindex, device.kind) = (index, kind.map(str::to_string));
        facts.links.insert(LinkName::new(name).unwrap(), device);
    }
    facts
}

#[test]
fn a_pattern_is_each_link_that_fits_and_that_no_other_line_names() {
    let facts = host_with(&[("l2tp0", None), ("l2tp1", None), ("l2tpifb", Some("ifb"))]);
    let model = built_on(
        &facts,
        "version: 1\nlinks: {\"l2tp*\": 40mbit, \"*1\": 50mbit, l2tp1: 30mbit, eth0: }",
    );
    let links: Vec<String> =
        model.links.iter().map(|l| format!("{} {}", l.port.link, l.rate)).collect();
    assert_eq!(links, ["l2tp0 40mbit", "eth1 50mbit", "l2tp1 30mbit", "eth0 1gbit"]);
    let names = |text: &str| {
        let policy = policy::parse(text, "policies.yaml").unwrap();
        let options = BuildOptions { absent_links: true, ..BuildOptions::default() };
        let model = build(&policy, &facts, options).unwrap().0;
        model.links.iter().map(|link| link.port.link.to_string()).collect::<Vec<_>>()
    };
    let all = "version: 1\nlinks: {\"*\": 30mbit}";
    assert_eq!(
        names(all),
        ["bond0", "eth0", "eth0.7", "eth1", "l2tp0", "l2tp1", "virt0", "wg0"],
        "never lo, nor an ifb; and of a bond and its port, under the daemon, the bond"
    );
    assert_eq!(names("version: 1\nlinks: {\"enp*\": 30mbit}"), ["eth0"], "its other name fits");
}

#[test]
fn patterns_in_users_and_rules_mean_links_of_the_file_and_exact_names_go_first() {
    let facts = host_with(&[("l2tp0", None), ("l2tp1", None)]);
    let model = built_on(
        &facts,
        "version: 1\nlinks: {\"l2tp*\": 40mbit, eth0: }\n\
         users: {bob: {ceil: 5mbit, links: {\"l2tp?\": none, l2tp1: 1mbit, enp0s31f6np0-uplink: 2mbit}}}\n\
         rules: [{dport: 80, link: \"l2tp*\", to: bob}, {dport: 81, link: l2tp1, to: bob}, {dport: 82, link: l2tp7, to: bob}]",
    );
    let ceils: Vec<Option<Rate>> =
        node(&model, "bob").limits.iter().map(|limits| limits.map(|l| l.ceil)).collect();
    assert_eq!(ceils, [None, Some(rate("1mbit")), Some(rate("2mbit"))]);
    let links = |rule: usize| -> Vec<String> {
        model.rules[rule].links.iter().flatten().map(ToString::to_string).collect()
    };
    assert_eq!((links(0), links(1)), (vec!["l2tp0".into(), "l2tp1".into()], vec!["l2tp1".into()]));
    assert_eq!(model.rules.len(), 2, "l2tp7 may come, and is not there");
    let model = built_on(
        &facts,
        "version: 1\nlinks: {lo: 10gbit, eth0: }\nusers: {bob: {ceil: 5mbit, links: {\"*\": none}}}",
    );
    let on_lo = node(&model, "bob").limits[LinkAt::new(0)];
    assert!(
        on_lo.is_some() && node(&model, "bob").limits[LinkAt::new(1)].is_none(),
        "never the loopback"
    );
}

#[test]
fn a_line_for_one_link_replaces_the_limits_there() {
    let model = built(
        "version: 1\nlinks: {eth0: , eth1: , virt0: 1gbit}\nusers: {bob: {rate: 10%, prio: 2, links: {eth1: 1mbit, virt0: none}}}",
    );
    let bob = &node(&model, "bob").limits;
    assert_eq!(bob[LinkAt::new(0)], Some(limits_of(PROMISED("100mbit"), "100mbit", 2)));
    assert_eq!(bob[LinkAt::new(1)], Some(limits_of(DERIVED, "1mbit", 0)));
    assert_eq!(bob[LinkAt::new(2)], None);
}

#[test]
fn a_group_without_a_rate_has_what_was_promised_below_it() {
    let model = built(
        "version: 1\nlinks: {eth0: }\nusers: {ann: {rate: 10mbit}, bob: {rate: 5mbit}, cat: 1mbit}\ngroups: {year1: {parent: all, users: [bob, cat]}, all: {ceil: 60%, users: [ann]}}",
    );
    let order: Vec<String> = model.nodes.iter().map(|node| node.owner.to_string()).collect();
    assert_eq!(order, ["group all", "group year1", "ann", "bob", "cat"]);
    let floor = |text: &str| Asked::Derived { floor: Some(rate(text)) };
    assert_eq!(limits(&model, "group all").rate, floor("15mbit"));
    assert_eq!(limits(&model, "group year1"), limits_of(floor("5mbit"), "600mbit", 0));
    assert_eq!(node(&model, "bob").group, Group::of("year1"));
    assert_eq!(node(&model, "group year1").group, Group::of("all"));
}

#[test]
fn a_user_is_in_the_first_gid_group_of_its_account_unless_its_line_says_otherwise() {
    let model = built(
        "version: 1\nlinks: {eth0: }\nusers: {ann: 1mbit, bob: {ceil: 1mbit, group: none}, cat: {ceil: 1mbit, group: s}, dan: 1mbit}\ngroups: {s: {gid: staff}, t: {gid: 600}}",
    );
    let group = |user| node(&model, user).group.as_ref().map(Group::as_str);
    assert_eq!(
        [group("ann"), group("bob"), group("cat"), group("dan")],
        [Some("s"), None, Some("s"), None]
    );
}

#[test]
fn an_account_that_runs_has_a_class_of_each_or_of_everyone() {
    let mut facts = host();
    facts
        .accounts
        .running
        .extend([0, 33, 990, 1001, 1003, 1004, 61_184, 65_534, 100_007, 4_000_000]);
    let model = built_with_a_note(
        &facts,
        "version: 1\nlinks: {eth0: }\nusers: {bob: 1mbit}\ngroups: {s: {gid: students, ceil: 10mbit, each: {ceil: 20mbit, prio: 4}}}\neveryone: 50mbit",
    );
    let owners: Vec<String> = model.nodes.iter().map(|node| node.owner.to_string()).collect();
    assert_eq!(
        owners,
        ["group s", "bob", "class everyone", "uid 1001", "uid 1003", "uid 1004", "uid 4000000"],
        "100007 is a subuid of 1001; root, services and nobody have none"
    );
    assert_eq!(
        limits(&model, "uid 1003"),
        limits_of(DERIVED, "10mbit", 4),
        "each fits itself to its group"
    );
    assert_eq!(node(&model, "uid 1003").group, Group::of("s"));
    assert_eq!(limits(&model, "uid 1004").ceil, rate("50mbit"));
    assert_eq!(node(&model, "uid 1004").group, None);
}

#[test]
fn everyone_together_is_a_group() {
    let mut facts = host();
    facts.accounts.running.extend([999, 1004]);
    let model = built_with_a_note(
        &facts,
        "version: 1\nlinks: {eth0: }\neveryone: {uids: [\"900-\"], rate: 10%, ceil: 80%, each: {ceil: 1gbit}}",
    );
    assert_eq!(limits(&model, "group everyone"), limits_of(PROMISED("100mbit"), "800mbit", 0));
    assert_eq!(limits(&model, "uid 999").ceil, rate("800mbit"));
    assert_eq!(node(&model, "uid 999").group, Some(Group::Everyone));
}

#[test]
fn everyone_promises_nothing_but_the_default_does() {
    built("version: 1\nlinks: {eth0: }\nusers: {ann: {rate: 950mbit}}\neveryone: {rate: 50%}");
    let over = "version: 1\nlinks: {eth0: }\nusers: {ann: {rate: 951mbit}}";
    assert!(said_on(&host(), BuildOptions::default(), over).contains("promised rates add up"));
}

#[test]
fn a_named_account_is_cut_out_of_a_range_of_another_line() {
    let model = built(
        "version: 1\nlinks: {eth0: }\nusers: {bob: 1mbit, rest: {ceil: 1mbit, uids: [\"1000-1005\", 7, 0]}}",
    );
    let uids: Vec<String> = model
        .matcher
        .uids
        .iter()
        .map(|(r, key)| format!("{}-{} {key}", r.start(), r.end()))
        .collect();
    assert_eq!(uids, ["0-0 rest", "7-7 rest", "1000-1001 rest", "1002-1002 bob", "1003-1005 rest"]);
    let accounts = &host().accounts;
    let claim = |uid| model.matcher.claim(uid, None, accounts).map(|c| c.owner().to_string());
    assert_eq!(claim(1002).as_deref(), Some("bob"));
    assert_eq!(claim(1005).as_deref(), Some("rest"));
    assert_eq!(claim(1006), None);
    assert_eq!(claim(0).as_deref(), Some("rest"), "root, because it is named");
}

#[test]
fn everyone_is_people() {
    let model = built("version: 1\nlinks: {eth0: }\neveryone: 1mbit");
    let (ranges, group) = model.matcher.everyone.unwrap();
    assert_eq!(ranges, [1_000..=61_183, 65_535..=u32::MAX - 1]);
    assert_eq!(group, None);
}

#[test]
fn subordinate_uids_go_by_their_account_their_owner_or_their_range() {
    let mut facts = host();
    let accounts = &mut facts.accounts;
    accounts.by_uid.insert(120_000, accounts.by_uid[&1003].clone());
    let lxd = UidRange { first: 1_000_000, last: 1_000_999_999 };
    let lxd = Subuids { range: lxd, written: "root".to_string(), owner: Some(0) };
    accounts.subuids.learn(vec![lxd]);
    accounts.running.extend([100_007, 120_000, 1_000_007, 1_000_008]);
    let said = |text: &str| {
        let policy = policy::parse(text, "policies.yaml").unwrap();
        let (model, notes) = build(&policy, &facts, BuildOptions::default()).unwrap();
        let owners: Vec<String> = model.nodes.iter().map(|node| node.owner.to_string()).collect();
        (owners, notes)
    };
    let (owners, notes) = said("version: 1\nlinks: {eth0: }\neveryone: 50mbit");
    assert_eq!(owners, ["class everyone", "uid 1001", "uid 120000", "subuids 1000000-1000999999"]);
    assert_eq!(notes.len(), 1);
    let message = &notes[0].message;
    assert!(
        message.contains("subordinate ones of `ann` (/etc/subuid: 100000-165535)"),
        "{message}"
    );
    let (owners, _) = said("version: 1\nlinks: {eth0: }\nusers: {ann: 1mbit}");
    assert_eq!(owners, ["ann"], "nobody covers the others");
    let lines = "version: 1\nlinks: {eth0: }\nusers: {r: {ceil: 1mbit, uids: 0}, s: {ceil: 1mbit, uids: \"100000-100009\"}}\neveryone: 50mbit";
    let (owners, _) = said(lines);
    assert_eq!(
        owners,
        ["r", "s", "class everyone", "uid 120000"],
        "root's line has his, and a line goes first"
    );
}

#[test]
fn ranges_and_what_is_not_are_few_matches() {
    let count = |rule: &str| {
        let model =
            built(&format!("version: 1\nlinks: {{eth0: }}\nrules: [{{{rule}, to: default}}]"));
        let family = |f| model.rules[0].matches.iter().filter(|m| m.family() == f).count();
        (family(Some(Family::V4)), family(Some(Family::V6)), family(None))
    };
    assert_eq!(count("proto: tcp, dport: 40000-41000"), (0, 0, 7));
    assert_eq!(count("proto: tcp, dport: [80, 1-100, 101]"), (0, 0, 9), "in one another");
    assert_eq!(count("dst: 10.0.0.5-10.0.0.40"), (6, 0, 0));
    assert_eq!(count("dst: \"fd00::5 - fd00::40\""), (0, 6, 0));
    assert_eq!(count("dst: {not: 10.0.0.0/8}"), (8, 1, 0), "all of IPv6 is elsewhere");
    assert_eq!(count("src: 10.0.0.0/8, dst: {not: 10.0.0.0/8}"), (8, 0, 0));
    assert_eq!(count("src: \"fd00::1\", dst: {not: 10.0.0.0/8}"), (0, 1, 0));
    assert_eq!(count("dport: {not: 22}, proto: {not: udp}"), (0, 0, 16));
    assert_eq!(count("proto: {not: [tcp, udp]}"), (0, 0, 22));
}

#[test]
fn lists_in_rules_multiply_within_a_family() {
    let model = built(
        "version: 1\nlinks: {eth0: }\nclasses: {nfs: 1mbit}\nrules: [{src: [10.0.0.1, \"fd00::1\"], dst: [10.0.0.0/8, \"fd00::/64\"], dport: [111, 2049], to: nfs}]",
    );
    let rule = &model.rules[0];
    assert_eq!(rule.matches.len(), 8, "two families, two protocols, two ports");
    assert_eq!(rule.to, Target::Owner(Owner::Class(Key::new("nfs").unwrap())));
    assert!(
        rule.matches.iter().all(|m| m.proto == Some(6_u8.into()) || m.proto == Some(17_u8.into()))
    );
}

#[test]
fn an_unknown_account_keeps_its_class_with_skip_unknown() {
    let text = "version: 1\nlinks: {eth0: }\nusers: {nobody-here: 1mbit}\ngroups: {g: {gid: no-such-group}}";
    let policy = policy::parse(text, "policies.yaml").unwrap();
    let options = BuildOptions { skip_unknown: true, ..BuildOptions::default() };
    let (model, notes) = build(&policy, &host(), options).unwrap();
    assert_eq!(model.nodes.len(), 2);
    assert_eq!(model.matcher.uids, []);
    assert_eq!(notes.len(), 2);
}

#[test]
fn offline_checks_what_needs_no_host() {
    let offline = BuildOptions { offline: true, ..BuildOptions::default() };
    let said = |text: &str| said_on(&Facts::default(), offline, text);
    assert_eq!(
        said(
            "version: 1\nlinks: {auto: , eth7: 1gbit}\nusers: {eve: 10%}\ngroups: {g: {gid: x}}\neveryone: 1mbit\nrules: [{dport: 1, link: eth9, to: eve}]"
        ),
        ""
    );
    assert!(
        said("version: 1\nlinks: {eth7: 1gbit}\nusers: {eve: 2gbit}").contains("above the 1gbit")
    );
    assert!(said("version: 1\nlinks: {auto: }\nrules: [{dport: 1, to: eve}]").contains("no user"));
}

/// The link's rate is the device's there, which no check without the host knows.
#[test]
fn offline_refuses_limits_that_no_rate_of_the_link_makes_right() {
    let offline = BuildOptions { offline: true, ..BuildOptions::default() };
    let said = |text: &str| said_on(&Facts::default(), offline, text);
    let refused = [
        (
            "groups: {a: {ceil: 20mbit}, b: {ceil: 50mbit, parent: a, users: [u]}}",
            "of its group `a`",
        ),
        (
            "groups: {a: {ceil: 20mbit}, b: {ceil: 50%, parent: a}, c: {ceil: 50mbit, parent: b, users: [u]}}",
            "of its group `b`",
        ),
        ("groups: {a: {ceil: 500kbit, users: [u]}}", "above the 500kbit"),
        ("groups: {a: {rate: 3mbit, ceil: 2mbit, users: [u]}}", "below its rate"),
        (
            "groups: {a: {ceil: 20mbit, users: [w]}}\nclasses: {c: {rate: 2mbit, ceil: 1mbit}}",
            "below its rate",
        ),
        ("groups: {a: {ceil: 20mbit, users: [w, v]}}", "add up to 24mbit"),
    ];
    let users =
        "users: {u: 1mbit, v: {rate: 12mbit, ceil: 20mbit}, w: {rate: 12mbit, ceil: 20mbit}}";
    for link in ["eth7: ", "auto: ", "eth7: {rate: 50%}", "eth7: {default: {ceil: 10mbit}}"] {
        for (groups, why) in refused {
            let said = said(&format!("version: 1\nlinks: {{{link}}}\n{users}\n{groups}"));
            assert!(said.starts_with("error") && said.contains(why), "{link} {groups}: {said}");
        }
    }
    // These depend on the rate: any link may be fast, or slow, enough.
    let may_be = [
        "groups: {a: {ceil: 20mbit, users: [u]}, b: {ceil: 50%, parent: a}, c: {gid: x, rate: 90%}}",
        "groups: {a: {ceil: 10%, users: [u]}, b: {ceil: 900gbit, gid: x}}",
        "groups: {a: {rate: 1mbit, ceil: 10%, users: [u]}, b: {rate: 10%, ceil: 1gbit, gid: x}}",
        "everyone: {rate: 10%, each: {ceil: 1gbit}}\nclasses: {c: {rate: 20%, ceil: 30%}}",
    ];
    for groups in may_be {
        let said = said(&format!("version: 1\nlinks: {{eth7: }}\n{users}\n{groups}"));
        assert!(!said.contains("error"), "{groups}: {said}");
    }
    // Where only wlan0 fits, v's general limit holds nowhere.
    let general = "groups: {a: {ceil: 2mbit, users: [v]}}";
    for link in ["'wl*': ", "auto: ", "eth7: "] {
        let users = "users: {v: {ceil: 20mbit, links: {wlan0: 1mbit}}}";
        let said = said(&format!("version: 1\nlinks: {{{link}}}\n{users}\n{general}"));
        assert!(!said.contains("above"), "{link}: {said}");
    }
}

#[test]
fn nss_is_asked_for_names_and_single_uids_only() {
    let policy = policy::parse(
        "version: 1\nlinks: {eth0: }\nusers: {bob: 1mbit, label: {ceil: 1mbit, uids: [5, 7-9]}, www: {ceil: 1mbit, units: [www.service]}, backup: {ceil: 1mbit, accounts: borg}}\ngroups: {a: {gid: staff}, b: {gid: 500}}",
        "policies.yaml",
    )
    .unwrap();
    let lookups = policy.lookups();
    assert_eq!(lookups.accounts.iter().collect::<Vec<_>>(), ["bob", "borg"]);
    assert_eq!(lookups.uids.into_iter().collect::<Vec<_>>(), [5]);
    assert_eq!(lookups.groups.iter().collect::<Vec<_>>(), ["staff"]);
}

#[test]
fn a_file_of_60_000_users_is_a_policy() {
    let line = |n| {
        format!(
            "  user{n}: {{rate: 8kbit, ceil: 200mbit, prio: 2, uids: {}, links: {{eth0: 1%}}}}\n",
            2000 + n
        )
    };
    let text: String = (0..60_000).map(line).collect();
    let policy =
        policy::parse(&format!("version: 1\nlinks: {{eth0: }}\nusers:\n{text}"), "p").unwrap();
    assert_eq!(policy.users.len(), 60_000);
}

#[test]
fn a_file_from_windows_and_a_byte_order_mark_are_no_matter() {
    let model = built("\u{feff}version: 1\r\nlinks:\r\n  eth0:\r\nusers:\r\n  bob: 10mbit\r\n");
    assert_eq!(limits(&model, "bob").ceil, rate("10mbit"));
    assert_eq!(node(&model, "bob").at.place.line, 5);
}

#[test]
fn an_anchor_in_x_is_for_many_users() {
    let model = built(
        "version: 1\nx-small: &small {ceil: 5mbit, prio: 3}\nlinks: {eth0: }\nusers:\n  ann: *small\n  bob: {<<: *small, prio: 1}\n",
    );
    assert_eq!(limits(&model, "ann").ceil, rate("5mbit"));
    assert_eq!(limits(&model, "bob"), limits_of(DERIVED, "5mbit", 1));
}

#[test]
fn two_names_of_one_uid_are_a_warning_and_the_first_line_gets_it() {
    let mut facts = host();
    facts.accounts.by_name.insert("robert".to_string(), Some(1002));
    let text = "version: 1\nlinks: {eth0: }\nusers: {bob: 1mbit, robert: 2mbit}";
    let policy = policy::parse(text, "policies.yaml").unwrap();
    let (model, notes) = build(&policy, &facts, BuildOptions::default()).unwrap();
    assert_eq!(notes.len(), 1, "NSS never makes a valid file an error");
    assert_eq!(model.matcher.uids, [(1002..=1002, Key::new("bob").unwrap())]);
}

#[test]
fn more_classes_than_there_are_numbers_for_are_refused() {
    let lines = |what: &str, n: usize, line: &str| -> String {
        let lines: String = (0..n).map(|i| format!("  {what}{i}: {line}\n")).collect();
        format!(
            "version: 1\nlinks: {{eth0: }}\n{}:\n{lines}",
            if what == "g" { "groups" } else { "classes" }
        )
    };
    let said = |text: &str| said_on(&host(), BuildOptions::default(), text);
    assert!(said(&lines("g", 4_081, "{ceil: 1mbit}")).contains("4081 groups"));
    assert!(said(&lines("c", 57_329, "1mbit")).contains("57329 users and classes"));
    assert_eq!(said(&lines("c", 57_328, "1mbit")), "");
}

#[test]
fn a_link_that_is_not_there_may_be_misspelt_and_the_warning_says_how_to_find_out() {
    let options = BuildOptions { skip_absent: true, ..BuildOptions::default() };
    let said = |link: &str| {
        said_on(&host(), options, &format!("version: 1\nlinks: {{eth0: , {link}: 10mbit}}"))
    };
    assert!(said("eth00").contains("did you mean `eth0`? Otherwise a link that comes"));
    assert!(said("wlan7").contains("correct the name (`ip link`) if it is wrong; a link"));
}
