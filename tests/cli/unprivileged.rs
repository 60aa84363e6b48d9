//! Without privilege: one sentence that says what is missing, status 2, nothing touched; and what
//! needs none works.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::{Mode, umask};

use super::invoke::{Sleeper, as_nobody, as_user, as_user_in, exactly, host, shaper};
use crate::support::accounts::{ANN, Account, BOB, CAROL};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::policy;

tests!(On::Host =>
    what_changes_something_needs_root, check_and_init_need_nothing, users_see_what_is_theirs_and_nothing_of_others,
    whoever_nobody_claims_sees_the_default_class, a_number_is_a_process_or_a_uid_and_not_both,
    a_line_that_is_called_like_an_account_is_not_the_accounts, who_shares_a_line_is_not_told,
    without_the_policy_each_process_has_its_own_class,
    a_plan_without_root_says_so, a_plan_without_root_makes_nothing_anew_that_arrives,
    roots_umask_hides_no_limits, without_tags_users_see_what_is_theirs,
    in_another_namespace_users_see_what_is_theirs_there, who_has_anothers_uid_is_not_told_what_that_was
);

const NEEDS_ROOT: &str = "error: this needs the capability CAP_NET_ADMIN, which this process lacks: run it as root (sudo shaper …)\n";

/// The policy, for everybody to read.
fn readable(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod the policy");
}

