//! `watch` and `login`, as far as they end.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::invoke::{exactly, host, shaper, text};
use crate::support::accounts::ANN;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, binary, directory, members, policy};
use crate::support::world::UPLINK;

tests!(On::Host => watch_needs_a_file_that_it_can_follow, a_bad_policy_keeps_the_daemon_from_beginning,
    a_policy_that_becomes_a_pipe_stops_nothing, a_half_of_a_policy_is_not_adopted,
    files_beside_the_policy_cost_nothing, login_is_for_pam, login_places_whoever_called_it, login_changes_nothing_but_its_own_class, the_last_good_policy_is_in_force_where_the_file_is_refused_at_a_start,
    a_policy_that_a_link_is_not_fit_for_is_tried_again_when_that_changes,
    a_policy_that_holds_on_no_link_takes_nothing_from_the_last_good_one);

/// After which what a test waits for will not come.
const PATIENCE: Duration = Duration::from_secs(30);

fn watch_needs_a_file_that_it_can_follow() {
    let error = "error: watch follows a file as it changes, and standard input is none; name the policy file\n";
    exactly(&mut shaper("watch -"), 2, "", error);
    let missing = shaper("watch /nonexistent/policies.yaml").assert().code(2).get_output().clone();
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.starts_with("error: cannot read /nonexistent/policies.yaml: "), "{said}");
}

fn a_bad_policy_keeps_the_daemon_from_beginning() {
    let path = host();
    fs::write(&path, "version: 1\nlinks: {up0: 1gbit}\nusers: {ann: 5mbps}\n").expect("a policy");
    let ended = shaper(&format!("watch {path}")).assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("policies.yaml:3:"));
}

fn a_policy_that_becomes_a_pipe_stops_nothing() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    fs::remove_file(&path).expect("remove the policy");
    run(&format!("mkfifo -m 600 {path}"));
    soon("it is said", PATIENCE, || daemon.log().contains("is a pipe (FIFO)"));
    fs::remove_file(&path).expect("remove the pipe");
    policy(&text("ann: 10mbit"));
    soon("the new policy is in force", PATIENCE, || daemon.log().contains("is in force"));
    fs::remove_file(&path).expect("remove the policy");
    run(&format!("mkfifo -m 600 {path}"));
    assert!(daemon.end().success());
}

fn a_half_of_a_policy_is_not_adopted() {
    let path = host();
    let daemon = Daemon::start(&["watch", &path]);
    let whole = text("ann: 10mbit");
    let more = "  bob: 5mbit\n";
    let mut writer = fs::File::create(&path).expect("open the policy");
    writer.write_all(whole.as_bytes()).expect("write a half");
    // Something else happens to it, and beside it, and the daemon is asked to read it.
    let beside = format!("{path}~");
    fs::write(&beside, "").expect("write beside it");
    fs::remove_file(&beside).expect("remove it");
    daemon.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(1_500));
    assert!(!daemon.log().contains("is in force"), "{}", daemon.log());
    writer.write_all(more.as_bytes()).expect("write the rest");
    drop(writer);
    soon("all of it is in force", PATIENCE, || daemon.log().contains("is in force"));
    assert!(directory("user/bob").exists());
    assert!(daemon.end().success());
}

fn files_beside_the_policy_cost_nothing() {
    let path = host();
    let folder = format!("{SCRATCH}/busy");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("for everybody");
    let busy = format!("{folder}/policies.yaml");
    fs::copy(&path, &busy).expect("the policy");
    let daemon = Daemon::start(&["watch", &busy]);
    sleep(Duration::from_millis(300));
    let before = daemon.cpu();
    let (start, mut files) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(2) {
        let name = format!("{folder}/{}", files % 100);
        fs::write(&name, "").expect("write");
        fs::remove_file(&name).expect("remove");
        files += 1;
    }
    let used = daemon.cpu() - before;
    assert!(files > 1_000, "only {files} files");
    assert!(used < Duration::from_millis(200), "{used:?} for {files} files in 2 s");
    fs::write(&busy, text("ann: 10mbit")).expect("another policy");
    soon("it is in force", PATIENCE, || daemon.log().contains("is in force"));
    assert!(daemon.end().success());
}

