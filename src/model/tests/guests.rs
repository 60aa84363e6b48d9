//! Whose guests are.

use super::bad_input::golden;
use super::*;
use crate::facts::NamespaceId;
use crate::model::InnerLink;
use crate::tree::Owner;

/// The host with links behind which guests are.
fn hosting() -> Facts {
    let mut facts = host();
    for (ifindex, name, peer) in [(20, "vnet3", None), (21, "veth1", Some(0)), (22, "tap0", None)] {
        let link = LinkFacts {
            peer_namespace: peer.map(NamespaceId),
            kind: Some(if peer.is_some() { "veth" } else { "tun" }.to_string()),
            ..LinkFacts::ethernet(ifindex)
        };
        facts.links.insert(LinkName::new(name).unwrap(), link);
    }
    facts.accounts.by_name.insert("lab".to_string(), None);
    facts
}

/// Who has each link: its owner, then its addresses with theirs.
fn inner(facts: &Facts, lines: &str) -> Vec<String> {
    let text = format!("version: 1\nlinks: {{eth0: }}\nusers: {{{lines}}}");
    let inner = built_on(facts, &text).inner.unwrap_or_default();
    let words = |(name, link): (LinkName, InnerLink)| {
        let owner = link.owner.iter().map(Owner::to_string);
        let addresses = link.addresses.iter().map(|(net, owner)| format!("{net}={owner}"));
        let all: Vec<String> = owner.chain(addresses).collect();
        format!("{name}: {}", all.join(" "))
    };
    inner.into_iter().map(words).collect()
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