/// What a command prints to an account.
#[track_caller]
fn said(account: Account, words: &str) -> String {
    let output = as_user(account, words).assert().code(0).stderr("").get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

fn what_changes_something_needs_root() {
    let path = host();
    readable(&path);
    for words in
        [&format!("apply {path}"), "clear", "attach ann 1", "grant ann 1GB", "quota reset ann"]
    {
        exactly(&mut as_nobody(words), 2, "", NEEDS_ROOT);
    }
    exactly(&mut as_nobody("run ann -- true"), 125, "", NEEDS_ROOT);
    let json = "{\"version\":1,\"error\":{\"kind\":\"usage\",\"message\":\"this needs the capability CAP_NET_ADMIN, \
                which this process lacks: run it as root (sudo shaper …)\",\"file\":null,\"line\":null,\"column\":null,\
                \"step\":null,\"errno\":null}}\n";
    exactly(&mut as_nobody("clear --json"), 2, json, "");
}

fn check_and_init_need_nothing() {
    let path = host();
    readable(&path);
    let ok = format!("{path}: ok: 1 link, 1 user\n");
    exactly(&mut as_nobody(&format!("check {path}")), 0, &ok, "");
    let as_root = shaper("init").assert().code(0).stderr("").get_output().stdout.clone();
    let starter = String::from_utf8(as_root).expect("text");
    exactly(&mut as_nobody("init"), 0, &starter, "");
    assert!(starter.contains("\nlinks:\n  up0:                # it is up\n"), "{starter}");
    // What nobody claims is bounded.
    assert!(starter.contains("\n    default: {rate: 5%, ceil: 50%}\n"), "{starter}");
    shaper("check -").write_stdin(starter).assert().code(0).stderr("");
}

fn users_see_what_is_theirs_and_nothing_of_others() {
    host();
    exactly(&mut as_user(ANN, "status"), 3, "nothing is shaped here; `shaper apply` does it\n", "");
    let text = "version: 1\nlinks: {up0: {rate: 1gbit, leaf: bfifo}}\nusers: {ann: 20mbit, bob: 10mbit}\n\
                groups: {students: {ceil: 100mbit, users: [ann]}}\neveryone: 5mbit\n";
    let path = policy(text);
    let _sleepers = [ANN, BOB, CAROL].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let status = said(ANN, "status");
    let holds = "up0 egress: ann may use 20mbit, by its own cap\n";
    assert!(status.contains("\n    ann ") && status.ends_with(holds), "{status}");
    let json: serde_json::Value = serde_json::from_str(&said(BOB, "status --json")).expect("JSON");
    assert_eq!(json["links"][0]["users"][0]["user"], "bob");
    assert_eq!(json["held_back"][0], "up0 egress: bob may use 10mbit, by its own cap");
    let carol = said(CAROL, "status carol");
    assert!(carol.contains("  carol ") && carol.contains("carol may use 5mbit"), "{carol}");
    let top = said(CAROL, "top --once --interval 0.1");
    // The file is root's to read; and the same where it is everybody's.
    let why = said(BOB, &format!("why bob --file {path}"));
    assert!(
        why.starts_with("bob: users.bob\n  class 1:") && why.contains("bob may use 10mbit"),
        "{why}"
    );
    let himself = said(BOB, &format!("why --file {path}"));
    assert!(himself.contains("users.bob\n  class 1:"), "{himself}");
    readable(&path);
    let why_by_policy = said(BOB, &format!("why bob --file {path}"));
    let line = format!("{path}:3:22");
    assert!(why_by_policy.contains(&line), "{why_by_policy}");
    // Where there is none, he is told what the kernel has all the same.
    let words = format!("why bob --file {path}.missing");
    let output = as_user(BOB, &words).assert().code(2).get_output().clone();
    let (has, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        has.starts_with("bob: users.bob\n  class 1:") && has.contains("what the kernel has"),
        "{has}"
    );
    assert!(error.starts_with("error: cannot read "), "{error}");
    // Of a connection too, and programs find the fields that they know.
    let words = format!("{words} --json --to 192.0.2.1:443");
    let output = as_user(BOB, &words).assert().code(2).stderr("").get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&output).expect("one document");
    let link = &document["links"][0];
    let ceils = [&link["ceil_bit"], &link["in_force"]["ceil_bit"]];
    assert!(ceils.into_iter().all(|it| it == 10_000_000), "{document}");
    for field in ["file", "line", "column", "directory", "shares_with", "held_back", "error"] {
        assert!(document.get(field).is_some(), "{field}: {document}");
    }
    // Nobody is told of anybody else.
    for (whose, text) in
        [("ann", status), ("bob", json.to_string()), ("carol", carol + &top), ("bob", why)]
    {
        let others = ["ann", "bob", "carol", "(unshaped)"].into_iter().filter(|it| *it != whose);
        others.for_each(|other| assert!(!text.contains(other), "{other} in {whose}'s {text}"));
    }
    let refused = |words: &str| {
        let output = as_user(ANN, words).assert().code(2).stdout("").get_output().stderr.clone();
        String::from_utf8(output).expect("text")
    };
    let others = "error: what bob has only root may see, and whose it is; `shaper status` without a name says what you have\n";
    assert_eq!(refused("status bob"), others);
    assert_eq!(refused(&format!("why bob --file {path}")), others);
    assert_eq!(
        refused("status --metrics"),
        "error: metrics are of all users, and for root to see: run it with sudo\n"
    );
    for words in ["status --rules", "status --group students"] {
        assert!(refused(words).contains("for root"), "{words}");
    }
    assert!(refused("why 1").contains("only root may see"));
    // What is kept of everybody's counters is root's, too.
    shaper("status --metrics").assert().code(0);
    let kept = fs::read_dir("/run/shaper").expect("its room").flatten();
    let kept: Vec<_> =
        kept.filter(|it| it.path().extension().is_some_and(|it| it == "json")).collect();
    assert!(!kept.is_empty());
    for file in kept {
        assert_eq!(file.metadata().expect("its mode").permissions().mode() & 0o077, 0);
    }
}

fn whoever_nobody_claims_sees_the_default_class() {
    let path = host();
    shaper(&format!("apply -q {path}")).assert().code(0);
    let output = as_nobody("status").assert().code(0).stderr("").get_output().stdout.clone();
    let text = String::from_utf8(output).expect("text");
    assert!(
        text.contains("(default)") && !text.contains("ann") && !text.contains("unshaped"),
        "{text}"
    );
    assert!(text.contains("may use 1gbit"), "{text}");
}

