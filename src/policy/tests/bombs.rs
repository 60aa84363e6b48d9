//! Texts that are nested too deeply, too large, or that repeat too much are refused, with the
//! place, before they cost more than seconds or more memory than the longest policy. Whoever may
//! write a policy must not be able to fill the memory of the daemon that reads it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::yaml::{parse, read};
use crate::policy::yaml::MAX_BYTES;

fn lists(depth: usize) -> String {
    format!("{}{}\n", "[".repeat(depth), "]".repeat(depth))
}

fn maps(depth: usize) -> String {
    format!("{}x{}\n", "{a: ".repeat(depth), "}".repeat(depth))
}

fn blocks(depth: usize) -> String {
    (0..depth).map(|n| format!("{}a:\n", " ".repeat(n))).collect()
}

/// Each line repeats the one before it `width` times.
fn laughs(lines: usize, width: usize) -> String {
    let mut text = String::from("a0: &a0 x\n");
    for n in 1..=lines {
        let again = vec![format!("*a{}", n - 1); width].join(", ");
        let _ = writeln!(text, "a{n}: &a{n} [{again}]");
    }
    text
}

/// Each line merges the one before it.
fn merges(lines: usize) -> String {
    let mut text = String::from("a0: &a0 {k0: 1}\n");
    for n in 1..=lines {
        let _ = writeln!(text, "a{n}: &a{n} {{<<: *a{}, k{n}: 1}}", n - 1);
    }
    text
}

/// A long text, and so many aliases of it.
fn long_text(bytes: usize, aliases: usize) -> String {
    format!("a: &a {}\nb: [{}]\n", "x".repeat(bytes), "*a, ".repeat(aliases))
}

#[test]
fn bombs_are_refused() {
    let cases = [
        lists(33),
        lists(300),
        maps(33),
        blocks(34),
        "{".repeat(400),
        "- ".repeat(400),
        "? ".repeat(400),
        laughs(8, 10),
        laughs(40, 1),
        format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(1_000), "*a, ".repeat(2_000)),
        format!("a: &a x\nb: [{}]\n", "*a, ".repeat(500_000)),
        format!("a: &a {{{}}}\nb: {{{}}}\n", "k: x, ".repeat(1_000), "<<: *a, ".repeat(500)),
        format!("[{}]\n", "x, ".repeat(1_000_000)),
        format!("a: &a [&b [{}]]\n", "x, ".repeat(400_000)),
        long_text(MAX_BYTES / 8, 8),
        merges(2_000),
        format!("a: &a {{{}: x}}\nb: [{}]\n", "x".repeat(1_000), "{<<: *a}, ".repeat(9_000)),
    ];
    let mut text = String::new();
    for case in &cases {
        let said = read(case);
        let said: String = said.lines().take(3).map(|line| line.to_string() + "\n").collect();
        let start: String = case.chars().take(40).collect();
        let _ = writeln!(text, "=== {start:?}… ({} bytes)\n{said}", case.len());
    }
    insta::assert_snapshot!("bombs", text);
}

#[test]
fn as_much_as_that_is_read() {
    let fit = [
        lists(32),
        maps(32),
        blocks(32),
        laughs(31, 1),
        laughs(4, 10),
        merges(40),
        (0..20_000).map(|n| format!("a{n}: &a{n} x\n")).collect(),
        format!("a: &a x\nb: [{}]\n", "*a, ".repeat(200_000)),
        format!("a: &a [{}]\n", "x, ".repeat(400_000)),
        long_text(MAX_BYTES / 8, 7),
    ];
    for case in fit {
        let start: String = case.chars().take(40).collect();
        assert!(parse(&case).is_ok(), "{start}… ({} bytes): {}", case.len(), read(&case));
    }
}

/// Reading half a megabyte takes seconds at most, whatever is in it; in more than linear time it
/// would not end. Each text is a beginning, a part that is repeated, and an end.
#[test]
fn long_texts_are_read_or_refused_in_seconds() {
    let cases = [
        ("", "[", ""),
        ("", "{", ""),
        ("", "- ", ""),
        ("", "? ", ""),
        ("", "[]: ", ""),
        ("a: ", "x", "\n"),
        ("a: \"", "x", "\"\n"),
        ("a: \"", "\\\n", "\"\n"),
        ("a: '", "x\n", ""),
        ("a: |\n", " x\n", ""),
        ("a: |\n", "\n", ""),
        ("a: |\n", " ", "x\n"),
        ("a: x\n", " y\n", "b\n"),
        ("", "\n", "a: ["),
        ("", "#\n", "a: ["),
        ("# ", "#", "\n\ta: b\n"),
        ("a: 1\n", "\t", "b: ["),
        ("", " ", "a: 1\n"),
        ("", "a: ", ""),
        ("", "a:\n", ""),
        ("", "a\n", ": b"),
        ("[", "a: b, ", "]"),
        ("[", "a, ", ""),
        ("a: &a [", "*a, ", "]"),
        ("a: &a x\nb: [", "*a, ", "]"),
        ("", "&a ", "x"),
        ("[", "&a x, ", "]"),
        ("[", "&a [], *a, ", "]"),
        ("", "!t ", "x"),
        ("[", "!!int 1, ", "]"),
        ("a: !!int ", "1", "\n"),
        ("{", "<<: {}, ", "}"),
        ("a: &a {b: c}\nd: {", "<<: *a, ", "}"),
        ("", "---\n", ""),
        ("%TAG !", "x", "! y\n---\na: 1\n"),
        ("", "%YAML 1.2\n", "---\na: 1\n"),
        ("", "%X y\n", "---\na: 1\n"),
        ("a: 1\n", "...\n", ""),
        ("\u{feff}", "é", ": 1\n"),
    ];
    for (start, again, end) in cases {
        let room = MAX_BYTES / 16 - start.len() - end.len();
        let text = format!("{start}{}{end}", again.repeat(room / again.len()));
        let begun = Instant::now();
        let _ = parse(&text);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{start:?} {again:?} {end:?}: {took:?}");
    }
}
