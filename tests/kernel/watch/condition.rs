//! The daemon's state, as `status`, the journal and the service manager have it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::beside;
use crate::support::accounts::own_etc;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{policy, shaper};
use crate::support::world::World;

tests!(
    On::Host => the_daemons_state_is_told_with_its_reason_and_since_when,
        a_daemon_that_waits_or_fails_says_so_until_it_does_not;
);

const POLICY: &str = super::logins::POLICY;
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon's state, its reason, and since when.
fn state(daemon: &Daemon) -> (String, String, u64) {
    // Where the link is gone, nothing is shaped.
    let status = shaper(&["status", "--json"]).json();
    let told = &status["daemon"];
    assert_eq!(told["pid"].as_u64(), Some(u64::from(daemon.pid())), "{status}");
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_string();
    (text("state"), text("why"), told["since"].as_u64().expect("since when"))
}

fn is(daemon: &Daemon, word: &str) {
    soon(word, PATIENCE, || state(daemon).0 == word);
}

fn the_daemons_state_is_told_with_its_reason_and_since_when() {
    own_etc();
    let _world = World::new();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let daemon = Daemon::start(&["watch", "-v", &policy(POLICY)]);
    is(&daemon, "idle");
    let (_, why, since) = state(&daemon);
    assert_eq!(why, "");
    assert!((before..before + 60).contains(&since), "{before} {since}");
    // Read by nobody since it was told that the daemon is ready.
    let path = format!("{SCRATCH}/notify");
    fs::remove_file(&path).expect("the old socket");
    let notified = UnixDatagram::bind(&path).expect("a socket for the service manager");
    notified.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    policy(&POLICY.replace("ann: 30mbit", "ann: 30mbps"));
    is(&daemon, "refusing");
    let (_, why, _) = state(&daemon);
    assert!(why.contains("policies.yaml:4"), "{why}");
    let told = || {
        let mut message = [0; 1024];
        let length = notified.recv(&mut message).expect("a word for the service manager");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let message = told();
    assert!(message.starts_with("STATUS=refusing: "), "{message}");
    assert!(message.contains("policies.yaml:4") && message.contains(" (1 link, "), "{message}");
    let table = shaper(&["status"]).exits(0).stdout;
    let line = table.lines().last().unwrap_or_default();
    let begins = format!("the daemon (process {}) is refusing for ", daemon.pid());
    assert!(line.starts_with(&begins) && line.ends_with(&why), "{line}");
    policy(POLICY);
    soon("the mend is said", PATIENCE, || daemon.log().contains("is good again"));
    is(&daemon, "idle");
    let message = told();
    assert!(message.starts_with("STATUS=idle: in sync (1 link, "), "{message}");
    assert!(message.ends_with(" users)\n"), "{message}");
    // NSS is slow, and the policy has a name that was not asked for yet. So is whoever asks for
    // the status, which has names.
    let accounts = fs::read("/etc/passwd").expect("the accounts");
    run("umount /etc/passwd");
    run("rm /etc/passwd");
    run("mkfifo /etc/passwd");
    policy(&POLICY.replace("bob: 30mbit", "bob: 30mbit, dave: 7mbit"));
    soon("it asks", PATIENCE, || daemon.log().contains("adopting: NSS"));
    run("rm /etc/passwd");
    fs::write("/etc/passwd", accounts).expect("the accounts");
    fs::set_permissions("/etc/passwd", fs::Permissions::from_mode(0o644)).expect("chmod");
    is(&daemon, "adopting");
    assert!(state(&daemon).1.contains("NSS"), "{}", state(&daemon).1);
    for word in ["refusing", "adopting"] {
        let is_it = |line: &&str| line.split([' ', ':']).any(|it| it == word);
        assert_eq!(daemon.log().lines().filter(is_it).count(), 1, "{word}\n{}", daemon.log());
    }
    let pid = daemon.pid();
    assert!(daemon.end().success());
    let status = shaper(&["status", "--json"]).exits(0).json();
    assert!(status.get("daemon").is_none(), "{pid} has ended: {status}");
}

fn a_daemon_that_waits_or_fails_says_so_until_it_does_not() {
    let _world = World::new();
    let file = policy(POLICY);
    let daemon = Daemon::start(&["watch", "-v", &file]);
    is(&daemon, "idle");
    let other = format!("{file}.other");
    fs::write(&other, POLICY.replace("ann: 30mbit", "ann: 20mbit")).expect("write a policy");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
    beside(&["apply", "--confirm", "60", &other]).exits(0);
    is(&daemon, "waiting");
    soon("for what", PATIENCE, || state(&daemon).1.contains("confirm"));
    beside(&["--wait", "5", "confirm"]).exits(0);
    is(&daemon, "idle");
    let waited = daemon.log().lines().filter(|line| line.contains("waiting")).count();
    assert_eq!(waited, 1, "once, however often it tries\n{}", daemon.log());
    // No descriptor more than it has: no look can be taken.
    let folder = format!("/proc/{}/fd", daemon.pid());
    let open = fs::read_dir(folder).expect("its descriptors").count();
    run(&format!("prlimit --pid {} --nofile={open}:1024", daemon.pid()));
    run("tc qdisc del dev up0 root");
    is(&daemon, "failing");
    let (_, why, since) = state(&daemon);
    assert!(why.contains("cannot be brought into order"), "{why}");
    assert!(why.contains("Too many open files"), "{why}");
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(state(&daemon).2, since, "it fails again, and has not begun to");
    run(&format!("prlimit --pid {} --nofile=1024:1024", daemon.pid()));
    is(&daemon, "idle");
    assert!(run("tc qdisc show dev up0").contains("htb 1: root"));
    assert!(daemon.end().success());
}