fn login_is_for_pam() {
    let path = host();
    let error = "error: login is for pam_exec, which says whose session it is in PAM_USER\n";
    exactly(&mut shaper(&format!("login {path}")), 2, "", error);
    let nothing = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "ann"), 2, "", nothing);
    // Whatever is wrong, root can log in.
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "root"), 0, "", "");
    shaper(&format!("apply {path}")).assert().code(0);
    let nobody = "error: there is no account zorro\n";
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "zorro"), 2, "", nobody);
    let mut end = shaper(&format!("login {path}"));
    exactly(end.env("PAM_USER", "ann").env("PAM_TYPE", "close_session"), 0, "", "");
}

/// The caller is this very test.
fn login_places_whoever_called_it() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let mut login = shaper(&format!("login {path}"));
    exactly(login.env("PAM_USER", "ann").env("PAM_TYPE", "open_session"), 0, "", "");
    assert!(members("user/ann/pinned").contains(&std::process::id()));
    // Nobody claims carol.
    exactly(shaper(&format!("login {path}")).env("PAM_USER", "carol"), 0, "", "");
    assert!(members("user/ann/pinned").contains(&std::process::id()));
}

fn login_changes_nothing_but_its_own_class() {
    let path = host();
    let text = fs::read_to_string(&path).expect("the policy");
    apply(&text);
    let more = format!("{}everyone: 5mbit\n", text.replace("20mbit", "10mbit"));
    fs::write(&path, more).expect("another policy");
    let refused = shaper(&format!("login {path}")).env("PAM_USER", "carol").assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("`shaper apply` first"), "{said}");
    assert!(!directory(&format!("uid/{}", ANN.uid + 2)).exists());
}

/// Where the unit keeps the last good policy.
fn state_directory() -> String {
    let state = format!("{SCRATCH}/state");
    fs::create_dir(&state).expect("a state directory");
    state
}

fn start_with(state: &str, path: &str) -> Daemon {
    let mut command = std::process::Command::new(binary());
    command.args(["watch", path]).env("STATE_DIRECTORY", state);
    Daemon::run(command)
}

/// A policy that is refused for what a link is, at a start and later: it is in force as soon as the
/// link is otherwise, though nobody touches the file.
fn a_policy_that_a_link_is_not_fit_for_is_tried_again_when_that_changes() {
    let path = host();
    let state = state_directory();
    let start = || start_with(&state, &path);
    assert!(start().end().success());
    let late = |user| text(user).replace(&format!("{UPLINK}: {{rate: 1gbit"), "late0: {rate: 50%");
    // Nobody knows a bridge's speed.
    run("ip link add late0 type bridge");
    policy(&late("ann: 12mbit"));
    let daemon = start();
    assert!(daemon.log().contains("the last good one"), "{}", daemon.log());
    let refusals = || daemon.log().matches("the policy is not adopted").count();
    soon("it is refused", PATIENCE, || refusals() == 1);
    let is_shaped = |link: &str, ceil: &str| {
        run(&format!("tc class show dev {link}")).contains(&format!("ceil {ceil}"))
    };
    assert!(is_shaped(UPLINK, "20Mbit"));
    // Other links make no difference, and are no news.
    for number in 0..20 {
        run(&format!("ip link add other{number} type veth peer name far-other{number}"));
    }
    run("ip link set late0 up");
    sleep(Duration::from_millis(1_500));
    assert_eq!(refusals(), 1, "{}", daemon.log());
    assert!(is_shaped(UPLINK, "20Mbit"));
    run("ip link del late0");
    run("ip link add late0 type veth peer name far-late0");
    soon("it is in force", PATIENCE, || daemon.log().contains("is in force\n"));
    assert!(is_shaped("late0", "12Mbit"));
    // A new line for a link that is not there is a mistake, until the link comes.
    policy(&late("ann: 13mbit").replace("late0", "later0"));
    soon("it is refused", PATIENCE, || daemon.log().contains("there is no link `later0`"));
    assert!(is_shaped("late0", "12Mbit"));
    run("ip link add later0 type veth peer name far-later0");
    soon("it is in force", PATIENCE, || is_shaped("later0", "13Mbit"));
    assert!(daemon.end().success());
}

