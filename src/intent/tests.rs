//! Decisions on hosts that are stated as values, without a kernel and without waiting.

mod accounts;
mod down;
mod evidence;
mod generated;
mod guests;
mod kernel;
mod later;
mod links;
mod quiet;
mod trial;
mod untagged;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::desired::Sharding;
use crate::facts::{Account, Features, Helpers, LinkFacts, RootQdisc};
use crate::plan::perform;
use crate::policy;
use crate::tree::{Claim, Classifier, LinkName, Owner};
use crate::units::{ClassId, Rate};

/// Uids of those who may have a process; carol and dave are students.
const PEOPLE: [(&str, u32); 4] = [("ann", 2001), ("bob", 2002), ("carol", 2003), ("dave", 2004)];
const STUDENTS: (u32, [&str; 2]) = (3000, ["carol", "dave"]);

fn name(link: &str) -> LinkName {
    LinkName::new(link).unwrap()
}

fn claim(path: &str) -> Claim {
    path.parse().unwrap()
}

/// A host with two links of 1 Gbit/s, eth0 with the default route, and a kernel that has all
/// features.
fn host() -> Observation {
    let account = |(name, uid): (&str, u32)| {
        let also = STUDENTS.1.contains(&name).then_some(STUDENTS.0);
        let gids = [uid].into_iter().chain(also).collect();
        (uid, Account { name: name.to_string(), gids })
    };
    let mut seen = Observation::default();
    seen.facts.links = [(name("eth0"), link(2)), (name("eth1"), link(3))].into();
    seen.facts.own_sockets_only = true;
    seen.facts.features = Features {
        tried: true,
        htb: true,
        classifiers: BTreeSet::from([Classifier::Cgroup, Classifier::Bpf]),
        helpers: Helpers { socket_tag: true, netns_cookie: true, ..Helpers::default() },
        clsact: true,
        no_net_cls: None,
        spared: None,
        leaves: BTreeSet::from(["fq_codel", "bfifo"]),
    };
    let accounts = &mut seen.facts.accounts;
    accounts.by_uid = PEOPLE.into_iter().map(account).collect();
    accounts.by_name = PEOPLE.map(|(name, uid)| (name.to_string(), Some(uid))).into();
    accounts.groups = [("students".to_string(), Some(STUDENTS.0))].into();
    seen
}

fn link(ifindex: u32) -> LinkFacts {
    LinkFacts {
        speed: Rate::from_bits_per_second(1_000_000_000),
        default_route_v4: (ifindex == 2).then_some(100),
        ..LinkFacts::ethernet(ifindex)
    }
}

fn intent(text: &str) -> Intent {
    let policy = policy::parse(&format!("version: 1\n{text}"), "policies.yaml");
    Intent::new(policy.unwrap_or_else(|report| panic!("{report}")), Options::default())
}

#[track_caller]
fn resolved(intent: &Intent, seen: Observation) -> Resolved {
    resolve(intent, seen).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The links that are passed over, by ifindex.
fn passed_over(meaning: &Meaning) -> BTreeSet<u32> {
    meaning.passed_over.values().map(|it| it.ifindex).collect()
}

/// The host once the plan was carried out, with nobody's processes changed.
fn after(resolved: &Resolved, mut seen: Observation) -> Observation {
    seen.state = resolved.meaning.observation.state.clone();
    seen.strange = resolved.meaning.observation.strange.clone();
    resolved.plan.steps.iter().for_each(|planned| perform(&planned.step, &mut seen));
    for (name, facts) in &mut seen.facts.links {
        if seen.state.trees.contains_key(&name.egress()) {
            facts.root = RootQdisc::Ours;
        }
    }
    seen
}

/// The same host with a policy in force and these uids running.
#[track_caller]
fn shaped(intent: &Intent, running: &[u32]) -> Observation {
    let mut seen = host();
    seen.facts.accounts.running.extend(running);
    let first = resolved(intent, seen.clone());
    after(&first, seen)
}
