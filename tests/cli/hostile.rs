//! Names that other people chose: of processes, accounts, cgroups and links, and a policy's text.
//! None of them reaches the terminal, the log or JSON as it is: escape sequences, bidi controls,
//! zero-width characters and newlines are spelled out.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shaper::text::is_risky;

use super::invoke::{host, shaper};
use crate::support::accounts::ANN;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, members};
use crate::support::world::UPLINK;

tests!(On::Host => every_command_spells_hostile_names_out, the_daemon_logs_them_spelled_out,
    a_hostile_policy_is_drawn_harmlessly);

/// 15 bytes, as much as a process may be called: a line of its own, and the screen cleared.
const COMM: &str = "\nerror:\u{1b}c\u{202e}";
const ACCOUNT: &str = "e\u{1b}]0;owned\u{7}ve\u{9b}2J\u{200b}\u{2028}";
const GROUP: &str = "gr\u{1b}[8m\u{202e}oup";
const EVE: u32 = 2050;
/// After which what a test waits for will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process with a name that its user chose.
struct Named(Child);

impl Named {
    fn start(uid: u32) -> Named {
        let path = format!("{SCRATCH}/{COMM}");
        if !fs::exists(&path).expect("look") {
            fs::copy("/bin/sleep", &path).expect("copy sleep");
        }
        let mut command = Command::new(path);
        Named(command.arg("60").uid(uid).gid(uid).stdin(Stdio::null()).spawn().expect("start"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A host with all of them: the policy's path.
fn hostile_host() -> String {
    let path = host();
    let mut passwd = fs::read_to_string("/etc/passwd").expect("the cell's accounts");
    passwd.push_str(&format!("{ACCOUNT}:x:{EVE}:{EVE}::/:/bin/sh\n"));
    fs::write("/etc/passwd", passwd).expect("one more account");
    let text = format!(
        "version: 1\nlinks:\n  {UPLINK}: {{rate: 1gbit, leaf: bfifo}}\nusers: {{ann: 20mbit}}\neveryone: 5mbit\n"
    );
    fs::write(&path, text).expect("a policy");
    path
}

/// Nothing in it is risky but the ends of lines, and none of them is a process's.
#[track_caller]
fn harmless(what: &str, output: &str) {
    for (number, line) in output.lines().enumerate() {
        assert!(!line.contains(is_risky), "{what}, line {}: {line:?}", number + 1);
        assert!(
            !line.starts_with("error:\\u{1b}c"),
            "{what}: a forged line {}: {output}",
            number + 1
        );
    }
}

/// Runs it, and gives what it printed once that has been looked at.
#[track_caller]
fn run(words: &str, more: &[&str]) -> String {
    let mut command = shaper(words);
    let output = command.args(more).env("PAM_USER", ACCOUNT).output().expect("run shaper");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    said.iter().for_each(|text| harmless(&format!("{words} {more:?}"), text));
    assert_ne!(output.status.code(), Some(101), "{words}: {}", said[1]);
    said.concat()
}

fn every_command_spells_hostile_names_out() {
    let path = hostile_host();
    let (of_eve, of_ann) = (Named::start(EVE), Named::start(ANN.uid));
    run(&format!("apply {path}"), &[]);
    // Another's group, of that name too.
    let theirs = format!("{NET_CLS}/{GROUP}");
    fs::create_dir(&theirs).expect("another's group");
    fs::write(format!("{theirs}/cgroup.procs"), of_ann.pid().to_string()).expect("put it there");
    let said = run(&format!("apply -v {path}"), &[]);
    assert!(said.contains("(\\nerror:\\u{1b}c\\u{202e})"), "{said}");
    assert!(said.contains("gr\\u{1b}[8m\\u{202e}oup"), "{said}");
    let said = run("status", &[]);
    assert!(said.contains("e\\u{1b}]0;owned\\u{7}ve\\u{9b}2J\\u{200b}\\u{2028}"), "{said}");
    let (eve, ann) = (of_eve.pid().to_string(), of_ann.pid().to_string());
    for json in ["", " --json"] {
        for words in ["status", "init", "plan", "check", "clear --dry", "why 1", "attach ann 99999"]
        {
            run(&format!("{words}{json}"), &[]);
        }
        for file in [format!("plan {path}"), format!("check {path}"), format!("apply {path}")] {
            run(&format!("{file}{json}"), &[]);
        }
        run(&format!("plan --tc {path}{json}"), &[]);
        run(&format!("login {path}{json}"), &[]);
        for pid in [&eve, &ann] {
            let said = run(&format!("why -f {path} {pid}{json}"), &[]);
            assert!(said.contains("\\nerror:"), "{said}");
        }
        for foreign in [ACCOUNT, COMM, GROUP] {
            run(&format!("why -f {path}{json}"), &[foreign]);
            run(&format!("status{json}"), &[foreign]);
            run(&format!("status{json} --group"), &[foreign]);
            run(&format!("attach{json}"), &[foreign, "1"]);
            run(&format!("run{json}"), &[foreign, "--", "true"]);
            run(&format!("run{json} ann --"), &[foreign]);
        }
        // What clap has to say, and what names no line of a text.
        for foreign in [ACCOUNT, GROUP] {
            run(&format!("attach{json} ann"), &[foreign]);
            run(&format!("status{json} --netns"), &[foreign]);
            run(&format!("status{json} --cgroup"), &[foreign]);
            run(&format!("check{json}"), &[foreign]);
            run(json, &[foreign]);
        }
    }
    let document = run("status --json", &[]);
    let status: serde_json::Value = serde_json::from_str(&document).expect("one document");
    let users = status["links"][0]["users"].as_array().expect("users");
    assert!(users.iter().any(|user| user["user"] == ACCOUNT), "the name itself: {document}");
    run("clear", &[]);
}

fn the_daemon_logs_them_spelled_out() {
    let path = hostile_host();
    let daemon = Daemon::start(&["watch", "-v", &path]);
    let of_eve = Named::start(EVE);
    soon("the hostile process is placed", PATIENCE, || {
        fs::exists(format!("{NET_CLS}/shaper/uid/{EVE}")).unwrap_or(false)
            && members(&format!("uid/{EVE}")).contains(&of_eve.pid())
    });
    fs::write(
        &path,
        "version: 1\nlinks: {up0: 1gbit}\nusers: {\"b\\eob\\u202e\": \"5\\e[2Jmbps\"}\n",
    )
    .expect("a bad policy");
    soon("the bad policy is refused", PATIENCE, || {
        daemon.log().contains("the policy is not adopted")
    });
    harmless("the daemon's log", &daemon.log());
    drop(of_eve);
    assert!(daemon.end().success());
}

fn a_hostile_policy_is_drawn_harmlessly() {
    host();
    let path = format!("{SCRATCH}/hostile.yaml");
    for (line, escaped) in [
        ("users: {b\u{9b}2Job: 5mbps}", true),
        ("users: {bob: 5mbps} # \u{1b}[2J\u{202e}\u{200b}", false),
        ("\u{1b}[2J: {}", false),
        ("users: {\"b\\eob\\n\\u202e\": {ciel: 5mbit}}", true),
    ] {
        fs::write(&path, format!("version: 1\nlinks: {{up0: 1gbit}}\n{line}\n")).expect("write");
        let said = run(&format!("check --offline {path}"), &[]);
        assert!(said.contains("error"), "{said}");
        assert!(!escaped || said.contains("\\u{9b}") || said.contains("\\u{1b}"), "{said}");
        run(&format!("check --offline --json {path}"), &[]);
    }
}
