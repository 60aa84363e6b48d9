//! The world changes under a run's feet, and the kernel refuses: what was there before is back, as
//! far as it can be, and the next apply gets there.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shaper::apply::Applied;
use shaper::failure::Failure;
use shaper::host::execute::Cause;
use shaper::plan::{Change, Step, Whole};
use shaper::policy::Diagnostic;
use shaper::tree::Claim;
use shaper::units::Minor;

use crate::host::{Host, INSTANCE, assert_same, lines};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::NET_CLS;

tests!(
    On::Host => a_class_in_the_way_is_taken_into_account, a_queue_in_the_way_is_refused,
        an_undo_leaves_what_the_run_did_not_make,
        a_class_that_a_foreign_object_holds_stays_retired,
        a_link_that_goes_ends_its_own_steps_only, a_link_that_goes_is_no_part_of_an_undo,
        a_link_that_is_renamed_gets_its_state_back, a_hierarchy_that_is_unmounted_comes_back,
        a_hierarchy_unmounted_during_a_first_build_leaves_nothing,
        a_read_only_hierarchy_is_refused;
);

const BEFORE: &str = r#"
version: 1
links: {up0: {rate: 400mbit}, up1: {rate: 300mbit}}
users: {ann: {rate: 10mbit}, bob: {ceil: 30mbit}}
groups: {team: {ceil: 60mbit, users: [bob]}}
rules: [{dport: 80, to: ann}]
"#;

const AFTER: &str = r#"
version: 1
links: {up0: {rate: 500mbit}, up1: {rate: 200mbit}}
users: {ann: {rate: 20mbit}, bob: {ceil: 40mbit}, carol: {ceil: 5mbit}}
classes: {nfs: {rate: 3mbit}}
rules: [{dport: 81, to: ann}, {dport: 2049, to: nfs}]
"#;

fn built() -> Host {
    let mut host = Host::new();
    (0..3).for_each(|at| host.come_or_go(at));
    take_up(&mut host, BEFORE);
    host.apply();
    take_up(&mut host, AFTER);
    host
}

#[track_caller]
fn take_up(host: &mut Host, text: &str) {
    host.take_up(text).unwrap_or_else(|e| panic!("{}", e.text(false)));
}

/// Applies, and does something of its own just before the first step that is like this.
fn apply_with(
    host: &mut Host,
    like: impl Fn(&Step) -> bool,
    mut act: impl FnMut(),
) -> Result<Applied, Failure> {
    let mut done = false;
    let outcome = host.try_apply(&mut |_, step| {
        if !done && like(step) {
            done = true;
            act();
        }
        Ok(())
    });
    assert!(done, "there is no such step");
    outcome
}

/// The same, and the run is stopped before the first step after that which is like `last`.
fn fail_with(
    host: &mut Host,
    like: impl Fn(&Step) -> bool,
    last: impl Fn(&Step) -> bool,
    mut act: impl FnMut(),
) -> Result<Applied, Failure> {
    let mut done = false;
    host.try_apply(&mut |_, step| {
        if done && last(step) {
            return Err(Cause::Stopped("stopped by the test".to_string()));
        }
        if !done && like(step) {
            done = true;
            act();
        }
        Ok(())
    })
}

/// The refusal's text; it must be one, and end with exit status 1.
#[track_caller]
fn refused(outcome: Result<Applied, Failure>) -> String {
    let failure = outcome.expect_err("it must be refused");
    let text = failure.text(false);
    println!("{text}");
    assert_eq!(failure.exit_status(), 1, "{text}");
    text
}

#[track_caller]
fn is_back(host: &mut Host, before: &str, text: &str) {
    assert!(text.ends_with("what was there before is back"), "{text}");
    assert_same(&lines(&host.state()), before, "after the undo");
}

#[track_caller]
fn gets_there(host: &mut Host) {
    host.apply();
    host.is_in_sync();
}

fn adds_class(step: &Step) -> bool {
    matches!(step, Step::Class(.., Change::Add(_)))
}

fn adds_filter(step: &Step) -> bool {
    matches!(step, Step::Filter(.., Whole::Add(_)))
}