/// Since a boot, somebody else's qdisc is on the only link that the file still names.
fn a_policy_that_holds_on_no_link_takes_nothing_from_the_last_good_one() {
    let path = host();
    let state = state_directory();
    run("ip link add theirs0 type veth peer name far-theirs0");
    let users = "users: {ann: 20mbit}\n";
    policy(&format!("version: 1\nlinks: {{{UPLINK}: 1gbit, theirs0: 1gbit}}\n{users}"));
    assert!(start_with(&state, &path).end().success());
    shaper("clear").assert().code(0);
    run("tc qdisc add dev theirs0 root tbf rate 1gbit burst 100k latency 1s");
    policy(&format!("version: 1\nlinks: {{theirs0: 1gbit}}\n{users}"));
    let daemon = start_with(&state, &path);
    let refused = "the policy is not adopted";
    soon("the file is refused", PATIENCE, || daemon.log().contains(refused));
    sleep(Duration::from_secs(1));
    let classes = |link: &str| run(&format!("tc class show dev {link}"));
    assert!(classes(UPLINK).contains("ceil 20Mbit"), "{}", daemon.log());
    run("tc qdisc del dev theirs0 root");
    soon("it holds there", PATIENCE, || classes("theirs0").contains("ceil 20Mbit"));
    soon("and nowhere else", PATIENCE, || classes(UPLINK).is_empty());
    assert!(daemon.end().success());
}

/// What a boot with a policy that somebody broke before it is like.
fn the_last_good_policy_is_in_force_where_the_file_is_refused_at_a_start() {
    let path = host();
    let state = state_directory();
    let start = || start_with(&state, &path);
    let daemon = start();
    policy(&text("ann: 11mbit"));
    soon("the new policy is in force", PATIENCE, || daemon.log().contains("is in force"));
    assert!(daemon.end().success());
    // A text that is no policy; some that are refused on this host.
    let unknown = text("ann: 12mbit") + "  no-such-account: 5mbit\n";
    let unfit = text("ann: 12gbit");
    let faster = text("ann: 12mbit").replace("1gbit", "900gbit");
    for broken in [text("ann: 12mbps"), unknown, unfit, faster] {
        fs::write(&path, broken).expect("break the policy");
        shaper("clear").assert().code(0);
        let daemon = start();
        assert!(daemon.log().contains("the last good one"), "{}", daemon.log());
        assert!(run(&format!("tc class show dev {UPLINK}")).contains("ceil 11Mbit"));
        soon("its state is told", PATIENCE, || {
            let said = shaper("status").assert().get_output().clone();
            String::from_utf8_lossy(&said.stderr).contains("is refusing")
                || String::from_utf8_lossy(&said.stdout).contains("is refusing")
        });
        policy(&text("ann: 13mbit"));
        soon("it is mended", PATIENCE, || daemon.log().contains("is in force\n"));
        policy(&text("ann: 11mbit"));
        soon("it is as it was", PATIENCE, || {
            run(&format!("tc class show dev {UPLINK}")).contains("ceil 11Mbit")
        });
        assert!(daemon.end().success());
    }
    // One that holds on fewer links than it means is not kept in the place of one that held on all.
    run("ip link add slow0 type veth peer name far-slow0");
    let slow = text("ann: 12mbit").replace("links:\n", "links:\n  slow0: {rate: 8mbit}\n");
    fs::write(&path, slow).expect("a policy that does not fit slow0");
    shaper("clear").assert().code(0);
    let daemon = start();
    assert!(run(&format!("tc class show dev {UPLINK}")).contains("ceil 12Mbit"));
    assert!(daemon.log().contains("`slow0` is passed over"), "{}", daemon.log());
    assert!(daemon.end().success());
    // The same by the service's first build, which ends.
    fs::write(&path, text("ann: 12mbps")).expect("break the policy");
    shaper("clear").assert().code(0);
    shaper(&format!("watch --once {path}")).env("STATE_DIRECTORY", &state).assert().code(0);
    assert!(run(&format!("tc class show dev {UPLINK}")).contains("ceil 11Mbit"));
    // Whoever removes the file is not shaped by what it said.
    fs::remove_file(&path).expect("remove the policy");
    let refused = shaper(&format!("watch {path}")).env("STATE_DIRECTORY", &state).assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("No such file") && !said.contains("last good"), "{said}");
    policy(&text("ann: 11mbit"));
    // Without a directory that can be written it is said, and nothing else is different.
    fs::remove_dir_all(&state).expect("remove the state directory");
    let daemon = start();
    assert!(daemon.log().contains("cannot be written"), "{}", daemon.log());
    assert!(daemon.end().success());
    fs::write(&path, "nothing").expect("break the policy");
    let refused = shaper(&format!("watch {path}")).env("STATE_DIRECTORY", &state).assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("there is no last good policy"), "{said}");
}