/// What `why` says to somebody, of a policy that everybody may read or root alone.
fn why(account: Account, words: &str) -> String {
    let output = as_user(account, &format!("why {words}")).assert().code(0).stderr("");
    String::from_utf8(output.get_output().stdout.clone()).expect("text")
}

fn why_refused(account: Account, words: &str) -> String {
    let output = as_user(account, &format!("why {words}")).assert().code(2).stdout("");
    String::from_utf8(output.get_output().stderr.clone()).expect("text")
}

/// The links of a cell, and these lines.
fn applied(lines: &str) -> String {
    host();
    let path =
        policy(&format!("version: 1\nlinks: {{up0: {{rate: 1gbit, leaf: bfifo}}}}\n{lines}"));
    readable(&path);
    path
}

fn a_number_is_a_process_or_a_uid_and_not_both() {
    let path = applied("users: {ann: 20mbit, bob: 10mbit}\n");
    let [of_ann, of_bob] = [ANN, BOB].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    // An account whose uid is the number of another's process.
    let uid = of_bob.pid();
    let namesake = Account { uid, gid: uid, also: None };
    for subject in [format!("{uid}"), format!("pid:{uid}"), format!("uid:{}", BOB.uid)] {
        let said = why_refused(namesake, &format!("{subject} --file {path}"));
        assert!(said.contains("only root may see") && !said.contains("bob"), "{said}");
    }
    assert!(why(namesake, &format!("uid:{uid} --file {path}")).starts_with(&format!("uid {uid}:")));
    // A process of one's own whose number is another's uid.
    let pid = of_ann.pid();
    let said = why_refused(ANN, &format!("uid:{pid} --file {path}"));
    assert!(said.contains("only root may see"), "{said}");
    for subject in [format!("{pid}"), format!("pid:{pid}")] {
        let said = why(ANN, &format!("{subject} --file {path}"));
        assert!(said.starts_with(&format!("process {pid} (sleep, uid 2001): users.ann")), "{said}");
    }
    assert!(why(ANN, &format!("uid:2001 --file {path}")).starts_with("uid 2001: users.ann"));
}

fn a_line_that_is_called_like_an_account_is_not_the_accounts() {
    let path =
        applied("users: {carol: {ceil: 10mbit, accounts: [bob]}, ann: 20mbit}\neveryone: 5mbit\n");
    let _sleepers = [ANN, BOB, CAROL].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let said = why(CAROL, &format!("carol --file {path}"));
    assert!(said.starts_with("carol: everyone") && said.contains("ceil 5mbit"), "{said}");
    assert!(!said.contains("bob") && !said.contains("10mbit"), "{said}");
    // Whose it is has it by its name.
    let said = why(BOB, &format!("carol --file {path}"));
    assert!(said.starts_with("carol: users.carol"), "{said}");
}

fn who_shares_a_line_is_not_told() {
    let path = applied("users: {staff: {ceil: 10mbit, accounts: [ann, bob]}}\n");
    let _sleepers = [ANN, BOB].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let said = why(ANN, &format!("staff --file {path}"));
    assert!(said.contains("accounts in it now: ann\n"), "{said}");
    let as_root = shaper(&format!("why staff --file {path}")).assert().code(0);
    let said = String::from_utf8(as_root.get_output().stdout.clone()).expect("text");
    assert!(said.contains("accounts in it now: ann, bob\n"), "{said}");
}

