//! README and the pages of `docs/`, walked: each command of a `console` block is run as it stands
//! there, and must print what stands below it, in which `…` is anything. Left out is what differs
//! from host to host: what was sent, the number of the `net_cls` hierarchy, which leaf qdisc the
//! kernel has, and the pid.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::invoke::Sleeper;
use crate::support::accounts::{self, ANN, CAROL, ROOT};
use crate::support::cell::SCRATCH;
use crate::support::command::{run, run_with};
use crate::support::harness::{On, tests};
use crate::support::program::{binary, shaper};

tests!(On::Host => commands_print_what_readme_shows, commands_print_what_the_documents_show);

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
const POLICY: &str = "/etc/shaper/policies.yaml";

/// The pid that documents attach.
const PID: &str = "20";

/// Every section begins on a host on which nothing is shaped.
fn commands_print_what_readme_shows() {
    let host = Host::new();
    let mut commands = 0;
    for section in read(README.as_ref()).split("\n## ") {
        host.forgets();
        commands += host.walks("README.md", section);
    }
    assert!(commands >= 15, "{commands} commands are no tour: README was not read");
}

/// Every page begins where README's tour has its policy in force.
fn commands_print_what_the_documents_show() {
    let host = Host::new();
    let readme = read(README.as_ref());
    let (_, tour) = readme.split_once("\n## A tour").expect("README has a tour");
    let policy = blocks(tour).into_iter().find_map(|block| match block {
        Block::Policy(text) => Some(text),
        Block::Command { .. } => None,
    });
    let policy = policy.expect("the tour has a policy");
    let mut commands = 0;
    for page in fs::read_dir(DOCUMENTS).expect("the documents") {
        let page = page.expect("a page").path();
        host.forgets();
        write(&policy);
        shaper(&["apply", "-q"]).exits(0);
        commands += host.walks(&page.display().to_string(), &read(&page));
    }
    assert!(commands >= 5, "{commands} commands: the documents were not read");
}

/// Whose commands are typed: it has the accounts and the link of which documents speak.
struct Host {
    path: String,
    attached: Sleeper,
    _people: [Sleeper; 2],
}

impl Host {
    fn new() -> Host {
        assert!(fits("a 12 c\nd", "a … c\nd") && fits("a\nb\nc", "a\n…"));
        assert!(!fits("a 12 d", "a … c") && !fits("a\nb", "a") && !fits("a", "a\nb"));
        accounts::own_etc();
        accounts::furnish();
        run("ip link add eth0 type veth peer name far0");
        run("ip link set eth0 up");
        run("ip link set far0 up");
        run("ip addr add 192.0.2.1/24 dev eth0");
        run("ip route add default via 192.0.2.2");
        fs::copy(binary(), Path::new(SCRATCH).join("shaper")).expect("copy the binary");
        Host {
            path: format!("{SCRATCH}:{}", std::env::var("PATH").unwrap_or_default()),
            attached: Sleeper::of(ROOT),
            _people: [Sleeper::of(ANN), Sleeper::of(CAROL)],
        }
    }

    /// Nothing is shaped, and there is no policy.
    fn forgets(&self) {
        shaper(&["clear", "-q"]).exits(0);
        // At first it may have one of the machine's own.
        let _was_none = fs::remove_dir_all("/etc/shaper");
    }

    /// Types all commands of a text, and gives their number.
    fn walks(&self, name: &str, text: &str) -> usize {
        let mut commands = 0;
        for block in blocks(text) {
            match block {
                Block::Policy(text) => write(&text),
                Block::Command { typed, printed } => {
                    self.types(name, &typed, &printed);
                    commands += 1;
                }
            }
        }
        commands
    }

    fn types(&self, name: &str, typed: &str, printed: &str) {
        let pid = self.attached.pid().to_string();
        let line = typed.replace(&format!(" {PID}"), &format!(" {pid}"));
        let own = (format!("process {pid}:"), format!("process {PID}:"));
        let shown = masked(printed);
        let run = || {
            let mut shell = Command::new("sh");
            // As on a terminal, where errors stand between the rest.
            shell.args(["-c", &format!("exec 2>&1\n{line}")]).env("PATH", &self.path);
            let done = run_with(shell, "");
            let seen = masked(&done.stdout.replace(&own.0, &own.1));
            (fits(&seen, &shown), seen, done)
        };
        let (mut is_shown, mut seen, mut done) = run();
        // A change that nobody confirms is taken back in a while.
        let patience = Instant::now() + Duration::from_secs(20);
        while !is_shown && typed == "shaper plan" && Instant::now() < patience {
            sleep(Duration::from_millis(200));
            (is_shown, seen, done) = run();
        }
        assert!(is_shown, "{name}: # {typed}\n{seen}\n--- is not\n{shown}");
        let may_fail = printed.lines().next().is_some_and(|line| line.contains("error"));
        assert!(may_fail || done.status == Some(0), "{name}: # {typed}: {:?}", done.status);
    }
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).expect("a page's text")
}

fn write(policy: &str) {
    fs::create_dir_all("/etc/shaper").expect("a folder");
    fs::write(POLICY, policy).expect("write the policy");
}

enum Block {
    Policy(String),
    Command { typed: String, printed: String },
}

/// What is in its fences: whole policies, and commands after `# `, each with its output. Pieces of
/// policies (`yaml` without a version), examples of output (no word) and `sh`, which
/// `tests/documents.rs` reads, are passed over.
fn blocks(section: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for fenced in section.split("```").skip(1).step_by(2) {
        let (language, text) = fenced.split_once('\n').expect("a fence's first line");
        match language {
            "yaml" if text.starts_with("version:") => blocks.push(Block::Policy(text.to_string())),
            "console" => {
                let commands = text.strip_prefix("# ").expect("a console begins with a command");
                blocks.extend(commands.split("\n# ").map(|command| {
                    let (typed, printed) = command.split_once('\n').unwrap_or((command, ""));
                    let typed = typed.split("   ").next().unwrap_or(typed).to_string();
                    Block::Command { typed, printed: printed.trim_end().to_string() }
                }));
            }
            "yaml" | "sh" | "" => {}
            other => panic!("nobody knows what to do with a fence of {other:?}"),
        }
    }
    blocks
}

/// Whether an output is what is shown: `…` is anything, and as the last line any lines.
fn fits(seen: &str, shown: &str) -> bool {
    let (mut seen, mut shown): (Vec<&str>, Vec<&str>) =
        (seen.lines().collect(), shown.lines().collect());
    if shown.last() == Some(&"…") {
        shown.pop();
        seen.truncate(shown.len());
    }
    seen.len() == shown.len() && seen.iter().zip(shown).all(|(seen, shown)| line_fits(seen, shown))
}

fn line_fits(seen: &str, shown: &str) -> bool {
    let mut parts: Vec<&str> = shown.split('…').collect();
    let Some(mut rest) = seen.strip_prefix(parts.remove(0)) else { return false };
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
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
