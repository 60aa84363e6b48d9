//! `doctor`: what it finds on a host that is as it should be and on hosts that are not, and that it
//! leaves no trace.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::invoke::{as_nobody, host, root, shaper, text};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::policy;
use crate::support::settings::setting;

tests!(On::Host =>
    a_host_is_told_what_to_do_next, nothing_is_changed,
    a_policy_is_refused_by_its_place_or_its_writer,
    a_pipe_in_the_policys_place_is_not_waited_for, what_needs_no_module_is_tried_beside_what_does,
    others_on_the_link_are_named, a_filter_of_somebody_elses_before_shapers_is_named,
    it_takes_two_seconds_at_most, thousands_of_users_are_looked_at_in_time,
    the_daemons_state_is_told, without_root_it_says_what_it_could_not_see
);

/// What the checks found: the exit status, and the state and sentence of each, by id.
struct Told {
    status: i32,
    checks: Vec<serde_json::Value>,
}

impl Told {
    fn by(mut command: assert_cmd::Command) -> Told {
        let output = command.output().expect("doctor");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(document["version"], 1);
        let checks = document["checks"].as_array().expect("checks").clone();
        Told { status: output.status.code().expect("a status"), checks }
    }

    /// The state of a check, and what was found.
    fn of(&self, id: &str) -> (&str, &str) {
        let check = self.checks.iter().find(|check| check["id"] == id);
        let check = check.unwrap_or_else(|| panic!("no {id} in {:?}", self.checks));
        assert!(check["state"] == "ok" || check["cure"].is_string(), "a cure: {check}");
        (check["state"].as_str().expect("a state"), check["what"].as_str().expect("a sentence"))
    }

    fn state(&self, id: &str) -> &str {
        self.of(id).0
    }
}

fn doctor(file: &str) -> Told {
    Told::by(shaper(&format!("--json doctor {file}")))
}

/// The status follows from the worst check.
fn is_consistent(told: &Told) -> bool {
    let any = |state: &str| told.checks.iter().any(|check| check["state"] == state);
    told.status
        == if any("error") {
            1
        } else if any("warning") {
            3
        } else {
            0
        }
}

fn a_host_is_told_what_to_do_next() {
    let path = host();
    // NSS is slow for a moment where the machine is busy.
    let quick = || Some(doctor(&path)).filter(|told| told.state("nss") == "ok");
    let told = (0..5).find_map(|_| quick()).expect("NSS answers at once");
    for id in ["htb", "classifiers", "rules", "down", "net_cls", "nss", "policy", "link"] {
        assert_eq!(told.state(id), "ok", "{id}: {:?}", told.of(id));
    }
    assert_eq!(told.of("sync"), ("warning", "nothing is shaped here"));
    assert!(told.status == 3 && is_consistent(&told));
    shaper(&format!("apply {path}")).assert().code(0);
    assert_eq!(doctor(&path).state("sync"), "ok");
    // The one that was applied is the usual one.
    assert_eq!(doctor("").state("sync"), "ok");
    run("tc class change dev up0 classid 1:1 htb rate 2mbit ceil 2mbit");
    let told = doctor(&path);
    let what = "what is in force is not what the policy says: 1 step would change that";
    assert_eq!(told.of("sync"), ("warning", what));
    let table = shaper(&format!("doctor {path}")).assert().get_output().stdout.clone();
    let table = String::from_utf8(table).expect("text");
    let short = |line: &str| line.chars().count() <= 80 || line.trim_start().starts_with('/');
    assert!(table.lines().all(short) && table.contains("cure: shaper plan /"), "{table}");
}

fn nothing_is_changed() {
    let path = host();
    let state = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        // Lengths and counts of modules that others use come and go.
        let names = modules.lines().filter_map(|line| line.split(' ').next()).collect::<String>();
        let folders: Vec<String> = ["/run", "/sys/fs/cgroup", "/etc", "/var/lib"]
            .into_iter()
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
            .map(|entry| entry.path().display().to_string())
            .collect();
        (mounts, names, folders, run("ip -o link"), run("tc qdisc show"), run("ip netns list"))
    };
    // A link's carrier comes a moment after the link.
    soon("the link is up", Duration::from_secs(10), || {
        run("ip link show up0").contains("state UP")
    });
    let before = state();
    doctor(&path);
    shaper(&format!("doctor {path}")).assert().code(3);
    assert_eq!(state(), before);
    shaper(&format!("apply {path}")).assert().code(0);
    let before = root();
    doctor(&path);
    assert_eq!(root(), before);
    shaper(&format!("plan --exit-code {path}")).assert().code(0);
}

