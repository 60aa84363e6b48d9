//! What stands in the kernel and the command line's answer to it: foreign qdiscs, another run's
//! lock, classes that somebody put below ours, nothing at all.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::invoke::{Sleeper, exactly, host, root, shaper, text};
use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, policy};

tests!(On::Host =>
    a_foreign_root_is_refused_and_can_be_taken_over, another_instance_is_named_as_one,
    words_of_status_and_plan, a_held_lock_is_another_run,
    a_foreign_class_keeps_its_root, nothing_to_show_and_nothing_to_clear,
    a_user_that_has_no_class_is_an_error, why_says_who_claims_what, why_says_what_newcomers_share,
    clear_leaves_nothing,
    why_says_what_the_kernel_has_where_the_policy_is_refused,
    why_knows_a_labels_accounts_where_there_is_no_policy
);

fn a_foreign_root_is_refused_and_can_be_taken_over() {
    let path = host();
    run("tc qdisc add dev up0 root handle 5: htb");
    let error = "error: up0 has a root qdisc that shaper did not make (htb 5:); to replace it, use --takeover \
                 (that is: tc qdisc replace dev up0 root handle 1: htb default fffe)\n";
    exactly(&mut shaper(&format!("apply {path}")), 2, "", error);
    exactly(&mut shaper(&format!("plan {path}")), 2, "", error);
    assert!(root().contains("htb 5: root"));
    shaper(&format!("apply --takeover {path}")).assert().code(0);
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    shaper("clear").assert().code(0);
    assert!(root().contains("noqueue 0: root"));
}

fn another_instance_is_named_as_one() {
    let path = host();
    shaper(&format!("--cgroup other apply {path}")).assert().code(0);
    let error = "error: the instance `other` of shaper shapes up0: clear it there \
                 (shaper clear --cgroup other), or use that instance (--cgroup other)\n";
    exactly(&mut shaper(&format!("apply {path}")), 2, "", error);
    let status = "nothing is shaped here; `shaper apply` does it\n\
                  not ours, left alone: up0, which another instance of shaper shapes\n";
    exactly(&mut shaper("status"), 3, status, "");
    shaper("--cgroup other clear").assert().code(0);
}

/// `~` before what nobody wrote; forwarded packets where there are some; bursts in bytes.
fn words_of_status_and_plan() {
    let _host = host();
    let text = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users: {ann: 20mbit}
groups:
  written: {rate: 100mbit, users: [ann]}
  derived: {ceil: 100mbit, gid: students}
";
    shaper(&format!("apply -q {}", policy(text))).assert().code(0);
    let status = || {
        let output = shaper("status").assert().code(0).get_output().stdout.clone();
        String::from_utf8(output).expect("text")
    };
    let said = status();
    let rate = |row: &str| {
        let line = said.lines().find(|line| line.contains(row)).expect("a row");
        line.split_whitespace().nth(2).expect("its rate").to_string()
    };
    assert_eq!(rate("[written]"), "100mbit", "{said}");
    assert!(rate("[derived]").starts_with('~'), "{said}");
    assert!(!said.contains("forwarded"), "none were: {said}");
    let plan = "\
~ group written rate 100mbit → 1mbit
plan: 2 steps in the kernel (-v shows them)
";
    let less = policy(&text.replace("rate: 100mbit", "rate: 1mbit"));
    let said = shaper(&format!("plan {less}")).assert().code(0).get_output().stdout.clone();
    let said = String::from_utf8(said).expect("text");
    let said: String =
        said.lines().filter(|l| !l.contains("(ann)")).map(|l| l.to_string() + "\n").collect();
    assert_eq!(said, plan);
}

/// Holds the lock as another run would, until it is dropped.
pub struct Holder(Child);

