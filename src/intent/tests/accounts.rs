//! Which owners have a class, and which lose it.

use super::*;
use crate::plan::{Change, Step};

const EVERYONE: &str = "links: {eth0: 1gbit}\n\
                        groups: {students: {gid: students, ceil: 100mbit}}\n\
                        everyone: 5mbit\n";

/// A policy for everybody, in force while bob and carol run; bob's class, and carol's.
fn two_run() -> (Intent, Observation, [ClassId; 2]) {
    let intent = intent(EVERYONE);
    let seen = shaped(&intent, &[2002, 2003]);
    let classes = ["uid/2002", "uid/2003"].map(|path| seen.state.claims[&claim(path)]);
    (intent, seen, classes)
}

fn has_class(resolved: &Resolved, path: &str) -> bool {
    resolved.desired.claims.contains_key(&claim(path))
}

#[test]
fn who_has_no_process_keeps_the_class_until_it_is_quiet() {
    let (intent, mut seen, [bob, _]) = two_run();
    seen.facts.accounts.running.remove(&2002);
    assert_eq!(intent.may_leave(&seen), [Owner::Uid(2002)].into(), "bob, and not carol");
    let first = resolved(&intent, seen.clone());
    assert!(first.plan.is_empty(), "{}", first.plan);
    assert_eq!(first.meaning.draining, [bob].into());
    seen.facts.quiet.insert(bob);
    let then = resolved(&intent, seen);
    assert!(!has_class(&then, "uid/2002") && has_class(&then, "uid/2003"));
    assert!(then.meaning.draining.is_empty());
    assert!(then.plan.steps.iter().all(|planned| planned.routine), "a logout is no news");
}

#[test]
fn who_has_no_process_and_no_class_leaves_at_once() {
    let (intent, mut seen, [bob, _]) = two_run();
    seen.facts.accounts.running.remove(&2002);
    // Somebody deleted it.
    let tree = seen.state.trees.get_mut(&name("eth0").egress()).unwrap();
    tree.classes.remove(&bob);
    tree.leaves.remove(&bob);
    let then = resolved(&intent, seen);
    assert!(!has_class(&then, "uid/2002") && then.meaning.draining.is_empty());
}

#[test]
fn somebody_in_the_directory_keeps_it() {
    let (intent, mut seen, [bob, carol]) = two_run();
    seen.facts.accounts.running.clear();
    seen.facts.quiet.extend([bob, carol]);
    seen.occupied.insert(Owner::Uid(2002));
    let then = resolved(&intent, seen);
    assert!(has_class(&then, "uid/2002"), "a process was put there by hand");
    assert!(!has_class(&then, "uid/2003"));
}

#[test]
fn of_those_who_have_time_of_grace_only_whose_is_over_leave() {
    let (mut intent, mut seen, [bob, carol]) = two_run();
    seen.facts.accounts.running.clear();
    seen.facts.quiet.extend([bob, carol]);
    intent.leaving = Leaving::These(BTreeSet::new());
    assert!(resolved(&intent, seen.clone()).plan.is_empty());
    intent.leaving = Leaving::These([Owner::Uid(2003)].into());
    let then = resolved(&intent, seen.clone());
    assert!(has_class(&then, "uid/2002") && !has_class(&then, "uid/2003"));
    // The same holds of an account that came back meanwhile: the daemon alone says who leaves.
    seen.facts.accounts.running.insert(2003);
    assert!(!has_class(&resolved(&intent, seen), "uid/2003"));
}

#[test]
fn who_came_in_this_run_has_a_class_though_the_process_ended() {
    let mut intent = intent(EVERYONE);
    let mut seen = shaped(&intent, &[2003]);
    assert!(!has_class(&resolved(&intent, seen.clone()), "uid/2002"));
    intent.came.insert(Owner::Uid(2002));
    let then = resolved(&intent, seen.clone());
    assert!(has_class(&then, "uid/2002"));
    assert!(then.meaning.facts().accounts.running.contains(&2002));
    assert!(then.plan.steps.iter().all(|planned| planned.routine), "a login is no news");
    seen = after(&then, seen);
    assert!(intent.may_leave(&seen).is_empty(), "who came in this run does not leave in it");
}

