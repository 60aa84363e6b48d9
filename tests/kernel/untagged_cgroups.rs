//! Without `net_cls`: what becomes of the cgroups (v2) of `run` and `attach` where a change is
//! taken back, where nobody may write there, and where somebody has the one above in use.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::processes::all_passes_through;
use crate::support::accounts::{BOB, ROOT};
use crate::support::cell::SCRATCH;
use crate::support::command::{Done, run_with};
use crate::support::harness::{On, tests};
use crate::support::program::{CLAIMS, binary, policy};
use crate::support::random::Random;
use crate::support::unit::Unit;
use crate::support::world::{Family, World};
use crate::untagged_run::{Own, each_new_socket_is, pour, unified};

tests!(
    On::HostAndUml => a_change_that_is_taken_back_brings_back_what_it_took_out,
        who_may_not_write_there_leaves_it_to_whoever_may;
    On::Host => a_move_that_is_taken_back_leaves_no_cgroup,
        a_move_from_tags_is_left_to_whoever_may_write_there,
        a_move_that_was_killed_keeps_nobody_who_may_not_end_it_from_applying,
        what_cannot_go_back_is_named_and_keeps_nothing_else,
        a_move_that_is_killed_anywhere_takes_along_what_run_put_there;
);

fn a_change_that_is_taken_back_brings_back_what_it_took_out() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let ann = own.class("ann");
    // The lower pid, which is put back first.
    let deep = world.actor(BOB);
    let mut actor = world.actor(BOB);
    for pid in [deep.pid(), actor.pid()] {
        unit.take(pid);
    }
    let above = unified(actor.pid());
    let both = [deep.pid(), actor.pid()].map(|pid| pid.to_string());
    own.shaper(&["attach", "ann", &both[0], &both[1]]).exits(0);
    pour(&mut world, &mut actor, Family::V6);
    all_passes_through(&ann);
    let at = unified(actor.pid());
    let without = own.text.replace("  ann: 30mbit\n", "");
    own.shaper(&["apply", "--confirm", "2", &policy(&without)]).exits(0);
    assert_eq!(unified(actor.pid()), above);
    // No cgroup can be made there any more, which keeps no other from coming back.
    unit.take_below("1/2/3/4/5/6/7/8", deep.pid());
    world.until("it is taken back", |_| {
        own.shaper(&["plan", "--exit-code", &policy(&own.text)]).status == Some(0)
    });
    world.until("its process too", |_| unified(actor.pid()) == at);
    assert_eq!(own.class("ann"), ann, "she has her number again");
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.is_in_sync(&own.text);
    own.apply(&own.text);
    assert_eq!(unified(actor.pid()), at, "the next apply finds it there");
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.clear();
    assert_eq!(unified(actor.pid()), above);
}

fn a_move_that_is_taken_back_leaves_no_cgroup() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.with("bpf"));
    let ann = own.class("ann");
    let mut actor = world.actor(BOB);
    unit.take(actor.pid());
    let above = unified(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    own.shaper(&["apply", "--confirm", "2", &policy(&own.text)]).exits(0);
    assert_eq!(own.cgroups().len(), 1);
    each_new_socket_is(&mut world, &mut actor, &ann);
    world.until("it is taken back", |_| own.cgroups().is_empty());
    assert_eq!(unified(actor.pid()), above);
    world.until("the instance is where it was", |_| {
        let plan = own.shaper(&["plan", "--exit-code", &policy(&own.with("bpf"))]);
        plan.status == Some(0)
    });
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.clear();
}

