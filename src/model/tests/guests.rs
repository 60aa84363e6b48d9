//! Whose guests are.

use super::bad_input::golden;
use std::collections::BTreeMap;

use super::*;
use crate::facts::{Container, Engine, NamespaceId};
use crate::model::InnerLink;
use crate::tree::Owner;

/// The host with links behind which guests are: `web-1` and `web-2` of Docker's, `ct` of LXC's, a
/// named network namespace, a bridge with two ports, and a tap.
fn hosting() -> Facts {
    let mut facts = host();
    for (ifindex, name, kind, peer, master) in [
        (20, "vnet3", "tun", None, Some(30)),
        (21, "veth1", "veth", Some(1), Some(31)),
        (22, "veth2", "veth", Some(2), Some(31)),
        (23, "tap0", "tun", None, None),
        (24, "vr0", "veth", Some(3), None),
        (25, "vr1", "veth", Some(3), None),
        (26, "vethx", "veth", Some(4), None),
        (30, "br-lab", "bridge", None, None),
        (31, "docker0", "bridge", None, None),
    ] {
        let link = LinkFacts {
            peer_namespace: peer.map(NamespaceId),
            kind: Some(kind.to_string()),
            master,
            ..LinkFacts::ethernet(ifindex)
        };
        facts.links.insert(LinkName::new(name).unwrap(), link);
    }
    let container = |engine, name: &str, namespace| Container {
        engine,
        id: format!("id-of-{name}"),
        name: Some(name.to_string()),
        labels: [("owner".to_string(), "bob".to_string())].into(),
        addresses: Vec::new(),
        namespace: Some(NamespaceId(namespace)),
        slice: None,
        uid: Some(0),
    };
    facts.guests.containers = vec![
        container(Engine::Docker, "web-1", 1),
        container(Engine::Docker, "web-2", 2),
        Container { labels: BTreeMap::new(), ..container(Engine::Lxc, "ct", 4) },
    ];
    facts.guests.namespaces =
        [("routerns".to_string(), Some(NamespaceId(3))), ("idle".to_string(), None)].into();
    facts.accounts.by_name.insert("lab".to_string(), None);
    facts
}

/// Who has each link: its owner, then its addresses with theirs.
fn inner(facts: &Facts, lines: &str) -> Vec<String> {
    let text = format!("version: 1\nlinks: {{eth0: }}\nusers: {{{lines}}}");
    inner_of(built_on(facts, &text))
}

fn inner_of(model: Model) -> Vec<String> {
    let words = |(name, link): (LinkName, InnerLink)| {
        let owner = link.owner.iter().map(Owner::to_string);
        let addresses = link.addresses.iter().map(|(net, owner)| format!("{net}={owner}"));
        let all: Vec<String> = owner.chain(addresses).collect();
        format!("{name}: {}", all.join(" "))
    };
    model.inner.into_iter().flatten().map(words).collect()
}

#[test]
fn what_comes_in_by_an_interface_is_its_lines() {
    let facts = hosting();
    let lines = "bob: {ceil: 1mbit, interfaces: vnet3}, lab: {ceil: 1mbit, interfaces: [wg0, tap0], addresses: [10.9.0.0/24, \"fd00::/64\"]}";
    assert_eq!(
        inner(&facts, lines),
        ["tap0: 10.9.0.0/24=lab fd00::/64=lab", "vnet3: bob", "wg0: 10.9.0.0/24=lab fd00::/64=lab",]
    );
}

#[test]
fn the_key_of_a_line_for_guests_is_an_account_where_there_is_one_and_otherwise_a_label() {
    let model = built_on(
        &hosting(),
        "version: 1\nlinks: {eth0: }\nusers: {bob: {ceil: 1mbit, interfaces: vnet3}, lab: {ceil: 1mbit, interfaces: tap0}}",
    );
    let uids: Vec<String> = model.matcher.uids.iter().map(|(_, key)| key.to_string()).collect();
    assert_eq!(uids, ["bob"]);
    assert_eq!(model.nodes.len(), 2);
}

#[test]
fn how_guests_are_misspelt() {
    let user = |keys: &str| format!("users: {{bob: {{ceil: 1mbit, {keys}}}}}");
    let cases = [
        ("a container that is none", user("containers: [\"a/b\"]")),
        ("a label without a value", user("containers: [\"label:owner\"]")),
        ("interfaces that are auto", user("interfaces: auto")),
        ("an interface that is none", user("interfaces: a/b")),
        ("a namespace that is a path", user("namespaces: /run/netns/a")),
        ("a namespace that is a pattern", user("namespaces: \"a*\"")),
        ("an address that is none", user("interfaces: tap0, addresses: 10.0.0.0.1")),
        ("no address", user("interfaces: tap0, addresses: []")),
        ("a network with bits of a host", user("addresses: 10.8.0.5/24")),
        ("guests that are a word", "guests: label".to_string()),
        ("guests that say nothing", "guests: {}".to_string()),
        ("an unknown owner", "guests: {owner: [label, user]}".to_string()),
        ("an owner twice", "guests: {owner: [label, slice, label]}".to_string()),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(name, text)| (*name, &**text)).collect();
    insta::assert_snapshot!("misspelt", golden(&cases));
}

