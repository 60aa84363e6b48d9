//! Links behind which guests are.

use super::*;
use crate::facts::NamespaceId;
use crate::tree::{Filter, Label, Pref};
use crate::units::Minor;

const POLICY: &str = "links: {eth0: {rate: 100mbit}, veth0: {rate: 100mbit}}
users:
  ann: {ceil: 10mbit, interfaces: [wg0], addresses: [10.8.0.5]}
  bob: {ceil: 10mbit, interfaces: [wg0]}
";

/// The host with a tunnel and a shaped veth, whose peer is in another namespace.
fn hosting(wg0: u32) -> Observation {
    let mut seen = host();
    let links = &mut seen.facts.links;
    let peer_namespace = Some(NamespaceId(0));
    links.insert(name("wg0"), LinkFacts { ethernet: false, ..link(wg0) });
    links.insert(name("veth0"), LinkFacts { peer_namespace, ..link(5) });
    seen
}

fn label(resolved: &Resolved, link: &str) -> Option<Label> {
    let clsact = resolved.desired.clsact.get(&name(link))?;
    let mut labels = Pref::LABEL.iter().filter_map(|pref| clsact.ingress.filters.get(pref));
    labels.find_map(|filter| match filter {
        Filter::Label(label) => Some(*label),
        _ => None,
    })
}

#[test]
fn whoever_is_behind_a_shaped_veth_cannot_write_a_label() {
    let first = resolved(&intent(POLICY), hosting(20));
    let owner = label(&first, "wg0").and_then(|label| label.owner);
    assert!(owner.is_some_and(Minor::is_user));
    let of_veth = label(&first, "veth0").expect("a label");
    assert_eq!((of_veth.owner, of_veth.by_source), (None, false), "nobody's");
    assert_eq!(label(&first, "eth0"), None, "what comes from the network has none");
    // Not what a bridge below has labelled, either.
    assert!(!of_veth.keeps);
}

#[test]
fn a_tunnel_that_comes_again_is_no_change() {
    let intent = intent(POLICY);
    let first = resolved(&intent, hosting(20));
    let mut seen = after(&first, hosting(20));
    let again = |seen: &Observation| resolved(&intent, seen.clone()).plan;
    assert!(again(&seen).is_empty());
    // Its filters went with it.
    seen.facts.links.insert(name("wg0"), LinkFacts { ethernet: false, ..link(21) });
    seen.state.clsact.remove(&name("wg0"));
    let plan = again(&seen);
    assert!(!plan.is_empty());
    let news: Vec<String> =
        plan.steps.iter().filter(|step| !step.routine).map(|it| it.step.to_string()).collect();
    assert_eq!(news, Vec::<String>::new());
    // Another's address is one.
    let other = super::intent(&POLICY.replace("10.8.0.5", "10.8.0.6"));
    let seen = after(&first, hosting(20));
    let plan = resolved(&other, seen).plan;
    assert!(plan.steps.iter().any(|step| !step.routine), "{plan}");
}
