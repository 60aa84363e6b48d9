//! What is said of a link both of whose directions are shaped: by `plan` and `apply`, `status` and
//! `why`, for people and for programs.

use serde_json::Value;

use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{policy, shaper};
use crate::support::world::World;

tests!(
    On::Host => a_plan_and_its_apply_count_the_same_steps,
        both_directions_of_each_link_are_said_in_file_order;
);

const POLICY: &str = "
version: 1
links:
  late0: {rate: 80mbit, down: 40mbit}
  up0: {rate: 100mbit, down: 50mbit}
users:
  ann: {ceil: 20mbit, down: {rate: 5mbit, ceil: 10mbit}}
  bob: 20mbit
";

fn json(words: &[&str]) -> Value {
    let done = shaper(words).exits(0);
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout))
}

fn a_plan_and_its_apply_count_the_same_steps() {
    let _world = World::new();
    let file = policy(&POLICY.replace("  late0: {rate: 80mbit, down: 40mbit}\n", ""));
    let lines = |text: &str| {
        let steps = text.lines().filter(|line| line.starts_with(['+', '~', '-']));
        // A plan also says whose a class is to be.
        let step = |line: &str| line.split("  (").next().unwrap_or(line).to_string();
        steps.map(step).collect::<Vec<String>>()
    };
    let plan = shaper(&["plan", "-v", &file]).exits(0).stdout;
    let tc = shaper(&["plan", "--tc", &file]).exits(0).stdout;
    assert!(plan.contains("\n+ mount net_cls\n"), "{plan}");
    let applied = shaper(&["apply", "-v", &file]).exits(0).stdout;
    assert_eq!(lines(&plan), lines(&applied));
    let count = lines(&plan).iter().skip_while(|line| *line != "+ mount net_cls").count();
    assert!(applied.contains(&format!("applied: {count} steps, verified")), "{applied}");
    assert!(plan.contains(&format!("plan: {count} steps")), "{plan}");
    assert!(tc.lines().count() >= count, "{tc}");
    shaper(&["clear"]).exits(0);
    let planned = json(&["plan", "--json", &file]);
    let applied = json(&["apply", "--json", &file]);
    assert_eq!(planned["steps"], applied["steps"]);
    assert_eq!(applied["changed"], true);
}

fn both_directions_of_each_link_are_said_in_file_order() {
    let _world = World::new();
    run("ip link add late0 type veth peer name later0");
    run("ip link set late0 up");
    let file = policy(POLICY);
    let daemon = Daemon::start(&["watch", &file]);
    let wanted = ["late0 egress", "late0 ingress", "up0 egress", "up0 ingress"];
    let ports = |document: &Value| {
        let links = document["links"].as_array().expect("links").iter();
        let word = |link: &Value, key: &str| link[key].as_str().expect("a word").to_string();
        let port = |link: &Value| format!("{} {}", word(link, "dev"), word(link, "direction"));
        links.map(port).collect::<Vec<String>>()
    };
    let status = json(&["status", "--json"]);
    assert_eq!(ports(&status), wanted);
    let rates = [80_000_000, 40_000_000, 100_000_000, 50_000_000];
    for (at, rate) in rates.into_iter().enumerate() {
        let link = &status["links"][at];
        assert_eq!(link["rate_bit"], rate, "{link}");
        assert_eq!(link["classifier"], "bpf");
        let users = link["users"].as_array().expect("users");
        let ann = users.iter().find(|row| row["user"] == "ann").expect("ann");
        let ceil = if at % 2 == 0 { 20_000_000 } else { 10_000_000 };
        assert_eq!(ann["ceil_bit"], ceil, "{ann}");
        assert_eq!(ann["classid"], status["links"][0]["users"][0]["classid"]);
    }
    let why = json(&["why", "ann", "--file", &file, "--json"]);
    assert_eq!(ports(&why), wanted);
    let asked = |at: usize| why["links"][at]["asked_rate_bit"].clone();
    assert_eq!((asked(0), asked(1)), (Value::Null, 5_000_000.into()));
    let table = shaper(&["status"]).exits(0).stdout;
    let at = |word: &str| table.find(word).unwrap_or_else(|| panic!("{word}: {table}"));
    assert!(at("late0") < at("up0"), "{table}");
    println!("{table}{}", shaper(&["why", "ann", "--file", &file]).exits(0).stdout);
    assert!(daemon.end().success());
}
