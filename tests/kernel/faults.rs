//! Every step of a plan fails once, and every step is where a run is killed once: what was there
//! before is back, or the next apply gets there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use shaper::apply;
use shaper::desired::Sharding;
use shaper::failure::Failure;
use shaper::host::execute::{self, Cause};
use shaper::plan::{Phase, Tc};
use shaper::tree::NetCls;

use crate::host::{CROWD, Foreign, Host, INSTANCE, MAY, assert_same, lines, stop_before};
use crate::support::cell::myself;
use crate::support::command::run;
use crate::support::harness::{On, Test};
use crate::support::program::{CLAIMS, NET_CLS, policy, shaper};
use crate::support::settings::setting;

pub const TESTS: &[Test] = &[
    every_step(
        "faults::a_first_build_that_fails_leaves_nothing",
        a_first_build_that_fails_leaves_nothing,
    ),
    every_step(
        "faults::an_update_that_fails_at_any_step_is_undone",
        an_update_that_fails_at_any_step_is_undone,
    ),
    every_step(
        "faults::a_move_that_fails_at_any_step_is_undone",
        a_move_that_fails_at_any_step_is_undone,
    ),
    every_step(
        "faults::an_update_of_shards_that_fails_at_any_step_is_undone",
        an_update_of_shards_that_fails_at_any_step_is_undone,
    ),
    every_step(
        "faults::an_update_of_shards_cut_after_any_step_is_finished_by_the_next_apply",
        an_update_of_shards_cut_after_any_step_is_finished_by_the_next_apply,
    ),
    every_step(
        "faults::a_foreign_root_is_back_also_where_something_else_cannot_be",
        a_foreign_root_is_back_also_where_something_else_cannot_be,
    ),
    every_step(
        "faults::a_clear_that_fails_at_any_step_is_undone",
        a_clear_that_fails_at_any_step_is_undone,
    ),
    every_step(
        "faults::a_first_build_killed_at_any_step_is_finished_by_the_next_apply",
        a_first_build_killed_at_any_step_is_finished_by_the_next_apply,
    ),
    every_step(
        "faults::an_update_killed_at_any_step_is_finished_by_the_next_apply",
        an_update_killed_at_any_step_is_finished_by_the_next_apply,
    ),
    every_step(
        "faults::a_crowds_first_build_that_ends_anywhere_leaves_no_class_without_its_claim",
        a_crowds_first_build_that_ends_anywhere_leaves_no_class_without_its_claim,
    ),
    every_step(
        "faults::an_update_cut_after_any_step_is_finished_by_the_next_apply",
        an_update_cut_after_any_step_is_finished_by_the_next_apply,
    ),
];

/// Half a minute on a machine with nothing else to do.
const fn every_step(name: &'static str, body: fn()) -> Test {
    Test { name, on: On::Host, budget: Duration::from_secs(600), body }
}

/// The steps at which the longest plans are ended: each of them by night, and otherwise every
/// fifth. Which those are differs from test to test, and the rarest orders are held by properties.
fn some_steps(first: usize) -> impl Iterator<Item = usize> {
    let every = setting("SHAPER_FAULTS_EVERY").unwrap_or(5);
    let every = usize::try_from(every).expect("a small number");
    (first.min(every - 1)..).step_by(every)
}

/// A tree with everything in it.
pub const FIRST: &str = r#"
version: 1
links: {up0: {rate: 400mbit, default: {rate: 5mbit, ceil: 50mbit}, leaf: pfifo}, up1: {rate: 300mbit}}
users:
  ann: {rate: 10mbit, ceil: 40mbit, prio: 2}
  bob: {ceil: 30mbit, classid: "1:14"}
  carol: {ceil: 20mbit, classid: "1:15"}
  label: {ceil: 9mbit, uids: [4001]}
groups:
  staff: {ceil: 90mbit, users: [ann]}
  team: {parent: staff, rate: 20mbit, ceil: 60mbit, users: [bob]}
  old: {ceil: 40mbit, users: [label]}