fn without_the_policy_each_process_has_its_own_class() {
    let path = applied("users: {ann: 20mbit, bob: 10mbit}\n");
    let (her_own, attached) = (Sleeper::of(ANN), Sleeper::of(ANN));
    shaper(&format!("apply -q {path}")).assert().code(0);
    shaper(&format!("attach -q bob {}", attached.pid())).assert().code(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod the policy");
    for (sleeper, line) in [(her_own, "ann"), (attached, "bob")] {
        let said = why(ANN, &format!("{} --file {path}", sleeper.pid()));
        assert!(said.starts_with(&format!("{}: users.{line}\n", sleeper.pid())), "{said}");
        assert_eq!(said.matches(" may use ").count(), 1, "{said}");
    }
    let said = why_refused(ANN, &format!("ann --to 192.0.2.1:443 --file {path}"));
    assert!(said.contains("where a connection's packets go is by the policy"), "{said}");
}

/// The programs of what arrives read maps that root alone may open: they count as they stand.
fn a_plan_without_root_makes_nothing_anew_that_arrives() {
    host();
    let down = |ann: &str| {
        let users = format!("users: {{ann: {{ceil: {ann}}}, bob: {{ceil: 20mbit}}}}\n");
        let path =
            policy(&format!("version: 1\nlinks: {{up0: {{rate: 1gbit, down: 1gbit}}}}\n{users}"));
        readable(&path);
        path
    };
    let plan = |path: &str| {
        let words = format!("plan -v {path}");
        let output = as_user(BOB, &words).assert().code(0).get_output().clone();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("cannot be read") && error.contains("as root it can"), "{error}");
        String::from_utf8(output.stdout).expect("text")
    };
    shaper(&format!("apply -q {}", down("20mbit"))).assert().code(0);
    let same = plan(&down("20mbit"));
    assert!(same.starts_with("in sync"), "{same}");
    let other = plan(&down("30mbit"));
    let steps = other.lines().filter(|line| line.contains(" up0 "));
    let is_her =
        |line: &str| line.starts_with("~ up0 class 1:") || line.starts_with("~ up0 qdisc ");
    assert!(other.starts_with("~ ann 20mbit → 30mbit\n"), "{other}");
    assert!(steps.clone().count() > 0 && steps.clone().all(is_her), "{other}");
}

fn a_plan_without_root_says_so() {
    let path = host();
    readable(&path);
    let error = "error: a plan depends on what this kernel can do, and finding that out needs root: run it with sudo (`shaper check` needs no root)\n";
    let output = as_nobody(&format!("plan {path}")).assert().get_output().clone();
    // Where the modules can be looked up by everybody, there is a plan.
    match output.status.code() {
        Some(0) => assert!(String::from_utf8_lossy(&output.stdout).contains("plan: 11 steps")),
        status => {
            assert_eq!(status, Some(2));
            assert_eq!(String::from_utf8_lossy(&output.stderr), error);
        }
    }
}

fn roots_umask_hides_no_limits() {
    let path = host();
    let _sleeper = Sleeper::of(ANN);
    let before = umask(Mode::from_bits_truncate(0o077));
    shaper(&format!("apply -q {path}")).assert().code(0);
    umask(before);
    let status = said(ANN, "status");
    assert!(status.contains("ann may use 20mbit"), "{status}");
}

