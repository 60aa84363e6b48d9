//! Whole policies, from text to model: what is refused and how it is said (golden texts in
//! `snapshots/`), what is built, and the examples in `policies/`.
#![allow(clippy::too_many_lines, reason = "a list of cases is a table")]

mod bad_boost;
mod bad_down;
mod bad_input;
mod bad_quota;
mod built;
mod cures;
mod examples;
mod guests;
mod never_panics;
mod quotas;
mod windows;
mod windows_above;

use std::collections::BTreeSet;

use crate::facts::{Account, Facts, LinkFacts, RootQdisc, Subuids};
use crate::policy;
use crate::tree::{Group, LinkName, UidRange};

use super::{BuildOptions, Model, build};

/// A host with two cards, a link without a speed, a bond, a VLAN and a VPN.
fn host() -> Facts {
    let mut facts = Facts::default();
    let devices = [
        ("lo", None, None),
        ("eth0", Some("1gbit"), None),
        ("eth1", Some("100mbit"), None),
        ("virt0", None, None),
        ("bond0", Some("2gbit"), Some("bond")),
        ("slave0", Some("1gbit"), None),
        ("eth0.7", Some("1gbit"), Some("vlan")),
        ("wg0", None, Some("wireguard")),
    ];
    for (index, (name, speed, kind)) in (1..).zip(devices) {
        facts.links.insert(
            LinkName::new(name).unwrap(),
            LinkFacts {
                ifindex: index,
                altnames: altnames(name),
                shaped_at: None,
                mtu: 1500,
                speed: speed.map(|speed| speed.parse().unwrap()),
                kind: kind.map(str::to_string),
                master: (name == "slave0").then_some(5),
                lower: (name == "eth0.7").then_some(2),
                peer_namespace: None,
                loopback: name == "lo",
                ethernet: !matches!(name, "lo" | "wg0"),
                up: true,
                default_route_v4: (name == "eth0").then_some(100),
                default_route_v6: None,
                root: RootQdisc::Kernel { kind: "pfifo_fast".to_string() },
            },
        );
    }
    let accounts = &mut facts.accounts;
    for (name, uid, gids) in [
        ("ann", 1001, [1001, 500]),
        ("bob", 1002, [1002, 500]),
        ("cat", 1003, [1003, 600]),
        ("dan", 1004, [1004, 1004]),
        ("borg", 990, [990, 990]),
    ] {
        accounts.by_name.insert(name.to_string(), Some(uid));
        let account = Account { name: name.to_string(), gids: BTreeSet::from(gids) };
        accounts.by_uid.insert(uid, account);
    }
    for name in ["nobody-here", "staff", "@physics", "%staff", "4711", "2000-2999"] {
        accounts.by_name.insert(name.to_string(), None);
    }
    accounts.groups.insert("staff".to_string(), Some(500));
    accounts.groups.insert("students".to_string(), Some(600));
    accounts.groups.insert("no-such-group".to_string(), None);
    let range = UidRange { first: 100_000, last: 165_535 };
    let subuids = Subuids { range, written: "ann".to_string(), owner: Some(1001) };
    accounts.subuids = vec![subuids].into();
    facts
}

/// Alternative names as udev gives them to hardware.
fn altnames(name: &str) -> Vec<String> {
    (name == "eth0").then(|| "enp0s31f6np0-uplink".to_string()).into_iter().collect()
}

fn device<'a>(facts: &'a mut Facts, name: &str) -> &'a mut LinkFacts {
    facts.links.get_mut(&LinkName::new(name).unwrap()).unwrap()
}

/// The model of a policy that is fine on this host, without any note.
fn built_on(facts: &Facts, text: &str) -> Model {
    let policy = policy::parse(text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
    let (model, notes) =
        build(&policy, facts, BuildOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(notes, [], "no notes");
    model
}

/// The model of a policy that is fine but for one note.
fn built_with_a_note(facts: &Facts, text: &str) -> Model {
    let policy = policy::parse(text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
    let (model, notes) =
        build(&policy, facts, BuildOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(notes.len(), 1, "{notes:?}");
    model
}

fn built(text: &str) -> Model {
    built_on(&host(), text)
}

/// The report on a policy: its errors, or else its notes.
fn said_on(facts: &Facts, options: BuildOptions, text: &str) -> String {
    let policy = match policy::parse(text, "policies.yaml") {
        Ok(policy) => policy,
        Err(report) => return report.to_string(),
    };
    match build(&policy, facts, options) {
        Ok((_, notes)) => policy::Report::new(&policy.source, notes).to_string(),
        Err(report) => report.to_string(),
    }
}
