//! `shaper check`: what it says of policies that are good, and how errors and warnings are drawn.

use crate::shaper;
use crate::words::{HEAD, exactly};

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");

#[test]
fn the_examples_are_good() {
    let examples = [
        ("both-ways", "1 link, 3 users, 1 group, 1 rule, everyone"),
        ("demo", "1 link, 2 users, everyone"),
        ("file-server", "1 link, 1 user, everyone"),
        ("hosting", "2 links, 6 users, 2 groups, 2 rules"),
        ("login-node", "1 link, 3 users, 2 groups, 1 class, 1 rule, everyone"),
        ("recipes/backup", "1 link, 1 user, everyone"),
        ("recipes/containers", "1 link, 2 users"),
        ("recipes/departments", "1 link, 2 groups, everyone"),
        ("recipes/lab", "1 link, 1 rule, everyone"),
        ("recipes/root-rsync", "1 link, 1 user, everyone"),
        ("recipes/seedbox", "1 link, 1 rule, everyone"),
        ("recipes/vms", "1 link, 2 users"),
        ("recipes/volumes", "1 link, 1 user, everyone"),
        ("recipes/vpn", "1 link, 2 users"),
        ("recipes/web-host", "2 links, 3 users"),
        ("textbook", "1 link, 2 users, 2 rules"),
    ];
    for (name, size) in examples {
        // The checkout may be another account's: its own text is what counts here.
        let file = std::fs::read_to_string(format!("{POLICIES}/{name}.yaml")).expect("read it");
        let good = format!("-: ok: {size}\n");
        exactly(shaper("check --offline -").write_stdin(file), 0, &good, "");
    }
    let folders = [POLICIES.to_string(), format!("{POLICIES}/recipes")];
    let files = folders.map(|folder| std::fs::read_dir(folder).expect("list the examples"));
    let files = files.into_iter().flatten().map(|file| file.expect("an example").path());
    let there = files.filter(|path| path.is_file()).count();
    assert_eq!(there, examples.len(), "an example that is not tested");
}

#[test]
fn standard_input_is_a_dash() {
    let good = format!("{HEAD}users:\n  bob: 5mbit\n");
    exactly(
        shaper("check --offline -").write_stdin(good.as_str()),
        0,
        "-: ok: 1 link, 1 user\n",
        "",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policies.yaml").display().to_string();
    std::fs::write(&path, good).expect("write the policy");
    let ok = format!("{path}: ok: 1 link, 1 user\n");
    exactly(&mut shaper(&format!("check --offline {path}")), 0, &ok, "");
}

#[test]
fn an_error_is_drawn_with_its_place_and_cure() {
    let error = "\
error: the ceil of `bob` is 5mbit, below its rate 9mbit
 --> -:5:28
  |
5 |   bob: {rate: 9mbit, ceil: 5mbit}
  |                            ^^^^^ the cap
  |
 ::: -:5:15
  |
5 |   bob: {rate: 9mbit, ceil: 5mbit}
  |               ----- the guarantee
  |
  = help: write a ceil of 9mbit or more, or a lower rate
";
    let bad = format!("{HEAD}users:\n  bob: {{rate: 9mbit, ceil: 5mbit}}\n");
    exactly(shaper("check --offline -").write_stdin(bad), 2, "", error);
}

#[test]
fn several_errors_are_all_said() {
    let error = "\
error: unknown key `rat` in a user
 --> -:5:9
  |
5 |   bob: {rat: 5mbit}
  |         ^^^
  |
  = help: did you mean `rate`? a user may have rate, ceil, boost, down, prio, background, when, quota, classid, accounts, uids, units, containers, interfaces, namespaces, addresses, follow, group, links

error: `70000` is no port
 --> -:7:13
  |
7 |   - {dport: 70000, to: default}
  |             ^^^^^
  |
  = help: a port is a number from 1 to 65535, a range is `40000-41000`; several are a list, `dport: [80, 443]`
";
    let bad =
        format!("{HEAD}users:\n  bob: {{rat: 5mbit}}\nrules:\n  - {{dport: 70000, to: default}}\n");
    exactly(shaper("check --offline -").write_stdin(bad), 2, "", error);
}

#[test]
fn json_says_the_same() {
    let bad = format!("{HEAD}users:\n  bob: 10mbps\n");
    let document = concat!(
        r#"{"version":1,"error":{"kind":"policy","message":"`10mbps` is ambiguous: to tc `mbps` means bytes per second; "#,
        r#"write `10mbit` for bits, or `80mbit` if bytes were meant","rule":"rate","file":"-","line":5,"column":8,"#,
        r#""step":null,"errno":null},"errors":[{"kind":"policy","message":"`10mbps` is ambiguous: to tc `mbps` means bytes per second; "#,
        r#"write `10mbit` for bits, or `80mbit` if bytes were meant","rule":"rate","file":"-","line":5,"column":8,"#,
        r#""step":null,"errno":null}]}"#,
        "\n"
    );
    exactly(shaper("check --offline - --json").write_stdin(bad), 2, document, "");
    // All errors, in file order.
    let bad = format!("{HEAD}users:\n  bob: 10mbps\n  eve: 10\n  zoe: {{rat: 1mbit}}\n");
    let said = shaper("check --offline - --json").write_stdin(bad).assert().code(2);
    let document: serde_json::Value =
        serde_json::from_slice(&said.get_output().stdout).expect("a document");
    let errors = document["errors"].as_array().expect("all errors");
    let lines: Vec<_> = errors.iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, [Some(5), Some(6), Some(7)], "{document}");
    assert_eq!(document["error"], errors[0]);
    let good = format!("{HEAD}users:\n  bob: 10mbit\n");
    let document = "{\"version\":1,\"changed\":false,\"steps\":[],\"warnings\":[]}\n";
    exactly(shaper("check --offline - --json").write_stdin(good), 0, document, "");
}

const SSH: &str = "rules:\n  - {sport: 22, to: unshaped}\n";

#[test]
fn warnings_are_no_errors() {
    let warning = "\
warning: port 22 to `unshaped` exempts every scp, sftp and rsync over ssh
 --> -:5:13
  |
5 |   - {sport: 22, to: unshaped}
  |             ^^
  |
  = help: logins stay quick in their own classes: leave the rule out, or send it to a class with `prio: 0`
";
    let file = format!("{HEAD}{SSH}");
    let ok = "-: ok: 1 link, 1 rule; no user is capped: add `users` or `everyone`\n";
    exactly(shaper("check --offline -").write_stdin(file.as_str()), 0, ok, warning);
    let document = concat!(
        r#"{"version":1,"changed":false,"steps":[],"warnings":[{"message":"port 22 to `unshaped` exempts every scp, "#,
        r#"sftp and rsync over ssh","file":"-","line":5,"column":13}]}"#,
        "\n"
    );
    exactly(shaper("check --offline - --json").write_stdin(file), 0, document, "");
}

#[test]
fn quiet_says_nothing_of_a_good_policy() {
    let file = format!("{HEAD}{SSH}");
    exactly(shaper("check -q --offline -").write_stdin(file), 0, "", "");
}