/// The kernel contradicts the look: another look, another plan, and the run goes on.
fn a_class_in_the_way_is_taken_into_account() {
    let mut host = built();
    let minor = std::cell::Cell::new(0);
    let note = |step: &Step| {
        minor.set(step.class().map_or(0, |id| id.minor().0));
        adds_class(step)
    };
    let outcome = apply_with(&mut host, note, || {
        let minor = minor.get();
        run(&format!(
            "tc class add dev up0 parent 1: classid 1:{minor:x} htb rate 1mbit quantum 2000"
        ));
    });
    outcome.unwrap_or_else(|failure| panic!("{}", failure.text(false)));
    host.is_in_sync();
}

/// What the look missed stays: an undo takes back what this run's own steps did, and nothing else.
fn an_undo_leaves_what_the_run_did_not_make() {
    let mut host = built();
    // All of these are as ours are, and appear between the look and the refusal.
    let strange = ["user/mallory", "retired/dead"];
    let text = refused(fail_with(&mut host, adds_class, adds_filter, || {
        for (claim, classid) in strange.iter().zip(["0x1dead", "0x1dead"]) {
            let path = Path::new(INSTANCE).join(claim);
            fs::create_dir_all(&path).expect("a directory");
            fs::write(path.join("net_cls.classid"), classid).expect("its classid");
        }
        run("tc class add dev up0 parent 1:1 classid 1:dead htb rate 1mbit quantum 2000");
        run("ip link add up9 type veth peer name up9-far");
        let mark = shaper::tree::Mark::for_instance("shaper").0;
        run(&format!("tc qdisc add dev up9 root handle 1: htb default fffe r2q {mark}"));
    }));
    assert!(text.ends_with("what was there before is back"), "{text}");
    let state = host.state();
    for claim in strange {
        assert!(state.claims.contains_key(&claim.parse().expect("a claim")), "{claim} is gone");
    }
    assert!(state.trees.keys().any(|port| port.link.as_str() == "up9"), "the tree on up9 is gone");
    let classes = run("tc class show dev up0");
    assert!(classes.contains("class htb 1:dead "), "{classes}");
}

fn a_queue_in_the_way_is_refused() {
    let mut host = built();
    run("tc class add dev up0 parent 1:1 classid 1:9 htb rate 1mbit quantum 2000");
    let before = lines(&host.state());
    // A leaf's handle is its class's minor: any qdisc on the link may have it already.
    let outcome = apply_with(&mut host, adds_class, || {
        for handle in 0x10..0x20 {
            run_if_free(&format!(
                "tc qdisc add dev up0 parent 1:9 handle {handle:x}: pfifo limit 5"
            ));
        }
    });
    let text = refused(outcome);
    is_back(&mut host, &before, &text);
    run("tc qdisc del dev up0 parent 1:9");
    gets_there(&mut host);
}

/// Not every handle is free.
fn run_if_free(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let _ = std::process::Command::new(words[0]).args(&words[1..]).output();
}

fn a_class_that_a_foreign_object_holds_stays_retired() {
    let mut host = built();
    let claims = host.state().claims;
    let classid = |claim: &str| claims[&claim.parse().expect("a claim")];
    let (team, bob) = (classid("group/team"), classid("user/bob"));
    // HTB deletes no class that has another below it, or that a filter is bound to.
    run(&format!("tc class add dev up0 parent {team} classid 1:9 htb rate 1mbit quantum 2000"));
    run(&format!(
        "tc filter add dev up0 parent 1: pref 50 protocol ip u32 match ip dport 9 0xffff flowid {bob}"
    ));
    host.apply();
    assert!(host.apply().steps.is_empty(), "in sync all the same");
    let retired = |host: &mut Host| -> Vec<Minor> {
        host.state().claims.keys().filter_map(Claim::retired).collect()
    };
    assert_eq!(retired(&mut host), [bob.minor(), team.minor()]);
    run("tc class del dev up0 classid 1:9");
    run("tc filter del dev up0 parent 1: pref 50");
    gets_there(&mut host);
    assert_eq!(retired(&mut host), Vec::<Minor>::new());
}

