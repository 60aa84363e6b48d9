//! `shaper attach`: processes that run already.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::invoke::{Sleeper, exactly, host, shaper, text};
use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{directory, members};

tests!(On::Host => bad_process_ids_are_said, a_process_stays_where_it_is_put,
    what_is_no_users_is_refused, what_another_instance_claims_is_refused, release_undoes_it,
    release_takes_what_was_put_by_hand_only, an_account_may_be_named_where_a_label_claims_it;
    On::HostEvents => a_kernel_thread_is_refused);

fn bad_process_ids_are_said() {
    let path = host();
    let error = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(&mut shaper("attach ann 1"), 2, "", error);
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper("attach ann 99999"), 1, "", "error: no such process: 99999\n");
    let error = "error: 0 is no process id; name processes one by one\n";
    exactly(&mut shaper("attach ann 0"), 2, "", error);
    let error = "error: -1 is no process id; name processes one by one\n";
    exactly(&mut shaper("attach ann -- -1"), 2, "", error);
    shaper("attach ann sshd").assert().code(2).stdout("");
    let error =
        "error: bob has no class; `shaper status` lists who has, `shaper why bob` says why\n";
    exactly(&mut shaper("attach bob 1"), 2, "", error);
}

fn a_process_stays_where_it_is_put() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let (one, two) = (Sleeper::of(BOB), Sleeper::of(BOB));
    let said = "1 process is in ann's class, and stays there\n";
    exactly(&mut shaper(&format!("attach ann {}", one.pid())), 0, said, "");
    let said = "2 processes are in ann's class, and stay there\n";
    exactly(&mut shaper(&format!("attach ann {} {}", one.pid(), two.pid())), 0, said, "");
    exactly(&mut shaper(&format!("attach -q ann {}", two.pid())), 0, "", "");
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    let mut pinned = members("user/ann/pinned");
    pinned.sort_unstable();
    let mut put = vec![one.pid(), two.pid()];
    put.sort_unstable();
    assert_eq!(pinned, put);
}

fn what_is_no_users_is_refused() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let one = Sleeper::of(BOB);
    let refused =
        shaper(&format!("attach ann {} 1", one.pid())).assert().code(2).get_output().clone();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.starts_with("error: process 1 (") && said.contains("starts everything else"),
        "{said}"
    );
    // All or nothing.
    assert_eq!(fs::read_to_string(directory("user/ann/pinned/cgroup.procs")).expect("read"), "");
}

/// In the machine's own process namespace, which has some.
fn a_kernel_thread_is_refused() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let error = "error: process 2 (kthreadd) cannot be attached: it is a kernel thread, which is in no class; give its traffic one by a rule\n";
    exactly(&mut shaper("attach ann 2"), 2, "", error);
}

fn what_another_instance_claims_is_refused() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let mut away = Command::new("unshare");
    let mut away = away.args(["--net", "sleep", "60"]).spawn().expect("a process elsewhere");
    let pid = away.id();
    let named = format!("--netns {pid} --cgroup blue");
    let is_there =
        || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it == "sleep\n");
    while !is_there() {
        sleep(Duration::from_millis(5));
    }
    let theirs = format!("{SCRATCH}/theirs.yaml");
    fs::write(
        &theirs,
        "version: 1\nlinks: {lo: {rate: 1gbit, leaf: bfifo}}\nusers: {bob: 1mbit}\n",
    )
    .expect("write");
    run(&format!("nsenter --net=/proc/{pid}/ns/net ip link set lo up"));
    shaper(&format!("{named} apply {theirs}")).assert().code(0);
    let error = format!(
        "error: process {pid} (sleep) cannot be attached: it is the instance `blue`'s (--cgroup), which would take it back\n"
    );
    exactly(&mut shaper(&format!("attach ann {pid}")), 2, "", &error);
    shaper(&format!("{named} attach bob {pid}")).assert().code(0);
    exactly(&mut shaper(&format!("attach ann {pid}")), 2, "", &error);
    shaper(&format!("{named} clear")).assert().code(0);
    away.kill().expect("end it");
    away.wait().expect("reap it");
}