/// With a comma between lines, each a user with a ceil and these keys.
fn lines(users: &[(&str, &str)]) -> String {
    let line = |(name, keys): &(&str, &str)| format!("{name}: {{ceil: 1mbit, {keys}}}");
    users.iter().map(line).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_links_of_a_namespace_and_of_a_container_are_found_by_their_peers() {
    let facts = hosting();
    let namespace = lines(&[("bob", "namespaces: routerns")]);
    assert_eq!(inner(&facts, &namespace), ["vr0: bob", "vr1: bob"]);
    let container = lines(&[("bob", "containers: web-1")]);
    assert_eq!(inner(&facts, &container), ["veth1: bob"]);
    let nowhere = lines(&[("bob", "namespaces: idle")]);
    assert_eq!(inner(&facts, &nowhere), [""; 0]);
}

#[test]
fn a_name_goes_before_a_label_and_a_label_before_a_pattern() {
    let facts = hosting();
    let all = [
        ("ann", "containers: \"web-*\""),
        ("bob", "containers: \"label:owner=bob\""),
        ("cat", "containers: web-2"),
    ];
    assert_eq!(inner(&facts, &lines(&all)), ["veth1: bob", "veth2: cat"]);
    assert_eq!(inner(&facts, &lines(&all[..1])), ["veth1: ann", "veth2: ann"]);
    let links = [("ann", "interfaces: \"v*\""), ("bob", "interfaces: [vr1, tap?]")];
    assert_eq!(
        inner(&facts, &lines(&links)),
        [
            "tap0: bob",
            "veth1: ann",
            "veth2: ann",
            "vethx: ann",
            "virt0: ann",
            "vnet3: ann",
            "vr0: ann",
            "vr1: bob",
        ]
    );
}

#[test]
fn a_pattern_never_means_a_shaped_link_or_the_loopback() {
    let all = inner(&hosting(), "bob: {ceil: 1mbit, interfaces: \"*\"}");
    for name in ["eth0", "lo"] {
        assert!(!all.contains(&format!("{name}: bob")), "{name}");
    }
    assert!(all.contains(&"eth1: bob".to_string()), "it is not shaped");
}

#[test]
fn a_bridges_ports_are_its_users_unless_they_are_somebody_elses() {
    let facts = hosting();
    let one = lines(&[("bob", "interfaces: docker0")]);
    assert_eq!(inner(&facts, &one), ["docker0: bob", "veth1: bob", "veth2: bob"]);
    let two = lines(&[("bob", "interfaces: docker0"), ("ann", "containers: web-2")]);
    assert_eq!(inner(&facts, &two), ["docker0: bob", "veth1: bob", "veth2: ann"]);
    let mut facts = hosting();
    device(&mut facts, "eth0").master = Some(31);
    assert_eq!(inner(&facts, &one), ["veth1: bob", "veth2: bob"], "arrivals are nobody's");
}

#[test]
fn of_a_bridge_that_is_the_uplink_the_port_towards_the_network_is_to_be_named() {
    let mut facts = hosting();
    device(&mut facts, "eth0").master = Some(31);
    device(&mut facts, "eth0").default_route_v4 = None;
    device(&mut facts, "docker0").default_route_v4 = Some(0);
    let said = |link: &str, line: &str| {
        let text = format!("version: 1\nlinks: {{{link}: 1gbit}}\nusers: {{{line}}}");
        said_of(&facts, &text)
    };
    let one = lines(&[("bob", "interfaces: veth1")]);
    assert!(said("docker0", &one).starts_with("warning: veth1 is a port of docker0"));
    assert_eq!(said("eth0", &one), "", "the bridge's own packets leave by its port");
    assert_eq!(said("docker0", "bob: 1mbit"), "", "nobody's guests");
}

#[test]
fn an_address_alone_counts_where_nobody_has_the_link_and_is_warned_of() {
    let facts = hosting();
    let users = lines(&[
        ("bob", "addresses: [10.9.0.5, 10.8.0.0/24]"),
        ("lab", "interfaces: wg0, addresses: 10.9.0.0/24"),
        ("ann", "interfaces: [\"v*\", br-lab, docker0, eth1, bond0, slave0]"),
    ]);
    let text = format!("version: 1\nlinks: {{eth0: }}\nusers: {{{users}}}");
    let (found, said) = (inner_of(built_with_a_note(&facts, &text)), said_of(&facts, &text));
    let own: Vec<&String> = found.iter().filter(|it| !it.ends_with(": ann")).collect();
    assert_eq!(
        own,
        ["tap0: 10.9.0.5/32=bob 10.8.0.0/24=bob", "wg0: 10.9.0.0/24=lab 10.8.0.0/24=bob"]
    );
    assert!(said.starts_with("warning: whoever is behind any link"), "{said}");
}

#[test]
fn a_guest_that_no_line_names_is_found_by_its_label_its_slice_or_its_uid() {
    let mut facts = hosting();
    let own = |facts: &Facts, owner: &str| {
        let text = format!(
            "version: 1\nlinks: {{eth0: }}\nusers: {{bob: {{ceil: 1mbit, containers: web-2}}, ann: 1mbit}}\neveryone: 1mbit\nguests: {{owner: {owner}}}"
        );
        inner_of(built_on(facts, &text))
    };
    let [web1, web2, ct] = &mut facts.guests.containers[..] else { panic!() };
    web1.labels.insert("shaper.user".to_string(), "ann".to_string());
    web1.slice = Some(1003);
    web2.labels.insert("shaper.user".to_string(), "ann".to_string());
    // The first of ann's subordinate uids.
    ct.uid = Some(100_000);
    let all = "[label, slice, uid]";
    assert_eq!(own(&facts, all), ["veth1: ann", "veth2: bob", "vethx: ann"]);
    assert_eq!(own(&facts, "[slice, label]"), ["veth1: uid 1003", "veth2: bob"]);
    assert_eq!(own(&facts, "[]"), ["veth2: bob"]);
    facts.guests.users.insert(NamespaceId(3), 1003);
    assert_eq!(own(&facts, "uid"), ["veth2: bob", "vethx: ann", "vr0: uid 1003", "vr1: uid 1003"]);
    facts.guests.users.clear();
    facts.guests.containers[0].labels.clear();
    facts.guests.containers[0].slice = None;
    assert_eq!(own(&facts, all), ["veth2: bob", "vethx: ann"], "root's is nobody's");
}

#[test]
fn a_label_that_names_nobody_is_said_with_its_container() {
    let mut facts = hosting();
    let [web1, web2, ct] = &mut facts.guests.containers[..] else { panic!() };
    let long = "x".repeat(300);
    for (container, user) in [(web1, "bobb"), (web2, "erin"), (ct, long.as_str())] {
        container.labels = [("shaper.user".to_string(), user.to_string())].into();
    }
    facts.accounts.by_name.insert("bobb".to_string(), None);
    let users = "version: 1\nlinks: {eth0: }\nusers: {ann: 1mbit}\n";
    let said = |owner: &str| said_of(&facts, &format!("{users}guests: {{owner: {owner}}}"));
    let told = said("[slice, label]");
    assert!(told.contains("container `web-1` has the label shaper.user=`bobb`"), "{told}");
    assert!(!told.contains("web-2"), "NSS was not asked about erin yet: {told}");
    assert!(told.contains("container `ct`"), "no account has so long a name: {told}");
    assert_eq!(said("slice"), "");
    let text = format!("{users}guests: {{owner: label}}");
    let policy = crate::policy::parse(&text, "p.yaml").unwrap();
    let named: Vec<&str> = crate::model::named_by_guests(&policy, &facts.guests).collect();
    assert_eq!(named, ["bobb", "erin"]);
}

#[test]
fn guests_that_two_lines_claim() {
    let cases = [
        ("one interface", lines(&[("bob", "interfaces: tap0"), ("ann", "interfaces: [tap0]")])),
        ("one pattern", lines(&[("bob", "interfaces: \"tap*\""), ("ann", "interfaces: \"tap*\"")])),
        (
            "one namespace",
            lines(&[("bob", "namespaces: routerns"), ("ann", "namespaces: routerns")]),
        ),
        ("one container", lines(&[("bob", "containers: web-1"), ("ann", "containers: web-1")])),
        (
            "one address",
            lines(&[("bob", "addresses: 10.0.0.1"), ("ann", "addresses: 10.0.0.1/32")]),
        ),
        (
            "one address of an interface",
            lines(&[
                ("bob", "interfaces: wg0, addresses: 10.0.0.1"),
                ("ann", "interfaces: [tap0, wg0], addresses: 10.0.0.1"),
            ]),
        ),
        (
            "one link by a container and by its name",
            lines(&[("bob", "containers: web-1"), ("ann", "interfaces: veth1")]),
        ),
        ("a shaped link", lines(&[("bob", "interfaces: eth0")])),
        ("the loopback", lines(&[("bob", "interfaces: lo")])),
        (
            "nothing that is here",
            lines(&[("bob", "interfaces: [tap1, \"x*\"], namespaces: router, containers: web")]),
        ),
    ];
    let said = |(name, users): &(&str, String)| {
        let text = format!("version: 1\nlinks: {{eth0: }}\nusers: {{{users}}}");
        format!("=== {name}\n{}\n\n", said_of(&hosting(), &text))
    };
    insta::assert_snapshot!("two_claims", cases.iter().map(said).collect::<String>());
}

fn said_of(facts: &Facts, text: &str) -> String {
    said_on(facts, BuildOptions::default(), text)
}
