//! `shaper plan` and `shaper apply`: exit statuses, what is printed, and what is not.

use std::fs;
use std::time::Duration;

use super::invoke::{Sleeper, exactly, host, root, shaper, text};
use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, classid, directory, policy};

tests!(On::Host =>
    a_plan_says_each_step_and_apply_does_them, a_plan_speaks_of_people, a_plan_counts_the_classes_that_go,
    a_plan_has_all_rounds_of_its_apply, a_dry_run_is_a_plan, an_exit_code_tells_of_changes,
    apply_twice_is_apply_once, quiet_speaks_only_of_differences,
    quiet_hides_no_warning_for_ever, json_is_one_document,
    steps_print_as_tc_commands, printed_commands_reach_another_namespace, printed_commands_take_over_any_root,
    printed_commands_repair_a_tree_that_drifted, printed_commands_clear_all_that_stands,
    swapped_pins_settle_in_one_run,
    a_container_is_warned_of_by_cron_once_a_day, there_is_nothing_to_confirm
);

fn steps() -> String {
    "\
+ mount net_cls
+ up0 qdisc clsact
+ up0 filter at clsact egress pref 1: bpf (clears priorities set in other network namespaces)
+ up0 root qdisc htb 1:
+ up0 class 1:1: rate 1gbit ceil 1gbit
+ up0 class 1:fffe in 1:1: rate 50mbit ceil 1gbit
+ up0 qdisc fffe: bfifo in 1:fffe
+ up0 class 1:fffd: rate 10gbit ceil 10gbit
+ up0 qdisc fffd: bfifo in 1:fffd
+ cgroup user/ann = 1:10
+ owners: 1 uid
+ up0 class 1:10 in 1:1: rate 20mbit ceil 20mbit
+ up0 qdisc 10: bfifo in 1:10
+ up0 filter pref 200: bpf (all packets, by the socket's owner and net_cls classid)
"
    .to_string()
}

/// What they mean for people.
const PEOPLE: &str = "+ up0 1gbit\n+ ann 20mbit\n";

fn planned() -> String {
    format!("{PEOPLE}plan: 14 steps in the kernel (-v shows them)\n")
}

fn applied() -> String {
    format!("{PEOPLE}applied: 14 steps, verified\n")
}

/// What a command prints with `-v`, whose log goes to standard error.
fn verbosely(words: &str) -> String {
    let output = shaper(&format!("-v {words}")).assert().code(0).get_output().clone();
    String::from_utf8(output.stdout).expect("text")
}

fn a_plan_says_each_step_and_apply_does_them() {
    let path = host();
    exactly(&mut shaper(&format!("plan {path}")), 0, &planned(), "");
    let named = steps()
        .replace("ceil 20mbit\n", "ceil 20mbit  (ann)\n")
        .replace("in 1:10\n", "in 1:10  (ann)\n");
    let planned = format!("{PEOPLE}{named}plan: 14 steps in the kernel\n");
    assert_eq!(verbosely(&format!("plan {path}")), planned);
    assert!(root().contains("noqueue 0: root"));
    let applied = format!("{PEOPLE}{}applied: 14 steps, verified\n", steps());
    assert_eq!(verbosely(&format!("apply {path}")), applied);
    assert!(root().contains("htb 1: root"));
}

fn a_dry_run_is_a_plan() {
    let path = host();
    exactly(&mut shaper(&format!("apply --dry-run {path}")), 0, &planned(), "");
}

/// Of the two classes of a line with another number one goes, and one stays.
fn a_plan_counts_the_classes_that_go() {
    host();
    let file =
        |classid: &str| policy(&text(&format!("ann: {{ceil: 20mbit, classid: \"{classid}\"}}")));
    shaper(&format!("apply -q {}", file("1:10"))).assert().code(0);
    let output = shaper(&format!("plan {}", file("1:77"))).assert().code(0).get_output().clone();
    let said = String::from_utf8(output.stdout).expect("text");
    let wanted = "; 1 class goes once its packets have left, 2 more steps\n";
    assert!(said.ends_with(wanted), "{said}");
    shaper(&format!("apply {}", file("1:77"))).assert().code(0);
    assert_eq!(classid("user/ann"), "1:77");
}

/// A number and a group that change at once take two moves, and an account that has logged out
/// loses its class: the plan has each step that apply does, those after its waits too.
fn a_plan_has_all_rounds_of_its_apply() {
    host();
    let file = |groups: &str| {
        let users = text("ann: {ceil: 20mbit, classid: \"1:77\"}");
        policy(&format!("{users}groups:\n  g: {{{groups}}}\neveryone: 50mbit\n"))
    };
    let bob = Sleeper::of(BOB);
    shaper(&format!("apply -q {}", file("ceil: 60mbit"))).assert().code(0);
    drop(bob);
    let path = file("ceil: 60mbit, users: [ann]");
    let document = |words: &str| -> serde_json::Value {
        let output = shaper(words).assert().code(0).get_output().stdout.clone();
        serde_json::from_slice(&output).expect("one document")
    };
    let planned = document(&format!("plan --json {path}"));
    let verbose = verbosely(&format!("plan {path}"));
    let commands = verbosely(&format!("plan --tc {path}"));
    let applied = document(&format!("apply --json {path}"));
    let of = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let (mut said, later) = (of(&planned["steps"]), of(&planned["later"]));
    let more = format!("have left, {} more steps\n", later.len());
    assert!(verbose.contains("once classes 1:") && verbose.ends_with(&more), "{verbose}");
    said.extend(later.clone());
    assert_eq!(said, of(&applied["steps"]));
    let has = |op: &str, class: &str| {
        let object = format!("class up0 {class}");
        later.iter().any(|it| it["op"] == op && it["object"] == object.as_str())
    };
    assert!(has("delete", "1:77") && has("add", "1:77") && has("delete", "1:78"), "{later:?}");
    assert!(commands.contains("\n# tc class del dev up0 classid 1:77\n"), "{commands}");
    assert_eq!(classid("user/ann"), "1:77");
    exactly(&mut shaper(&format!("plan {path}")), 0, "in sync\n", "");
}

/// A line of people for whatever a policy changes, and apply says what plan said.
fn a_plan_speaks_of_people() {
    host();
    let bob = Sleeper::of(BOB);
    let in_turn = |policy: &str, wanted: &str| {
        let planned = shaper(&format!("plan {policy}")).assert().code(0).get_output().clone();
        let applied = shaper(&format!("apply {policy}")).assert().code(0).get_output().clone();
        let people = |text: Vec<u8>| -> String {
            let text = String::from_utf8(text).expect("text");
            let is_change = |line: &&str| !line.starts_with(['p', 'a']);
            text.lines().filter(is_change).map(|line| format!("{line}\n")).collect()
        };
        assert_eq!(people(planned.stdout), wanted);
        assert_eq!(people(applied.stdout), wanted);
    };
    let file = |users: &str, more: &str| policy(&(text(users) + more));
    run("tc qdisc add dev up0 root handle 8001: tbf rate 1gbit burst 100kb limit 1mb");
    let path = file("ann: 800mbit\n  bob: {rate: 1mbit, ceil: 30mbit}", "everyone: 50mbit\n");
    let output =
        shaper(&format!("plan --json --takeover {path}")).assert().code(0).get_output().clone();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    let lost = serde_json::json!({"op": "replace", "kind": "link", "who": "up0", "count": 1, "what": "qdisc tbf 8001:"});
    assert_eq!(plan["people"][0], lost);
    in_turn(
        &format!("--takeover {path}"),
        "! replaces qdisc tbf 8001: of up0\n+ up0 1gbit\n+ ann 800mbit\n+ bob rate 1mbit ceil 30mbit\n+ everyone 50mbit each\n",
    );
    let path = file("ann: 300mbit", "everyone: 50mbit\n");
    in_turn(
        &path,
        "~ ann 800mbit → 300mbit\n- bob: now everyone, 50mbit\n+ bob of everyone 50mbit\n",
    );
    let groups = "groups:\n  students: {ceil: 60%, users: [ann]}\neveryone: 50mbit\n";
    in_turn(
        &file("ann: 300mbit", groups),
        "+ group students ceil 600mbit\n~ ann into group students\n",
    );
    let less = groups.replace("60%", "50%");
    in_turn(&file("ann: 300mbit", &less), "~ group students ceil 600mbit → 500mbit\n");
    // Those of `everyone` who are here are no lines of their own.
    let less = less.replace("50mbit", "40mbit");
    in_turn(&file("ann: 300mbit", &less), "~ everyone 50mbit → 40mbit each\n");
    in_turn(
        &file("ann: 300mbit", ""),
        "- group students\n~ ann out of group students\n- everyone\n- bob of everyone\n",
    );
    drop(bob);
    run("tc class change dev up0 parent 1:1 classid 1:fffe htb rate 1mbit ceil 2mbit");
    in_turn(
        &file("ann: 300mbit", ""),
        "~ default of up0 rate 1mbit → 50mbit, ceil 2mbit → 1gbit\n",
    );
    run("tc filter del dev up0 parent 1: pref 200");
    in_turn(&file("ann: 300mbit", ""), "~ up0 (whose packets are whose)\n");
    let output = shaper("clear").assert().code(0).get_output().stdout.clone();
    assert!(output.starts_with(b"- up0: no longer shaped\napplied: "));
}

fn an_exit_code_tells_of_changes() {
    let path = host();
    exactly(&mut shaper(&format!("plan --exit-code {path}")), 3, &planned(), "");
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper(&format!("plan --exit-code {path}")), 0, "in sync\n", "");
    let path = policy(&text("ann: 30mbit"));
    let plan = "\
~ ann 20mbit → 30mbit
plan: 2 steps in the kernel (-v shows them)
";
    exactly(&mut shaper(&format!("plan --exit-code {path}")), 3, plan, "");
}

