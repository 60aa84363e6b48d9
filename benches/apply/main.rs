//! What an apply costs, how exact the rates are, and what latency is left under load: the release
//! binary on this kernel, beside `tc -batch`, bare system calls and other tools, in one run, taking
//! turns. `cargo bench --bench apply [-- SECTION…]`, as root; writes `benches/RESULTS.md`.
//!
//! Every section runs in a cell of its own (tests/support), so nothing of it outlives the run.

#[path = "../../tests/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "made for the tests, which use all of it"
)]
mod support;

#[path = "../support/results.rs"]
mod results;

mod accuracy;
mod both_ways;
mod cost;
mod crowd;
mod directories;
mod downloads;
mod first_build;
mod flood;
mod host;
mod latency;
mod links;
mod logins;
mod one_htb;
mod others;
mod placement;
mod refresh;
mod traffic;
mod update;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use support::cell;
use support::harness::{self, On, Test};

/// A part of the results: its heading, and what finds it out. It prints what it measures, and
/// leaves its text through [`write`].
struct Section {
    name: &'static str,
    heading: &'static str,
    on: On,
    /// Killed after this.
    seconds: u64,
    body: fn(),
}

const SECTIONS: &[Section] = &[
    Section {
        name: "in-sync",
        heading: "Applying what stands, and small and large changes: 10,000 users",
        on: On::Host,
        seconds: 300,
        body: update::measure,
    },
    Section {
        name: "first-build",
        heading: "First builds",
        on: On::Host,
        seconds: 400,
        body: first_build::measure,
    },
    Section {
        name: "directories",
        heading: "10,000 net_cls cgroups",
        on: On::Host,
        seconds: 120,
        body: directories::measure,
    },
    Section {
        name: "crowd",
        heading: "What a packet costs beside many users",
        on: On::Host,
        seconds: 400,
        body: crowd::measure,
    },
    Section {
        name: "both-ways",
        heading: "What a packet costs where a link is shaped both ways",
        on: On::Host,
        seconds: 290,
        body: both_ways::measure,
    },
    Section {
        name: "one-htb",
        heading: "How many packets one HTB takes",
        on: On::Host,
        seconds: 290,
        body: one_htb::measure,
    },
    Section {
        name: "others",
        heading: "Other tools, at sizes that they can take",
        on: On::Host,
        seconds: 200,
        body: others::measure,
    },
    Section {
        name: "rates",
        heading: "Rate accuracy",
        on: On::Host,
        seconds: 400,
        body: accuracy::measure,
    },
    Section {
        name: "latency",
        heading: "Latency under load",
        on: On::Host,
        seconds: 120,
        body: latency::measure,
    },
    Section {
        name: "download-rates",
        heading: "How near downloads are to their caps",
        on: On::Host,
        seconds: 290,
        body: downloads::goodput,
    },
    Section {
        name: "beside-downloads",
        heading: "What others wait for beside downloads",
        on: On::Host,
        seconds: 120,
        body: downloads::latency,
    },
    Section {
        name: "links",
        heading: "Links that come",
        on: On::Host,
        seconds: 120,
        body: links::measure,
    },
    Section {
        name: "placement",
        heading: "The first placement of a crowd",
        on: On::Host,
        seconds: 280,
        body: placement::measure,
    },
    Section {
        name: "refresh",
        heading: "What it costs to see: 10,000 users",
        on: On::HostEvents,
        seconds: 330,
        body: refresh::measure,
    },
    Section {
        name: "logins",
        heading: "Logins under storms",
        on: On::HostEvents,
        seconds: 200,
        body: logins::measure,
    },
];

/// Where a section leaves its text for the runner: the cell shares the machine's files but /run.
const TEXT: &str = "SHAPER_BENCH_TEXT";

fn main() -> ExitCode {
    let (bench, args): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|arg| arg == "--bench");
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--weigh", command @ ..] => return cost::weigh(command),
        ["--sleepers", uids @ ..] => return host::sleepers(uids),
        // `cargo test --benches` lists and runs it too: nothing of it is a test.
        ["--list", ..] => return ExitCode::SUCCESS,
        [] if bench.is_empty() => return ExitCode::SUCCESS,
        _ => {}
    }
    let test = |section: &Section| Test {
        name: section.name,
        on: section.on,
        budget: Duration::from_secs(section.seconds),
        body: section.body,
    };
    if words.first().is_some_and(|word| word.starts_with("--")) {
        let tests: Vec<Test> = SECTIONS.iter().map(test).collect();
        return harness::main(&[&tests]);
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut failed = 0;
    for section in SECTIONS.iter().filter(|section| wanted(section.name)) {
        println!("== {} ({})", section.heading, section.name);
        let started = Instant::now();
        match run(section) {
            Ok(text) => results::write("apply", section.name, section.heading, &text),
            Err(why) => {
                println!("{}: {why}", section.name);
                failed += 1;
            }
        }
        println!("== {:.0} s\n", started.elapsed().as_secs_f32());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(section: &Section) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("a folder for the text: {e}"))?;
    let file = folder.path().join(section.name);
    // SAFETY: this process has one thread.
    unsafe { env::set_var(TEXT, &file) };
    cell::run(section.name, Duration::from_secs(section.seconds), true)?;
    fs::read_to_string(&file).map_err(|e| format!("it wrote nothing: {e}"))
}

/// Leaves a section's text for the runner.
fn write(text: &str) {
    println!("{text}");
    let file = env::var_os(TEXT).map(PathBuf::from).expect("the runner names a file");
    fs::write(file, text).expect("leave the text");
}