fn a_policy_is_refused_by_its_place_or_its_writer() {
    let path = host();
    fs::write(&path, text("ann: 20mbps")).expect("a bad policy");
    let told = doctor(&path);
    let (state, what) = told.of("policy");
    assert!(state == "error" && what.contains("`20mbps` is ambiguous"), "{what}");
    assert!(told.status == 1 && is_consistent(&told));
    fs::write(&path, text("ann: 20mbit")).expect("a good policy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let told = doctor(&path);
    let (state, what) = told.of("policy");
    assert!(state == "error" && what.contains("can be written by everybody"), "{what}");
    let told = Told::by({
        let mut command = shaper("--json doctor -");
        command.write_stdin(text("ann: 20mbit"));
        command
    });
    assert_eq!(told.of("policy"), ("ok", "the policy from standard input is good"));
    let told = doctor("/nowhere.yaml");
    assert_eq!(told.of("policy"), ("warning", "there is no policy /nowhere.yaml"));
}

/// The lists say that one queue's module is on disk, and nothing of u32: that is tried.
fn what_needs_no_module_is_tried_beside_what_does() {
    let path = host();
    let over = ["upper", "work"].map(|name| format!("{SCRATCH}/{name}"));
    over.iter().for_each(|folder| fs::create_dir(folder).expect("make a folder"));
    let [upper, work] = over;
    run(&format!(
        "mount -t overlay overlay -o lowerdir=/usr/lib,upperdir={upper},workdir={work} /usr/lib"
    ));
    let lists = format!("/usr/lib/modules/{}", run("uname -r").trim());
    fs::create_dir_all(&lists).expect("make the lists' folder");
    let write = |list: &str, module: &str| {
        let line = format!("kernel/net/sched/{module}.ko:\n");
        fs::write(format!("{lists}/{list}"), line).expect("write a list");
    };
    write("modules.builtin", "sch_htb");
    write("modules.dep", "sch_cake");
    let told = doctor(&path);
    let later = told.of("modules").1;
    assert!(later.contains("sch_cake"), "{later}");
    for id in ["htb", "classifiers", "rules", "down"] {
        assert_eq!(told.state(id), "ok", "{id}: {:?}", told.of(id));
    }
    assert!(told.of("leaves").1.contains("cake"), "{}", told.of("leaves").1);
}

/// Anybody may make one where root's policy was, in a folder like /tmp.
fn a_pipe_in_the_policys_place_is_not_waited_for() {
    let path = host();
    shaper(&format!("apply -q {path}")).assert().code(0);
    fs::remove_file(&path).expect("remove the policy");
    run(&format!("mkfifo -m 644 {path}"));
    let in_time = |mut command: assert_cmd::Command| {
        command.timeout(Duration::from_secs(20));
        command
    };
    // Named, and where it was applied from.
    for words in [format!("--json doctor {path}"), "--json doctor".to_string()] {
        let told = Told::by(in_time(shaper(&words)));
        let (state, what) = told.of("policy");
        assert!(state == "error" && what.contains("is a pipe (FIFO)"), "{what}");
    }
    let why = |uid: u32| format!("why {uid} --file {path}");
    let output = in_time(as_nobody(&why(65534))).assert().code(2).get_output().stdout.clone();
    assert!(output.starts_with(b"65534: nobody claims it, so the default class\n"));
    let output = in_time(shaper(&why(65534))).assert().code(2).get_output().stdout.clone();
    assert!(output.starts_with(b"65534: no line of the policy\n  class 1:fffe\n"));
}

fn others_on_the_link_are_named() {
    let path = host();
    run("tc qdisc replace dev up0 root handle 8001: tbf rate 1gbit burst 100k latency 50ms");
    let told = doctor(&path);
    let (state, what) = told.of("root");
    assert!(state == "error" && what == "somebody else's qdisc tbf 8001: is at its root", "{what}");
    assert_eq!(told.status, 1);
    run("tc qdisc del dev up0 root");
    run("ip link set up0 mtu 9000");
    let slow = policy(&text("ann: 500kbit"));
    let (state, what) =
        (doctor(&slow).of("mtu").0.to_string(), doctor(&slow).of("mtu").1.to_string());
    assert!(state == "warning" && what.contains("takes 144 ms at the cap of ann"), "{what}");
    run("ip link set up0 mtu 1500 gso_max_size 200000");
    let slow = doctor(&policy(&text("ann: 10mbit")));
    let (state, what) = slow.of("big_tcp");
    assert!(
        state == "warning" && what.contains("may have 200000 bytes and takes 160 ms"),
        "{what}"
    );
    run("ip link del up0");
    run("ip link add up0 numtxqueues 3 numrxqueues 3 type veth peer name zfar0");
    run("ip link set up0 up");
    assert!(
        doctor(&path).of("link").1.starts_with("MTU 1500, 3 queues"),
        "{:?}",
        doctor(&path).of("link")
    );
}

/// And the cure is one.
fn a_filter_of_somebody_elses_before_shapers_is_named() {
    let path = host();
    shaper(&format!("apply -q {path}")).assert().code(0);
    run("ip addr add 192.0.2.1/24 dev up0");
    let filters =
        ["pref 1 protocol ip u32 match u32 0 0", "pref 60000 protocol ip u32 match u32 0 0"];
    for filter in filters {
        run(&format!("tc filter add dev up0 parent 1: {filter} classid 1:fffe"));
    }
    let told = doctor(&path);
    let what = "the u32 filter pref 1 on up0 is not shaper's and is asked first: what it takes is where it says, whosever it is";
    assert_eq!(told.of("foreign"), ("warning", what));
    assert_eq!(told.checks.iter().filter(|check| check["id"] == "foreign").count(), 1);
    let why = shaper(&format!("why -f {path} ann --to 192.0.2.9:80")).assert().code(0);
    let why = String::from_utf8(why.get_output().stdout.clone()).expect("text");
    assert!(why.contains("pref 1 on up0 is not shaper's") && !why.contains("60000"), "{why}");
    let check = told.checks.iter().find(|check| check["id"] == "foreign").expect("it");
    let cure = check["cure"].as_str().expect("a cure");
    run(cure.strip_prefix("if nobody needs it: ").expect("a command"));
    assert!(doctor(&path).checks.iter().all(|check| check["id"] != "foreign"));
    assert_eq!(doctor(&path).state("sync"), "ok");
}

fn it_takes_two_seconds_at_most() {
    let path = host();
    shaper(&format!("apply -q {path}")).assert().code(0);
    // The fastest of a few: others have this machine's processors, too.
    let took = (0..3).map(|_| {
        let began = Instant::now();
        assert_eq!(doctor(&path).state("sync"), "ok");
        began.elapsed()
    });
    let fastest = took.min().expect("three");
    println!("{fastest:?}");
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
}

/// Ten thousand (`make nightly`) in two seconds, as everything else, where the program is optimized
/// and has a processor for itself; here it is neither.
fn thousands_of_users_are_looked_at_in_time() {
    host();
    let numbers = 1..=setting("SHAPER_DOCTOR_USERS").unwrap_or(2_000);
    let accounts = numbers.clone().map(|at| format!("u{at}:x:{0}:{0}::/:/bin/sh\n", 100_000 + at));
    let mut passwd = fs::OpenOptions::new().append(true).open("/etc/passwd").expect("accounts");
    passwd.write_all(accounts.collect::<String>().as_bytes()).expect("write the accounts");
    let users: String = numbers.map(|at| format!("  u{at}: 20mbit\n")).collect();
    let path = policy(&format!("version: 1\nlinks: {{up0: {{rate: 10gbit}}}}\nusers:\n{users}"));
    shaper(&format!("apply -q {path}")).assert().code(0);
    let quick = || {
        let began = Instant::now();
        let told = doctor(&path);
        assert_eq!((told.state("sync"), told.state("policy")), ("ok", "ok"), "{:?}", told.checks);
        println!("{:?}", began.elapsed());
        began.elapsed() < Duration::from_secs(6)
    };
    assert!((0..3).any(|_| quick()));
}

fn the_daemons_state_is_told() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let told = doctor(&path);
    let who = format!("the daemon (process {}) is idle", daemon.pid());
    assert_eq!(told.of("daemon"), ("ok", who.as_str()));
    assert_eq!(told.state("capabilities"), "ok");
    assert!(daemon.end().success());
}

fn without_root_it_says_what_it_could_not_see() {
    let path = host();
    let told = Told::by(as_nobody(&format!("--json doctor {path}")));
    assert!(told.of("root").1.starts_with("without root"));
    // The file is root's to read.
    assert_eq!(told.state("policy"), "warning");
    assert!(told.checks.iter().all(|check| check["state"] != "error"), "{:?}", told.checks);
    assert!(told.status == 3 && is_consistent(&told));
}
