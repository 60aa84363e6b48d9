//! `watch` and `login`, as far as they end.

use std::fs;

use crate::invoke::{exactly, host, shaper};
use crate::support::accounts::ANN;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, directory, members};

tests!(On::Host => watch_needs_a_file_that_it_can_follow, a_bad_policy_keeps_the_daemon_from_beginning,
    login_is_for_pam, login_places_whoever_called_it, login_changes_nothing_but_its_own_class);

fn watch_needs_a_file_that_it_can_follow() {
    let error = "error: watch follows a file as it changes, and standard input is none; name the policy file\n";
    exactly(&mut shaper("watch -"), 2, "", error);
    let missing = shaper("watch /nonexistent/policies.yaml").assert().code(2).get_output().clone();
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.starts_with("error: cannot read /nonexistent/policies.yaml: "), "{said}");
}

fn a_bad_policy_keeps_the_daemon_from_beginning() {
    let path = host();
    fs::write(&path, "version: 1\nlinks: {up0: 1gbit}\nusers: {ann: 5mbps}\n").expect("a policy");
    let ended = shaper(&format!("watch {path}")).assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("policies.yaml:3:"));
}

fn login_is_for_pam() {
    let path = host();
    let error = "error: login is for pam_exec, which says whose session it is in PAM_USER\n";
    exactly(&mut shaper(&format!("login {path}")), 2, "", error);
    let nothing = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "ann"), 2, "", nothing);
    // Whatever is wrong, root can log in.
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "root"), 0, "", "");
    shaper(&format!("apply {path}")).assert().code(0);
    let nobody = "error: there is no account zorro\n";
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "zorro"), 2, "", nobody);
    let mut end = shaper(&format!("login {path}"));
    exactly(end.env("PAM_USER", "ann").env("PAM_TYPE", "close_session"), 0, "", "");
}

/// The caller is this very test.
fn login_places_whoever_called_it() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let mut login = shaper(&format!("login {path}"));
    exactly(login.env("PAM_USER", "ann").env("PAM_TYPE", "open_session"), 0, "", "");
    assert!(members("user/ann/pinned").contains(&std::process::id()));
    // Nobody claims carol.
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "carol"), 0, "", "");
    assert!(members("user/ann/pinned").contains(&std::process::id()));
}

fn login_changes_nothing_but_its_own_class() {
    let path = host();
    let text = fs::read_to_string(&path).expect("the policy");
    apply(&text);
    let more = format!("{}everyone: 5mbit\n", text.replace("20mbit", "10mbit"));
    fs::write(&path, more).expect("another policy");
    let refused = shaper(&format!("login {path}")).env("PAM_USER", "carol").assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("`shaper apply` first"), "{said}");
    assert!(!directory(&format!("uid/{}", ANN.uid + 2)).exists());
}