fn apply_twice_is_apply_once() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    let document = "{\"version\":1,\"changed\":false,\"steps\":[],\"members\":{\"added\":0,\"moved\":0,\"gone\":0},\
                    \"messages\":0,\"warnings\":[]}\n";
    exactly(&mut shaper(&format!("apply --json {path}")), 0, document, "");
}

fn quiet_speaks_only_of_differences() {
    let path = host();
    exactly(&mut shaper(&format!("apply -q {path}")), 0, &applied(), "");
    exactly(&mut shaper(&format!("apply -q {path}")), 0, "", "");
    exactly(&mut shaper(&format!("plan -q --exit-code {path}")), 0, "", "");
    // A line is a difference, the logins that it brings are none.
    let everyone = policy(&(text("ann: 20mbit") + "everyone: 10mbit\n"));
    let news = shaper(&format!("apply -q {everyone}")).assert().code(0).get_output().clone();
    assert!(String::from_utf8_lossy(&news.stdout).contains("+ everyone 10mbit each\n"));
    let _carol = Sleeper::of(CAROL);
    exactly(&mut shaper(&format!("plan -q --exit-code {everyone}")), 0, "", "");
    exactly(&mut shaper(&format!("apply -q {everyone}")), 0, "", "");
    // Somebody's hand is one.
    run("tc filter del dev up0 parent 1: pref 200");
    let repaired = "~ up0 (whose packets are whose)\napplied: 2 steps, verified\n";
    exactly(&mut shaper(&format!("apply -q {everyone}")), 0, repaired, "");
}