impl Holder {
    pub fn of(directory: &str) -> Holder {
        let mut flock = Command::new("flock");
        flock.args(["--no-fork", directory, "sleep", "60"]).stdin(Stdio::null());
        let holder = Holder(flock.spawn().expect("start flock"));
        soon("flock has the lock", Duration::from_secs(10), || {
            let free = Command::new("flock").args(["-n", directory, "true"]).status();
            !free.expect("start flock").success()
        });
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_held_lock_is_another_run() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let directory = format!("{NET_CLS}/shaper");
    let holder = Holder::of(&format!("{directory}/lock"));
    let error = format!("error: another run holds the lock on {directory}\n");
    for words in [&format!("apply --wait 0 {path}"), "clear --wait 0", "attach --wait 0 ann 1"] {
        exactly(&mut shaper(words), 4, "", &error);
    }
    exactly(&mut shaper("run --wait 0 ann -- true"), 125, "", &error);
    let json = format!(
        "{{\"version\":1,\"error\":{{\"kind\":\"locked\",\"message\":\"another run holds the lock on {directory}\",\
         \"file\":null,\"line\":null,\"column\":null,\"step\":null,\"errno\":null}}}}\n"
    );
    exactly(&mut shaper(&format!("apply --json --wait 0 {path}")), 4, &json, "");
    // Who only reads does not wait.
    exactly(&mut shaper(&format!("plan {path}")), 0, "in sync\n", "");
    shaper("status").assert().code(0);
    drop(holder);
    exactly(&mut shaper(&format!("apply --wait 0 {path}")), 0, "in sync\n", "");
}

fn a_foreign_class_keeps_its_root() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    run("tc class add dev up0 parent 1:1 classid 1:77 htb rate 1mbit");
    let left = "\
left undone: - up0 root qdisc htb 1: and all below it
    ! disturbs class 1:77 on up0: somebody put it under shaper's root qdisc; it goes with it
left undone: - up0 qdisc clsact and all in it
left undone: - owners
left undone: - cgroup user/ann
left undone: - mount net_cls
to do these too: --allow-disruption
applied: 0 steps, verified
";
    exactly(&mut shaper("clear"), 5, left, "");
    let table = shaper("status").assert().code(0).get_output().stdout.clone();
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(table.ends_with("not ours, left alone: class 1:77 on up0\n"), "{table}");
    shaper("clear --allow-disruption").assert().code(0).stderr("");
    exactly(&mut shaper("clear"), 0, "nothing to clear\n", "");
}

fn nothing_to_show_and_nothing_to_clear() {
    host();
    exactly(&mut shaper("status"), 3, "nothing is shaped here; `shaper apply` does it\n", "");
    exactly(&mut shaper("status --json"), 3, "{\"version\":1,\"links\":[],\"foreign\":[]}\n", "");
    exactly(&mut shaper("clear"), 0, "nothing to clear\n", "");
    exactly(&mut shaper("clear -q"), 0, "", "");
}

fn a_user_that_has_no_class_is_an_error() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let error = "error: nobody-there has no class here; `shaper why nobody-there` says why\n";
    exactly(&mut shaper("status nobody-there"), 2, "", error);
    exactly(&mut shaper("status ann nobody-there"), 2, "", error);
    let table = shaper("status ann").assert().code(0).stderr("").get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&table).contains("\n  ann "));
}

fn why_says_what_newcomers_share() {
    let _host = host();
    let path = policy("version: 1\nlinks: {up0: {rate: 1gbit}}\neveryone: 20mbit\n");
    shaper(&format!("apply {path}")).assert().code(0);
    let _came_after = Sleeper::of(BOB);
    let said = shaper(&format!("why bob -f {path}")).assert().code(0);
    let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
    let shares =
        "\n  it has no class of its own yet: until `shaper apply` makes one, it shares class 1:";
    assert!(said.contains(shares), "{said}");
    shaper(&format!("apply {path}")).assert().code(0);
    let said = shaper(&format!("why bob -f {path}")).assert().code(0);
    let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
    assert!(said.contains("\n  class 1:") && !said.contains(shares), "{said}");
}

fn why_says_who_claims_what() {
    let path = host();
    let claimed = format!("ann: users.ann at {path}:5:3\n");
    let before = format!(
        "{claimed}  up0: rate a share of what is left, ceil 20mbit, prio 0\n  it has no class in the kernel yet: `shaper apply` makes it\n"
    );
    exactly(&mut shaper(&format!("why ann -f {path}")), 0, &before, "");
    shaper(&format!("apply {path}")).assert().code(0);
    let after = format!(
        "{claimed}  class 1:10\n  up0: rate 20mbit (a share of what is left), ceil 20mbit, prio 0; now 0bit\n"
    );
    exactly(&mut shaper(&format!("why ann -f {path}")), 0, &after, "");
    let nobody = "bob: no line of the policy\n  nobody claims it: it is in the default class\n";
    exactly(&mut shaper(&format!("why bob -f {path}")), 0, nobody, "");
    let error = "error: zoe is no line of the policy, no account, no process and no guest\n";
    exactly(&mut shaper(&format!("why zoe -f {path}")), 2, "", error);
    let ann = Sleeper::of(ANN);
    let output =
        shaper(&format!("why {} -f {path}", ann.pid())).assert().code(0).get_output().clone();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.ends_with(
            "in a class all the same, by the sockets' owner: the next apply places it\n"
        ),
        "{text}"
    );
}