/// shaper as the daemon's unit confines it (ProtectControlGroups=): the hierarchy is read-only.
fn confined(own: &Own, words: &[&str]) -> Done {
    let mut command = Command::new("unshare");
    let script = format!(r#"mount -o remount,bind,ro {SCRATCH}/units && exec "$@""#);
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(binary());
    command.args(["--cgroup", &own.name]).args(words);
    run_with(command, "")
}

fn who_may_not_write_there_leaves_it_to_whoever_may() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let [ann, served] = ["ann", "served"].map(|user| own.class(user));
    let mut actor = world.actor(BOB);
    unit.take_below("payload", actor.pid());
    let above = unified(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    each_new_socket_is(&mut world, &mut actor, &ann);
    // Her line goes, and her class; the cgroup stays, and nobody's class is by it.
    let without = own.text.replace("  ann: 30mbit\n", "");
    let done = confined(&own, &["apply", &policy(&without)]).exits(0);
    assert_eq!(done.stderr, "", "no news: the next run by hand sees to it");
    assert_eq!(own.cgroups().len(), 1);
    own.is_in_sync(&without);
    each_new_socket_is(&mut world, &mut actor, &served);
    // Nor when the line is there again and another process of hers, without anybody to tidy.
    confined(&own, &["apply", &policy(&own.text)]).exits(0);
    own.is_in_sync(&own.text);
    each_new_socket_is(&mut world, &mut actor, &served);
    assert_eq!(own.cgroups().len(), 1);
    // Who may write there puts an end to it before the line's cgroups count again.
    let other = own.shaper(&["run", "ann", "--", "true"]);
    assert_eq!(other.status, Some(0), "{}", other.stderr);
    assert_eq!(unified(actor.pid()), above, "out of what was left");
    each_new_socket_is(&mut world, &mut actor, &served);
    own.apply(&own.text);
    assert_eq!(own.cgroups(), Vec::<String>::new());
    // An apply by hand does it as well.
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    confined(&own, &["apply", &policy(&without)]).exits(0);
    assert_eq!(own.cgroups().len(), 1);
    own.apply(&without);
    assert_eq!(own.cgroups(), Vec::<String>::new());
    assert_eq!(unified(actor.pid()), above);
    own.clear();
}

/// It would lose what was put into a class.
fn a_move_from_tags_is_left_to_whoever_may_write_there() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    let tagged = own.with("bpf");
    own.apply(&tagged);
    let ann = own.class("ann");
    let mut actor = world.actor(BOB);
    unit.take(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    fs::create_dir_all(CLAIMS).expect("where claims would be copied to");
    let last_made = || fs::metadata(CLAIMS).and_then(|it| it.modified()).expect("its time");
    let before = last_made();
    let refused = confined(&own, &["apply", &policy(&own.text)]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains(":user:ann.shaper cannot be made"), "{}", refused.stderr);
    assert!(refused.stderr.contains("read-only here"), "{}", refused.stderr);
    assert_eq!(last_made(), before, "nothing was copied for that");
    own.is_in_sync(&tagged);
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.apply(&own.text);
    own.is_in_sync(&own.text);
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.clear();
}

/// As a run leaves it that was killed before it put anything into cgroups.
fn a_move_that_was_killed_keeps_nobody_who_may_not_end_it_from_applying() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.with("bpf"));
    let [ann, served] = ["ann", "served"].map(|user| own.class(user));
    let mut actor = world.actor(BOB);
    unit.take(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    own.shaper(&["apply", "--confirm", "600", &policy(&own.text)]).exits(0);
    let refused = own.shaper(&["clear"]).exits(4).stderr;
    let (_, guard) = refused.split_once("guard process ").expect("who waits");
    let guard = guard.split(')').next().and_then(|pid| pid.parse().ok()).expect("its pid");
    kill(Pid::from_raw(guard), Signal::SIGKILL).expect("kill it");
    unit.take(actor.pid());
    let faster = own.text.replace("bob: 20mbit", "bob: 25mbit");
    for _ in 0..2 {
        let done = confined(&own, &["apply", &policy(&faster)]).exits(0);
        assert!(done.stderr.contains("by hand takes it along"), "{}", done.stderr);
    }
    each_new_socket_is(&mut world, &mut actor, &served);
    // Nor does a confirmation empty the place in which it still is.
    let confirmed = ["apply", "--confirm", "600", &policy(&own.text)];
    confined(&own, &confirmed).exits(0);
    own.shaper(&["confirm"]).exits(0);
    own.apply(&faster);
    own.is_in_sync(&faster);
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.clear();
}