/// The line for cron: what stays wrong is said with every run that has news, and once a day.
fn quiet_hides_no_warning_for_ever() {
    let _host = host();
    let file = |ceil: &str, names: &str| policy(&text(&format!("ann: {ceil}\n  {names}")));
    let cron = |file: &str| {
        let output = shaper(&format!("apply -q --skip-unknown {file}"));
        let output = { output }.assert().code(0).get_output().clone();
        let words = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (words(output.stdout), words(output.stderr))
    };
    let missing = |said: &str, name: &str| said.contains(&format!("there is no account `{name}`"));
    let (done, said) = cron(&file("20mbit", "zoe: 1mbit"));
    assert!(!done.is_empty() && missing(&said, "zoe"), "with what was done: {said}");
    assert_eq!(
        cron(&file("20mbit", "zoe: 1mbit")),
        Default::default(),
        "and not two minutes later"
    );
    let (done, said) = cron(&file("30mbit", "zoe: 1mbit"));
    assert!(!done.is_empty() && missing(&said, "zoe"), "news, and so the warning: {said}");
    let same = file("30mbit", "zoe: 1mbit");
    let stamps = || -> Vec<String> {
        let room = std::fs::read_dir(directory("said")).expect("what was said").flatten();
        let stamps = room.filter(|entry| entry.path().is_dir());
        stamps.map(|entry| entry.file_name().into_string().expect("text")).collect()
    };
    let [stamp] = &stamps()[..] else { panic!("one sentence was said: {:?}", stamps()) };
    // A day ago.
    let (hash, when) = stamp.split_once('-').expect("hash and time");
    let when = u64::from_str_radix(when, 16).expect("a time") - 24 * 60 * 60;
    std::fs::remove_dir(directory(&format!("said/{stamp}"))).expect("forget it");
    std::fs::create_dir(directory(&format!("said/{hash}-{when:x}"))).expect("yesterday");
    let (done, said) = cron(&same);
    assert!(done.is_empty() && missing(&said, "zoe"), "once a day: {said}");
    assert_eq!(cron(&same), Default::default());
    shaper("clear -q").assert().code(0);
    assert!(!std::fs::exists(directory("said")).unwrap_or(true));
}

