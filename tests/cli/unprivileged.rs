//! Without privilege: one sentence that says what is missing, status 2, nothing touched; and what
//! needs none works.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::invoke::{Sleeper, as_nobody, as_user, exactly, host, shaper};
use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::harness::{On, tests};
use crate::support::program::policy;

tests!(On::Host =>
    what_changes_something_needs_root, check_and_init_need_nothing, users_see_what_is_theirs_and_nothing_of_others,
    whoever_nobody_claims_sees_the_default_class,
    a_plan_without_root_says_so
);

const NEEDS_ROOT: &str = "error: this needs the capability CAP_NET_ADMIN, which this process lacks: run it as root (sudo shaper …)\n";

/// The policy, for everybody to read.
fn readable(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod the policy");
}

fn what_changes_something_needs_root() {
    let path = host();
    readable(&path);
    for words in [&format!("apply {path}"), "clear", "attach ann 1"] {
        exactly(&mut as_nobody(words), 2, "", NEEDS_ROOT);
    }
    exactly(&mut as_nobody("run ann -- true"), 125, "", NEEDS_ROOT);
    let json = "{\"version\":1,\"error\":{\"kind\":\"usage\",\"message\":\"this needs the capability CAP_NET_ADMIN, \
                which this process lacks: run it as root (sudo shaper …)\",\"file\":null,\"line\":null,\"column\":null,\
                \"step\":null,\"errno\":null}}\n";
    exactly(&mut as_nobody("clear --json"), 2, json, "");
}

fn check_and_init_need_nothing() {
    let path = host();
    readable(&path);
    let ok = format!("{path}: ok: 1 link, 1 user\n");
    exactly(&mut as_nobody(&format!("check {path}")), 0, &ok, "");
    let as_root = shaper("init").assert().code(0).stderr("").get_output().stdout.clone();
    let starter = String::from_utf8(as_root).expect("text");
    exactly(&mut as_nobody("init"), 0, &starter, "");
    assert!(starter.contains("\nlinks:\n  up0:                # it is up\n"), "{starter}");
    // What nobody claims is bounded.
    assert!(starter.contains("\n    default: {rate: 5%, ceil: 50%}\n"), "{starter}");
    shaper("check -").write_stdin(starter).assert().code(0).stderr("");
}

fn users_see_what_is_theirs_and_nothing_of_others() {
    host();
    exactly(&mut as_user(ANN, "status"), 3, "nothing is shaped here; `shaper apply` does it\n", "");
    let text = "version: 1\nlinks: {up0: {rate: 1gbit, leaf: bfifo}}\nusers: {ann: 20mbit, bob: 10mbit}\n\
                groups: {students: {ceil: 100mbit, users: [ann]}}\neveryone: 5mbit\n";
    let path = policy(text);
    let _sleepers = [ANN, BOB, CAROL].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let said = |account, words: &str| {
        let output =
            as_user(account, words).assert().code(0).stderr("").get_output().stdout.clone();
        String::from_utf8(output).expect("text")
    };
    let status = said(ANN, "status");
    let holds = "up0 egress: ann may use 20mbit, by its own cap\n";
    assert!(status.contains("\n    ann ") && status.ends_with(holds), "{status}");
    let json: serde_json::Value = serde_json::from_str(&said(BOB, "status --json")).expect("JSON");
    assert_eq!(json["links"][0]["users"][0]["user"], "bob");
    assert_eq!(json["held_back"][0], "up0 egress: bob may use 10mbit, by its own cap");
    let carol = said(CAROL, "status carol");
    assert!(carol.contains("  carol ") && carol.contains("carol may use 5mbit"), "{carol}");
    let top = said(CAROL, "top --once --interval 0.1");
    // The file is root's to read; and the same where it is everybody's.
    let why = said(BOB, &format!("why bob --file {path}"));
    assert!(
        why.starts_with("bob: users.bob\n  class 1:") && why.contains("bob may use 10mbit"),
        "{why}"
    );
    readable(&path);
    let why_by_policy = said(BOB, &format!("why bob --file {path}"));
    let line = format!("{path}:3:22");
    assert!(why_by_policy.contains(&line), "{why_by_policy}");
    // Nobody is told of anybody else.
    for (whose, text) in
        [("ann", status), ("bob", json.to_string()), ("carol", carol + &top), ("bob", why)]
    {
        let others = ["ann", "bob", "carol", "(unshaped)"].into_iter().filter(|it| *it != whose);
        others.for_each(|other| assert!(!text.contains(other), "{other} in {whose}'s {text}"));
    }
    let refused = |words: &str| {
        let output = as_user(ANN, words).assert().code(2).stdout("").get_output().stderr.clone();
        String::from_utf8(output).expect("text")
    };
    let others = "error: what bob has is for root, or bob, to see; `shaper status` without a name says what you have\n";
    assert_eq!(refused("status bob"), others);
    assert_eq!(refused(&format!("why bob --file {path}")), others);
    assert_eq!(
        refused("status --metrics"),
        "error: metrics are of all users, and for root to see: run it with sudo\n"
    );
    for words in ["status --rules", "status --group students", "why 1"] {
        assert!(refused(words).contains("for root"), "{words}");
    }
    // What is kept of everybody's counters is root's, too.
    shaper("status --metrics").assert().code(0);
    let kept = fs::read_dir("/run/shaper").expect("its room").flatten();
    let kept: Vec<_> =
        kept.filter(|it| it.path().extension().is_some_and(|it| it == "json")).collect();
    assert!(!kept.is_empty());
    for file in kept {
        assert_eq!(file.metadata().expect("its mode").permissions().mode() & 0o077, 0);
    }
}

fn whoever_nobody_claims_sees_the_default_class() {
    let path = host();
    shaper(&format!("apply -q {path}")).assert().code(0);
    let output = as_nobody("status").assert().code(0).stderr("").get_output().stdout.clone();
    let text = String::from_utf8(output).expect("text");
    assert!(
        text.contains("(default)") && !text.contains("ann") && !text.contains("unshaped"),
        "{text}"
    );
    assert!(text.contains("may use 1gbit"), "{text}");
}

fn a_plan_without_root_says_so() {
    let path = host();
    readable(&path);
    let error = "error: a plan depends on what this kernel can do, and finding that out needs root: run it with sudo (`shaper check` needs no root)\n";
    let output = as_nobody(&format!("plan {path}")).assert().get_output().clone();
    // Where the modules can be looked up by everybody, there is a plan.
    match output.status.code() {
        Some(0) => assert!(String::from_utf8_lossy(&output.stdout).contains("plan: 11 steps")),
        status => {
            assert_eq!(status, Some(2));
            assert_eq!(String::from_utf8_lossy(&output.stderr), error);
        }
    }
}