classes: {nfs: {rate: 3mbit}}
everyone: {ceil: 80mbit, each: {ceil: 25mbit}}
rules:
  - {src: 1.2.3.4, proto: tcp, dport: 80, to: ann}
  - {dst: [10.1.0.0/16, "fd00:1::/64"], dport: [111, 2049], to: nfs}
  - {sport: 443, to: bob}
  - {from: [bob, dave], dst: 10.2.0.0/16, to: nfs}
  - {dport: 25, to: ann}
"#;

/// Everything in it is another: who is there, groups and their nesting, pins swapped, rates,
/// leaves, rules, a link less.
pub const SECOND: &str = r#"
version: 1
links: {up0: {rate: 500mbit, default: {rate: 6mbit, ceil: 70mbit}, leaf: bfifo}}
users:
  ann: {rate: 12mbit, ceil: 45mbit, prio: 1, classid: "1:10"}
  bob: {ceil: 30mbit, classid: "1:15"}
  carol: {ceil: 20mbit, classid: "1:14"}
  dave: {ceil: 5mbit}
groups:
  staff: {ceil: 80mbit, users: [carol]}
  team: {rate: 25mbit, ceil: 60mbit, users: [bob, ann]}
  young: {parent: staff, gid: students, each: {ceil: 3mbit}}
classes: {nfs: {rate: 4mbit, prio: 3}, ntp: {rate: 1mbit}}
everyone: {ceil: 70mbit, each: {ceil: 22mbit}}
rules:
  - {sport: 443, to: carol}
  - {vlan: 22, from: ann, to: ntp}
  - {src: 1.2.3.4, proto: tcp, dport: 80, to: bob}
  - {dst: "fd00:1::/64", dport: 2049, to: ntp}
"#;

/// Everybody has a process; bob has one that was put into his class for good.
pub fn populated() -> Host {
    let mut host = Host::new();
    (0..7).for_each(|at| host.come_or_go(at));
    host
}

/// FIRST stands, with somebody else's objects among it and a process in a class for good.
fn built(sharding: Sharding) -> (Host, Foreign) {
    let mut host = populated();
    host.request.intent.options.sharding = sharding;
    host.go_to_text(FIRST);
    let erin = host.actors["erin"].pid().to_string();
    shaper(&["attach", "bob", &erin]).exits(0);
    let foreign = Foreign::put("1a");
    (host, foreign)
}

/// What a failure must bring back, all of it.
fn everything(host: &mut Host) -> String {
    let observation = host.observe();
    let roots = ["up0", "up1", "up2"].map(|link| run(&format!("tc qdisc show dev {link}")));
    // Counters go on counting, and a root that is made again begins at 0.
    let roots = roots.map(|text| {
        let lines =
            text.lines().map(|line| line.split(" direct_packets").next().map(str::to_string));
        lines.collect::<std::collections::BTreeSet<_>>()
    });
    let places = (Path::new(INSTANCE).exists(), Path::new(NET_CLS).exists());
    let foreign = observation.foreign;
    let seats = host.seats();
    format!("{}{foreign:?}\n{seats:#?}\n{roots:#?}\n{places:?}", lines(&observation.state))
}

