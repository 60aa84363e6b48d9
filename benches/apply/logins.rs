//! How soon a login is placed by the daemon, while another account does in a loop what the kernel
//! tells of most: one process of it, and four.

use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::write;
use crate::support::accounts::{ANN, BOB};
use crate::support::daemon::Daemon;
use crate::support::logins::{Storm, Times};
use crate::support::program::policy;
use crate::support::world::World;

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 30mbit}
";

const LOGINS: u32 = 300;
/// What 99 of 100 logins must keep, in microseconds.
const WANTED: u64 = 5_000;

pub fn measure() {
    let _world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let mut text = String::from(
        "| storm | processes | p50 | p99 | at most | wanted of p99 | | the daemon's share of a processor |\n\
         |---|---:|---:|---:|---:|---:|---|---:|\n",
    );
    let mut row = |storm: &str, processes: u32| {
        let (began, cpu) = (Instant::now(), daemon.cpu());
        let times = Times::of(ANN, LOGINS, "/shaper/user/ann");
        let share = (daemon.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
        assert_eq!(times.missed, 0, "{storm}");
        let millis = |micros: u64| micros as f64 / 1_000.0;
        let line = format!(
            "| {storm} | {processes} | {:.2} ms | {:.2} ms | {:.2} ms | ≤ 5 ms | {} | {:.0} % |",
            millis(times.p50),
            millis(times.p99),
            millis(times.most),
            if times.p99 <= WANTED { "met" } else { "**missed**" },
            share * 100.0
        );
        println!("{line}");
        let _ = writeln!(text, "{line}");
    };
    row("none", 0);
    for kind in Storm::ALL {
        for processes in [1, 4] {
            let storm = kind.by(BOB, processes);
            // The daemon has found out by then whom it had better not listen to.
            sleep(Duration::from_secs(1));
            row(&format!("{kind:?}").to_lowercase(), processes);
            drop(storm);
        }
    }
    let _ = write!(
        text,
        "\n{LOGINS} logins each, one after the other: from before the process becomes the user until it \
         finds itself in its class's directory, which it looks up every 0.1 ms, with a real-time priority, so that \
         its own wait for a processor does not count. *fork*: \
         children that end at once; *exec*: children that run a program; *setuid*: a set-uid one; *uid*: \
         setresuid without end.\n"
    );
    write(&text);
}