fn why_says_what_the_kernel_has_where_the_policy_is_refused() {
    let path = host();
    let ann = Sleeper::of(ANN);
    let has = |subject: &str| {
        format!(
            "{subject}: users.ann\n  class 1:10\n  \
             up0: rate 20mbit (a share of what is left), ceil 20mbit, prio 0; now 0bit\n  \
             this is what the kernel has: the policy is refused, or cannot be read\n"
        )
    };
    // Nothing stands: there is the error alone.
    let missing = format!("{SCRATCH}/missing.yaml");
    let unread = format!(
        "error: cannot read {missing}: No such file or directory (os error 2); name another file, \
         or begin with `shaper init`, which prints a starter policy (`shaper init --write FILE` makes it)\n"
    );
    exactly(&mut shaper(&format!("why ann -f {missing}")), 2, "", &unread);
    shaper(&format!("apply {path}")).assert().code(0);
    for subject in ["ann", "1:10", &ann.pid().to_string(), &format!("pid:{}", ann.pid())] {
        exactly(&mut shaper(&format!("why {subject} -f {missing}")), 2, &has(subject), &unread);
    }
    // Whose packets are nobody's the kernel knows, too.
    let output = shaper(&format!("why bob -f {missing}")).assert().code(2).get_output().clone();
    let bobs = String::from_utf8_lossy(&output.stdout).into_owned();
    let begins = bobs.starts_with("bob: no line of the policy\n  class 1:fffe\n  up0: rate ");
    assert!(
        begins && bobs.contains("\n  nobody claims it: it is in the default class\n"),
        "{bobs}"
    );
    let nobody = format!("why zoe -f {missing}");
    exactly(&mut shaper(&nobody), 2, "", &unread);
    policy(&text("ann: 20mbps"));
    let refused = shaper(&format!("why ann -f {path}")).assert().code(2).get_output().clone();
    assert_eq!(String::from_utf8_lossy(&refused.stdout), has("ann"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.starts_with("error: `20mbps`") && said.contains("policies.yaml:5:"), "{said}");
    let words = format!("why ann -f {path} --json");
    let output = shaper(&words).assert().code(2).stderr("").get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&output).expect("one document");
    assert_eq!(document["classid"], "1:10");
    assert_eq!(document["links"][0]["in_force"]["ceil_bit"], 20_000_000);
    assert_eq!(document["error"]["kind"], "policy");
    assert_eq!(document["errors"][0]["line"], 5);
    // Where the policy is good, there is no error.
    policy(&text("ann: 20mbit"));
    let output = shaper(&words).assert().code(0).get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&output).expect("one document");
    assert!(document.get("error").is_none() && document["line"] == 5, "{document}");
}

fn why_knows_a_labels_accounts_where_there_is_no_policy() {
    let path = host();
    policy(&text("backup: {accounts: [bob], uids: [4711], ceil: 20mbit}"));
    shaper(&format!("apply {path}")).assert().code(0);
    let missing = format!("{SCRATCH}/missing.yaml");
    let bob = Sleeper::of(BOB);
    let pid = format!("pid:{}", bob.pid());
    for subject in ["bob", "uid:2002", "uid:4711", &pid] {
        let words = format!("why {subject} -f {missing}");
        let output = shaper(&words).assert().code(2).get_output().stdout.clone();
        let said = String::from_utf8(output).expect("text");
        assert!(said.starts_with(&format!("{subject}: users.backup\n  class 1:10\n")), "{said}");
    }
    // Another file's line of that name is not in force.
    policy(&text("bob: 10mbit"));
    for subject in ["bob", &pid] {
        let words = format!("why {subject} -f {path}");
        let output = shaper(&words).assert().code(0).get_output().stdout.clone();
        let said = String::from_utf8(output).expect("text");
        assert!(said.contains(": users.backup\n  class 1:10\n"), "{said}");
        let note = "in force it is backup's; the file says users.bob: apply has not run since";
        assert!(said.contains(note), "{said}");
    }
}

fn clear_leaves_nothing() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let cleared = "\
- up0: no longer shaped
applied: 5 steps, verified
";
    exactly(&mut shaper("clear"), 0, cleared, "");
    assert!(root().contains("noqueue 0: root"));
    let mounts = fs::read_to_string("/proc/mounts").expect("read the mounts");
    assert!(!mounts.contains("net_cls"), "{mounts}");
}
