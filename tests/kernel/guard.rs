//! The guard of `apply --confirm`, killed at any step of its way back: nobody is cut off, what is
//! healthy stays, `status` says what is so, and the next apply gets there.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::faults::{FIRST, SECOND, nobody_is_cut_off, populated};
use crate::host::{Foreign, assert_same, lines};
use crate::support::clock::soon;
use crate::support::counters;
use crate::support::harness::{On, Test};
use crate::support::program::{directory, policy, shaper};
use crate::support::settings::setting;

pub const TESTS: &[Test] = &[Test {
    name: "guard::killed_at_any_step_of_its_way_back_the_next_apply_gets_there",
    on: On::Host,
    budget: Duration::from_secs(3600),
    body: killed_at_any_step_of_its_way_back_the_next_apply_gets_there,
}];

/// The system calls by which it changes anything.
const CHANGES: &str = "sendto,sendmsg,mkdir,mkdirat,rmdir,unlinkat,write,pwrite64,bpf";

/// Applies SECOND and does not confirm it; its guard is killed at the entry of the system call with
/// this number of [`CHANGES`]. False: it made fewer.
fn is_killed_at(call: usize) -> bool {
    shaper(&["apply", "--allow-disruption", "--confirm", "1", &policy(SECOND)]).exits(0);
    let guards = fs::read_to_string(directory("confirm").join("cgroup.procs")).expect("a guard");
    let guard = guards.trim().to_string();
    assert!(shaper(&["status"]).exits(0).stderr.contains("waits to be confirmed"));
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &guard, "-e"])
        .arg(format!("inject={CHANGES}:signal=KILL:when={call}"))
        .stdin(Stdio::null())
        .spawn()
        .expect("start strace");
    soon("the guard ends, or is killed", Duration::from_secs(30), || {
        !fs::exists(format!("/proc/{guard}")).unwrap_or(false)
    });
    strace.wait().expect("strace");
    directory("confirm").exists()
}

fn killed_at_any_step_of_its_way_back_the_next_apply_gets_there() {
    let mut host = populated();
    host.go_to_text(FIRST);
    let foreign = Foreign::put("1a");
    let (first, seats) = (host.state(), host.seats());
    let default = || counters::classes("up0").class("1:fffe").bytes;
    // A few of them, in `make nightly` each one.
    let every = setting("SHAPER_GUARD_EVERY").unwrap_or(25);
    let mut turns = 0;
    for call in (1..).step_by(usize::try_from(every).expect("a small number")) {
        let before = default();
        let killed = is_killed_at(call);
        println!("call {call}: {}", if killed { "killed" } else { "it was done before" });
        nobody_is_cut_off(&mut host);
        assert!(default() >= before, "the root was made anew");
        foreign.is_untouched();
        let status = shaper(&["status"]).exits(0);
        assert_eq!(status.stderr.contains("half taken back"), killed, "{}", status.stderr);
        // The first few take the lock and note what is taken back.
        assert!(call < 10 || directory("reverted").exists(), "call {call}: not noted");
        if directory("reverted").exists() {
            // Nobody brings it back by accident, as cron would.
            let refused = shaper(&["apply", "-q", &policy(SECOND)]).exits(2);
            assert!(refused.stderr.contains("taken back"), "{}", refused.stderr);
        }
        shaper(&["apply", "--allow-disruption", &policy(FIRST)]).exits(0);
        assert!(!shaper(&["status"]).exits(0).stderr.contains("half taken back"));
        host.is_in_sync();
        foreign.is_untouched();
        assert!(default() >= before, "the root was made anew");
        // So that the next round begins as this one did.
        host.go_to(&first);
        host.go_to_text(FIRST);
        assert_same(&lines(&host.state()), &lines(&first), "to begin with");
        assert_eq!(host.seats(), seats);
        if !killed {
            break;
        }
        turns += 1;
    }
    assert!(turns >= 3, "only {turns} turns");
}
