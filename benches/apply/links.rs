//! How soon a link that comes is shaped: one that the policy names, and one that fits a pattern; on
//! a host of few links, and among many that nobody means.

use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::write;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::program::policy;
use crate::support::world::World;

const POLICY: &str = "
version: 1
links:
  up0: 100mbit
  named0: {rate: 20mbit, optional: true}
  \"l2tp*\": {rate: 20mbit, optional: true}
users: {ann: 10mbit}
";

const TIMES: usize = 20;
const MANY: usize = 300;

pub fn measure() {
    let _world = World::new();
    let mut text = String::from("| the link | others | median | longest |\n|---|---:|---:|---:|\n");
    for others in [0, MANY] {
        for n in 0..others {
            run(&format!("ip link add other{n} type veth peer name rehto{n}"));
        }
        let daemon = Daemon::start(&["watch", &policy(POLICY)]);
        let (mut named, mut fitting) = (Vec::new(), Vec::new());
        for n in 0..TIMES {
            named.push(until_shaped("named0"));
            fitting.push(until_shaped(&format!("l2tp{n}")));
        }
        drop(daemon);
        for (what, mut times) in [("is named", named), ("fits a pattern", fitting)] {
            times.sort_unstable();
            let millis = |at: usize| times[at].as_secs_f64() * 1_000.0;
            let line = format!(
                "| {what} | {others} | {:.1} ms | {:.1} ms |",
                millis(TIMES / 2),
                millis(TIMES - 1)
            );
            println!("{line}");
            let _ = writeln!(text, "{line}");
        }
    }
    let _ = write!(
        text,
        "\n{TIMES} links each, in turns, one each 0.3 s: from before the command that makes it until `tc` shows our \
         root on it; each look by `tc` takes 1 to 2 ms.\n"
    );
    write(&text);
}

/// Makes the link, and takes it away again.
fn until_shaped(link: &str) -> Duration {
    let began = Instant::now();
    run(&format!("ip link add {link} type veth peer name far{link}"));
    while !run(&format!("tc qdisc show dev {link} root")).contains("htb 1:") {
        assert!(began.elapsed() < Duration::from_secs(10), "{link} is not shaped");
    }
    let took = began.elapsed();
    sleep(Duration::from_millis(150));
    run(&format!("ip link del {link}"));
    sleep(Duration::from_millis(150));
    took
}
