//! The policy file itself: who may write it, and what is said of files that are none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::invoke::{HEAD, as_nobody, exactly, shaper};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::harness::{On, tests};

tests!(On::Host =>
    a_file_that_others_can_write_is_refused, a_folder_that_others_can_write_is_refused,
    every_folder_above_counts, whoever_made_a_link_in_a_sticky_folder_leads,
    what_is_no_regular_file_is_refused_at_once, a_sticky_folder_is_fine, a_link_is_judged_by_where_it_leads, others_trust_what_they_like,
    what_is_no_file_is_said, ten_megabytes_are_refused_at_once,
    init_makes_a_file_and_writes_over_none
);

/// A policy in a folder of its own; both root's, with these modes.
fn file(name: &str, folder_mode: u32, mode: u32) -> String {
    let folder = format!("{SCRATCH}/{name}");
    let path = format!("{folder}/policies.yaml");
    fs::create_dir(&folder).expect("make the folder");
    fs::write(&path, HEAD).expect("write the policy");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod the policy");
    fs::set_permissions(&folder, Permissions::from_mode(folder_mode)).expect("chmod the folder");
    path
}

#[track_caller]
fn refused(path: &str, error: &str) {
    exactly(&mut shaper(&format!("check --offline {path}")), 2, "", &format!("error: {error}\n"));
}

#[track_caller]
fn good(path: &str) {
    let ok = format!("{path}: ok: 1 link; no user is capped: add `users` or `everyone`\n");
    exactly(&mut shaper(&format!("check --offline {path}")), 0, &ok, "");
}

fn a_file_that_others_can_write_is_refused() {
    let path = file("everybody", 0o755, 0o666);
    let cure = format!("cure: chown root:root {path} && chmod go-w {path}");
    refused(&path, &format!("{path} can be written by everybody, and root would obey it; {cure}"));
    let path = file("group", 0o755, 0o664);
    let cure = format!("cure: chown root:root {path} && chmod go-w {path}");
    refused(
        &path,
        &format!("{path} can be written by its group, gid 0, and root would obey it; {cure}"),
    );
    chown(&path, None, Some(2001)).expect("chgrp");
    let cure = format!("cure: chown root:root {path} && chmod go-w {path}");
    refused(
        &path,
        &format!("{path} can be written by its group, gid 2001, and root would obey it; {cure}"),
    );
    let path = file("owner", 0o755, 0o600);
    chown(&path, Some(2001), None).expect("chown");
    let cure = format!("cure: chown root:root {path} && chmod go-w {path}");
    refused(
        &path,
        &format!("{path} can be written by its owner, uid 2001, and root would obey it; {cure}"),
    );
    // The cure cures.
    chown(&path, Some(0), Some(0)).expect("chown");
    good(&path);
}

fn a_folder_that_others_can_write_is_refused() {
    let path = file("open", 0o777, 0o600);
    let folder = format!("{SCRATCH}/open");
    refused(
        &path,
        &format!(
            "{path} lies in {folder}, which can be written by everybody, who could replace it; \
             cure: chown root:root {folder} && chmod go-w {folder}, or move the policy to /etc/shaper"
        ),
    );
}

fn every_folder_above_counts() {
    let above = format!("{SCRATCH}/above");
    fs::create_dir(&above).expect("make the folder above");
    let path = file("above/shaper", 0o755, 0o600);
    good(&path);
    let refusal = |who: &str| {
        format!(
            "{path} lies below {above}, which can be written by {who}, who could replace it; \
             cure: chown root:root {above} && chmod go-w {above}, or move the policy to /etc/shaper"
        )
    };
    fs::set_permissions(&above, Permissions::from_mode(0o777)).expect("chmod");
    refused(&path, &refusal("everybody"));
    fs::set_permissions(&above, Permissions::from_mode(0o755)).expect("chmod");
    chown(&above, Some(2001), None).expect("chown");
    refused(&path, &refusal("its owner, uid 2001"));
    // Also by a link whose own folder is root's alone, and where a link is one of the folders.
    let link = format!("{SCRATCH}/shaper");
    symlink(format!("{above}/shaper"), &link).expect("link");
    let by_link = format!("{link}/policies.yaml");
    refused(&by_link, &refusal("its owner, uid 2001").replace(&path, &by_link));
}

fn whoever_made_a_link_in_a_sticky_folder_leads() {
    let path = file("fine", 0o755, 0o600);
    let sticky = file("sticky", 0o1777, 0o600).replace("policies.yaml", "link.yaml");
    symlink(&path, &sticky).expect("link");
    good(&sticky);
    lchown(&sticky, Some(2001), None).expect("lchown");
    refused(
        &sticky,
        &format!(
            "{sticky} is reached by the link {sticky}, which uid 2001 made and could lead elsewhere; \
             cure: let root make it, or name the file itself"
        ),
    );
}

fn what_is_no_regular_file_is_refused_at_once() {
    let fifo = format!("{SCRATCH}/fifo");
    run(&format!("mkfifo -m 600 {fifo}"));
    let socket = format!("{SCRATCH}/socket");
    let _listening = UnixListener::bind(&socket).expect("a socket");
    let link = format!("{SCRATCH}/link");
    symlink("/dev/zero", &link).expect("link");
    let folder = format!("{SCRATCH}/a-folder");
    fs::create_dir(&folder).expect("make a folder");
    for (path, what) in [(&fifo, "a pipe (FIFO)"), (&socket, "a socket"), (&link, "a device")] {
        let error = format!(
            "error: {path} is {what}, and a policy is a regular file; `-` reads standard input\n"
        );
        for words in ["check --offline", "check", "plan", "apply", "watch", "why ann -f"] {
            exactly(&mut shaper(&format!("{words} {path}")), 2, "", &error);
        }
    }
    shaper(&format!("plan {folder}")).assert().code(2);
    // As text through standard input it is fine.
    let piped = shaper("check --offline -").write_stdin(HEAD).assert().code(0).get_output().clone();
    assert_eq!(
        String::from_utf8_lossy(&piped.stdout),
        "-: ok: 1 link; no user is capped: add `users` or `everyone`\n"
    );
}

