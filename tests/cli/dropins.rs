//! The files of `policies.d` beside `policies.yaml`: what belongs to a policy, who may write it,
//! and what commands and the daemon make of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Duration;

use crate::invoke::{as_nobody, exactly, host, shaper, text};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::directory;

tests!(On::Host =>
    what_belongs_to_a_policy, nobody_else_may_write_one, each_command_reads_them,
    a_file_elsewhere_is_tried_alone, the_daemon_follows_them
);

/// After which what a test waits for will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder of drop-ins of the host's policy, with bob's line in it.
fn folder(policy: &str) -> String {
    let folder = policy.replace(".yaml", ".d");
    fs::create_dir(&folder).expect("make the folder");
    fs::write(format!("{folder}/bob.yaml"), "users:\n  bob: 5mbit\n").expect("a drop-in");
    folder
}

fn status() -> String {
    let said = shaper("status").assert().get_output().clone();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

fn what_belongs_to_a_policy() {
    let path = host();
    let folder = folder(&path);
    let ok = format!("{path}: ok: 1 link, 2 users\n");
    exactly(&mut shaper(&format!("check --offline {path}")), 0, &ok, "");
    for other in [".carol.yaml", "carol.yaml~", "carol", "carol.yaml.new"] {
        fs::write(format!("{folder}/{other}"), "users: {carol: 1mbit}\n").expect("write it");
    }
    exactly(&mut shaper(&format!("check --offline {path}")), 0, &ok, "");
    // Standard input has none, wherever this runs.
    let given = fs::read_to_string(&path).expect("read the policy");
    let alone = "-: ok: 1 link, 1 user\n";
    exactly(shaper("check --offline -").write_stdin(given), 0, alone, "");
    fs::create_dir(format!("{folder}/x.yaml")).expect("a folder");
    let error = format!("error: {folder}/x.yaml is a folder; name the policy file in it\n");
    exactly(&mut shaper(&format!("check --offline {path}")), 2, "", &error);
    fs::remove_dir(format!("{folder}/x.yaml")).expect("remove it");
    run(&format!("mkfifo {folder}/x.yaml"));
    let error = format!(
        "error: {folder}/x.yaml is a pipe (FIFO), and a policy is a regular file; `-` reads standard input\n"
    );
    exactly(&mut shaper(&format!("check --offline {path}")), 2, "", &error);
}

fn nobody_else_may_write_one() {
    let path = host();
    let folder = folder(&path);
    let bob = format!("{folder}/bob.yaml");
    let check = format!("check --offline {path}");
    let refused = |file: &str, why: &str| {
        let said = shaper(&check).assert().code(2).get_output().clone();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(file) && said.contains(why), "{said}");
    };
    fs::set_permissions(&bob, Permissions::from_mode(0o666)).expect("chmod");
    refused(&bob, "can be written by everybody");
    fs::set_permissions(&bob, Permissions::from_mode(0o644)).expect("chmod");
    chown(&bob, Some(2001), None).expect("chown");
    refused(&bob, "can be written by its owner, uid 2001");
    chown(&bob, Some(0), None).expect("chown");
    // In a sticky folder others could not replace a file, but add one.
    for mode in [0o777, 0o1777] {
        fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("chmod");
        refused(&folder, "which can be written by everybody");
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("chmod");
    shaper(&check).assert().code(0);
    // A link leads to a file that is judged as a policy is.
    fs::create_dir(format!("{SCRATCH}/open")).expect("a folder");
    fs::set_permissions(format!("{SCRATCH}/open"), Permissions::from_mode(0o777)).expect("chmod");
    fs::write(format!("{SCRATCH}/open/x.yaml"), "users: {carol: 1mbit}\n").expect("a policy");
    symlink(format!("{SCRATCH}/open/x.yaml"), format!("{folder}/x.yaml")).expect("a link");
    refused("x.yaml lies in", "could replace it");
    fs::set_permissions(format!("{SCRATCH}/open"), Permissions::from_mode(0o755)).expect("chmod");
    let ok = format!("{path}: ok: 1 link, 3 users\n");
    exactly(&mut shaper(&check), 0, &ok, "");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("chmod");
    let unreadable = as_nobody(&check).assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&unreadable.stderr).contains("cannot read"));
}

