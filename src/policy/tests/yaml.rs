//! Every corner of YAML that we know a policy could have. After a change:
//! `INSTA_UPDATE=always cargo test policy::tests`, and read the diff as its user would.

use std::fmt::Write as _;

use crate::policy::merge::documents;
use crate::policy::node::{Node, Value};
use crate::policy::{Diagnostic, Findings, Source, Span};

pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    documents(&Source::new("policies.yaml", text))
}

/// The tree of `text`, a line for each node with its place and its bytes; or the error.
pub(super) fn read(text: &str) -> String {
    let mut findings = Findings::default();
    let mut drawn = String::new();
    match findings.take(parse(text)) {
        Some(root) => draw(&root, 0, &mut drawn),
        None => match findings.finish(&Source::new("policies.yaml", text)) {
            Ok(_) => drawn.push_str("neither a tree nor an error"),
            Err(report) => drawn.push_str(&report.to_string()),
        },
    }
    drawn
}

fn draw(node: &Node, depth: usize, drawn: &mut String) {
    let at = place(node.at);
    let _ = match &node.value {
        Value::Null => writeln!(drawn, "nothing {at}"),
        Value::Scalar(text) => writeln!(drawn, "{text:?} {at}"),
        Value::List(_) => writeln!(drawn, "list {at}"),
        Value::Map(_) => writeln!(drawn, "mapping {at}"),
    };
    let indent = "  ".repeat(depth + 1);
    match &node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(list) => {
            for element in list {
                let _ = write!(drawn, "{indent}- ");
                draw(element, depth + 1, drawn);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                let _ = write!(drawn, "{indent}{:?} {}: ", key.value, place(key.at));
                draw(value, depth + 1, drawn);
            }
        }
    }
}

fn place(at: Span) -> String {
    format!("@{}:{}[{}..{}]", at.place.line, at.place.column, at.start, at.end)
}

fn golden(name: &str, cases: &[&str]) {
    let mut text = String::new();
    for case in cases {
        let shown: String = if case.len() > 300 {
            format!("{}… ({} bytes)", case.chars().take(60).collect::<String>(), case.len())
        } else {
            format!("{case:?}")
        };
        let _ = writeln!(text, "=== {shown}\n{}\n", read(case).trim_end());
    }
    insta::assert_snapshot!(name, text);
}

#[test]
fn scalars_are_text_as_written() {
    golden(
        "scalars",
        &[
            "{a: 0x10, b: 010, c: 1_0, d: 1e3, e: yes, f: .inf, g: -1, h: 1.50, i: 0o17, j: True}",
            "010: a\n1e3: b\nno: c\n",
            "a:\nb: ~\nc: null\nd: Null\ne: NULL\nf: nUll\ng: ''\nh: \"\"\ni: '~'\nj: \"null\"\n",
            "- \n-\n- a\n",
            "'a b': \"c\\td\\u00e9\\n\"\n\"e\\\"f\": 'it''s'\n",
            "a: b\n  c\n\n  d\ne: \"f\n  g\"\nh: 'i\n\n  j'\n",
            "a: 12\n  34\n",
            "a: |\n  one\n  two\nb: >-\n  three\n  four\nc: |+\n  five\n\nd: |2\n    six\n",
            "a: |\n",
            "~: a\n? \n: b\n'': c\n\"~\": d\n",
            "{a, b: , : c, \"d\":e, ? f}",
            "[a, , b]",
            "[a, b, ]",
            "a: #x\nb: c #d\ne: f#g\n",
            "é: 5mbit # ü\nj: {ü: ä}\n",
            "a: @b\n",
            "a: `b\n",
            "a: %b\n",
            "a: b: c\n",
            "a: -b\nc: - d\n",
            "x\n",
            "\"x\"\n",
            "x: y\n...\n",
            "---\nx: y\n",
            "--- \nx: y\n--- # only a comment after it\n",
            "---\n...\n",
            "x: y\n...\nz\n",
            "--- x\n",
        ],
    );
}

#[test]
fn places_count_characters_and_bytes() {
    golden(
        "places",
        &[
            "\u{feff}a: 1\nb: é\n",
            "\u{feff}# c\na: [1\n",
            "a: 1\n\u{feff}b: 2\n",
            "a: 1\r\nb:\r\n  - c\r\n  - d\r\n",
            "a: 1\r\nb: [\r\n",
            "a: 1\rb: 2\r",
            "a: 1\u{2028}b: 2\n",
            "a: 1\u{85}b: 2\n",
            "a: \u{1F600} # x\n\u{1F600}: {b: c}\n",
            "a: é é\nb: [é, {é: é}]\n",
            "\n\n  a: 1\n  b:\n    c: d\n",
            "{\n a: [1,\n  2],\n}\n",
            "a: 1",
        ],
    );
}

