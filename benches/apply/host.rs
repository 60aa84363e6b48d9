//! The host that is measured: a link, many accounts, some of whom run something, and policies of
//! any size; and waiting until what a measurement left behind is over.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::cost;
use crate::support::cell::{SCRATCH, myself};
use crate::support::command::run;
use crate::support::program::binary;

pub const LINK: &str = "up0";
/// Uid of the first of the many accounts.
const FIRST_UID: u32 = 20_000;

/// A link that sends to nobody, and so many accounts, `u00000` and on, as local files have them.
pub fn furnish(accounts: u32) {
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
    for n in 0..accounts {
        let uid = FIRST_UID + n;
        let _ = writeln!(passwd, "u{n:05}:x:{uid}:{uid}::/:/bin/sh");
    }
    let none: Option<&str> = None;
    let ours = format!("{SCRATCH}/passwd");
    fs::write(&ours, passwd).expect("write the accounts");
    mount(Some(ours.as_str()), "/etc/passwd", none, MsFlags::MS_BIND, none)
        .expect("mount the accounts");
    run("ip link set lo up");
    run(&format!("ip link add {LINK} type veth peer name {LINK}peer"));
    run(&format!("ip link set {LINK}peer up"));
    run(&format!("ip link set {LINK} up"));
}

/// A policy with a line for each of so many accounts, written to a file of its own.
pub fn policy(name: &str, users: u32, line: impl Fn(u32) -> String) -> String {
    let mut text = format!(
        "version: 1\nlinks:\n  {LINK}: {{rate: 10gbit, default: {{rate: 10mbit}}}}\nusers:\n"
    );
    for n in 0..users {
        let _ = writeln!(text, "  u{n:05}: {}", line(n));
    }
    policy_of(name, &text)
}

/// A policy of these words, written to a file of its own.
pub fn policy_of(name: &str, text: &str) -> String {
    let path = format!("{SCRATCH}/{name}.yaml");
    fs::write(&path, text).expect("write the policy");
    path
}

/// What every user has, unless a measurement wants something else.
pub fn usual(_: u32) -> String {
    "{rate: 500kbit, ceil: 50mbit}".to_string()
}

/// A process for each of so many accounts, which sleep until this is dropped.
pub struct Sleepers(Child);

impl Sleepers {
    pub fn start(count: u32) -> Sleepers {
        let uids: Vec<String> = (FIRST_UID..FIRST_UID + count).map(|uid| uid.to_string()).collect();
        let words: Vec<&str> =
            ["--sleepers"].into_iter().chain(uids.iter().map(String::as_str)).collect();
        let mut child = myself(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the sleepers");
        let mut ready = String::new();
        let out = child.stdout.take().expect("the sleepers' word");
        let _ = io::BufRead::read_line(&mut io::BufReader::new(out), &mut ready);
        assert_eq!(ready, "ready\n", "the sleepers run");
        Sleepers(child)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The sleepers' own side: ends when its input does.
pub fn sleepers(uids: &[&str]) -> ExitCode {
    let start = |uid: &&str| {
        let uid: u32 = uid.parse().ok()?;
        let mut command = Command::new("sleep");
        command.arg("1000").uid(uid).gid(uid).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().ok()
    };
    let mut children: Vec<Child> = uids.iter().filter_map(start).collect();
    if children.len() != uids.len() {
        return ExitCode::FAILURE;
    }
    println!("ready");
    let _ = io::Read::read(&mut io::stdin(), &mut [0]);
    for child in &mut children {
        let _ = child.kill();
    }
    for child in &mut children {
        let _ = child.wait();
    }
    ExitCode::SUCCESS
}

/// The `tc` commands that equal what `shaper` would do now, as a file for `tc -batch`. Without the
/// line that loads the eBPF program, for which `tc` has no words.
pub fn batch(name: &str, policy: &str) -> String {
    let done = Command::new(binary()).args(["plan", "--tc", policy]).output().expect("shaper plan");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).expect("tc commands are ASCII");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(" bpf "))
        .filter_map(|line| line.strip_prefix("tc "))
        .collect();
    assert!(!lines.is_empty(), "nothing to do: {text}");
    let path = format!("{SCRATCH}/{name}.tc");
    fs::write(&path, lines.join("\n") + "\n").expect("write the batch");
    path
}

pub fn apply(policy: &str) -> cost::Cost {
    cost::shaper(&["apply", policy])
}

pub fn tc_batch(file: &str) -> cost::Cost {
    cost::command(&["tc", "-batch", file])
}

/// Removes the tree, and what clears priorities before it, and leaves the directories.
pub fn drop_tree() {
    for which in ["root", "clsact"] {
        let _ = Command::new("tc")
            .args(["qdisc", "del", "dev", LINK, which])
            .stderr(Stdio::null())
            .status();
    }
}

/// How many HTB classes the link has.
pub fn classes() -> usize {
    run(&format!("tc class show dev {LINK}")).lines().filter(|l| l.starts_with("class htb")).count()
}

/// Waits until the kernel has freed what was removed: it does so later, in a thread of its own,
/// which would take time away from the next measurement.
pub fn settle() {
    let cgroups = || {
        let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("net_cls\t"))?;
        line.split('\t').nth(2)?.parse::<u64>().ok()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = cgroups();
    loop {
        sleep(Duration::from_millis(150));
        let now = cgroups();
        if now == last || Instant::now() > deadline {
            return;
        }
        last = now;
    }
}