fn each_command_reads_them() {
    let path = host();
    let folder = folder(&path);
    shaper(&format!("apply {path}")).assert().code(0);
    assert!(directory("user/bob").exists());
    exactly(&mut shaper(&format!("plan --exit-code {path}")), 0, "in sync\n", "");
    let why = shaper(&format!("why bob --file {path}")).assert().code(0).get_output().clone();
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.starts_with(&format!("bob: users.bob at {folder}/bob.yaml:2:3\n")), "{why}");
    fs::write(format!("{folder}/ann.yaml"), "users: {ann: 1mbit}\n").expect("a drop-in");
    let twice = shaper(&format!("apply {path} --json")).assert().code(2).get_output().clone();
    let twice = String::from_utf8_lossy(&twice.stdout).into_owned();
    assert!(twice.contains(&format!("\"file\":\"{folder}/ann.yaml\",\"line\":1")), "{twice}");
    let twice = shaper(&format!("apply {path}")).assert().code(2).get_output().clone();
    let twice = String::from_utf8_lossy(&twice.stderr).into_owned();
    for place in [format!("{path}:"), format!("{folder}/ann.yaml:1:9")] {
        assert!(
            twice.contains("`ann` stands twice in `users`") && twice.contains(&place),
            "{twice}"
        );
    }
    fs::remove_file(format!("{folder}/ann.yaml")).expect("remove it");
    fs::remove_file(format!("{folder}/bob.yaml")).expect("remove it");
    shaper(&format!("apply {path}")).assert().code(0);
    assert!(!directory("user/bob").exists());
}

fn a_file_elsewhere_is_tried_alone() {
    let path = host();
    folder(&path);
    let new = format!("{SCRATCH}/new.yaml");
    fs::write(&new, text("ann: 7mbit")).expect("a policy");
    fs::create_dir(format!("{SCRATCH}/new.d")).expect("a folder");
    fs::write(format!("{SCRATCH}/new.d/x.yaml"), "users: {bob: 9mbit}\n").expect("a drop-in");
    shaper(&format!("apply --confirm 60 {new}")).assert().code(0);
    shaper("confirm").assert().code(0);
    assert!(!directory("user/bob").exists(), "it is not where the policy will be");
    // Beside the daemon its own file is tried with what belongs to it.
    let _daemon = Daemon::start(&["watch", &path]);
    soon("the daemon has bob's class", PATIENCE, || directory("user/bob").exists());
    shaper(&format!("apply --confirm 60 {new}")).assert().code(0);
    soon("bob's class goes", PATIENCE, || !directory("user/bob").exists());
    shaper("confirm").assert().code(0);
}

fn the_daemon_follows_them() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let folder = folder(&path);
    soon("a drop-in is adopted", PATIENCE, || directory("user/bob").exists());
    fs::write(format!("{folder}/x.yaml"), "users: {bob: 1mbit}\n").expect("a drop-in");
    soon("a mistake is said", PATIENCE, || daemon.log().contains("`bob` stands twice"));
    let told = status();
    assert!(
        told.contains("is refusing for") && told.contains(&format!("{folder}/x.yaml:1:9")),
        "{told}"
    );
    assert!(directory("user/bob").exists(), "what was in force stays");
    fs::rename(format!("{folder}/x.yaml"), format!("{folder}/x")).expect("rename it");
    soon("it is as it was", PATIENCE, || status().contains("is idle"));
    fs::remove_dir_all(&folder).expect("remove the folder");
    soon("its users go", PATIENCE, || !directory("user/bob").exists());
    assert!(daemon.end().success());
}