#[test]
fn anchors_repeat_a_value_with_the_place_where_it_is_written() {
    golden(
        "anchors",
        &[
            "a: &x 1mbit\nb: *x\nc: [*x, *x]\n",
            "a: &x {b: 1, c: [2]}\nd: *x\n",
            "a: &x [1, &y {b: 2}]\nc: *y\nd: *x\n",
            "&x a: 1\nb: *x\n",
            "&x a: 1\n*x : 2\n",
            "a: &x 1\nb: &x 2\nc: *x\n",
            "a: &x\nb: *x\n",
            "a: &x ''\nb: *x\n",
            "a: &x {b: &y 1, c: *y}\nd: *x\ne: *y\n",
            "a: &x [&y 1, *y]\nb: *x\n",
            "a: *x\nb: &x 1\n",
            "a: &x {b: *x}\n",
            "a: &x [*x]\n",
            "a: &x {*x : 1}\n",
            "a: &x 1 2\nb: *x\n",
            "a: &é 1\nb: *é\n",
            "a: & 1\n",
            "a: * 1\n",
            "a: *x*\n",
            "a: &x *x\n",
            "a: &x &y 1\n",
            "&x {a: 1}\n",
            "&x\na: 1\nb: *x\n",
            "a: &x\n  b: 1\nc: *x\n",
            "- &x\n  b: 1\n- *x\n",
            "a: &x [1]\n*x : b\n",
            "a: &x 10\n*x : b\n",
            "a: &x\n*x : b\n",
            "a: &x 1\n---\nb: *x\n",
        ],
    );
}

#[test]
fn merge_keys_bring_in_what_the_mapping_lacks() {
    golden(
        "merge",
        &[
            "x: &x {a: 1, b: 2}\nc: {<<: *x, a: 3}\n",
            "x: &x {a: 1, b: 2}\nc: {a: 3, <<: *x}\n",
            "x: &x {a: 1, b: 2}\nc:\n  <<: *x\n  d: 4\n",
            "x: &x {a: 1}\ny: &y {a: 2, b: 3}\nc: {<<: [*x, *y]}\n",
            "x: &x {a: 1}\ny: &y {a: 2, b: 3}\nc: {<<: *x, <<: *y}\n",
            "x: &x {a: 1}\ny: &y {<<: *x, b: 2}\nc: {<<: *y, d: 4}\n",
            "x: &x {a: 1}\ny: &y {b: 2, <<: *x, a: 5}\nc: {<<: *y}\n",
            "a: {<<: {b: 1}}\n",
            "a: {<<: {b: 1, b: 2}}\n",
            "a: {b: 1, b: 2, <<: {b: 3}}\n",
            "a: {<<: [{b: 1}, {b: 2, c: 3}], b: 4}\n",
            "a: {<<: [[{b: 1}], {c: 3}]}\n",
            "a: {<<: }\n",
            "a: {<<: ~, b: 1}\n",
            "a: {<<: [~, {b: 1}]}\n",
            "a: {<<: []}\n",
            "a: {<<: {}}\n",
            "a: {<<: 1}\n",
            "a: {<<: [1]}\n",
            "a: {<<: [{b: 1}, 2]}\n",
            "a: {<<: b, c: [}\n",
            "a: {'<<': {b: 1}}\n",
            "a: {\"<<\": {b: 1}}\n",
            "a: {!!merge <<: {b: 1}}\n",
            "a: {!!merge '<<': {b: 1}}\n",
            "a: {!!str <<: {b: 1}}\n",
            "<<: {a: 1}\nb: 2\n",
            "x: &m <<\n*m : {a: 1}\n",
            "a: &x {<<: *x}\n",
            "a: &x {<<: [*x]}\n",
            "x: &x 1\na: {<<: *x}\n",
            "x: &x [{a: 1}]\na: {<<: *x}\n",
            "x: &x [{a: 1}, 2]\na: {<<: *x}\n",
            "a: {<<: {<<: {b: 1}, b: 2}}\n",
            "a: {1: x, <<: {1: y, 0x1: z}}\n",
            "a: {yes: x, <<: {true: y}}\n",
            "a: {~: x, <<: {null: y}}\n",
            "a: {'1': x, <<: {1: y}}\n",
            "[<<, a]\n",
            "a: <<\n",
            "a: {<<: {b: &y 1}, c: *y}\n",
        ],
    );
}