/// Runs with step 0, 1, 2… failing, until there is no such step; how many there were.
pub fn every_step_fails(
    host: &mut Host,
    run: impl Fn(&mut Host, execute::Gate<'_>) -> Result<(), Failure>,
) -> usize {
    these_steps_fail(host, 0.., run)
}

/// The same for some steps: the first of them that there is not.
fn these_steps_fail(
    host: &mut Host,
    steps: impl Iterator<Item = usize>,
    run: impl Fn(&mut Host, execute::Gate<'_>) -> Result<(), Failure>,
) -> usize {
    for k in steps {
        let before = everything(host);
        let mut stopped = None;
        let outcome = run(host, &mut stop_before(k, &mut stopped));
        let Some(step) = stopped else {
            outcome.unwrap_or_else(|e| panic!("{}", e.text(false)));
            return k;
        };
        let failure = outcome.expect_err("it was stopped");
        assert_eq!(failure.exit_status(), 1);
        let text = failure.text(false);
        println!("{k}: {step}");
        let Failure::Refused(refusal) = failure else { panic!("{text}") };
        let paths = host.session.kernel.paths(Default::default());
        // Of many commands the message names the first and how many more there are.
        let (said, tc) = (refusal.step.expect("its step"), Tc(&step, &paths).to_string());
        if said.ends_with("commands more") {
            assert_eq!(said.lines().next(), tc.lines().next());
        } else {
            assert_eq!(said, tc);
        }
        assert!(text.ends_with("what was there before is back"), "{text}");
        assert_same(&everything(host), &before, &format!("after {k} steps, at `{step}`"));
    }
    unreachable!("there are fewer steps than numbers")
}

pub fn apply_gated(host: &mut Host, gate: execute::Gate<'_>) -> Result<(), Failure> {
    host.try_apply(gate).map(|_| ())
}

fn a_first_build_that_fails_leaves_nothing() {
    let mut host = populated();
    host.take_up(FIRST).unwrap_or_else(|e| panic!("{}", e.text(false)));
    assert_eq!(host.state().net_cls, NetCls::Unmounted);
    let steps = every_step_fails(&mut host, apply_gated);
    assert!(steps > 40, "{steps} steps");
    host.is_in_sync();
}

fn an_update_that_fails_at_any_step_is_undone() {
    fail_an_update(Sharding::default());
}

/// `everyone` is in a shard before; after it others are too.
fn an_update_of_shards_that_fails_at_any_step_is_undone() {
    fail_an_update(CROWD);
}

fn fail_an_update(sharding: Sharding) {
    let (mut host, foreign) = built(sharding);
    assert_eq!(has_shards(&mut host), sharding == CROWD);
    host.take_up(SECOND).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let steps = match sharding == CROWD {
        true => these_steps_fail(&mut host, some_steps(3), apply_gated),
        false => every_step_fails(&mut host, apply_gated),
    };
    assert!(steps > 60, "{steps} steps");
    host.is_in_sync();
    foreign.is_untouched();
}

/// Somebody's qdisc below a class of ours is replaced, and nobody knows how to make it again. The
/// root that the same run took over on another link is known.
fn a_foreign_root_is_back_also_where_something_else_cannot_be() {
    const ONE: &str =
        "version: 1\nlinks: {up0: 100mbit}\nusers: {ann: {ceil: 5mbit, classid: '1:10'}}\n";
    let mut host = Host::new();
    host.go_to_text(ONE);
    run("tc qdisc add dev up1 root handle 7: tbf rate 80mbit burst 100kb latency 20ms");
    let root = || run("tc qdisc show dev up1 root");
    let before = root();
    host.request.intent.options.takeover = true;
    host.take_up(&ONE.replace("100mbit}", "100mbit, up1: 50mbit}"))
        .unwrap_or_else(|e| panic!("{}", e.text(false)));
    let mut lost = 0;
    for k in 0.. {
        run("tc qdisc replace dev up0 parent 1:10 handle 77: pfifo limit 7");
        let mut stopped = None;
        let Err(failure) = apply_gated(&mut host, &mut stop_before(k, &mut stopped)) else { break };
        let text = failure.text(false);
        assert_eq!(root(), before, "before step {k}, {stopped:?}: {text}");
        let cannot = "the qdisc below class 1:10 on up0, which shaper did not make, cannot be made";
        lost += usize::from(text.contains(cannot));
    }
    assert!(root().contains("htb 1:"));
    println!("lost {lost} times");
    assert!(lost > 2, "lost {lost} times");
}

/// To the classifier that needs no `net_cls`, and back.
fn a_move_that_fails_at_any_step_is_undone() {
    let mut host = populated();
    host.go_to_text(FIRST);
    let untagged = FIRST.replace("0: {rate", "0: {classifier: uid, rate");
    let untagged = untagged.replace("1: {rate", "1: {classifier: uid, rate");
    for (text, root) in [(untagged.as_str(), CLAIMS), (FIRST, NET_CLS)] {
        host.take_up(text).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let steps = every_step_fails(&mut host, |host, gate| host.try_apply(gate).map(drop));
        assert!(steps > 3, "{steps} steps");
        let other = if root == CLAIMS { NET_CLS } else { CLAIMS };
        assert!(Path::new(root).exists() && !Path::new(other).exists(), "{root}");
        assert!(host.plan().1.is_empty(), "nothing is left to do");
    }
}

fn a_clear_that_fails_at_any_step_is_undone() {
    let mut host = populated();
    host.go_to_text(FIRST);
    let steps = every_step_fails(&mut host, |host, gate| {
        apply::clear(&mut host.session.kernel, MAY, gate).map(|_| ())
    });
    assert!(steps > 10, "{steps} steps");
    assert!(!Path::new(NET_CLS).exists());
}

/// A part of this test binary: applies the policy, and is killed before the step with this number.
/// `MAY` and everything else as in the test itself.
pub fn killed_before(k: &str, file: &str) -> ExitCode {
    let k: usize = k.parse().expect("a number");
    let policy = apply::read(Path::new(file)).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let kernel = shaper::host::Kernel::open(None).expect("open the kernel");
    let mut session = apply::Session::new(kernel);
    let request = apply::Request::new(policy, Default::default());
    let mut count = 0;
    let outcome = apply::apply(&mut session, request, MAY, &mut |_, _| {
        if count == k {
            kill(getpid(), Signal::SIGKILL).expect("kill myself");
        }
        count += 1;
        Ok(())
    });
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => panic!("{}", failure.text(false)),
    }
}

/// Whether it was killed: false if there are fewer steps than that.
fn is_killed_before(k: usize, file: &str) -> bool {
    let mut child = myself(&["--killed-before", &k.to_string(), file]);
    let status = child.status().expect("start a run");
    assert!(status.success() || status.signal() == Some(Signal::SIGKILL as i32), "{status}");
    !status.success()
}

/// Whoever sends through a root of ours finds a default class.
#[track_caller]
pub fn nobody_is_cut_off(host: &mut Host) {
    for (link, tree) in host.state().trees {
        let default = tree.classes.contains_key(&shaper::units::ClassId::DEFAULT);
        assert!(default, "no default class on {link}");
    }
}

fn a_first_build_killed_at_any_step_is_finished_by_the_next_apply() {
    let mut host = populated();
    host.take_up(FIRST).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let file = policy(FIRST);
    let mut k = 0;
    while is_killed_before(k, &file) {
        println!("killed before step {k}");
        nobody_is_cut_off(&mut host);
        host.apply();
        host.is_in_sync();
        apply::clear(&mut host.session.kernel, MAY, &mut |_, _| Ok(()))
            .unwrap_or_else(|e| panic!("{}", e.text(false)));
        assert!(!Path::new(NET_CLS).exists());
        k += 1;
    }
    assert!(k > 40, "{k} steps");
}

/// So many claims are made beside the classes, by a thread of their own.
fn a_crowds_first_build_that_ends_anywhere_leaves_no_class_without_its_claim() {
    let line = |n: u32| format!("  c{n}: {{ceil: 50mbit, uids: [{}]}}\n", 100_000 + n);
    let lines: String = (0..600).map(line).collect();
    let text = format!("version: 1\nlinks: {{up0: {{rate: 60mbit}}}}\nusers:\n{lines}");
    let mut host = Host::new();
    host.take_up(&text).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let before = everything(&mut host);
    let file = policy(&text);
    for k in [3, 300, 604, 620, 700, 1_000, 1_790] {
        let outcome = host.try_apply(&mut stop_before(k, &mut None));
        assert_eq!(outcome.expect_err("it was stopped").exit_status(), 1);
        assert_same(&everything(&mut host), &before, &format!("after {k} steps"));

        assert!(is_killed_before(k, &file));
        host.session.kernel.look_for_hierarchy().expect("it is mounted");
        // A class that nobody claims is somebody else's.
        assert_eq!(host.observe().foreign, [], "killed before step {k}");
        nobody_is_cut_off(&mut host);
        host.apply();
        host.is_in_sync();
        apply::clear(&mut host.session.kernel, MAY, &mut |_, _| Ok(()))
            .unwrap_or_else(|e| panic!("{}", e.text(false)));
    }
}

fn an_update_killed_at_any_step_is_finished_by_the_next_apply() {
    let (mut host, foreign) = built(Sharding::default());
    let file = policy(SECOND);
    let (first, seats) = (host.state(), host.seats());
    let mut last = 0;
    for k in some_steps(0) {
        if !is_killed_before(k, &file) {
            break;
        }
        println!("killed before step {k}");
        nobody_is_cut_off(&mut host);
        host.go_to_text(SECOND);
        host.is_in_sync();
        foreign.is_untouched();
        start_again(&mut host, &first, &seats);
        last = k;
    }
    assert!(last > 60, "{last} steps");
}

/// Back to FIRST, so that the next round begins as this one did.
fn start_again(
    host: &mut Host,
    first: &shaper::tree::KernelState,
    seats: &std::collections::BTreeMap<&'static str, String>,
) {
    host.go_to(first);
    host.go_to_text(FIRST);
    let erin = host.actors["erin"].pid().to_string();
    fs::write(Path::new(INSTANCE).join("user/bob/pinned/cgroup.procs"), erin).expect("seat erin");
    assert_same(&lines(&host.state()), &lines(first), "to begin with");
    assert_eq!(host.seats(), *seats);
}

/// Messages to the kernel go in batches, so a killed run ends between two of these; here it ends
/// between any two steps.
fn an_update_cut_after_any_step_is_finished_by_the_next_apply() {
    cut_an_update(Sharding::default(), 1);
}

fn an_update_of_shards_cut_after_any_step_is_finished_by_the_next_apply() {
    cut_an_update(CROWD, 2);
}

fn has_shards(host: &mut Host) -> bool {
    host.state().trees.values().any(|tree| !tree.shards.is_empty())
}

fn cut_an_update(sharding: Sharding, from: usize) {
    let (mut host, foreign) = built(sharding);
    let (first, seats) = (host.state(), host.seats());
    for k in some_steps(from) {
        host.take_up(SECOND).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let cut = cut_after(&mut host, k);
        nobody_is_cut_off(&mut host);
        host.go_to_text(SECOND);
        host.is_in_sync();
        foreign.is_untouched();
        start_again(&mut host, &first, &seats);
        if !cut {
            assert!(k > 40, "{k} steps");
            break;
        }
    }
}

/// The first round of an apply, left where it is after so many steps; false: all were performed.
fn cut_after(host: &mut Host, steps: usize) -> bool {
    let (session, request) = (&mut host.session, &host.request);
    let look = session.look(request).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let mut meaning = look.meaning;
    let (plan, _) =
        session.plan(&request.intent, &mut meaning).unwrap_or_else(|e| panic!("{}", e.text(false)));
    let facts = meaning.facts();
    let mut stopped = None;
    let mut gate = stop_before(steps, &mut stopped);
    let mut perform = |session: &mut apply::Session, phase: Phase| {
        let kernel = &mut session.kernel;
        let locked = kernel.lock(Duration::from_secs(10)).expect("the lock");
        let (_, done) = execute::perform(kernel, &locked, facts, plan.phase(phase), &mut gate);
        drop(locked);
        match done.map_err(|failed| *failed.source) {
            Ok(_) => true,
            Err(Cause::Stopped(_)) => false,
            Err(other) => panic!("{other}"),
        }
    };
    if !perform(session, Phase::Build) {
        return true;
    }
    apply::place(session, &meaning.model, &facts.accounts)
        .unwrap_or_else(|e| panic!("{}", e.text(false)));
    !perform(session, Phase::TearDown)
}