fn a_sticky_folder_is_fine() {
    good(&file("sticky", 0o1777, 0o600));
    // But its owner can replace what others have there.
    let path = file("theirs", 0o1777, 0o600);
    chown(format!("{SCRATCH}/theirs"), Some(2001), None).expect("chown");
    shaper(&format!("check --offline {path}")).assert().code(2);
}

fn a_link_is_judged_by_where_it_leads() {
    let (bad, fine) = (file("bad", 0o777, 0o600), file("fine", 0o755, 0o600));
    let to_bad = format!("{SCRATCH}/to-bad.yaml");
    symlink(&bad, &to_bad).expect("link");
    let folder = format!("{SCRATCH}/bad");
    refused(
        &to_bad,
        &format!(
            "{to_bad} lies in {folder}, which can be written by everybody, who could replace it; \
             cure: chown root:root {folder} && chmod go-w {folder}, or move the policy to /etc/shaper"
        ),
    );
    let to_fine = format!("{SCRATCH}/to-fine.yaml");
    symlink(&fine, &to_fine).expect("link");
    good(&to_fine);
}

/// Who is not root changes nothing, so nobody can make him.
fn others_trust_what_they_like() {
    let path = file("theirs", 0o777, 0o666);
    let ok = format!("{path}: ok: 1 link; no user is capped: add `users` or `everyone`\n");
    exactly(&mut as_nobody(&format!("check --offline {path}")), 0, &ok, "");
}

fn what_is_no_file_is_said() {
    let folder = format!("{SCRATCH}/folder");
    fs::create_dir(&folder).expect("make the folder");
    refused(&folder, &format!("{folder} is a folder; name the policy file in it"));
    let absent = format!("{SCRATCH}/absent.yaml");
    refused(
        &absent,
        &format!(
            "cannot read {absent}: No such file or directory (os error 2); name another file, or begin with `shaper init`, which prints a starter policy (`shaper init --write FILE` makes it)"
        ),
    );
    let path = file("latin", 0o755, 0o600);
    fs::write(&path, b"version: 1\nlinks:\n  # K\xf6ln\n  eth0: 100mbit\n").expect("write");
    refused(&path, &format!("{path}:3: this is not UTF-8 text; save the file as UTF-8"));
    exactly(
        shaper("check --offline -").write_stdin(b"\xff".to_vec()),
        2,
        "",
        "error: standard input:1: this is not UTF-8 text; save the file as UTF-8\n",
    );
    let json = format!(
        "{{\"version\":1,\"error\":{{\"kind\":\"usage\",\"message\":\"{folder} is a folder; name the policy file in it\",\
         \"file\":null,\"line\":null,\"column\":null,\"step\":null,\"errno\":null}}}}\n"
    );
    exactly(&mut shaper(&format!("check --json {folder}")), 2, &json, "");
}

fn ten_megabytes_are_refused_at_once() {
    // The second one is cut within a character.
    for (name, line) in [("large", "  # nothing but comments\n"), ("cut", "# ööööööööööööööö\n")]
    {
        let path = file(name, 0o755, 0o600);
        let text = HEAD.to_string() + &line.repeat((10 << 20) / line.len());
        fs::write(&path, text).expect("write the policy");
        let error = format!(
            "\
the file has more than the 8388608 bytes that a policy may have
 --> {path}:1:1
  |
1 | version: 1
  | ^
  |
  = help: is this the right file? Accounts need no line each: `everyone` and `gid` groups cover them"
        );
        refused(&path, &error);
    }
}

fn init_makes_a_file_and_writes_over_none() {
    let folder = format!("{SCRATCH}/new/folder");
    let path = format!("{folder}/policies.yaml");
    let wrote = format!("wrote {path}; edit it, then: shaper plan\n");
    exactly(&mut shaper(&format!("init --write {path}")), 0, &wrote, "");
    let text = fs::read_to_string(&path).expect("a policy");
    exactly(&mut shaper("init"), 0, &text, "");
    shaper(&format!("check --offline {path}")).assert().code(0);
    let error = format!(
        "error: {path} exists, and stays as it is; name another file, or print a policy with `shaper init`\n"
    );
    fs::write(&path, "mine").expect("another text");
    let link = format!("{folder}/link.yaml");
    symlink(format!("{folder}/nowhere"), &link).expect("link");
    exactly(&mut shaper(&format!("init --write {path}")), 2, "", &error);
    exactly(&mut shaper(&format!("init --write={link}")), 2, "", &error.replace(&path, &link));
    assert_eq!(fs::read_to_string(&path).expect("as it was"), "mine");
    assert!(!Path::new(&folder).join("nowhere").exists());
    shaper("init --write /proc/policies.yaml").assert().code(1).stdout("");
    let dash = "error: `-` is no file: `shaper init` without --write prints the policy (a file of that name is ./-)\n";
    exactly(&mut shaper("init --write -"), 2, "", dash);
    assert!(!Path::new("-").exists());
}
