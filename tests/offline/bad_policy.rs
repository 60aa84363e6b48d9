//! Bad policies: each is refused with exit status 2, the place and a sentence. (The rooms `policy`
//! and `model` have the full lists beside their code; here it is what the command line makes of
//! them.)

use serde_json::json;

use crate::shaper;
use crate::words::HEAD;

struct Bad {
    text: &'static str,
    line: u32,
    column: u32,
    rule: &'static str,
    message: &'static str,
}

const fn bad(
    text: &'static str,
    line: u32,
    column: u32,
    rule: &'static str,
    message: &'static str,
) -> Bad {
    Bad { text, line, column, rule, message }
}

/// Whole files.
const FILES: &[Bad] = &[
    bad("version: 1\nlinks:\n\teth0: 100mbit\n", 3, 1, "syntax", "a tab in the indentation"),
    bad("links:\n  eth0: 100mbit\n", 1, 1, "shape", "the file has no `version`"),
    bad(
        "version: 2\nlinks:\n  eth0: 100mbit\n",
        1,
        10,
        "shape",
        "`2` is no version that this shaper can read",
    ),
    bad("", 1, 1, "syntax", "the file is empty"),
];

/// What stands after a good beginning.
const ENDS: &[Bad] = &[
    bad("users:\n  bob: {rat: 5mbit}\n", 5, 9, "shape", "unknown key `rat` in a user"),
    bad("users:\n  bob: 5mbit\n  bob: 6mbit\n", 6, 3, "shape", "`bob` stands twice in `users`"),
    bad("users: [bob]\n", 4, 8, "shape", "`users` must be a mapping, but this is a list"),
    bad(
        "users:\n  bob: {rate: 9mbit, ceil: 5mbit}\n",
        5,
        28,
        "rate",
        "the ceil of `bob` is 5mbit, below its rate 9mbit",
    ),
    bad(
        "users:\n  ann: {rate: 60mbit}\n  bob: {rate: 60mbit}\n",
        6,
        15,
        "promise",
        "the promised rates add up to 125mbit, more than the 100mbit of the link eth0",
    ),
    bad(
        "users:\n  bob: {rate: 200mbit}\n",
        5,
        15,
        "rate",
        "the rate of `bob` is 200mbit, above the 100mbit of the link eth0",
    ),
    bad(
        "users:\n  bob: 0mbit\n",
        5,
        8,
        "rate",
        "a rate of zero would let nothing through; the smallest is `8bit`",
    ),
    bad("users:\n  bob: -5mbit\n", 5, 8, "rate", "a rate cannot be negative"),
    bad(
        "users:\n  bob: fast\n",
        5,
        8,
        "rate",
        "`fast` is not a number followed by a unit, such as `100mbit` or `1.5gbit`",
    ),
    bad(
        "users:\n  bob: 99999999999999999999tbit\n",
        5,
        8,
        "rate",
        "`99999999999999999999tbit` is larger than any link (the limit is 147 exabit per second)",
    ),
    bad(
        "users:\n  bob: 10mbps\n",
        5,
        8,
        "rate",
        "`10mbps` is ambiguous: to tc `mbps` means bytes per second; write `10mbit` for bits, or `80mbit` if bytes were meant",
    ),
    bad(
        "users:\n  bob: 10\n",
        5,
        8,
        "rate",
        "`10` has no unit; write for example `10mbit` (megabits per second) or `10kbit`",
    ),
    bad(
        "users:\n  ann: {ceil: 1mbit, classid: \"1:10\"}\n  bob: {ceil: 1mbit, classid: \"1:10\"}\n",
        6,
        31,
        "name",
        "`ann` and `bob` have the same classid 1:10",
    ),
    bad(
        "users:\n  bob: {ceil: 1mbit, classid: \"1:f000\"}\n",
        5,
        31,
        "name",
        "the classid 1:f000 is outside 1:10–1:dfff",
    ),
    bad(
        "users:\n  bob: 1mbit\n  rob: {ceil: 1mbit, accounts: [bob]}\n",
        6,
        33,
        "claim",
        "the account `bob` is claimed by `bob` and by `rob`",
    ),
    bad(
        "users:\n  ../x: 1mbit\n",
        5,
        3,
        "name",
        "`../x` is no safe name: it becomes a directory's",
    ),
    bad("users:\n  a/b: 1mbit\n", 5, 3, "name", "`a/b` is no safe name: it becomes a directory's"),
    bad("users:\n  .: 1mbit\n", 5, 3, "name", "`.` is no safe name: it becomes a directory's"),
    bad("users:\n  \"\": 1mbit\n", 5, 3, "name", "`` is no safe name: it becomes a directory's"),
    bad(
        "users:\n  \"a\\x07b\": 1mbit\n",
        5,
        3,
        "name",
        "`a\\u{7}b` is no safe name: it becomes a directory's",
    ),
    bad(
        "rules:\n  - {src: 10.0.0.1, dst: \"fd00::1\", to: default}\n",
        5,
        11,
        "rule",
        "the rule mixes IPv4 and IPv6: no packet has both",
    ),
    bad("rules:\n  - {dport: 70000, to: default}\n", 5, 13, "rule", "`70000` is no port"),
    bad(
        "groups:\n  a: {parent: b}\n  b: {parent: a}\n",
        5,
        15,
        "group",
        "groups contain themselves: a in b in a",
    ),
    bad("rules:\n  - {dport: 80, to: bob}\n", 5, 21, "rule", "there is no user and no class `bob`"),
    bad(
        "rules:\n  - {dport: 80, to: default, link: eth1}\n",
        5,
        36,
        "link",
        "`eth1` is no link of this policy",
    ),
    bad("ingress: {}\n", 4, 1, "shape", "unknown key `ingress` in the policy"),
    bad("users:\n  root: 1mbit\n", 5, 3, "name", "the name `root` is reserved"),
];

#[test]
fn each_is_refused_with_its_place() {
    let files = FILES.iter().map(|bad| (String::new(), bad));
    for (head, bad) in files.chain(ENDS.iter().map(|bad| (HEAD.to_string(), bad))) {
        let text = format!("{head}{}", bad.text);
        let assert = shaper("check --offline --json -").write_stdin(text.as_str()).assert();
        let output = assert.code(2).stderr("").get_output().stdout.clone();
        let document: serde_json::Value = serde_json::from_slice(&output).expect("a document");
        let error = &document["error"];
        let found = json!([
            error["kind"],
            error["file"],
            error["line"],
            error["column"],
            error["rule"],
            error["message"]
        ]);
        let wanted = json!(["policy", "-", bad.line, bad.column, bad.rule, bad.message]);
        assert_eq!(found, wanted, "{text}");
        // What the message does not cure, a help does.
        let cured = error["help"].is_string()
            || bad.message.contains("write")
            || bad.message.contains("smallest");
        assert!(cured, "no cure: {}", bad.message);
    }
    let list = |name: &str, of: &str| format!("x-{name}: &{name} [{}]\n", [of; 10].join(","));
    let mut bomb = String::from("version: 1\n") + &list("a", "x");
    for (name, of) in [("b", "*a"), ("c", "*b"), ("d", "*c"), ("e", "*d"), ("f", "*e"), ("g", "*f")]
    {
        bomb += &list(name, of);
    }
    let error = shaper("check --offline -").write_stdin(bomb).assert().code(2).get_output().clone();
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    let said = "error: the file is no policy: its aliases (`*name`) expand to too much\n";
    assert!(error.starts_with(said), "{error}");
}