fn json_is_one_document() {
    let path = host();
    let output =
        shaper(&format!("plan --json {path}")).assert().code(0).stderr("").get_output().clone();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["changed"], true);
    let ann = serde_json::json!({"op": "add", "kind": "user", "who": "ann", "count": 1, "what": "20mbit"});
    assert_eq!(plan["people"][1], ann);
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(14));
    let step = serde_json::json!({"op": "add", "object": "class up0 1:10",
        "tc": "tc class add dev up0 parent 1:1 classid 1:10 htb rate 20mbit ceil 20mbit burst 10000b cburst 10000b prio 0 quantum 59999",
        "disturbs": []});
    assert_eq!(plan["steps"][11], step);
    let output =
        shaper(&format!("apply --json {path}")).assert().code(0).stderr("").get_output().clone();
    let applied: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(applied["changed"], true);
    assert_eq!(applied["people"], plan["people"]);
    assert_eq!(applied["steps"].as_array().map(Vec::len), Some(14));
}

/// Has a shell perform what a plan prints, where commands that name an eBPF program's file, which
/// no command line of tc can spell, are comments; what was printed.
fn perform_by_hand(plan: &str) -> String {
    let output = shaper(plan).assert().code(0).stderr("").get_output().clone();
    let commands = String::from_utf8(output.stdout).expect("text");
    in_a_shell(&commands);
    commands
}

fn in_a_shell(script: &str) {
    assert_cmd::Command::new("sh").args(["-e", "-c", script]).assert().code(0);
}

/// They do what they say: performed by a shell, they leave nothing for apply to do, but for the
/// eBPF programs.
fn steps_print_as_tc_commands() {
    let path = host();
    let commands = perform_by_hand(&format!("plan --tc {path}"));
    assert!(commands.contains("\n# tc filter add dev up0 parent 1: protocol all pref 200 bpf "));
    assert!(commands.ends_with("only shaper has: `shaper apply` performs them.\n"), "{commands}");
    exactly(&mut shaper(&format!("plan {path}")), 0, LEFT_BY_HAND, "");
}

/// However the namespace of the links was named, and whatever is in the shell's own.
fn printed_commands_reach_another_namespace() {
    let path = host();
    run("ip netns add there");
    run("ip -n there link add up0 type veth peer name far0");
    run("ip -n there link set up0 up");
    let inside = ["netns", "exec", "there", "sleep", "60"];
    let mut sleeper = std::process::Command::new("ip").args(inside).spawn().expect("start ip");
    let pid = sleeper.id().to_string();
    let has_entered = || run(&format!("ip netns identify {pid}")).trim() == "there";
    soon("a process is there", Duration::from_secs(10), has_entered);
    let before = root();
    for place in ["there", "/run/netns/there", &pid] {
        let commands = perform_by_hand(&format!("--netns {place} plan --tc {path}"));
        assert!(commands.contains("tc -n there class add ") == (place == "there"), "{commands}");
        let mut plan = shaper(&format!("--netns {place} plan {path}"));
        exactly(&mut plan, 0, LEFT_BY_HAND, "");
        assert_eq!(root(), before);
        shaper(&format!("--netns {place} clear")).assert().code(0);
    }
    // Rules are all there, with the lines by which they are counted.
    let many: Vec<String> = (1..40).map(|n| format!("  - {{dport: {n}, to: ann}}\n")).collect();
    let one = "rules:\n  - {dst: 0.0.0.0/0, proto: tcp, dport: [443, 8080], to: ann}\n";
    policy(&(text("ann: 20mbit") + one + &many.concat()));
    perform_by_hand(&format!("--netns there plan --tc {path}"));
    exactly(&mut shaper(&format!("--netns there plan {path}")), 0, LEFT_BY_HAND, "");
    shaper(&format!("--netns there apply {path}")).assert().code(0);
    let rules = run("ip netns exec there tc filter show dev up0 parent 1:");
    assert!(rules.contains("hash mask 00000028 at 0"), "{rules}");
    shaper("--netns there clear").assert().code(0);
    policy(&text("ann: 20mbit"));
    // What is there already is changed and removed there, too.
    shaper(&format!("--netns there apply {path}")).assert().code(0);
    policy(&text("ann: 30mbit"));
    perform_by_hand(&format!("--netns there plan --tc {path}"));
    exactly(&mut shaper(&format!("--netns there plan {path}")), 0, "in sync\n", "");
    shaper("--netns there clear").assert().code(0);
    let _ = sleeper.kill();
    let _ = sleeper.wait();
}