#[test]
fn while_nss_is_silent_nobody_is_moved_to_another_class() {
    let (intent, mut seen, _) = two_run();
    let accounts = &mut seen.facts.accounts;
    accounts.by_uid.clear();
    accounts.groups = [("students".to_string(), None)].into();
    accounts.unavailable = Some("the name service does not answer".to_string());
    let then = resolved(&intent, seen);
    assert!(then.plan.is_empty(), "{}", then.plan);
}

/// Whoever NSS alone knows: which line his uid is for is not known, and the maps still have it.
#[test]
fn while_nss_is_silent_a_name_in_a_line_keeps_its_uids_class() {
    let mut intent = intent("links: {eth0: 1gbit}\nusers: {ann: 10mbit}\neveryone: 5mbit\n");
    intent.options.skip_unknown = true;
    let seen = shaped(&intent, &[2001]);
    let hers = seen.state.claims[&claim("user/ann")];
    let owners = |resolved: &Resolved| resolved.desired.owners.clone().unwrap();
    assert_eq!(owners(&resolved(&intent, seen.clone())).accounts[&2001], hers);
    let mut silent = seen.clone();
    let accounts = &mut silent.facts.accounts;
    accounts.by_uid.remove(&2001);
    accounts.by_name.remove("ann");
    accounts.unavailable = Some("the name service does not answer".to_string());
    let then = resolved(&intent, silent.clone());
    assert_eq!(owners(&then).accounts.get(&2001), Some(&hers), "{}", then.plan);
    // Her line is gone meanwhile, so nothing is kept.
    intent.policy = self::intent("links: {eth0: 1gbit}\neveryone: 5mbit\n").policy;
    assert_ne!(owners(&resolved(&intent, silent)).accounts.get(&2001), Some(&hers));
}

#[test]
fn a_group_that_nss_is_silent_about_is_believed_only_of_who_stands_in_it() {
    let (intent, mut seen, _) = two_run();
    seen.facts.accounts.running.insert(2004);
    seen.facts.accounts.by_uid.clear();
    crate::intent::accounts::remember_groups(&intent.policy, &mut seen);
    let found = &seen.facts.accounts;
    assert!(found.by_uid[&2003].gids.contains(&STUDENTS.0), "carol's class is in the group's");
    assert!(!found.by_uid.contains_key(&2002), "bob's is in none");
    assert!(!found.by_uid.contains_key(&2004), "nothing is known of dave");
}

#[test]
fn an_answer_is_believed_whatever_stands() {
    let (intent, mut seen, _) = two_run();
    // Carol is no student any more, and NSS says so.
    seen.facts.accounts.by_uid.get_mut(&2003).unwrap().gids = [2003].into();
    let then = resolved(&intent, seen);
    let tree = &then.desired.trees[&name("eth0").egress()];
    let parent = tree.parent(then.desired.claims[&claim("uid/2003")]);
    assert_eq!(parent, Some(ClassId::LINK));
}

#[test]
fn a_groups_share_follows_logins_and_a_promise_that_was_edited_is_news() {
    let group = |limits: &str| {
        let links = "links: {eth0: 100mbit, eth1: 100mbit}";
        let students = format!("students: {{gid: students, ceil: 50mbit{limits}}}");
        intent(&format!("{links}\ngroups: {{{students}}}\neveryone: 5mbit\n"))
    };
    let news = |before: &Intent, now: &Intent| {
        let mut seen = shaped(before, &[2003]);
        // Somebody logs in meanwhile.
        seen.facts.accounts.running.insert(2002);
        let plan = resolved(now, seen).plan;
        let alters = |step: &Step| matches!(step, Step::Class(_, _, Change::Alter { .. }));
        assert!(plan.steps.iter().any(|planned| alters(&planned.step)), "{plan}");
        plan.steps.iter().any(|planned| !planned.routine)
    };
    assert!(!news(&group(""), &group("")));
    assert!(news(&group(", rate: 20mbit"), &group(", rate: 30mbit")));
}