fn release_undoes_it() {
    let path = host();
    fs::write(&path, text("ann: 20mbit\n  team: {ceil: 5mbit, accounts: [carol]}"))
        .expect("a policy");
    shaper(&format!("apply {path}")).assert().code(0);
    let (one, two, three) = (Sleeper::of(CAROL), Sleeper::of(CAROL), Sleeper::of(BOB));
    shaper(&format!("attach ann {} {} {}", one.pid(), two.pid(), three.pid())).assert().code(0);
    let said = format!("process {}: from user/ann to user/team\n", one.pid());
    exactly(&mut shaper(&format!("release -f {path} {}", one.pid())), 0, &said, "");
    assert_eq!(members("user/team"), [one.pid()]);
    // All that is left; bob is nobody's.
    let json =
        shaper(&format!("--json release -f {path} ann")).assert().code(0).get_output().clone();
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).expect("a document");
    assert_eq!(document["version"], 1);
    let mut released = document["released"].as_array().expect("a list").clone();
    released.sort_by_key(|it| it["pid"].as_u64());
    let at = |pid: u32, to: Option<&str>| serde_json::json!({"pid": pid, "from": "user/ann/pinned", "to": to});
    let mut expected = [at(two.pid(), Some("user/team")), at(three.pid(), None)];
    expected.sort_by_key(|it| it["pid"].as_u64());
    assert_eq!(released, expected);
    assert_eq!(members("user/ann/pinned"), Vec::<u32>::new());
    exactly(
        &mut shaper(&format!("release -f {path} ann")),
        0,
        "nothing was put there by hand\n",
        "",
    );
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
}

fn release_takes_what_was_put_by_hand_only() {
    let path = host();
    let error = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(&mut shaper("release ann"), 2, "", error);
    let of_ann = Sleeper::of(ANN);
    shaper(&format!("apply {path}")).assert().code(0);
    let pid = of_ann.pid();
    let error = format!(
        "error: process {pid} (sleep) was put nowhere by hand: it is in user/ann, where the policy has it\n"
    );
    exactly(&mut shaper(&format!("release -f {path} {pid}")), 2, "", &error);
    exactly(
        &mut shaper(&format!("release -f {path} 99999")),
        1,
        "",
        "error: no such process: 99999\n",
    );
    let error =
        "error: zorro has no class; `shaper status` lists who has, `shaper why zorro` says why\n";
    exactly(&mut shaper(&format!("release -f {path} zorro")), 2, "", error);
    // A word that is wrong is said before anything is released; what is named twice goes once.
    let by_hand = Sleeper::of(BOB);
    let other = by_hand.pid();
    shaper(&format!("attach ann {other}")).assert().code(0);
    let error = format!(
        "error: process {pid} (sleep) was put nowhere by hand: it is in user/ann, where the policy has it\n"
    );
    exactly(&mut shaper(&format!("release -f {path} {other} {pid}")), 2, "", &error);
    assert_eq!(members("user/ann/pinned"), [other]);
    let said = format!("process {other}: from user/ann to nobody's class\n");
    exactly(&mut shaper(&format!("release -f {path} {other} {other}")), 0, &said, "");
    // A process that its user's name has released already is released.
    shaper(&format!("attach ann {other}")).assert().code(0);
    exactly(&mut shaper(&format!("release -f {path} ann {other}")), 0, &said, "");
    // Where no policy is to be found, it is out of the class all the same.
    let of_bob = Sleeper::of(BOB);
    shaper(&format!("attach ann {}", of_bob.pid())).assert().code(0);
    let done = shaper("release ann").assert().code(0).get_output().clone();
    let said = format!("process {}: from user/ann to nobody's class\n", of_bob.pid());
    assert_eq!(String::from_utf8_lossy(&done.stdout), said);
    assert!(
        String::from_utf8_lossy(&done.stderr)
            .starts_with("note: whose they are is for the next apply")
    );
}

fn an_account_may_be_named_where_a_label_claims_it() {
    let path = host();
    fs::write(&path, text("team: {ceil: 5mbit, accounts: [ann]}")).expect("a policy");
    let daemon = Daemon::start(&["watch", &path]);
    let one = Sleeper::of(BOB);
    let said = "1 process is in ann's class, and stays there\n";
    exactly(&mut shaper(&format!("attach ann {}", one.pid())), 0, said, "");
    assert_eq!(members("user/team/pinned"), [one.pid()]);
    let where_it_is =
        shaper("run ann -- cat /proc/self/cgroup").assert().code(0).get_output().clone();
    let where_it_is = String::from_utf8_lossy(&where_it_is.stdout).into_owned();
    assert!(where_it_is.contains(":/shaper/user/team/pinned\n"), "{where_it_is}");
    let status = shaper("status ann --json").assert().code(0).get_output().clone();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("a document");
    assert_eq!(status["links"][0]["users"][0]["user"], "team");
    let said = format!("process {}: from user/team to nobody's class\n", one.pid());
    exactly(&mut shaper("release ann"), 0, &said, "");
    shaper("run bob -- true").assert().code(125);
    shaper("status bob").assert().code(2);
    assert!(daemon.end().success());
}
