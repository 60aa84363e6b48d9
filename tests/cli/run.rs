//! `shaper run`: whose status it ends with, and where the command runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::invoke::{exactly, host, shaper};
use crate::support::cell::SCRATCH;
use crate::support::harness::{On, tests};

tests!(On::Host =>
    it_ends_as_the_command_ends, its_own_failures_are_125_to_127, the_command_is_in_the_class
);

fn it_ends_as_the_command_ends() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper("run ann -- true"), 0, "", "");
    exactly(&mut shaper("run ann -- false"), 1, "", "");
    exactly(
        shaper("run ann -- sh -c").arg("echo out; echo err >&2; exit 42"),
        42,
        "out\n",
        "err\n",
    );
    exactly(shaper("run ann -- cat").write_stdin("through"), 0, "through", "");
    let killed = shaper("run ann -- sh -c").arg("kill -9 $$").assert().get_output().clone();
    assert_eq!(killed.status.code(), None, "the command's own end, not a status for it");
}

fn its_own_failures_are_125_to_127() {
    let path = host();
    let error = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(&mut shaper("run ann -- true"), 125, "", error);
    shaper(&format!("apply {path}")).assert().code(0);
    let error =
        "error: bob has no class; `shaper status` lists who has, `shaper why bob` says why\n";
    exactly(&mut shaper("run bob -- true"), 125, "", error);
    let plain = format!("{SCRATCH}/plain");
    fs::write(&plain, "no program").expect("write");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("chmod");
    let error = format!("error: cannot run {plain}: Permission denied (os error 13)\n");
    exactly(&mut shaper(&format!("run ann -- {plain}")), 126, "", &error);
    let error = "error: cannot run no-such-program: No such file or directory (os error 2)\n";
    exactly(&mut shaper("run ann -- no-such-program"), 127, "", error);
    let json = "{\"version\":1,\"error\":{\"kind\":\"run\",\"message\":\"cannot run no-such-program: No such file or directory \
                (os error 2)\",\"file\":null,\"line\":null,\"column\":null,\"step\":null,\"errno\":null}}\n";
    exactly(&mut shaper("--json run ann -- no-such-program"), 127, json, "");
}

fn the_command_is_in_the_class() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let output = shaper("run ann -- cat /proc/self/cgroup").assert().code(0).get_output().clone();
    let cgroups = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(cgroups.contains(":net_cls:/shaper/user/ann/pinned\n"), "{cgroups}");
    // As the caller, who is not ann.
    exactly(&mut shaper("run ann -- id -u"), 0, "0\n", "");
}
