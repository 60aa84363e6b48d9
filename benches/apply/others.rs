//! FireQOS and tcconfig beside shaper, at sizes that they can take. Neither knows users, so all
//! three get what they have in common: a class and a rule by source address for each of so many.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::cost::{self, Against, Cost, Runs, Table};
use super::{host, write};
use crate::support::cell::SCRATCH;
use crate::support::command::run_with;
use crate::support::program::shaper;

const SIZES: [u32; 2] = [10, 100];
const TIMES: usize = 3;
/// Where `make bench` installs it.
const TCSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tcconfig/bin/tcset");

pub fn measure() {
    host::furnish(*SIZES.iter().max().expect("sizes"));
    let mut report = Report { table: Table::new(), notes: String::new() };
    for users in SIZES {
        let fireqos = fireqos(users);
        report.compare("FireQOS", users, TIMES, || {
            attempt(&["fireqos", "start", &fireqos], users as usize)
        });
    }
    // Python is started once for each rule: one run of the smallest size says enough.
    let users = SIZES[0];
    report.compare("tcconfig", users, 1, || tcconfig(users));
    fresh();
    write(&format!("{}\n{}", report.table.text(), report.notes));
}

struct Report {
    table: Table,
    /// Which tools could not be run, and why.
    notes: String,
}

impl Report {
    /// Runs the other tool and ours in turn, so many times.
    fn compare(
        &mut self,
        name: &str,
        users: u32,
        times: usize,
        theirs: impl Fn() -> Result<Cost, String>,
    ) {
        let policy = ours(users);
        let (mut our_runs, mut their_runs) = <(Runs, Runs)>::default();
        for _ in 0..times {
            fresh();
            our_runs.push(host::apply(&policy));
            fresh();
            match theirs() {
                Ok(cost) => their_runs.push(cost),
                Err(why) => {
                    let _ = writeln!(self.notes, "{name} could not be run here: {why}\n");
                    return;
                }
            }
        }
        let what = format!("first build, {users} users and rules");
        self.table.row(&what, &our_runs, &Against::new(name, &their_runs));
    }
}

fn fresh() {
    host::drop_tree();
    shaper(&["clear"]).exits(0);
}

fn address(n: u32) -> String {
    format!("10.0.{}.{}", n / 250, n % 250 + 1)
}

fn ours(users: u32) -> String {
    let path = host::policy("ours", users, host::usual);
    let mut text = fs::read_to_string(&path).expect("the policy");
    text.push_str("rules:\n");
    for n in 0..users {
        let _ = writeln!(text, "  - {{src: {}, to: u{n:05}}}", address(n));
    }
    fs::write(&path, text).expect("write the policy");
    path
}

/// Its own leaf is fq_codel, which not every kernel has.
fn fireqos(users: u32) -> String {
    let link = host::LINK;
    let mut text =
        format!("interface {link} {link} output rate 10Gbit minrate 500kbit qdisc pfifo\n");
    for n in 0..users {
        let _ = writeln!(text, "  class u{n:05} commit 500kbit ceil 50mbit");
        let _ = writeln!(text, "    match src {}", address(n));
    }
    let path = format!("{SCRATCH}/fireqos.conf");
    fs::write(&path, text).expect("write its configuration");
    path
}

/// One command for each user, each adding to what the ones before made.
fn tcconfig(users: u32) -> Result<Cost, String> {
    let mut sum = Cost::default();
    for n in 0..users {
        let source = format!("{}/32", address(n));
        let add = if n == 0 { "--overwrite" } else { "--add" };
        let words = [TCSET, host::LINK, "--direction", "outgoing", "--src-network", &source];
        let words: Vec<&str> = words.into_iter().chain(["--rate", "50Mbps", add]).collect();
        let cost = attempt(&words, n as usize + 1)?;
        sum.micros += cost.micros;
        sum.cpu_micros += cost.cpu_micros;
        sum.peak_kib = sum.peak_kib.max(cost.peak_kib);
    }
    Ok(sum)
}

/// Runs it, and believes it when at least so many classes stand.
fn attempt(words: &[&str], classes: usize) -> Result<Cost, String> {
    let mut trial = Command::new("sh");
    trial.args(["-c", "command -v \"$0\"", words[0]]);
    if run_with(trial, "").status != Some(0) {
        let name = Path::new(words[0]).file_name().unwrap_or_default().to_string_lossy();
        return Err(format!("`{name}` is not installed"));
    }
    let cost = cost::try_command(words).map_err(|said| last_words(&said))?;
    match host::classes() {
        found if found >= classes => Ok(cost),
        found => Err(format!("it made {found} classes of {classes}")),
    }
}

/// The last line that says something.
fn last_words(said: &str) -> String {
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    format!("`{}`", line.trim())
}
