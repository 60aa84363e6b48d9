//! Whatever stands in a file, the answer is a model or a report.

use proptest::prelude::*;

use super::*;

/// Pieces of policies, good and bad, to be put together at random.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("version: 1\nlinks: {eth0: , eth1: {rate: 50%}}\n".to_string()),
        Just("users: {bob: 10mbit, ann: {rate: 1%, group: g, links: {eth1: none}}}\n".to_string()),
        Just("groups: {g: {gid: staff, parent: h, each: 1%}, h: {users: [bob]}}\n".to_string()),
        Just("everyone: {uids: [1-5, 7-], ceil: 10%}\n".to_string()),
        Just("rules: [{src: [10.0.0.0/8, \"::/0\"], proto: icmp, to: bob}]\n".to_string()),
        Just("x-a: &a {ceil: 1mbit, <<: {prio: 1}}\nusers: {cat: *a}\n".to_string()),
        "[ \t\n:,{}\\[\\]&*!|>'\"%@`#-]{0,8}",
        "[a-z]{1,5}: [0-9a-z%]{0,6}\n",
        "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn on_arbitrary_text(text in any::<String>()) {
        said_on(&host(), BuildOptions::default(), &text);
    }

    #[test]
    fn on_shuffled_policies(pieces in prop::collection::vec(piece(), 0..8)) {
        let text = pieces.concat();
        said_on(&host(), BuildOptions::default(), &text);
        said_on(&Facts::default(), BuildOptions { offline: true, skip_unknown: true, skip_absent: true, absent_links: true }, &text);
    }

    #[test]
    fn on_examples_with_a_few_bytes_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..5)
    ) {
        let mut text: Vec<char> = include_str!("../../../policies/hosting.yaml").chars().collect();
        for (at, to) in changes {
            let at = at.index(text.len());
            text[at] = to;
        }
        said_on(&host(), BuildOptions::default(), &text.into_iter().collect::<String>());
    }
}
