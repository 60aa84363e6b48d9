//! What rules match, and thousands of them: applied, applied again, tampered with, grown and shrunk
//! across the limit from which they are hash tables, and cleared.

use std::fmt::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;
use shaper::plan::Step;
use shaper::tree::{Filter, Pref};

use crate::host::{Host, assert_same, lines, stop_before};
use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, shaper};
use crate::support::world::World;

tests!(
    On::HostAndUml => ranges_and_exceptions_are_what_they_say;
    On::Host => many_rules_are_applied_once, what_is_done_to_tables_by_hand_is_shown_and_repaired,
        tables_that_a_killed_run_left_are_found, a_table_that_a_stranger_has_is_named_and_kept;
);

/// With real packets on both sides of every edge.
fn ranges_and_exceptions_are_what_they_say() {
    let _world = World::new();
    apply(
        "
version: 1
links: {up0: {rate: 100mbit}}
classes: {games: {ceil: 50mbit}, near: {ceil: 50mbit}, others: {ceil: 50mbit}}
rules:
  - {dport: [40000-41000, 41001-41003, 7], proto: udp, to: games}
  - {dst: 10.77.0.5-10.77.0.40, to: near}
  - {dst: {not: [10.77.0.0/24, 'fd77::/64']}, dport: {not: 50}, to: others}
",
    );
    run("ip route add 10.78.0.0/16 via 10.77.0.2");
    run("ip route add fd78::/64 via fd77::2");
    let sent = |to: &str, ports: &[u16]| {
        let packets = || {
            let classes = counters::classes("up0");
            ["class/games", "class/near", "class/others"]
                .map(|claim| classes.class(&classid(claim)).packets)
        };
        let any = if to.contains('.') { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        let before = packets();
        for port in ports {
            socket.send_to(b"x", (to, *port)).expect("send");
        }
        // A packet leaves its class within a moment.
        let begun = Instant::now();
        while packets() == before && begun.elapsed() < Duration::from_millis(300) {}
        let after = packets();
        [0, 1, 2].map(|class| after[class] - before[class])
    };
    for (nth, host) in [4, 5, 40, 41].into_iter().enumerate() {
        run(&format!("ip neigh add 10.77.0.{host} lladdr 02:00:00:00:00:0{nth} dev up0"));
    }
    let edges = [7, 40_000, 40_500, 41_000, 41_003];
    assert_eq!(sent("10.77.0.2", &edges), [5, 0, 0]);
    assert_eq!(sent("fd77::2", &edges), [5, 0, 0]);
    assert_eq!(sent("10.77.0.2", &[6, 8, 39_999, 41_004]), [0, 0, 0]);
    assert_eq!(sent("10.77.0.4", &[9]), [0, 0, 0]);
    assert_eq!(sent("10.77.0.5", &[9]), [0, 1, 0]);
    assert_eq!(sent("10.77.0.40", &[9]), [0, 1, 0]);
    assert_eq!(sent("10.77.0.41", &[9]), [0, 0, 0]);
    assert_eq!(sent("10.78.0.1", &[49, 50, 51]), [0, 0, 2]);
    assert_eq!(sent("fd78::1", &[49, 50, 51]), [0, 0, 2]);
    assert_eq!(sent("fd77::2", &[49]), [0, 0, 0]);
    // Each rule's count is of all its pieces, in both families.
    let counted = run("tc -s filter show dev up0").contains("rule hit");
    let status = shaper(&["status", "--rules", "--json"]).exits(0).json();
    let rules = status["links"][0]["rules"].as_array().expect("rules");
    let of =
        |number: usize| (&rules[number]["rule"], &rules[number]["to"], &rules[number]["packets"]);
    for (number, to, packets) in [(0, "games", 10), (1, "near", 2), (2, "others", 4)] {
        let packets = if counted { Value::from(packets) } else { Value::Null };
        assert_eq!(of(number), (&Value::from(number + 1), &Value::from(to), &packets));
    }
    let table = shaper(&["status", "--rules"]).exits(0).stdout;
    assert_eq!(table.contains("CONFIG_CLS_U32_PERF"), !counted, "{table}");
    println!("{table}");
}

/// One IPv6 rule, so that a u32 filter stands whatever happens to those of IPv4.
fn text(count: u32) -> String {
    let mut text = String::from(
        "version: 1\nlinks: {up0: {rate: 400mbit}}\n\
         users: {ann: {ceil: 30mbit}, bob: {ceil: 20mbit}}\nrules:\n  - {dst: 'fd00::1', to: bob}\n",
    );
    for n in 0..count {
        let to = ["ann", "bob", "default"][(n % 3) as usize];
        let what = match n % 4 {
            0 | 1 => format!("dst: 10.{}.{}.{}", 1 + n / 60_000, n / 250 % 250, n % 250),
            2 => format!("src: 10.99.{}.0/24", n % 256),
            _ => format!("dst: 10.98.0.{}, proto: udp, dport: {}", n % 200, 1 + n),
        };
        let _ = writeln!(text, "  - {{{what}, to: {to}}}");
    }
    text
}

fn tables(host: &mut Host) -> usize {
    let state = host.state();
    let filters = state.trees.values().flat_map(|tree| tree.filters.values());
    let tables = filters.map(|filter| match filter {
        Filter::U32 { rules, .. } => rules.tables.len(),
        _ => 0,
    });
    tables.sum()
}

fn many_rules_are_applied_once() {
    let mut host = Host::new();
    let roots = run("tc qdisc show dev up0");
    for count in [0, 1_000, 5, 10_000, 10_001, 17, 0, 300, 301] {
        let begun = Instant::now();
        host.go_to_text(&text(count));
        println!("{count} rules: {} tables, {:?}", tables(&mut host), begun.elapsed());
        host.is_in_sync();
        // A short list of each family's is one, and so is what finds the IP header behind tags.
        assert_eq!(tables(&mut host) > 3, count > 16, "{count} rules");
    }
    shaper(&["clear"]).exits(0);
    assert_eq!(run("tc qdisc show dev up0"), roots);
    assert_eq!(run("tc filter show dev up0"), "");
}

/// The pref of the rules.
fn pref(host: &mut Host) -> Pref {
    let state = host.state();
    let tree = state.trees.values().next().expect("a tree");
    let standing = Pref::RULES_V4.into_iter().find(|pref| tree.filters.contains_key(pref));
    standing.expect("a filter")
}

fn what_is_done_to_tables_by_hand_is_shown_and_repaired() {
    let add = "filter add dev up0 parent 1: protocol all pref PREF";
    let by_hand = [
        // The tables stay where nothing lists them, and hold the classes.
        "filter del dev up0 parent 1: pref PREF".to_string(),
        format!("{add} handle ::7f u32 ht TABLE:7: match u32 0 0 at 0 flowid 1:fffe"),
        format!("{add} handle ::fff u32 match u32 0 0 at 0 flowid 1:fffe"),
        format!("{add} u32 divisor 4"),
        format!("{add} handle 5: u32 divisor 4"),
        format!("{add} handle ::fff u32 ht TABLE:3: link 5: match u32 0 0 at 0"),
    ];
    let mut host = Host::new();
    host.go_to_text(&text(400));
    for line in by_hand {
        println!("--- {line}");
        let pref = pref(&mut host);
        let number = format!("{:x}", pref.tables().start);
        let by_hand =
            |line: &str| line.replace("PREF", &pref.to_string()).replace("TABLE", &number);
        if line.contains("link 5:") {
            run(&format!("tc {} handle 5: u32 divisor 1", by_hand(add)));
        }
        run(&format!("tc {}", by_hand(&line)));
        let (_, plan) = host.plan();
        println!("{plan}");
        assert!(plan.changes() && plan.to_string().contains("u32"), "{plan}");
        host.apply();
        host.is_in_sync();
        // Nothing holds the classes any more: they go with their line.
        let without = text(400).replace("ann: {ceil: 30mbit}, ", "").replace("to: ann", "to: bob");
        host.go_to_text(&without);
        host.is_in_sync();
        host.go_to_text(&text(400));
    }
    // The other pref is made again: no trace of what stood there.
    host.go_to_text(&text(0));
    assert!(host.observe().is_plain());
    let standing = pref(&mut host);
    let other = Pref::RULES_V4.into_iter().find(|pref| *pref != standing).expect("a pair");
    run(&format!(
        "tc filter add dev up0 parent 1: protocol all pref {other} handle 5: u32 divisor 1"
    ));
    let shown = run(&format!("tc filter show dev up0 parent 1: pref {other}"));
    assert_eq!(shown.lines().filter(|line| line.contains("ht divisor")).count(), 2, "{shown}");
}

fn tables_that_a_killed_run_left_are_found() {
    let mut host = Host::new();
    let (old, new) = (text(200), text(333));
    host.go_to_text(&old);
    for _ in 0..2 {
        host.take_up(&new).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let before = lines(&host.state());
        // Stopped before each step, and brought back.
        for k in 0..10 {
            let mut stopped = None;
            let Err(failure) = host.try_apply(&mut stop_before(k, &mut stopped)) else {
                assert!(k > 2, "all done after {k} steps");
                break;
            };
            let text = failure.text(false);
            assert!(text.ends_with("what was there before is back"), "{text}");
            assert_same(&lines(&host.state()), &before, "after the undo");
        }
        host.go_to_text(&old);
        // As a kill leaves it: the new set stands, and the old one's tables do, unlisted.
        host.take_up(&new).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let (meaning, plan) = host.plan();
        let facts = &meaning.observation.facts;
        let steps = plan.steps.iter().map(|planned| &planned.step);
        let until = steps.take_while(|step| !matches!(step, Step::Tables(..)));
        let kernel = &mut host.session.kernel;
        let locked = kernel.lock(Duration::from_secs(10)).expect("the lock");
        let mut all = |_: usize, _: &Step| Ok(());
        let (_, done) = shaper::host::execute::perform(kernel, &locked, facts, until, &mut all);
        drop(locked);
        done.unwrap_or_else(|failed| panic!("{failed}"));
        let left = host.observe();
        assert!(left.strange.values().any(|strange| !strange.tables.is_empty()));
        host.go_to_text(&new);
        host.is_in_sync();
        host.go_to_text(&old);
    }
}

fn a_table_that_a_stranger_has_is_named_and_kept() {
    let mut host = Host::new();
    host.go_to_text(&text(3));
    // Of the pref that the larger set is to be at.
    let first = Pref::RULES_V4[1].tables().start;
    run(&format!(
        "tc filter add dev up0 parent 1: protocol ip pref 7 handle {first:x}: u32 divisor 1"
    ));
    let theirs = run("tc filter show dev up0 parent 1: pref 7");
    let before = lines(&host.state());
    host.take_up(&text(900)).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let failure = host.try_apply(&mut |_, _| Ok(())).expect_err("a refusal").text(false);
    assert!(failure.contains(&format!("handle {first:x}: u32 divisor 256\n")), "{failure}");
    assert!(failure.ends_with("what was there before is back"), "{failure}");
    assert!(failure.lines().count() < 5, "{failure}");
    assert_same(&lines(&host.state()), &before, "after the undo");
    assert_eq!(run("tc filter show dev up0 parent 1: pref 7"), theirs);
    // Without it nothing is in the way.
    run("tc filter del dev up0 parent 1: pref 7");
    host.apply();
    host.is_in_sync();
}
