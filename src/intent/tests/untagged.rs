//! Units where no tags are read: by the cgroups (v2) of sockets.

use super::*;
use crate::facts::{Lack, NoCgroups, Spared};
use crate::plan::{Step, Whole};
use crate::tree::{Cgroup, Filter, Key, OwnerKey, Turn};

const POLICY: &str = "
links: {eth0: {rate: 1gbit, classifier: uid}}
users: {web: {ceil: 10mbit, units: [web.service]}, files: {ceil: 10mbit, units: [smbd.service], follow: effective}}
";

fn with_units(units: &[(u8, u64, &str)]) -> Observation {
    let mut seen = host();
    seen.facts.features.classifiers.insert(Classifier::Uid);
    seen.facts.features.helpers.ancestor_cgroup = true;
    know(&mut seen, units);
    seen
}

fn know(seen: &mut Observation, units: &[(u8, u64, &str)]) {
    let units =
        units.iter().map(|(level, id, unit)| (Cgroup { level: *level, id: *id }, unit.to_string()));
    seen.facts.unit_cgroups = Some(Ok(units.collect()));
}

#[test]
fn units_are_refused_where_no_program_can_tell_a_sockets_cgroup() {
    let refused = |seen: Observation| match resolve(&intent(POLICY), seen) {
        Err(refusal) => refusal.to_string(),
        Ok(_) => String::new(),
    };
    assert_eq!(refused(with_units(&[])), "");
    let mut kernel = with_units(&[]);
    kernel.facts.features.helpers.ancestor_cgroup = false;
    assert!(refused(kernel.clone()).contains("CONFIG_SOCK_CGROUP_DATA"));
    // Who may not try what the kernel can do is told of what stands.
    kernel.facts.lacks = Some(Lack::Root);
    assert_eq!(refused(kernel), "");
    for (why, said) in
        [(NoCgroups::NotMounted, "mounted nowhere"), (NoCgroups::Inside, "cgroup namespace")]
    {
        let mut seen = with_units(&[]);
        seen.facts.unit_cgroups = Some(Err(why));
        let refused = refused(seen.clone());
        assert!(refused.contains(said) && refused.contains("classifier: auto"), "{refused}");
        // The tags say it.
        let tagged = POLICY.replace("uid", "bpf");
        assert!(resolve(&intent(&tagged), seen).is_ok());
    }
}

#[test]
fn a_units_cgroup_has_its_lines_class() {
    let there = [
        (2, 40, "web.service"),
        (2, 41, "cron.service"),
        (3, 42, "smbd.service"),
        (9, 43, "web.service"),
    ];
    let resolved = resolved(&intent(POLICY), with_units(&there));
    let class = |line: &str| resolved.desired.claims[&claim(line)];
    let cgroup = |level, id, turn| (Cgroup { level, id }, turn);
    let wanted = [
        (cgroup(2, 40, Turn::First), class("user/web")),
        (cgroup(3, 42, Turn::AfterOwner), class("user/files")),
    ];
    let table = resolved.desired.owners.as_ref().unwrap();
    assert_eq!(table.cgroups, wanted.into(), "none that is too deep to be asked about");
}

#[test]
fn before_a_program_asks_for_cgroups_the_map_has_them_and_afterwards_they_go() {
    let there = [(2, 40, "web.service")];
    let tagged = intent(&POLICY.replace("uid", "bpf"));
    let mut seen = shaped_with(&tagged, with_units(&there));
    for (intent, first) in [(&intent(POLICY), "entries"), (&tagged, "filter")] {
        let resolved = resolved(intent, seen.clone());
        let steps = resolved.plan.steps.iter().filter_map(|planned| match &planned.step {
            Step::Filter(.., Whole::Add(Filter::Tag(_))) => Some("filter"),
            Step::Entries(changes) => {
                let all = changes.iter().all(|it| matches!(it.key, OwnerKey::Cgroup(..)));
                all.then_some("entries")
            }
            _ => None,
        });
        let steps: Vec<_> = steps.collect();
        assert_eq!((steps.len(), steps[0]), (2, first), "{}", resolved.plan);
        seen = after(&resolved, seen);
    }
}

