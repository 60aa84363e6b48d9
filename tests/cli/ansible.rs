//! The role in `contrib/ansible`, played by ansible-core itself, on this host and from another one
//! over ssh: what it changes, that it changes nothing twice, and that a bad policy stays outside.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::invoke::{host, root, shaper, text};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{Done, run_within};
use crate::support::harness::{On, tests};
use crate::support::program::{binary, directory};
use crate::support::sshd::{ADDRESS, Sshd};
use crate::support::world::World;

tests!(
    On::Host => the_role_changes_what_differs_and_nothing_twice,
        what_was_taken_back_is_tried_again_where_that_is_said, over_ssh_a_policy_is_confirmed;
    On::Nightly => over_ssh_what_cuts_the_connection_off_does_not_stay;
);

const ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/ansible");
const FILE: &str = "/run/shaper-role/policies.yaml";

/// For a play: seconds, but over ssh each task is a program or two on both sides.
const PATIENCE: Duration = Duration::from_secs(90);

/// Plays the role with the policy, on the machine that it runs on.
fn play(policy: &str, options: &[&str]) -> Done {
    let path = playbook(serde_json::json!("localhost"), "local", policy);
    let mut command = Command::new("/usr/bin/ansible-playbook");
    command.args(["-i", "localhost,", &path]).args(options);
    played(command)
}

/// The same from the far side, by a real sshd of the host.
fn play_over_ssh(world: &World, policy: &str, options: &[&str]) -> Done {
    let path = playbook(serde_json::json!(ADDRESS), "ssh", policy);
    let mut command = world.far_command(&["/usr/bin/ansible-playbook"]);
    let ssh = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    command.args(["-i", &format!("{ADDRESS},"), "-u", "root", &path]).args(options);
    command.args(["--private-key", &format!("{SCRATCH}/client")]);
    command.args(["--ssh-common-args", ssh]);
    command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", format!("{SCRATCH}/ssh"));
    played(command)
}

/// A playbook's path.
fn playbook(hosts: serde_json::Value, connection: &str, policy: &str) -> String {
    let path = format!("{SCRATCH}/play.yaml");
    let vars = serde_json::json!({
        "shaper_policy": policy,
        "shaper_file": FILE,
        "shaper_program": binary(),
        "shaper_daemon": false,
        "ansible_python_interpreter": "/usr/bin/python3",
    });
    let play = serde_json::json!([
        {"hosts": hosts, "connection": connection, "gather_facts": false, "vars": vars, "roles": ["shaper"]}
    ]);
    fs::write(&path, play.to_string()).expect("write the playbook");
    path
}

fn played(mut command: Command) -> Done {
    command.envs([("HOME", SCRATCH), ("ANSIBLE_ROLES_PATH", ROLES), ("ANSIBLE_NOCOLOR", "1")]);
    command.envs([("ANSIBLE_LOCAL_TEMP", SCRATCH), ("ANSIBLE_REMOTE_TEMP", SCRATCH)]);
    command.env("LC_ALL", "C.UTF-8");
    run_within(PATIENCE, command, "")
}

/// How many tasks the last line of a play says that it changed.
#[track_caller]
fn changes(done: &Done) -> u32 {
    let number = done.stdout.rsplit("changed=").next().and_then(|rest| rest.split(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{}", done.stdout))
}

fn the_role_changes_what_differs_and_nothing_twice() {
    host();
    let policy = text("ann: 20mbit");
    let first = play(&policy, &[]).exits(0);
    assert!(changes(&first) > 0 && root().contains("htb"), "{}", first.stdout);
    assert_eq!(fs::read_to_string(FILE).expect("the policy"), policy);
    assert!(!Path::new(&format!("{FILE}.new")).exists());
    let second = play(&policy, &[]).exits(0);
    assert_eq!(changes(&second), 0, "{}", second.stdout);

    let why_ann =
        || shaper(&format!("why ann -f {FILE}")).assert().code(0).get_output().stdout.clone();
    let before = why_ann();
    let other = text("ann: 30mbit");
    let only_told = play(&other, &["--check", "--diff"]).exits(0);
    assert!(changes(&only_told) > 0, "{}", only_told.stdout);
    assert!(only_told.stdout.contains("+  ann: 30mbit"), "the file: {}", only_told.stdout);
    assert!(only_told.stdout.contains("20mbit \u{2192} 30mbit"), "{}", only_told.stdout);
    let bad = play(&text("ann: 30mbps"), &[]).exits(2);
    assert!(bad.stdout.contains("30mbps"), "{}", bad.stdout);
    assert_eq!(fs::read_to_string(FILE).expect("the policy"), policy, "neither wrote");
    assert_eq!(why_ann(), before, "neither applied");
}

fn what_was_taken_back_is_tried_again_where_that_is_said() {
    let before = host();
    shaper(&format!("apply -q {before}")).assert().code(0);
    // As a play leaves it that lost its connection.
    let (policy, tried) = (text("ann: 30mbit"), format!("{FILE}.new"));
    fs::create_dir_all("/run/shaper-role").expect("a folder");
    fs::write(&tried, &policy).expect("write the policy");
    shaper(&format!("apply -q --confirm 1 {tried}")).assert().code(0);
    soon("it is taken back", Duration::from_secs(20), || !directory("confirm").exists());

    let refused = play(&policy, &[]).exits(2);
    assert!(refused.stdout.contains("taken back"), "{}", refused.stdout);
    assert!(!Path::new(FILE).exists());
    play(&policy, &["-e", "shaper_force=true"]).exits(0);
    assert_eq!(fs::read_to_string(FILE).expect("the policy"), policy);
    // Also where nothing is to be tried.
    fs::write(&tried, &policy).expect("write the policy");
    let second = play(&policy, &[]).exits(0);
    assert_eq!(changes(&second), 0, "{}", second.stdout);
    assert!(!Path::new(&tried).exists());
}

fn over_ssh_a_policy_is_confirmed() {
    let world = World::new();
    let _sshd = Sshd::start("UsePAM no");
    let policy = text("ann: 20mbit");
    let done = play_over_ssh(&world, &policy, &[]).exits(0);
    assert!(changes(&done) > 0 && root().contains("htb"), "{}", done.stdout);
    assert_eq!(fs::read_to_string(FILE).expect("the policy"), policy);
    assert!(!directory("confirm").exists(), "it is confirmed");
}

/// Many seconds of TCP that waits.
fn over_ssh_what_cuts_the_connection_off_does_not_stay() {
    let world = World::new();
    let _sshd = Sshd::start("UsePAM no");
    let good = text("ann: 20mbit");
    fs::create_dir_all("/run/shaper-role").expect("a folder");
    fs::write(FILE, &good).expect("write the policy");
    shaper(&format!("apply -q {FILE}")).assert().code(0);
    // So little for sshd's answers that no handshake comes through.
    let slow = "classes: {slow: {ceil: 2kbit}}\nrules: [{proto: tcp, sport: 22, to: slow}]\n";
    let bad = good.clone() + slow;
    let cut_off = play_over_ssh(&world, &bad, &["-e", "shaper_confirm=5"]);
    assert!(cut_off.status != Some(0), "{}", cut_off.stdout);
    assert!(cut_off.stdout.contains("Apply it for a while"), "{}", cut_off.stdout);
    assert_eq!(fs::read_to_string(FILE).expect("the policy"), good);
    soon("it is taken back", Duration::from_secs(30), || !directory("confirm").exists());
    shaper(&format!("plan --exit-code {FILE}")).assert().code(0);
}
