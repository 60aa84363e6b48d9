//! The files in `policies/` build on hosts that they are meant for.

use super::*;

/// A host on which every name of the policy is known.
fn fitting(text: &str) -> Facts {
    let mut facts = host();
    let policy = policy::parse(text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
    let lookups = policy.lookups();
    for (uid, name) in (2000..).zip(lookups.accounts) {
        facts.accounts.by_name.insert(name, Some(uid));
    }
    for (gid, name) in (3000..).zip(lookups.groups) {
        facts.accounts.groups.insert(name, Some(gid));
    }
    // The demo's world has one link, and no other has a default route.
    if text.contains("up0:") {
        let uplink = device(&mut facts, "eth0").clone();
        facts.links = [(LinkName::new("up0").unwrap(), uplink)].into();
        return facts;
    }
    device(&mut facts, "eth1").speed = "10gbit".parse().ok();
    facts.accounts.running.extend([1001, 1003, 4242]);
    facts
}

#[test]
fn every_example_builds_without_a_note() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Recipes are tried on real hosts: tests/kernel/recipes.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let model = built_on(&fitting(&text), &text);
        assert!(!model.links.is_empty(), "{}", path.display());
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    for name in ["textbook", "login-node", "hosting"] {
        assert!(names.iter().any(|n| n == name), "{name} is among {names:?}");
    }
}

#[test]
fn the_lab_gives_everyone_who_runs_a_class() {
    let text = include_str!("../../../policies/recipes/lab.yaml");
    let model = built_on(&fitting(text), text);
    let owners: Vec<String> = model.nodes.iter().map(|node| node.owner.to_string()).collect();
    assert_eq!(owners, ["class everyone", "uid 1001", "uid 1003", "uid 4242"]);
    assert_eq!(model.rules[0].matches.len(), 4);
}