/// The host with the policy in force.
fn shaped_with(intent: &Intent, seen: Observation) -> Observation {
    after(&resolved(intent, seen.clone()), seen)
}

#[test]
fn that_a_unit_is_restarted_is_routine_and_that_a_line_changes_is_not() {
    let seen = shaped_with(&intent(POLICY), with_units(&[(2, 40, "web.service")]));
    let changes = |text: &str, units: &[(u8, u64, &str)]| {
        let mut seen = seen.clone();
        know(&mut seen, units);
        let plan = resolved(&intent(text), seen).plan;
        (plan.steps.len(), plan.changes())
    };
    assert_eq!(changes(POLICY, &[(2, 40, "web.service")]), (0, false));
    assert_eq!(changes(POLICY, &[(2, 50, "web.service")]), (1, false), "started again");
    assert_eq!(changes(POLICY, &[]), (1, false), "ended");
    let both = [(2, 40, "web.service"), (2, 41, "shop.service")];
    let named = POLICY.replace("[web.service]", "[web.service, shop.service]");
    let renamed = POLICY.replace("[web.service]", "[shop.service]");
    assert_eq!(changes(&named, &both[..1]), (0, false));
    assert_eq!(changes(&renamed, &both), (1, true), "another unit is the line's");
}

/// The warnings, each with its cure.
fn warned(policy: &str, seen: Observation) -> Vec<String> {
    let said = resolved(&intent(policy), seen).meaning.warnings;
    said.into_iter().map(|it| format!("{} ({})", it.message, it.help.unwrap_or_default())).collect()
}

#[test]
fn of_a_service_that_hands_connections_on_to_users_is_said_whose_they_stay() {
    let there = [(2, 40, "ssh.service")];
    for (units, warns) in [
        ("[ssh.service]", true),
        ("[web.service, sshd.service]", true),
        ("[\"ssh*.service\"]", true),
        ("[ssh.service], follow: effective", false),
        ("[\"ssh@.service\"]", false),
        ("[web.service]", false),
    ] {
        let text = POLICY.replace("[web.service]", units);
        let said = warned(&text, with_units(&there));
        let is_it = |it: &String| it.contains("has accepted stays") && it.contains("`follow: eff");
        assert_eq!((said.len(), said.iter().any(is_it)), (usize::from(warns), warns), "{said:?}");
        assert_eq!(warned(&text.replace("uid", "bpf"), with_units(&there)), [""; 0], "{units}");
    }
}

#[test]
fn before_linux_5_15_a_socket_has_no_cgroup_where_tags_are_used() {
    let of = |release, text: &str| {
        let mut seen = with_units(&[(2, 40, "web.service")]);
        seen.facts.release = Some(release);
        match resolve(&intent(text), seen) {
            Ok(resolved) => resolved.meaning.warnings.into_iter().map(|it| it.message).collect(),
            Err(refusal) => refusal.to_string(),
        }
    };
    let both = POLICY.replace("uid}}", "uid}, eth1: {rate: 1gbit, classifier: bpf}}");
    assert_eq!(of((5, 15), POLICY), "");
    assert_eq!(of((5, 15), &both), "");
    assert!(of((5, 10), POLICY).contains("`units` caps nothing if net_cls"));
    assert!(of((5, 10), &both).contains("once tags are used, which eth1 reads"));
    assert_eq!(of((5, 10), &POLICY.replace("uid", "bpf")), "");
    // Unless the kernel describes it as a newer one's.
    let mut seen = with_units(&[(2, 40, "web.service")]);
    (seen.facts.release, seen.facts.has_both) = (Some((5, 14)), true);
    assert!(resolve(&intent(POLICY), seen).unwrap().meaning.warnings.is_empty());
}