/// No directory says whose a process is, so each is told it by a file of his own.
fn without_tags_users_see_what_is_theirs() {
    host();
    let path = policy(
        "version: 1\nlinks: {up0: {rate: 1gbit, leaf: bfifo, classifier: uid}}\n\
         users: {ann: 20mbit, staff: {ceil: 10mbit, accounts: [bob]}}\neveryone: 5mbit\n",
    );
    let _sleepers = [ANN, BOB, CAROL].map(Sleeper::of);
    shaper(&format!("apply -q {path}")).assert().code(0);
    for (account, name, line, cap) in [
        (ANN, "ann", "users.ann", "ann may use 20mbit"),
        (BOB, "bob", "users.staff", "staff may use 10mbit"),
        (CAROL, "carol", "everyone", "carol may use 5mbit"),
    ] {
        let [status, why] = ["status".to_string(), format!("why {name} --file {path}")]
            .map(|it| said(account, &it));
        assert!(status.contains(cap) && !status.contains("(default)"), "{status}");
        assert!(why.starts_with(&format!("{name}: {line}\n")) && why.contains(cap), "{why}");
        for other in ["ann", "staff", "carol"].into_iter().filter(|it| !cap.starts_with(*it)) {
            assert!(!status.contains(other) && !why.contains(other), "{other}: {status}{why}");
        }
    }
    // One who cannot be told keeps no other from it.
    let in_place = format!("/run/shaper/told/shaper/{}", ANN.uid);
    fs::remove_file(&in_place).expect("what ann was told");
    fs::create_dir(&in_place).expect("something else in its place");
    policy(
        "version: 1\nlinks: {up0: {rate: 1gbit, leaf: bfifo, classifier: uid}}\nusers: {ann: 20mbit, bob: 9mbit}\n",
    );
    shaper(&format!("apply -q {path}")).assert().code(0);
    assert!(said(BOB, "status").contains("bob may use 9mbit"));
    fs::remove_dir(&in_place).expect("as it was");
    shaper("clear -q").assert().code(0);
    assert!(!std::path::Path::new("/run/shaper").exists(), "clear leaves nothing");
}

/// A policy without tags, so that each is told by a file whose class he is in.
fn untagged(ceil: &str) -> String {
    policy(&format!(
        "version: 1\nlinks: {{up0: {{rate: 1gbit, leaf: bfifo, classifier: uid}}}}\n\
         users: {{team: {{ceil: {ceil}, uids: {}}}}}\n",
        ANN.uid
    ))
}

fn told_of_20mbit() -> (String, Sleeper) {
    let (path, sleeper) = (untagged("20mbit"), Sleeper::of(ANN));
    shaper(&format!("apply -q {path}")).assert().code(0);
    assert!(said(ANN, "status").contains("team may use 20mbit"));
    (path, sleeper)
}

/// What is shaped there is another instance's, whichever of the two is asked first.
fn in_another_namespace_users_see_what_is_theirs_there() {
    host();
    let (_, _sleeper) = told_of_20mbit();
    run("ip netns add beside");
    let beside = |words: &str| {
        let output = as_user_in("beside", ANN, words).output().expect("run it");
        let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
        (output.status.code(), out.expect("text") + &err.expect("text"))
    };
    for words in ["status", "--cgroup shaper status"] {
        let (status, text) = beside(words);
        assert!(status == Some(3) && !text.contains("team"), "{words}: {status:?} {text}");
    }
    let (_, text) = beside("--cgroup shaper usage");
    assert!(text.starts_with("nobody has told you"), "{text}");
    // And what is shaped there he is told of.
    for line in ["link add up0 type veth peer name far0", "link set up0 up"] {
        run(&format!("ip -n beside {line}"));
    }
    let _there = Sleeper::of(ANN);
    let path = untagged("7mbit");
    shaper(&format!("--netns beside apply -q {path}")).assert().code(0);
    let (status, text) = beside("status");
    assert!(status == Some(0) && !text.contains("20mbit"), "{status:?} {text}");
    assert!(said(ANN, "status").contains("team may use 20mbit"));
    shaper("--netns beside clear -q").assert().code(0);
    shaper("clear -q").assert().code(0);
}

/// The uid is given to another account before anybody applies again.
fn who_has_anothers_uid_is_not_told_what_that_was() {
    host();
    let (path, _sleeper) = told_of_20mbit();
    let before = fs::read_to_string("/etc/passwd").expect("the accounts");
    fs::write("/etc/passwd", before.replace("ann:", "zoe:")).expect("another account");
    let status = said(ANN, "status");
    assert!(!status.contains("team"), "{status}");
    shaper(&format!("apply -q {path}")).assert().code(0);
    assert!(said(ANN, "status").contains("team may use 20mbit"), "by now it is zoe's");
}