fn on_up1(step: &Step) -> bool {
    step.link().is_some_and(|link| link.as_str() == "up1")
}

fn a_link_that_goes_ends_its_own_steps_only() {
    let mut host = built();
    let outcome = apply_with(&mut host, on_up1, || drop(run("ip link del up1")));
    let applied = outcome.unwrap_or_else(|failure| panic!("{}", failure.text(false)));
    let is_said = |it: &Diagnostic| it.message.contains("up1") && it.message.contains("not there");
    assert!(applied.warnings.iter().any(is_said), "{:?}", applied.warnings);
    let links: Vec<_> = host.state().trees.into_keys().collect();
    assert_eq!(links.iter().map(|port| port.link.as_str()).collect::<Vec<_>>(), ["up0"]);
    take_up(&mut host, &AFTER.replace(", up1: {rate: 200mbit}", ""));
    host.is_in_sync();
}

fn a_link_that_goes_is_no_part_of_an_undo() {
    let mut host = built();
    let before = host.state();
    let text = refused(fail_with(&mut host, on_up1, adds_filter, || drop(run("ip link del up1"))));
    assert!(
        text.ends_with("what was there before is back, but for up1: no such link now"),
        "{text}"
    );
    let mut rest = before;
    rest.trees.retain(|port, _| port.link.as_str() == "up0");
    rest.clsact.retain(|link, _| link.as_str() == "up0");
    assert_same(&lines(&host.state()), &lines(&rest), "after the undo");
}

fn a_link_that_is_renamed_gets_its_state_back() {
    let mut host = built();
    let before = lines(&host.state());
    let rename = || drop(run("ip link set up1 name up1x"));
    let text = refused(fail_with(&mut host, on_up1, adds_filter, rename));
    assert!(text.ends_with("what was there before is back"), "{text}");
    let renamed = before.replace("up1 ", "up1x ").replace("\"up1\"", "\"up1x\"");
    assert_same(&lines(&host.state()), &renamed, "after the undo");
    run("ip link set up1x name up1");
    gets_there(&mut host);
}

fn makes_claim(step: &Step) -> bool {
    matches!(step, Step::Claim(_, Change::Add(_)))
}

fn unmount() {
    umount2(NET_CLS, MntFlags::MNT_DETACH).expect("unmount the hierarchy");
}

fn a_hierarchy_that_is_unmounted_comes_back() {
    let mut host = built();
    let before = lines(&host.state());
    let text = refused(apply_with(&mut host, makes_claim, unmount));
    is_back(&mut host, &before, &text);
    gets_there(&mut host);
}

fn a_hierarchy_unmounted_during_a_first_build_leaves_nothing() {
    let mut host = Host::new();
    host.come_or_go(0);
    take_up(&mut host, BEFORE);
    let text = refused(apply_with(
        &mut host,
        |step| matches!(step, Step::Filter(.., Whole::Add(_))),
        unmount,
    ));
    assert!(text.ends_with("what was there before is back"), "{text}");
    assert!(!Path::new("/run/shaper").exists());
    gets_there(&mut host);
}

fn a_read_only_hierarchy_is_refused() {
    let mut host = built();
    let before = lines(&host.state());
    let remount = |flags| {
        let none: Option<&str> = None;
        mount(none, NET_CLS, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)
            .expect("remount the hierarchy");
    };
    let text = refused(apply_with(&mut host, makes_claim, || remount(MsFlags::MS_RDONLY)));
    assert!(text.contains("Read-only file system"), "{text}");
    is_back(&mut host, &before, &text);
    remount(MsFlags::empty());
    gets_there(&mut host);
    // Turned read-only in the middle, what was made in it stays, and the message says what.
    take_up(&mut host, BEFORE);
    let writes = |step: &Step| matches!(step, Step::Class(.., Change::Add(_)));
    let text = refused(apply_with(&mut host, writes, || remount(MsFlags::MS_RDONLY)));
    assert!(text.contains("undoing it failed too"), "{text}");
    remount(MsFlags::empty());
    gets_there(&mut host);
    assert!(fs::exists(INSTANCE).expect("look"));
}
