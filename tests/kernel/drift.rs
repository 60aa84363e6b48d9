//! Somebody changes our objects by hand: `plan` shows it, `apply` repairs it.

use crate::host::{Host, assert_same, lines};
use crate::support::command::run;
use crate::support::harness::{On, tests};

tests!(On::Host => what_is_changed_by_hand_is_shown_and_repaired);

const POLICY: &str = r#"
version: 1
links: {up0: {rate: 400mbit, classifier: bpf}, up1: {rate: 300mbit}}
users: {ann: {rate: 10mbit, classid: "1:10"}, bob: {ceil: 30mbit, classid: "1:11"}, carol: {ceil: 9mbit, classid: "1:12"}}
groups: {team: {ceil: 60mbit, users: [bob, carol]}}
rules: [{dport: 80, to: ann}, {dst: "fd00::1", to: bob}]
"#;

/// What is done by hand, and what the plan then says first of it.
const DRIFT: [(&[&str], &str); 16] = [
    (
        &["tc class change dev up0 classid 1:10 htb rate 1mbit ceil 2mbit quantum 60000"],
        "~ up0 class 1:10",
    ),
    (&["tc class change dev up0 classid 1:1 htb rate 9mbit quantum 60000"], "~ up0 class 1:1"),
    (
        &["tc class change dev up0 classid 1:fffe htb rate 9mbit quantum 60000"],
        "~ up0 class 1:fffe",
    ),
    (&["tc class del dev up0 classid 1:12"], "+ up0 class 1:12"),
    (&["tc class del dev up0 classid 1:fffe"], "+ up0 class 1:fffe"),
    (&["tc class del dev up0 classid 1:fffd"], "+ up0 class 1:fffd"),
    (
        &[
            "tc class del dev up0 classid 1:12",
            "tc class add dev up0 parent 1:1 classid 1:12 htb rate 1mbit quantum 60000",
        ],
        "up0 class 1:",
    ),
    (
        &[
            "tc class del dev up0 classid 1:fffe",
            "tc class add dev up0 parent 1: classid 1:fffe htb rate 1mbit quantum 60000",
        ],
        "~ up0 class 1:fffe",
    ),
    (
        &[
            "tc qdisc del dev up0 parent 1:10",
            "tc qdisc add dev up0 parent 1:10 handle 10: pfifo limit 3",
        ],
        "up0 qdisc 10:",
    ),
    (&["tc qdisc del dev up0 parent 1:11"], "up0 qdisc 11:"),
    (
        &[
            "tc qdisc del dev up0 parent 1:11",
            "tc qdisc add dev up0 parent 1:11 handle 7777: pfifo limit 3",
        ],
        "up0 qdisc 11:",
    ),
    (&["tc filter del dev up0 parent 1: pref 100"], "+ up0 filter pref 100"),
    (&["tc filter del dev up0 parent 1: pref 200"], "+ up0 filter pref 200"),
    (
        &[
            "tc filter add dev up0 parent 1: pref 100 protocol all u32 match ip dport 9 0xffff flowid 1:11",
        ],
        "up0 filter pref 10",
    ),
    (&["tc qdisc del dev up1 root"], "+ up1 root qdisc"),
    (&["tc qdisc del dev up0 root"], "+ up0 root qdisc"),
];

fn what_is_changed_by_hand_is_shown_and_repaired() {
    let mut host = Host::new();
    (0..3).for_each(|at| host.come_or_go(at));
    host.take_up(POLICY).unwrap_or_else(|e| panic!("{}", e.text(false)));
    host.apply();
    for (by_hand, shown) in DRIFT {
        println!("--- {by_hand:?}");
        by_hand.iter().for_each(|line| drop(run(line)));
        let (_, plan) = host.plan();
        println!("{plan}");
        assert!(plan.changes() && plan.to_string().contains(shown), "{by_hand:?}: {plan}");
        // What the plan is undone to is the drift itself.
        let drifted = lines(&host.state());
        let text = host
            .try_apply(&mut |k, _| match k {
                0 => Ok(()),
                _ => Err(shaper::host::execute::Cause::Stopped("stopped".to_string())),
            })
            .map(|_| ())
            .map_err(|failure| failure.text(false));
        if let Err(text) = text {
            assert!(text.ends_with("what was there before is back"), "{text}");
            assert_same(&lines(&host.state()), &drifted, "after the undo");
        }
        host.apply();
        host.is_in_sync();
    }
}
