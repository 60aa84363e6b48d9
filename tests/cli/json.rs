//! `--json`: whatever a command says, and whatever is wrong, is one document on standard output.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use clap::CommandFactory;
use serde_json::Value;
use shaper::cli::Cli;

use super::invoke::{as_nobody, host, shaper, text};
use super::kernel_state::Holder;
use crate::support::cell::SCRATCH;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, policy};

tests!(On::Host =>
    wrong_words_are_documents, wrong_files_are_documents, what_is_not_there_is_a_document,
    a_refusal_beside_the_daemon_is_a_document, what_is_done_is_a_document,
    every_command_answers_every_fault_with_a_document
);

/// The one document that these words print, with nothing beside it.
#[track_caller]
fn document(words: &str, status: i32) -> Value {
    let words = format!("--json {words}");
    of(&words, shaper(&words).output().expect(&words), status)
}

#[track_caller]
fn of(words: &str, output: std::process::Output, status: i32) -> Value {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let beside = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{words}: {said}{beside}");
    assert_eq!(beside, "", "{words}");
    let document: Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words}: {error}: {said}"));
    assert_eq!(document["version"], 1, "{words}: {said}");
    document
}

/// An error of this kind, with words.
#[track_caller]
fn error(words: &str, status: i32, kind: &str) {
    is_error(words, &document(words, status), kind);
}

#[track_caller]
fn is_error(words: &str, document: &Value, kind: &str) {
    let error = &document["error"];
    assert_eq!(error["kind"], kind, "{words}: {document}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.starts_with("error: "), "{words}: {document}");
    let all = document["errors"].as_array().map_or(0, Vec::len);
    assert_eq!(all > 0, kind == "policy", "{words}: {document}");
}

fn wrong_words_are_documents() {
    for words in [
        "",
        "frobnicate",
        "check --frobnicate",
        "check a b",
        "plan --tc=yes",
        "apply --confirm soon",
        "apply --dry-run=no",
        "confirm now",
        "edit a b",
        "edit -",
        "edit",
        "watch --grace 0",
        "login a b",
        "status --interval 0",
        "status --top 3",
        "status --metrics=xml",
        "status --metrics",
        "top --interval never",
        "top --exit-over much",
        "doctor a b",
        "why",
        "why ann --to nowhere",
        "why 10.0.0.1:53 --proto nope",
        "why uid:ann",
        "run",
        "run ann",
        "attach",
        "attach ann",
        "attach ann me",
        "release",
        "usage --period fortnight",
        "grant ann",
        "grant ann 1Gbit",
        "quota",
        "quota reset",
        "quota undo ann",
        "clear all",
        "init --frobnicate",
        "--wait soon clear",
        "--cgroup ../x status",
        "--netns nowhere status",
        "--netns nowhere init",
        "watch -",
        "login",
    ] {
        error(words, 2, "usage");
    }
    // Options of a command's own are no business of ours.
    let output = shaper("run --frobnicate ann -- true --json").output().expect("run");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty());
}

fn wrong_files_are_documents() {
    let path = host();
    let missing = format!("{SCRATCH}/missing.yaml");
    for words in ["check", "check --offline", "plan", "apply", "apply --dry-run", "watch"] {
        error(&format!("{words} {missing}"), 2, "usage");
    }
    error(&format!("why ann --file {missing}"), 2, "usage");
    shaper(&format!("apply {path}")).assert().code(0);
    // With what the kernel has.
    error(&format!("why ann --file {missing}"), 2, "usage");
    error(&format!("release 1 --file {missing}"), 2, "usage");
    policy(&text("ann: 20mbps\n  bob: 5"));
    for words in ["check", "check --offline", "plan", "apply", "apply --confirm 9", "watch"] {
        error(&format!("{words} {path}"), 2, "policy");
        let document = document(&format!("{words} {path}"), 2);
        assert_eq!(document["errors"].as_array().map(Vec::len), Some(2), "{words}: {document}");
        assert_eq!(document["error"]["line"], 5, "{words}: {document}");
    }
    for words in ["why ann --file", "why zorro --file"] {
        error(&format!("{words} {path}"), 2, "policy");
    }
    // Refused on this host alone.
    policy(&text("ann: 20mbit\n  no-such-account: 5mbit"));
    for words in ["check", "plan", "apply", "watch"] {
        error(&format!("{words} {path}"), 2, "policy");
    }
    document(&format!("check --offline {path}"), 0);
}

