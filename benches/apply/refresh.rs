//! What it costs to see: one refresh of `top` on a terminal and one scrape at 10,000 users, beside
//! the kernel's bare lists; and whether logins are placed later while both go on.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use super::cost::{self, Against, Cost, Runs, Table};
use super::host::{self, Sleepers};
use super::{write, yardstick};
use crate::support::accounts::{ANN, Account};
use crate::support::daemon::Daemon;
use crate::support::logins::Times;
use crate::support::program::{binary, directory};

const USERS: u32 = 10_000;
const PROCESSES: u32 = 1_000;
const TIMES: usize = 9;
/// `top` looks at everything once a minute, and every ten seconds whether anything changed: a part
/// of what a refresh costs.
const TOP: Duration = Duration::from_secs(60);
const INTERVAL: &str = "0.5";
const REFRESHES: u64 = 120;
const LOGINS: u32 = 300;

/// The daemon's in a cell with process events ([`Daemon::with_events`]), where the network
/// namespace is not that of process 1 and would have a name of its own.
const INSTANCE: [&str; 2] = ["--cgroup", "shaper"];

/// Runs `shaper` on it.
fn ours(words: &[&str]) -> Cost {
    cost::shaper(&[&INSTANCE, words].concat())
}

/// `top` on a terminal, as wide and high as terminals are.
struct Live(Child);

impl Live {
    fn start() -> Live {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let ends = || Stdio::from(pty.slave.try_clone().expect("a terminal's end"));
        let child = Command::new(binary())
            .args(INSTANCE)
            .args(["top", "--interval", INTERVAL])
            .stdin(ends())
            .stdout(ends())
            .spawn()
            .expect("start top");
        let mut screen = File::from(pty.master);
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while screen.read(&mut buffer).is_ok_and(|length| length > 0) {}
        });
        Live(child)
    }

    /// Its time on the CPU so far, in nanoseconds (`proc_pid_schedstat`, fs/proc/base.c).
    fn cpu(&self) -> u64 {
        let path = format!("/proc/{}/schedstat", self.0.id());
        let text = fs::read_to_string(path).expect("its times");
        let ran = text.split_whitespace().next().and_then(|word| word.parse().ok());
        ran.expect("a number")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn measure() {
    host::furnish(USERS);
    let policy = host::policy("many", USERS, host::usual);
    ours(&["apply", &policy]);
    let sleepers = Sleepers::start(PROCESSES);
    ours(&["apply", &policy]);
    host::settle();

    let (mut lists, mut look, mut scrape) = <(Runs, Runs, Runs)>::default();
    let mut counters = Runs::default();
    for _ in 0..TIMES {
        counters.push(yardstick::counters(host::LINK));
        let bare = yardstick::look(host::LINK, &directory("user"));
        lists.push(bare.lists);
        look.push(bare.lists + bare.classids);
        scrape.push(ours(&["status", "--metrics"]));
    }
    let refresh = {
        let top = Live::start();
        sleep(Duration::from_secs(2));
        let before = top.cpu();
        sleep(TOP);
        let micros = (top.cpu() - before) / 1_000 / REFRESHES;
        Runs(vec![Cost { micros, cpu_micros: micros, peak_kib: 0 }])
    };
    let mut table = Table::new();
    let of_counters = Against::new("the lists of classes and qdiscs, bare", &counters);
    table.row("one refresh of `top` (CPU)", &refresh, &of_counters.at_most(1.5));
    table.row(
        "a scrape: `status --metrics`",
        &scrape,
        &Against::new("the three lists, bare", &lists),
    );
    let of_look = Against::new("the three lists and the classids, bare", &look);
    table.row("a scrape: `status --metrics`", &scrape, &of_look.at_most(1.5));
    drop(sleepers);
    write(&format!("{}\n{}", table.text(), logins(&policy)));
}

/// Logins under the daemon, without `top` and a scrape a second beside it, and with them.
fn logins(policy: &str) -> String {
    let daemon = Daemon::with_events(&["watch", policy]);
    let account = Account { uid: 20_000, gid: 20_000, ..ANN };
    let times = || Times::of(account, LOGINS, "/shaper/user/u00000");
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        all[0].push(times());
        let _top = Live::start();
        let mut scrapes = Command::new("sh")
            .args(["-c", "while :; do \"$0\" \"$@\" status --metrics >/dev/null; sleep 1; done"])
            .arg(binary())
            .args(INSTANCE)
            .spawn()
            .expect("start the scrapes");
        sleep(Duration::from_secs(1));
        all[1].push(times());
        let _ = scrapes.kill();
        let _ = scrapes.wait();
    }
    drop(daemon);
    let median = |times: &[Times], of: fn(&Times) -> u64| {
        let mut all: Vec<u64> = times.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2] as f64 / 1e3
    };
    let [without, with] = &all;
    let p99 = [without, with].map(|times| median(times, |it| it.p99));
    let p50 = [without, with].map(|times| median(times, |it| it.p50));
    let ratio = p99[1] / p99[0];
    let verdict = if ratio <= 1.2 { "met" } else { "**missed**" };
    format!(
        "{LOGINS} logins under the daemon, three times each in turns: p50 {:.2} ms, p99 {:.2} ms; beside \
         `top` every {INTERVAL} s and a scrape a second p50 {:.2} ms, p99 {:.2} ms: {ratio:.2} × \
         (≤ 1.2: {verdict}).\n",
        p50[0], p99[0], p50[1], p99[1]
    )
}