#[test]
fn tags() {
    golden(
        "tags",
        &[
            "a: !!str 1\nb: !!str null\nc: !!str\nd: ! 1\ne: ! ~\n",
            "a: !!int 5\n",
            "a: !!int '5'\n",
            "a: !!int x\n",
            "a: !!int -5\n",
            "a: !!float 1\n",
            "a: !!float x\n",
            "a: !!bool true\n",
            "a: !!bool x\n",
            "a: !!null x\n",
            "a: !!null\n",
            "a: !!null ''\n",
            "a: !t 1\n",
            "a: !t\n",
            "a: !t ~\n",
            "a: !t 'x'\n",
            "a: !t [1]\n",
            "a: !t {b: 1}\n",
            "a: !!seq [1]\nb: !!map {c: 1}\n",
            "a: !!map [1]\n",
            "a: !!seq x\n",
            "a: !!set {b, c}\n",
            "a: !!omap [b: 1]\n",
            "a: !!binary aGk=\n",
            "a: !!binary ???\n",
            "a: !!timestamp 2001-01-01\n",
            "a: !include b.yaml\n",
            "a: !<tag:yaml.org,2002:str> 1\n",
            "a: !<x> 1\n",
            "a: !x!y 1\n",
            "%TAG !x! tag:x,2000:\n---\na: !x!y 1\n",
            "!!str a: 1\n!t b: 2\n",
            "!!int 1: a\n",
            "!!null x: a\n",
            "!t {a: 1}\n",
            "!t x\n",
            "a: !!str &x 1\nb: *x\n",
            "a: &x !!str 1\nb: *x\n",
            "a: &x !t 1\n",
            "a: &x !t {b: 1}\nc: *x\n",
            "a: !!str [1]\n",
            "a: !!str {b: 1}\n",
        ],
    );
}

#[test]
fn several_documents_and_directives() {
    golden(
        "documents",
        &[
            "a: 1\n---\nb: 1\n",
            "a: 1\n---\n",
            "a: 1\n...\n---\nb: 2\n",
            "---\n---\na: 1\n",
            "---\na: 1\n---\n# x\n",
            "a: 1\n---\n[\n",
            "%YAML 1.2\n---\na: 1\n",
            "%YAML 1.1\n---\na: yes\n",
            "%YAML 3.0\n---\na: 1\n",
            "%YAML\n---\na: 1\n",
            "%FOO bar\n---\na: 1\n",
            "%YAML 1.2\na: 1\n",
            "a: 1\n%YAML 1.2\n---\n",
            "[a]: b\n---\nc: d\n",
            "a: *x\n---\nc: d\n",
        ],
    );
}

#[test]
fn what_is_no_yaml() {
    golden(
        "syntax",
        &[
            "a:\n\t- b\n",
            "a:\n  b: 1\n\tc: 2\n",
            "\ta: 1\n",
            "a: 1\n\t\n",
            "a:\tb\n",
            "a: [\t1,\t2]\n",
            "a: {b: 1,\n\tc: 2}\n",
            "a: [1\n",
            "a: [1}\n",
            "a: ]\n",
            "a: {b: [1, 2}\n",
            "a: {b\n",
            "a: {{b}}\n",
            "a: {{b}}: 1\n",
            "[a]: b\n",
            "{a: 1}: b\n",
            "? [a]\n: b\n",
            "? a\n: b\n",
            "? a\n",
            "? {a: 1}\n: [\n",
            "a: 'b\n",
            "a: \"b\\q\"\n",
            "a: \"\\x4\"\n",
            "a: 'b' c\n",
            "a: b\n  c: d\n",
            "a: b\n c\nd\n",
            "a\nb: c\n",
            "a:\n  b: 1\n c: 2\n",
            "a:\n- b\n c\n",
            "- a\nb: c\n",
            "a: 1\n- b\n",
            "a: |x\n  b\n",
            "a: \u{7}\n",
            "a: \0\n",
            "a: \u{7f}\n",
            "a b\n",
            ": a\n",
            "-\n",
            "? \n",
            "!\n",
            "&a\n",
            "*a\n",
            "a: 1\na: 2\n",
            "x: {a: {b: 1, b: 2}}\n",
            &format!("{}: 1\n", "k".repeat(1_100)),
            &format!("? {}\n: 1\n", "k".repeat(1_100)),
        ],
    );
}
