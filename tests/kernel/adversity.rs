//! A machine that is out of something, programs that are killed at the worst moment, clocks that
//! are not what one expects.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{Done, run, run_with};
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, binary, directory, members, policy, shaper};
use crate::support::world::{UPLINK, World};

tests!(
    On::Host => a_system_call_that_fails_harms_nothing, no_room_for_a_directory_is_said_and_undone,
        a_clear_that_is_killed_is_finished_by_the_next, a_guard_that_is_killed_leaves_what_is_in_force,
        clocks_may_say_anything;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit}}
users: {ann: 30mbit, bob: {rate: 5mbit}}
groups: {team: {ceil: 60mbit, users: [bob]}}
rules: [{dport: 80, to: ann}]
";
const PATIENCE: Duration = Duration::from_secs(10);

/// `shaper` with every call of this kind that `when` names failing so.
fn failing(call: &str, error: &str, when: &str, words: &[&str]) -> Done {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    command.arg(format!("inject={call}:error={error}:when={when}"));
    command.arg(binary()).args(words);
    run_with(command, "")
}

/// All of it but counters: qdiscs, classes, filters, directories with their tags and processes.
fn all_that_stands() -> String {
    let mut text = String::new();
    for line in ["tc qdisc show dev up0", "tc class show dev up0", "tc filter show dev up0"] {
        text.push_str(&run(line));
    }
    let mut folders = vec![Path::new(NET_CLS).join("shaper")];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for name in ["net_cls.classid", "cgroup.procs"] {
            found.insert(folder.join(name), fs::read_to_string(folder.join(name)).ok());
        }
        let paths = entries.flatten().map(|entry| entry.path());
        folders.extend(paths.filter(|path| path.is_dir()));
    }
    text + &format!("{found:#?}")
}

/// One call in a run in sync fails, whichever it is: the run says so or does without, and what
/// stands is as it was. A look that lacks something never leads to a step.
fn a_system_call_that_fails_harms_nothing() {
    let world = World::new();
    let (_ann, _bob) = (world.actor(ANN), world.actor(BOB));
    let file = policy(POLICY);
    shaper(&["apply", &file]).exits(0);
    let before = all_that_stands();
    let kinds = [
        ("openat", "EMFILE"),
        ("openat", "ENOMEM"),
        ("getdents64", "ENOMEM"),
        ("socket", "EMFILE"),
        ("recvfrom", "ENOMEM"),
        ("sendto", "ENOBUFS"),
        ("pread64", "EIO"),
        ("bpf", "ENOMEM"),
    ];
    let mut tried = 0;
    for (call, error) in kinds {
        for when in [1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135] {
            let done = failing(call, error, &when.to_string(), &["apply", "-v", &file]);
            let what = format!("{call} number {when} is {error}: {done:?}");
            let stands = all_that_stands();
            assert!(stands == before, "{what}\n{before}\nbut now\n{stands}");
            // The loader's own files, and what is no part of a decision, may do without.
            assert_ne!(done.status, None, "{what}");
            tried += 1;
        }
        // All from some moment on.
        let done = failing(call, error, "20+", &["apply", "-v", &file]);
        assert!(all_that_stands() == before, "{call} from the 20th on is {error}: {done:?}");
    }
    println!("{tried} failures");
    shaper(&["plan", "-q", "--exit-code", &file]).exits(0);
}

fn no_room_for_a_directory_is_said_and_undone() {
    let world = World::new();
    let file = policy(POLICY);
    for when in 1..12 {
        let done = failing("mkdir,mkdirat", "ENOSPC", &when.to_string(), &["apply", &file]);
        if done.status == Some(0) {
            shaper(&["clear"]).exits(0);
            break;
        }
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.stderr.contains("No space left on device"), "{}", done.stderr);
        assert!(!run("tc qdisc show dev up0").contains("htb"), "{}", done.stderr);
        assert!(!Path::new(NET_CLS).join("shaper/user").exists(), "{}", done.stderr);
    }
    // The daemon has no room for a newcomer's directory, and later it has.
    let text = format!("{POLICY}everyone: 20mbit\n");
    let log = format!("{SCRATCH}/strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", &log, "-e", "trace=mkdir,mkdirat"]);
    command.arg(binary()).args(["apply", &policy(&text)]);
    run_with(command, "").exits(0);
    shaper(&["clear"]).exits(0);
    let first_build = fs::read_to_string(&log).expect("a log").lines().count();
    let daemon = {
        let mut command = Command::new("strace");
        // The daemon is the child and strace a grandchild (-D): killed, strace would leave it.
        command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]);
        let when = format!("{}..{}", first_build + 1, first_build + 3);
        command.arg(format!("inject=mkdir,mkdirat:error=ENOSPC:when={when}")).arg(binary());
        command.args(["watch", &policy(&text)]);
        Daemon::run(command)
    };
    let bob = world.actor(BOB);
    soon("bob is placed", PATIENCE, || members("user/bob").contains(&bob.pid()));
    let carol = world.actor(crate::support::accounts::CAROL);
    let place = format!("uid/{}", crate::support::accounts::CAROL.uid);
    soon("carol is placed in the end", Duration::from_secs(30), || {
        fs::exists(directory(&place)).unwrap_or(false) && members(&place).contains(&carol.pid())
    });
    assert!(daemon.log().contains("No space left on device"), "{}", daemon.log());
    drop(daemon);
}