fn what_is_not_there_is_a_document() {
    let path = host();
    error("run ann -- true", 125, "run");
    error("attach ann 1", 2, "usage");
    error("release ann", 2, "usage");
    error("confirm", 2, "usage");
    assert_eq!(document("status", 3)["links"].as_array().map(Vec::len), Some(0));
    shaper(&format!("apply {path}")).assert().code(0);
    error("run zorro -- true", 125, "run");
    error("run ann -- /nonexistent", 127, "run");
    error("run ann -- /etc/passwd", 126, "run");
    error("attach zorro 1", 2, "usage");
    error("attach ann 999999", 1, "refused");
    error("attach ann -- -5", 2, "usage");
    error("release zorro", 2, "usage");
    error("release 999999", 1, "refused");
    error("status zorro", 2, "usage");
    error("status --group zorro", 2, "usage");
    for subject in ["zorro", "pid:999999", "guest:zorro", "1:dead"] {
        error(&format!("why {subject} --file {path}"), 2, "usage");
    }
    let refused = |words: &str| {
        let words = format!("--json {words}");
        let document = of(&words, as_nobody(&words).output().expect(&words), 2);
        is_error(&words, &document, "usage");
    };
    for words in ["clear", "confirm", "attach ann 1", "status --rules", "why ann"] {
        refused(words);
    }
}

fn a_refusal_beside_the_daemon_is_a_document() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let other = format!("{SCRATCH}/other.yaml");
    fs::write(&other, text("ann: 10mbit")).expect("another policy");
    for words in [&format!("apply {other}"), "clear", &format!("watch {path}")] {
        error(words, 4, "locked");
    }
    assert!(daemon.end().success());
}

fn what_is_done_is_a_document() {
    let path = host();
    let starter = document("init", 0);
    assert!(starter["policy"].as_str().is_some_and(|text| text.contains("version: 1\n")));
    for words in ["check", "check --offline", "check -q", "plan", "plan -q", "plan --tc"] {
        document(&format!("{words} {path}"), 0);
    }
    assert_eq!(document(&format!("apply --confirm 60 {path}"), 0)["changed"], true);
    document("confirm", 0);
    assert_eq!(document(&format!("apply -q {path}"), 0)["changed"], false);
    for words in ["status", "status ann", "status --interval 0.1", "top --once --interval 0.1"] {
        document(words, 0);
    }
    document(&format!("why ann --file {path}"), 0);
    let mut sleep = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    let attached = document(&format!("attach ann {}", sleep.id()), 0);
    assert_eq!(attached["attached"][0], sleep.id());
    assert_eq!(document("release ann", 0)["released"][0]["pid"], sleep.id());
    sleep.kill().expect("end it");
    sleep.wait().expect("its end");
    assert_eq!(document("clear", 0)["changed"], true);
    let output = shaper("--json doctor").output().expect("doctor");
    let checks: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(checks["checks"].is_array(), "{checks}");
}