/// Whatever root stands: the kernel's own, or somebody's that is taken over, also with our handle.
fn printed_commands_take_over_any_root() {
    let path = host();
    for root in [
        "",
        "tbf rate 1gbit burst 100kb limit 1mb",
        "handle 7: pfifo",
        "handle 5: htb",
        "handle 1: htb default 1",
        "handle 1: pfifo",
        // What a device with several queues has by itself, made anew by hand.
        "mq",
        "handle 8: mq",
        "handle 1: mq",
    ] {
        if !root.is_empty() {
            run(&format!("tc qdisc add dev up0 root {root}"));
            shaper(&format!("plan {path}")).assert().code(2);
        }
        perform_by_hand(&format!("plan --takeover --tc {path}"));
        exactly(&mut shaper(&format!("plan {path}")), 0, LEFT_BY_HAND, "");
        shaper(&format!("apply {path}")).assert().code(0);
        shaper("clear").assert().code(0);
    }
}

/// Where somebody changed or took away what is ours.
fn printed_commands_repair_a_tree_that_drifted() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    run("tc class change dev up0 parent 1:1 classid 1:10 htb rate 1mbit ceil 2mbit prio 3");
    run("tc class del dev up0 classid 1:fffe");
    run("tc qdisc del dev up0 parent 1:fffd");
    perform_by_hand(&format!("plan --tc {path}"));
    exactly(&mut shaper(&format!("plan {path}")), 0, "in sync\n", "");
}

/// A clear says what it did in commands, and a shell that performs them does the same.
fn printed_commands_clear_all_that_stands() {
    host();
    let path = policy(&(text("ann: 20mbit") + "groups:\n  all: {ceil: 60mbit, users: [ann]}\n"));
    shaper(&format!("apply {path}")).assert().code(0);
    let output = shaper("clear --json").assert().code(0).stderr("").get_output().clone();
    let cleared: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    let steps = cleared["steps"].as_array().expect("steps").iter();
    let commands: Vec<&str> = steps.map(|step| step["tc"].as_str().expect("a command")).collect();
    assert_eq!(commands.last(), Some(&"umount /run/shaper/net_cls"));
    shaper(&format!("apply {path}")).assert().code(0);
    in_a_shell(&commands.join("\n"));
    assert!(root().contains("noqueue 0: root"));
    assert!(!run("tc qdisc show dev up0").contains("clsact"));
    exactly(&mut shaper("clear"), 0, "nothing to clear\n", "");
    // The directory of the instance is in no step: a clear removes it with the last claim.
    shaper(&format!("apply {path}")).assert().code(0);
    shaper("clear").assert().code(0);
}

/// What no command line can do: the eBPF programs and their maps.
const LEFT_BY_HAND: &str = "~ up0 (whose packets are whose, programs at clsact)\nplan: 3 steps in the kernel (-v shows them)\n";

/// Each pin waits until the class that has its number is gone: three plans, one apply.
fn swapped_pins_settle_in_one_run() {
    host();
    let pinned = |ann: &str, bob: &str| {
        let ann = format!("ann: {{ceil: 20mbit, classid: \"1:{ann}\"}}");
        policy(&text(&format!("{ann}\n  bob: {{ceil: 10mbit, classid: \"1:{bob}\"}}")))
    };
    let path = pinned("10", "11");
    shaper(&format!("apply {path}")).assert().code(0);
    let path = pinned("11", "10");
    shaper(&format!("apply {path}")).assert().code(0);
    assert_eq!((classid("user/ann").as_str(), classid("user/bob").as_str()), ("1:11", "1:10"));
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
}

fn a_container_is_warned_of_by_cron_once_a_day() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let container = format!("{NET_CLS}/docker");
    fs::create_dir(&container).expect("make a cgroup");
    let process = Sleeper::of(ANN);
    let put =
        |directory: &str| fs::write(format!("{directory}/cgroup.procs"), process.pid().to_string());
    put(&container).expect("move the process");
    let warning = format!(
        "warning: process {} (sleep) would be ann's, but sits in another's net_cls group `/docker`: left alone\n",
        process.pid()
    );
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", &warning);
    exactly(&mut shaper(&format!("apply -q {path}")), 0, "", &warning);
    exactly(&mut shaper(&format!("apply -q {path}")), 0, "", "");
    put(NET_CLS).expect("move the process");
    fs::remove_dir(&container).expect("remove the cgroup");
}

fn there_is_nothing_to_confirm() {
    let path = host();
    let error = "error: no change waits to be confirmed\n";
    exactly(&mut shaper("confirm"), 2, "", error);
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper("confirm"), 2, "", error);
}