/// SIGKILL before each system call that changes something.
fn a_clear_that_is_killed_is_finished_by_the_next() {
    let world = World::new();
    let ann = world.actor(ANN);
    let file = policy(POLICY);
    let mut kills = 0;
    for (call, many) in [("sendto", 30), ("rmdir", 20), ("umount2", 1)] {
        for when in 1..=many {
            shaper(&["apply", &file]).exits(0);
            assert!(members("user/ann").contains(&ann.pid()));
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
            command.arg(format!("inject={call}:signal=KILL:when={when}"));
            command.arg(binary()).args(["clear", "-q"]);
            let status = command.status().expect("start strace");
            if status.signal() != Some(Signal::SIGKILL as i32) {
                assert!(status.success(), "{status}");
                break;
            }
            kills += 1;
            // Whoever sends through a root of ours finds a default class.
            if run("tc qdisc show dev up0").contains("htb 1: root") {
                counters::classes(UPLINK).class("1:fffe");
            }
            shaper(&["clear"]).exits(0);
            assert!(!run("tc qdisc show dev up0").contains("htb"));
            // The place of the mount may be left, but nothing in it.
            let left = fs::read_dir(NET_CLS).into_iter().flatten().count();
            assert_eq!(left, 0, "{call} {when}");
        }
    }
    println!("killed {kills} times");
    assert!(kills > 10, "killed {kills} times only");
}

/// What it held back is in force then, and no change is pending any more.
fn a_guard_that_is_killed_leaves_what_is_in_force() {
    let _world = World::new();
    let file = policy(POLICY);
    shaper(&["apply", &file]).exits(0);
    let ceil = || counters::classes(UPLINK).class("1:10").ceil;
    let first = ceil();
    let other = format!("{SCRATCH}/other.yaml");
    fs::write(&other, POLICY.replace("ann: 30mbit", "ann: 20mbit")).expect("a policy");
    for time in ["60", "1"] {
        shaper(&["apply", "--confirm", time, "--force", &other]).exits(0);
        let second = ceil();
        assert_ne!(first, second);
        let guard = fs::read_to_string(Path::new(NET_CLS).join("shaper/confirm/cgroup.procs"));
        let guard: i32 = guard.expect("the guard's directory").trim().parse().expect("its pid");
        if time == "1" {
            // While it brings things back, or a moment before.
            sleep(Duration::from_millis(1_003));
        }
        // It may be done already.
        let killed = kill(Pid::from_raw(guard), Signal::SIGKILL);
        assert!(killed.is_ok() || time == "1", "{killed:?}");
        sleep(Duration::from_millis(50));
        shaper(&["confirm"]).exits(2);
        shaper(&["apply", "--force", &file]).exits(0);
        shaper(&["plan", "-q", "--exit-code", &file]).exits(0);
        assert_eq!(ceil(), first);
    }
}

/// Monotonic clocks and the time since boot are far off, as in a container that was moved from a
/// machine that ran for years; the time of day jumps.
fn clocks_may_say_anything() {
    let world = World::new();
    let file = policy(POLICY);
    let in_other_times = |words: &[&str]| {
        let mut command = Command::new("unshare");
        let far = ["--time", "--monotonic", "900000000", "--boottime", "900000000", "--fork"];
        command.args(far).args(["--kill-child"]).arg(binary()).args(words);
        command
    };
    run_with(in_other_times(&["apply", &file]), "").exits(0);
    run_with(in_other_times(&["apply", "--confirm", "1", &file]), "").exits(0);
    let done = run_with(in_other_times(&["status"]), "").exits(0);
    assert!(done.stdout.contains("ann"), "{}", done.stdout);
    let daemon = Daemon::run(in_other_times(&["watch", &file]));
    let ann = world.actor(ANN);
    soon("ann is placed", PATIENCE, || members("user/ann").contains(&ann.pid()));
    run("tc qdisc del dev up0 root");
    soon("a repair", PATIENCE, || run("tc qdisc show dev up0").contains("htb 1: root"));
    drop(daemon);
    // What was said is noted by the time of day: from the year 2100, that is no reason to be
    // silent.
    let absent = POLICY.replace("100mbit}}", "100mbit}, absent0: {rate: 5mbit}}");
    let file = policy(&absent);
    shaper(&["apply", &file]).exits(0);
    let quiet = |files: &str| {
        let mut command = Command::new(binary());
        command.args(["apply", "-q", files]);
        run_with(command, "").exits(0).stderr
    };
    assert!(quiet(&file).contains("absent0"), "said once a day");
    assert!(quiet(&file).is_empty());
    // The note is from the year 2100: the clock was wrong then, or is now.
    let said = Path::new(NET_CLS).join("shaper/said");
    let mut notes = fs::read_dir(&said).expect("notes").flatten();
    let note = notes.find_map(|note| {
        note.file_name().into_string().ok()?.split_once('-').map(|it| it.0.to_string())
    });
    for entry in fs::read_dir(&said).expect("notes").flatten() {
        if entry.path().is_dir() {
            fs::remove_dir(entry.path()).expect("forget it");
        }
    }
    let note = note.expect("a note");
    fs::create_dir(said.join(format!("{note}-{:x}", 4_102_444_800_u64))).expect("a note");
    assert!(quiet(&file).contains("absent0"));
    assert!(quiet(&file).is_empty());
}
