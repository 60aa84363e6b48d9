//! Other commands beside the daemon: what it would undo is refused, with its pid and its file, and
//! nothing is touched.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::invoke::{exactly, host, root, shaper, text};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::directory;

tests!(On::Host => what_the_daemon_would_undo_is_refused, its_own_policy_may_be_applied_by_any_name,
    what_waits_to_be_confirmed_is_as_ever, it_is_done_despite_the_daemon_where_that_is_wanted,
    a_daemon_that_was_killed_keeps_nothing, what_an_old_daemon_left_is_nothing,
    a_reload_fails_where_the_daemons_file_is_refused);

const UNIT: &str = include_str!("../../systemd/shaper.service");

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

/// What the unit does for `systemctl reload`, which goes no further than what fails.
fn a_reload_fails_where_the_daemons_file_is_refused() {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix("ExecReload="));
    let lines: Vec<&str> = lines.collect();
    let [check, hangup] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(hangup, "/bin/kill -HUP $MAINPID");
    let words = check.strip_prefix("+/usr/local/bin/shaper ").expect("a check");
    let path = host();
    let daemon = Daemon::start(&["watch", "--skip-unknown", &path]);
    exactly(&mut shaper(words), 0, "", "");
    fs::write(&path, text("ann: 20mbps")).expect("a bad policy");
    let refused = shaper(words).assert().code(2).stdout("").get_output().stderr.clone();
    let refused = String::from_utf8_lossy(&refused).into_owned();
    assert!(refused.contains(&format!("{path}:5:")) && refused.contains("20mbps"), "{refused}");
    // A file that has no link any more that is there.
    fs::write(&path, text("ann: 20mbit").replace("up0", "nope0")).expect("a bad policy");
    let refused = shaper(words).assert().code(2).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&refused).contains("there is no link `nope0`"));
    // A link that is not there now is shaped when it comes: no mistake of the file's.
    fs::write(&path, text("ann: 20mbit")).expect("a good policy");
    run("ip link del up0");
    exactly(&mut shaper(words), 0, "", "");
    assert!(daemon.end().success());
    shaper(&format!("check {path}")).assert().code(2);
}
