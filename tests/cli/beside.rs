//! Other commands beside the daemon: what it would undo is refused, with its pid and its file, and
//! nothing is touched.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::invoke::{exactly, host, root, shaper, text};
use crate::support::cell::SCRATCH;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::directory;

tests!(On::Host => what_the_daemon_would_undo_is_refused, its_own_policy_may_be_applied_by_any_name,
    what_waits_to_be_confirmed_is_as_ever, it_is_done_despite_the_daemon_where_that_is_wanted,
    a_daemon_that_was_killed_keeps_nothing, what_an_old_daemon_left_is_nothing);

/// Another policy than the daemon's.
fn other() -> String {
    let path = format!("{SCRATCH}/other.yaml");
    fs::write(&path, text("ann: 10mbit")).expect("another policy");
    path
}

fn what_the_daemon_would_undo_is_refused() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let before = root();
    let keeps =
        format!("the daemon (process {}) keeps this as {path} says, and would", daemon.pid());
    let other = other();
    let undo = format!(
        "{keeps} undo this as soon as it looks again; change its file, end it first, try a policy with \
         --confirm, or say --despite-daemon to do it all the same"
    );
    exactly(&mut shaper(&format!("apply {other}")), 4, "", &format!("error: {undo}\n"));
    exactly(shaper("apply -").write_stdin(text("ann: 10mbit")), 4, "", &format!("error: {undo}\n"));
    let json = format!(
        "{{\"version\":1,\"error\":{{\"kind\":\"locked\",\"message\":\"{undo}\",\"file\":null,\"line\":null,\
         \"column\":null,\"step\":null,\"errno\":null}}}}\n"
    );
    exactly(&mut shaper(&format!("--json apply {other}")), 4, &json, "");
    let clear = format!(
        "error: {keeps} bring everything back; end it first (systemctl stop shaper), or say \
         --despite-daemon to do it all the same\n"
    );
    exactly(&mut shaper("clear"), 4, "", &clear);
    let second = format!(
        "error: {keeps} undo what this one does; end it first, or say --despite-daemon to do it all the same\n"
    );
    exactly(&mut shaper(&format!("watch {other}")), 4, "", &second);
    exactly(&mut shaper(&format!("watch {path}")), 4, "", &second);
    assert_eq!(root(), before);
    assert!(directory("user/ann").exists());
    // Reading is nobody's business.
    shaper(&format!("apply --dry-run {other}")).assert().code(0);
    shaper(&format!("plan {other}")).assert().code(0);
    assert!(daemon.end().success());
    shaper(&format!("apply {other}")).assert().code(0);
    shaper("clear").assert().code(0);
    assert!(!directory("").exists());
}

fn its_own_policy_may_be_applied_by_any_name() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    let link = format!("{SCRATCH}/link.yaml");
    symlink(&path, &link).expect("link");
    exactly(&mut shaper(&format!("apply {link}")), 0, "in sync\n", "");
    assert!(daemon.end().success());
}

fn what_waits_to_be_confirmed_is_as_ever() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let other = other();
    shaper(&format!("apply --confirm 60 {other}")).assert().code(0);
    fs::copy(&other, &path).expect("the daemon's file becomes it");
    shaper("confirm").assert().code(0);
    assert!(daemon.end().success());
}

fn it_is_done_despite_the_daemon_where_that_is_wanted() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    shaper(&format!("apply --despite-daemon {}", other())).assert().code(0);
    shaper("clear --despite-daemon").assert().code(0);
    assert!(daemon.end().success());
    shaper("clear").assert().code(0);
}

fn a_daemon_that_was_killed_keeps_nothing() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL).expect("kill it");
    drop(daemon);
    shaper(&format!("apply {}", other())).assert().code(0);
    shaper("clear").assert().code(0);
    assert!(!directory("").exists());
}

fn what_an_old_daemon_left_is_nothing() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    fs::create_dir(directory("watch")).expect("a directory that nobody holds");
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    shaper(&format!("apply {}", other())).assert().code(0);
    let daemon = Daemon::start(&["watch", &path]);
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    assert!(daemon.end().success());
}
