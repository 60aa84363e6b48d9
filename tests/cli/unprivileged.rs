//! Without privilege: one sentence that says what is missing, status 2, nothing touched; and what
//! needs none works.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::invoke::{as_nobody, exactly, host, shaper};
use crate::support::harness::{On, tests};

tests!(On::Host =>
    what_changes_something_needs_root, check_and_init_need_nothing, status_reads_without_privilege,
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

fn status_reads_without_privilege() {
    let path = host();
    exactly(&mut as_nobody("status"), 3, "nothing is shaped here; `shaper apply` does it\n", "");
    shaper(&format!("apply {path}")).assert().code(0);
    let table = shaper("status").assert().code(0).stderr("").get_output().stdout.clone();
    let theirs = as_nobody("status").assert().code(0).stderr("").get_output().stdout.clone();
    // The kernel itself sends a little (neighbour discovery), which the default class counts
    // meanwhile.
    let steady = |table: &[u8]| {
        let text = String::from_utf8_lossy(table).into_owned();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("(default)"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(steady(&theirs), steady(&table));
}

fn a_plan_without_root_says_so() {
    let path = host();
    readable(&path);
    let error = "error: a plan depends on what this kernel can do, and finding that out needs root: run it with sudo (`shaper check` needs no root)\n";
    let output = as_nobody(&format!("plan {path}")).assert().get_output().clone();
    // Where the modules can be looked up by everybody, there is a plan.
    match output.status.code() {
        Some(0) => assert!(String::from_utf8_lossy(&output.stdout).contains("plan: 11 to add")),
        status => {
            assert_eq!(status, Some(2));
            assert_eq!(String::from_utf8_lossy(&output.stderr), error);
        }
    }
}
