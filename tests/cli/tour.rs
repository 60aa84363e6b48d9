//! README's tour, walked: each command of it is run as it stands there, and must print what stands
//! below it. Left out is what differs from host to host: what was sent, the number of the `net_cls`
//! hierarchy, which leaf qdisc the kernel has, and the pid.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::invoke::Sleeper;
use crate::support::accounts::{self, ANN, CAROL, ROOT};
use crate::support::cell::SCRATCH;
use crate::support::command::{run, run_with};
use crate::support::harness::{On, tests};
use crate::support::program::binary;

tests!(On::Host => commands_print_what_readme_shows);

const README: &str = include_str!("../../README.md");

/// The pid that README attaches.
const PID: &str = "20";

fn commands_print_what_readme_shows() {
    accounts::own_etc();
    // Of this machine's own.
    let _was_none = fs::remove_dir_all("/etc/shaper");
    accounts::furnish();
    run("ip link add eth0 type veth peer name far0");
    run("ip link set eth0 up");
    run("ip link set far0 up");
    run("ip addr add 192.0.2.1/24 dev eth0");
    run("ip route add default via 192.0.2.2");
    let path = format!("{SCRATCH}:{}", std::env::var("PATH").unwrap_or_default());
    fs::copy(binary(), Path::new(SCRATCH).join("shaper")).expect("copy the binary");
    let _people = [Sleeper::of(ANN), Sleeper::of(CAROL)];
    let attached = Sleeper::of(ROOT);
    let tour = section(README, "## A tour of five minutes");
    let mut commands = 0;
    for block in blocks(tour) {
        match block {
            Block::Policy(text) => fs::write("/etc/shaper/policies.yaml", text).expect("write"),
            Block::Command { typed, printed } => {
                let typed = typed.replace(&format!(" {PID}"), &format!(" {}", attached.pid()));
                let mut shell = Command::new("sh");
                shell.args(["-c", &typed]).env("PATH", &path);
                let done = run_with(shell, "").exits(0);
                let pid = format!("process {}:", attached.pid());
                let seen = done.stdout.replace(&pid, &format!("process {PID}:"));
                assert_eq!(masked(&seen), masked(&printed), "# {typed}\n{seen}{}", done.stderr);
                commands += 1;
            }
        }
    }
    assert!(commands >= 10, "{commands} commands are no tour: README was not read");
}

enum Block {
    Policy(String),
    Command { typed: String, printed: String },
}

/// A section of a Markdown page, up to the next of its level.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) = page.split_once(title).unwrap_or_else(|| panic!("there is no {title}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// What is in its fences: a policy, or commands after `# `, each with its output.
fn blocks(section: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for fenced in section.split("```").skip(1).step_by(2) {
        let (language, text) = fenced.split_once('\n').expect("a fence's first line");
        match language {
            "yaml" => blocks.push(Block::Policy(text.to_string())),
            "console" => {
                let commands = text.strip_prefix("# ").expect("a console begins with a command");
                blocks.extend(commands.split("\n# ").map(|command| {
                    let (typed, printed) = command.split_once('\n').unwrap_or((command, ""));
                    let typed = typed.split("   ").next().unwrap_or(typed).to_string();
                    Block::Command { typed, printed: printed.trim_end().to_string() }
                }));
            }
            other => panic!("nobody knows what to do with a fence of {other:?}"),
        }
    }
    blocks
}

/// The output without what differs from host to host, and without what aligns its columns.
fn masked(output: &str) -> String {
    let words = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(String::from).collect();
        // USER CLASS RATE CEIL SENT DROPS BACKLOG PROCS
        if words.len() == 8 && words[1].contains(':') {
            words[4..7].fill("…".to_string());
        }
        // policy: FILE, for TIME, by WHOM
        if words.first().is_some_and(|word| word == "policy:") {
            words[3..5].fill("…".to_string());
        }
        // in (default): HOW MANY processes of WHOM
        if line.starts_with("in (default)") {
            words.truncate(2);
        }
        for word in &mut words {
            if ["fq_codel", "sfq", "bfifo"].contains(&word.as_str()) {
                *word = "(leaf)".to_string();
            }
            if let Some((_, rest)) = word.split_once(":net_cls:") {
                *word = format!("N:net_cls:{rest}");
            }
        }
        words.join(" ")
    };
    output.trim_end().lines().map(words).collect::<Vec<_>>().join("\n")
}