fn what_cannot_go_back_is_named_and_keeps_nothing_else() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let ann = own.class("ann");
    let mut actor = world.actor(BOB);
    unit.take(actor.pid());
    let pid = actor.pid().to_string();
    let other = world.actor(BOB);
    unit.take_below("payload", other.pid());
    let payload = unified(other.pid());
    own.shaper(&["attach", "ann", &pid, &other.pid().to_string()]).exits(0);
    let at = unified(actor.pid());
    unit.share_out();
    let refused = own.shaper(&["release", &pid]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);
    for word in [&pid, "cannot leave", "shares out controllers", "cgroup.subtree_control"] {
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    assert_eq!(unified(actor.pid()), at);
    each_new_socket_is(&mut world, &mut actor, &ann);
    // All others are free, and are said to be.
    let refused = own.shaper(&["release", "ann"]).exits(1);
    assert!(refused.stderr.contains(&format!("process {pid} cannot leave")), "{}", refused.stderr);
    let freed = format!("process {}: from user/ann to ", other.pid());
    assert!(refused.stdout.starts_with(&freed), "{}", refused.stdout);
    assert_eq!((unified(actor.pid()), unified(other.pid())), (at, payload));
    // Where tags are read nobody's class is by that.
    own.apply(&own.with("bpf"));
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.shaper(&["release", &pid]).exits(0);
    each_new_socket_is(&mut world, &mut actor, &own.class("bob"));
    // Her line goes: what stays in the cgroup is its unit's all the same, and is named.
    let without = own.text.replace("  ann: 30mbit\n", "");
    let done = own.apply(&without);
    assert!(done.stderr.contains("cannot leave"), "{}", done.stderr);
    own.is_in_sync(&without);
    each_new_socket_is(&mut world, &mut actor, &own.class("served"));
    // Nothing of ours but that is left by `clear`, and the process goes on.
    for turn in 0..2 {
        // In the second one with a claim of hers, whose removal says so: once is enough.
        if turn == 1 {
            own.apply(&own.text);
            own.shaper(&["attach", "ann", &pid]).exits(0);
        }
        let cleared = own.shaper(&["clear"]).exits(0);
        assert_eq!(cleared.stderr.matches("cannot leave").count(), 1, "{}", cleared.stderr);
        assert_eq!(own.cgroups().len(), 1);
    }
    drop((actor, other));
    world.until("its process is gone", |_| own.shaper(&["clear"]).stderr.is_empty());
    own.clear();
}

/// Killed after so many microseconds, whatever it does then.
fn a_move_that_is_killed_anywhere_takes_along_what_run_put_there() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.with("bpf"));
    let ann = own.class("ann");
    let mut actor = world.actor(ROOT);
    unit.take(actor.pid());
    let above = unified(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    let mut random = Random::new(3);
    let mut killed = 0;
    // As long as a run takes, on a machine that is busy with other things, too.
    let mut takes = Duration::from_millis(60);
    for turn in 0..24 {
        let (from, to) = [("bpf", "uid"), ("uid", "bpf")][turn % 2];
        let mut run = own.command(&["apply", &policy(&own.with(to))]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
        sleep(takes * random.index(100) as u32 / 100);
        let _ended = run.kill();
        killed += usize::from(!run.wait().expect("its end").success());
        // On, or back and then on.
        if random.maybe(3) {
            own.apply(&own.with(from));
            assert_eq!(own.class("ann"), ann, "turn {turn}");
        }
        let began = Instant::now();
        own.apply(&own.with(to));
        takes = (takes + began.elapsed()) / 2;
        own.is_in_sync(&own.with(to));
        assert_eq!(own.class("ann"), ann, "turn {turn}");
        let pinned = own.cgroups().len();
        assert_eq!(pinned, usize::from(to == "uid"), "turn {turn}: {to}");
        if turn % 12 < 2 {
            each_new_socket_is(&mut world, &mut actor, &ann);
        }
        let list = own.directory("user/ann/pinned").join("cgroup.procs");
        let is_listed = fs::read_to_string(list)
            .is_ok_and(|text| text.lines().any(|line| line == actor.pid().to_string()));
        let is_pinned = unified(actor.pid()).ends_with(":user:ann.shaper");
        assert_eq!((is_listed, is_pinned), (to == "bpf", to == "uid"), "turn {turn}");
    }
    println!("{killed} runs were killed");
    assert!(killed > 8, "{killed} runs were killed");
    own.clear();
    assert_eq!(unified(actor.pid()), above);
}
