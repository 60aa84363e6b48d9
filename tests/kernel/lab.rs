//! The lab: other kernels, which have the real `cls_cgroup`, run this same binary. Each boot is one
//! test here, and its console says what every test inside it did.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::harness::{On, Test};
use crate::support::settings::setting;

/// Tests of latency and of small guarantees: beside another machine they would measure that one.
const EXACT: [&str; 2] = ["sharing::latency", "shards::guarantees"];

pub const TESTS: &[Test] = &[
    half("lab::user_mode_linux_part_1", || part_of_the_rest("1/2")),
    half("lab::user_mode_linux_part_2", || part_of_the_rest("2/2")),
    alone("lab::user_mode_linux_exact", || boot("uml.sh", &EXACT, 2)),
    alone("lab::debian_cloud_kernel", || boot("qemu.sh", &[], 10)),
];

/// User-mode Linux has one processor, so two of them share the tests and run at once.
const fn half(name: &'static str, body: fn()) -> Test {
    Test { name, on: On::HostTogether, budget: BOOT, body }
}

const fn alone(name: &'static str, body: fn()) -> Test {
    Test { name, on: On::Host, budget: BOOT, body }
}

fn part_of_the_rest(part: &str) {
    let skipped = EXACT.iter().flat_map(|test| ["--skip", test]);
    let words: Vec<&str> = ["--part", part].into_iter().chain(skipped).collect();
    boot("uml.sh", &words, 10);
}

/// For everything inside one boot. The cell kills the machine with its test.
const BOOT: Duration = Duration::from_secs(1_500);

/// All the tests that the words choose must pass, and be no fewer than that.
fn boot(script: &str, words: &[&str], at_least: usize) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("target/lab");
    std::fs::create_dir_all(&folder).expect("a folder for the lab");
    // Whoever looks for tests that fail now and then wants no second chance for them.
    let again: &[&str] = if setting("SHAPER_AGAIN") == Some(0) { &[] } else { &["--again"] };
    let output = Command::new("sh")
        .arg(here.join("tests/lab").join(script))
        .arg(&folder)
        .arg(std::env::current_exe().expect("this binary's path"))
        .arg(crate::support::program::binary())
        .args(words)
        .args(again)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("start the lab's script");
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    println!("{console}");
    let verdict = console.lines().find_map(|line| line.trim().strip_prefix("lab verdict: "));
    // A console that ends early says nothing about the tests that never ran.
    assert!(verdict.is_some(), "the machine stopped before its verdict");
    let passed = console.lines().filter(|line| is_verdict(line, "ok")).count();
    let failed: Vec<&str> = console.lines().filter(|line| is_verdict(line, "FAILED")).collect();
    assert!(failed.is_empty() && verdict == Some("0"), "failed inside: {failed:#?}");
    assert!(passed >= at_least, "only {passed} tests ran inside");
}

fn is_verdict(line: &str, word: &str) -> bool {
    line.starts_with("test ") && line.contains(&format!(" ... {word} ("))
}