/// What a command answers to each fault: its exit status and kind. `None`: the fault does not keep
/// it from its answer.
struct Faults {
    /// The words, with `FILE` for the policy.
    words: &'static str,
    /// The file is one that root may read, and the caller may not.
    unreadable: Option<(i32, &'static str)>,
    /// The policy has two mistakes.
    broken: Option<(i32, &'static str)>,
    /// The caller is nobody, and the policy is his to read.
    powerless: Option<(i32, &'static str)>,
    /// Another run holds the lock.
    locked: Option<(i32, &'static str)>,
}

const USAGE: Option<(i32, &str)> = Some((2, "usage"));
const POLICY: Option<(i32, &str)> = Some((2, "policy"));
const LOCKED: Option<(i32, &str)> = Some((4, "locked"));
const OF_RUN: Option<(i32, &str)> = Some((125, "run"));

const fn faults(
    words: &'static str,
    [unreadable, broken, powerless, locked]: [Option<(i32, &'static str)>; 4],
) -> Faults {
    Faults { words, unreadable, broken, powerless, locked }
}

/// Each command of shaper's. Who reads no policy has no fault of a policy's.
const COMMANDS: [Faults; 20] = [
    faults("check FILE", [USAGE, POLICY, None, None]),
    faults("check --offline FILE", [USAGE, POLICY, None, None]),
    faults("plan FILE", [USAGE, POLICY, None, None]),
    faults("apply FILE", [USAGE, POLICY, USAGE, LOCKED]),
    faults("confirm", [USAGE, USAGE, USAGE, USAGE]),
    faults("edit FILE", [USAGE, USAGE, USAGE, USAGE]),
    // It waits for the lock, as a service should.
    faults("watch --once FILE", [USAGE, POLICY, USAGE, None]),
    faults("status ann", [USAGE, None, USAGE, None]),
    faults("top --once --interval nothing", [USAGE, USAGE, USAGE, USAGE]),
    faults("doctor --frobnicate", [USAGE, USAGE, USAGE, USAGE]),
    faults("why ann --file FILE", [USAGE, POLICY, USAGE, None]),
    faults("run ann -- true", [OF_RUN, None, OF_RUN, OF_RUN]),
    faults("attach ann 1", [USAGE, None, USAGE, LOCKED]),
    faults("release ann --file FILE", [USAGE, POLICY, USAGE, LOCKED]),
    faults("login", [USAGE, USAGE, USAGE, USAGE]),
    faults("usage ann", [USAGE, POLICY, USAGE, None]),
    faults("grant ann 1GB", [USAGE, POLICY, USAGE, None]),
    faults("quota reset ann", [USAGE, POLICY, USAGE, None]),
    faults("clear", [USAGE, None, USAGE, LOCKED]),
    faults("init --frobnicate", [USAGE, USAGE, USAGE, USAGE]),
];

fn every_command_answers_every_fault_with_a_document() {
    let path = host();
    let cli = Cli::command();
    let known = cli.get_subcommands().map(|it| it.get_name().to_string());
    let known: BTreeSet<String> = known.collect();
    let told = COMMANDS.iter().filter_map(|it| it.words.split(' ').next());
    assert_eq!(known, told.map(str::to_string).collect(), "each command is asked");
    shaper(&format!("apply {path}")).assert().code(0);
    let is_told = |fault: &str, (words, is_nobody): (&str, bool), told: Option<(i32, &str)>| {
        let Some((status, kind)) = told else { return };
        let mut command = if is_nobody { as_nobody(words) } else { shaper(words) };
        let output = command.output().expect("shaper");
        let said = of(&format!("{words} ({fault})"), output, status);
        is_error(&format!("{words} ({fault})"), &said, kind);
    };
    for Faults { words, unreadable, broken, powerless, locked } in COMMANDS {
        let name = words.split(' ').next().expect("a command");
        is_told("a wrong word", (&format!("--json {name} --frobnicate"), false), USAGE);
        let words = format!("--json --wait 0 {}", words.replace("FILE", &path));
        policy(&text("ann: 20mbit"));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("readable");
        is_told("powerless", (&words, true), powerless);
        let holder = Holder::of(&format!("{NET_CLS}/shaper/lock"));
        is_told("a held lock", (&words, false), locked);
        drop(holder);
        policy(&text("ann: 20mbps\n  bob: 5"));
        is_told("a broken policy", (&words, false), broken);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("root's alone");
        is_told("unreadable", (&words, true), unreadable);
    }
}
