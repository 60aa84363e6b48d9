//! Links with which a policy cannot hold: found by trial, which is remembered, and `auto` goes to
//! no other link for them.

use super::*;
use crate::quota::{Account, Bucket, Traffic};
use crate::times::Timestamp;
use crate::tree::{Group, Key, Owner};

/// A kernel whose third links are slower than ann's limits.
fn many() -> Observation {
    let mut seen = host();
    for index in 2..30 {
        let facts = LinkFacts {
            speed: if index % 3 == 0 { "10mbit" } else { "1gbit" }.parse().ok(),
            ..link(10 + index)
        };
        seen.facts.links.insert(name(&format!("eth{index}")), facts);
    }
    seen.facts.now = Timestamp::from_second(1_800_000_000).unwrap();
    seen
}

const NIGHT: &str = "
times: {night: {at: \"22:00-06:00\"}}
links: {'eth*': 90%}
users: {ann: {rate: 15mbit, when: {night: {rate: 16mbit}}}}
";

/// That a meaning with what was tried before is the one that a trial finds.
#[track_caller]
fn means(intent: &Intent, seen: &Observation, tried: &mut Tried) -> Meaning {
    let [then, anew] = [tried, &mut Tried::default()].map(|tried| {
        intent.mean(seen.clone(), tried).unwrap_or_else(|refusal| panic!("{refusal}"))
    });
    assert_eq!(then.passed_over, anew.passed_over);
    assert_eq!(then.good_links(), anew.good_links());
    let said = |it: &Meaning| it.warnings.iter().map(|it| it.message.clone()).collect::<Vec<_>>();
    assert_eq!(said(&then), said(&anew));
    assert_eq!(then.model.valid_until, anew.model.valid_until);
    then
}

#[test]
fn what_a_trial_finds_is_known_until_something_differs() {
    let mut intent = intent(NIGHT);
    intent.options.absent_links = true;
    let (mut seen, mut tried) = (many(), Tried::default());
    let then = means(&intent, &seen, &mut tried);
    assert_eq!((then.passed_over.len(), tried.made), (9, 1));
    // From now on these were fit.
    intent.good = then.good_links();
    let mut until = None;
    for _ in 0..5 {
        until = means(&intent, &seen, &mut tried).model.valid_until;
        seen.facts.now += std::time::Duration::from_secs(1);
        assert_eq!(tried.made, 2, "only time went by");
    }
    seen.facts.now = until.expect("the night begins or ends");
    means(&intent, &seen, &mut tried);
    assert_eq!(tried.made, 3, "another window holds");
    seen.facts.links.get_mut(&name("eth3")).unwrap().speed = "1gbit".parse().ok();
    assert_eq!(means(&intent, &seen, &mut tried).passed_over.len(), 8);
    assert_eq!(tried.made, 4);
    seen.facts.accounts.running.insert(2001);
    means(&intent, &seen, &mut tried);
    assert_eq!(tried.made, 5);
    let other = Intent { policy: super::intent(NIGHT).policy, ..intent.clone() };
    means(&other, &seen, &mut tried);
    assert_eq!(tried.made, 6, "another policy");
    seen.facts.links.retain(|_, link| link.speed != "10mbit".parse().ok());
    assert!(means(&intent, &seen, &mut tried).passed_over.is_empty());
    assert_eq!(tried.made, 6, "all are fit");
}

/// Every third link is too slow, whatever is used.
const METERED: &str = "
links: {'eth*': 90%}
groups: {team: {ceil: 100mbit, quota: {month: 1GB, then: {50%: 8mbit, 100%: 1mbit}}}}
users: {ann: {rate: 15mbit, quota: {12h: 1GB, then: {50%: 8mbit, 100%: 1mbit}}}, bob: {ceil: 5mbit, group: team}}
";

#[test]
fn what_is_used_of_quotas_has_no_trial_made_again() {
    let mut intent = intent(METERED);
    intent.options.absent_links = true;
    let (mut seen, mut tried) = (many(), Tried::default());
    let at = seen.facts.now.as_second();
    let owners = [
        Owner::User(Key::new("ann").unwrap()),
        Owner::Group(Group::Line(Key::new("team").unwrap())),
    ];
    let mut ceils = std::collections::BTreeSet::new();
    for megabytes in [0, 1, 499, 500, 700, 999, 1_000, 5_000] {
        let sent = megabytes * 1_000_000;
        let bucket = Bucket { at, traffic: Traffic { sent, received: 0 } };
        let account = Account::kept(None, vec![bucket], Vec::new());
        let all = owners.iter().map(|owner| (owner.clone(), account.clone()));
        seen.facts.used.accounts = std::sync::Arc::new(all.collect());
        let then = means(&intent, &seen, &mut tried);
        assert_eq!((then.passed_over.len(), tried.made), (9, 1), "{megabytes} MB");
        let of_ann = then.model.nodes.iter().find(|node| node.owner == owners[0]).unwrap();
        ceils.extend(of_ann.limits.iter().flatten().map(|limits| limits.ceil));
    }
    assert!(ceils.len() > 2, "steps hold: {ceils:?}");
}

fn foreign() -> RootQdisc {
    let handle = ClassId::qdisc(7);
    RootQdisc::Foreign { kind: "cake".to_string(), handle, r2q: None, options: Vec::new() }
}

/// Somebody's root qdisc is at the link of the default route, and another link has a route too.
#[test]
fn auto_goes_to_no_other_link_where_somebody_has_the_root_of_its_own() {
    for (policy, others) in [
        ("links: {auto: 100mbit}\nusers: {ann: 1mbit}\n", &[][..]),
        ("links: {auto: 100mbit, eth2: 10mbit}\nusers: {ann: 1mbit}\n", &["eth2"]),
    ] {
        let mut intent = intent(policy);
        let mut seen = host();
        seen.facts.links.insert(name("eth2"), LinkFacts { default_route_v4: Some(300), ..link(4) });
        let eth = |seen: &mut Observation, of: &str, route, root: Option<RootQdisc>| {
            let link = seen.facts.links.get_mut(&name(of)).unwrap();
            link.default_route_v4 = route;
            root.into_iter().for_each(|root| link.root = root);
        };
        eth(&mut seen, "eth1", Some(200), None);
        eth(&mut seen, "eth0", Some(100), Some(foreign()));
        assert!(matches!(resolve(&intent, seen.clone()), Err(Refusal::InTheWay(_))));
        intent.options.absent_links = true;
        let shaped = |then: &Resolved| {
            then.desired.trees.keys().map(|port| port.link.to_string()).collect::<Vec<_>>()
        };
        let then = resolved(&intent, seen.clone());
        assert_eq!(shaped(&then), others, "{policy}");
        assert_eq!(then.meaning.passed_over.keys().collect::<Vec<_>>(), [&name("eth0")]);
        // It goes, and `auto` is where the route is.
        let kernels = RootQdisc::Kernel { kind: "noqueue".to_string() };
        eth(&mut seen, "eth0", Some(100), Some(kernels));
        let then = resolved(&intent, seen);
        let all = ["eth0"].iter().chain(others).copied().collect::<Vec<_>>();
        assert_eq!(shaped(&then), all, "{policy}");
        // The route goes to a link with such a root: what was shaped until then stays so.
        let mut seen = after(&then, then.meaning.observation.clone());
        intent.good = then.meaning.good_links();
        eth(&mut seen, "eth0", None, None);
        eth(&mut seen, "eth1", Some(50), Some(foreign()));
        eth(&mut seen, "eth2", Some(300), None);
        let then = resolved(&intent, seen);
        assert_eq!(shaped(&then), all, "{policy}");
        assert!(then.plan.is_empty(), "{}", then.plan);
        assert_eq!(then.meaning.passed_over.keys().collect::<Vec<_>>(), [&name("eth1")]);
    }
}