#[test]
fn net_cls_is_left_unmounted_for_units_that_have_cgroups() {
    let text = POLICY.replace("uid", "auto");
    let auto = intent(&text);
    let needs = |seen: &Observation| needs_tags(&auto.policy, &seen.facts);
    let mut seen = with_units(&[(2, 40, "web.service")]);
    seen.facts.release = Some((6, 1));
    assert!(!needs(&seen));
    assert!(needs_tags(&intent(&POLICY.replace("uid", "bpf")).policy, &seen.facts));
    seen.facts.features.spared = Some(Spared::Podman);
    let given = |seen: &Observation| {
        let owners = resolve(&auto, seen.clone()).unwrap().desired.owners.unwrap();
        owners.cgroups.len()
    };
    assert_eq!(given(&seen), 1, "its unit is known by its cgroup");
    // As if the link said `uid`.
    seen.facts.features.helpers.ancestor_cgroup = false;
    assert!(resolve(&auto, seen.clone()).is_err());
    for (release, has_both, needed) in [((5, 10), false, true), ((5, 14), true, false)] {
        (seen.facts.release, seen.facts.has_both) = (Some(release), has_both);
        assert_eq!(needs(&seen), needed);
    }
    seen.facts.unit_cgroups = Some(Err(NoCgroups::NotMounted));
    assert!(needs(&seen));
}

#[test]
fn what_run_put_somewhere_has_its_owners_class_on_whatever_plan() {
    let text = POLICY.replace("users: {", "users: {ann: 20mbit, ");
    let ann = Owner::User(Key::new("ann").unwrap());
    let (at, web) = (Cgroup { level: 3, id: 77 }, Cgroup { level: 2, id: 40 });
    let mut seen = with_units(&[(2, 40, "web.service")]);
    seen.facts.pinned_cgroups = BTreeMap::from([(at, ann.clone())]);
    let shaped = shaped_with(&intent(&text), seen.clone());
    let class = |owner: &Owner| shaped.state.claims[&Claim::Owner(owner.clone())];
    let table = shaped.state.owners.as_ref().unwrap();
    let webs = class(&Owner::User(Key::new("web").unwrap()));
    assert_eq!(
        table.cgroups,
        [((web, Turn::First), webs), ((at, Turn::First), class(&ann))].into()
    );
    // Its process has ended, or another one was put there: no news for cron.
    for pinned in [BTreeMap::new(), [(at, ann.clone()), (Cgroup { id: 78, ..at }, ann)].into()] {
        let mut now = shaped.clone();
        now.facts.pinned_cgroups = pinned;
        let plan = resolve(&intent(&text), now).unwrap().plan;
        assert!(!plan.steps.is_empty() && plan.steps.iter().all(|it| it.routine), "{plan}");
    }
    // Where tags are read they say it.
    let mut tagged = with_units(&[(2, 40, "web.service")]);
    tagged.facts.pinned_cgroups = seen.facts.pinned_cgroups;
    let owners = shaped_with(&intent(&text.replace("uid", "bpf")), tagged).state.owners.unwrap();
    assert_eq!(owners.cgroups, BTreeMap::new());
}

#[test]
fn that_no_unit_has_a_cgroup_is_said() {
    let said = warned(POLICY, with_units(&[]));
    assert!(said.len() == 1 && said[0].contains("unified_cgroup_hierarchy=1"), "{said:?}");
}

#[test]
fn a_program_that_asks_for_cgroups_is_known_on_whichever_link_it_is() {
    let asks = |[first, second]: [&str; 2]| {
        let links = format!("uid}}, eth1: {{rate: 1gbit, classifier: {second}}}}}");
        let text = POLICY.replace("uid}}", &links).replacen("uid", first, 1);
        shaped_with(&intent(&text), with_units(&[(2, 40, "web.service")])).state.asks_cgroups()
    };
    assert!(asks(["bpf", "uid"]), "what a unit sends by eth1 goes by its cgroup alone");
    assert!(asks(["uid", "uid"]));
    assert!(!asks(["bpf", "bpf"]));
}
