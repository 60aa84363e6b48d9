//! `shaper check` on this host, and on a terminal. What it says of a policy by itself is tested in
//! tests/offline.

use super::invoke::{HEAD, exactly, host, shaper, text};
use crate::support::harness::{On, tests};
use crate::support::program::policy;

tests!(On::Host => colour_is_for_terminals, this_host_is_asked_unless_offline);

/// A pipe is no terminal, so only `script` shows the difference that `NO_COLOR` makes.
fn colour_is_for_terminals() {
    let path = policy(&format!("{HEAD}users:\n  bob: 10\n"));
    let on_a_terminal = |no_color: Option<&str>| {
        let line =
            format!("{} check --offline {path}", crate::support::program::binary().display());
        let mut command = assert_cmd::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let output = command.assert().code(2).get_output().stdout.clone();
        String::from_utf8_lossy(&output).contains('\u{1b}')
    };
    assert!(on_a_terminal(None), "a terminal gets colour");
    assert!(on_a_terminal(Some("")), "an empty NO_COLOR is none");
    assert!(!on_a_terminal(Some("1")), "NO_COLOR is obeyed");
    let piped = shaper(&format!("check --offline {path}")).assert().code(2).get_output().clone();
    assert!(!String::from_utf8_lossy(&piped.stderr).contains('\u{1b}'), "a pipe gets none");
}

fn this_host_is_asked_unless_offline() {
    let path = host();
    let ok = format!("{path}: ok: 1 link, 1 user\n");
    exactly(&mut shaper(&format!("check {path}")), 0, &ok, "");
    let stranger = policy(&text("zoe: 20mbit"));
    let error = format!(
        "\
error: there is no account `zoe`
 --> {stranger}:5:3
  |
5 |   zoe: 20mbit
  |   ^^^
  |
  = help: correct the name (`getent passwd NAME`), or, if it is a label, say whose it is with `accounts`, `uids` or `units`
"
    );
    exactly(&mut shaper(&format!("check {stranger}")), 2, "", &error);
    let ok = format!("{stranger}: ok: 1 link, 1 user\n");
    exactly(&mut shaper(&format!("check --offline {stranger}")), 0, &ok, "");
    exactly(
        &mut shaper(&format!("check --skip-unknown {stranger}")),
        0,
        &ok,
        &error.replace("error:", "warning:"),
    );
    let group = policy(&text("students: 20mbit"));
    let said = shaper(&format!("check {group}")).assert().code(2).get_output().stderr.clone();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.contains("students is a group: write `groups: {students: {gid: students, "),
        "{said}"
    );
    let unit = policy(&text("web: {ceil: 1mbit, units: [no-such-unit.service]}"));
    let said = shaper(&format!("check {unit}")).assert().code(0).get_output().stderr.clone();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("warning: there is no unit `no-such-unit.service`"), "{said}");
}
