//! `clear` after anything: links have the kernel's own queue, processes are nobody's, no directory
//! is left, and the mount is gone if it was ours and nobody else uses it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::draft::Draft;
use crate::host::{Host, assert_same, lines, stop_before};
use crate::support::cell::myself;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, binary, policy, shaper};
use crate::support::random::Random;

tests!(
    On::Host => clear_after_anything_leaves_nothing, a_signal_brings_back_what_was_there,
        a_run_under_nohup_is_not_interrupted_by_a_hangup;
);

fn clear_after_anything_leaves_nothing() {
    let mut random = Random::new(3);
    let mut host = Host::new();
    let roots = || ["up0", "up1", "up2"].map(|link| run(&format!("tc qdisc show dev {link}")));
    let before = roots();
    let mut draft = Draft::empty(&mut random);
    for round in 0..40 {
        for _ in 0..1 + random.below(3) {
            draft = draft.next(&mut random);
            host.come_or_go(random.index(16));
            if host.take_up(&draft.to_string()).is_err() {
                continue;
            }
            let k = random.below(60).to_string();
            match random.below(3) {
                0 => drop(host.apply()),
                1 => {
                    let mut stopped = None;
                    let _ = host.try_apply(&mut stop_before(random.index(60), &mut stopped));
                }
                _ => {
                    let file = policy(&draft.to_string());
                    let mut child = myself(&["--killed-before", &k, &file]);
                    child.stderr(Stdio::null()).status().expect("start a run");
                }
            }
        }
        let engine = Path::new(NET_CLS).join("engine");
        let shared = round % 4 == 0 && Path::new(NET_CLS).exists();
        if shared {
            fs::create_dir(&engine).expect("make a directory");
        }
        shaper(&["clear"]).exits(0);
        assert_eq!(roots(), before);
        for (name, seat) in host.seats() {
            assert_eq!(seat, "/", "{name} sits somewhere");
        }
        assert!(!Path::new(NET_CLS).join("shaper").exists());
        assert_eq!(Path::new(NET_CLS).exists(), shared, "the mount");
        if shared {
            fs::remove_dir(&engine).expect("remove the directory");
            nix::mount::umount("/run/shaper/net_cls").expect("unmount");
            fs::remove_dir_all("/run/shaper").expect("remove the mount point");
        }
    }
}

/// Many users, so that a run takes long enough to be interrupted in it.
fn many(users: std::ops::Range<u32>, ceil: u32) -> String {
    let mut text = "version: 1\nlinks: {up0: {rate: 900mbit}}\nusers:\n".to_string();
    for uid in users {
        text += &format!("  u{uid}: {{ceil: {ceil}mbit, uids: [{uid}]}}\n");
    }
    text
}

fn a_signal_brings_back_what_was_there() {
    let mut host = Host::new();
    let few = many(5000..5060, 3);
    host.go_to_text(&few);
    let before = lines(&host.state());
    let file = policy(&many(5000..5400, 4));
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    // The cell's keeper blocks them, and what it starts inherits that.
    signals.iter().copied().collect::<SigSet>().thread_unblock().expect("unblock signals");
    let (mut interrupted, mut delay) = (0, Duration::from_millis(20));
    for signal in signals.iter().cycle().take(80) {
        if interrupted == 10 {
            break;
        }
        let mut child = Command::new(binary())
            .args(["apply", &file])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start shaper");
        sleep(delay);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let _ = kill(pid, *signal);
        let status = child.wait().expect("wait for shaper");
        println!("{signal} after {delay:?}: {status}");
        match status.code() {
            // Before it listens for signals it dies of them; nothing is touched yet.
            None => delay += Duration::from_millis(20),
            // It came too late: nearer to the beginning next time.
            Some(0) => {
                host.go_to_text(&few);
                delay = delay * 2 / 3;
                continue;
            }
            code => {
                assert_eq!(code, Some(128 + *signal as i32));
                interrupted += 1;
                delay += Duration::from_millis(11);
            }
        }
        assert_same(&lines(&host.state()), &before, &format!("after {signal}"));
    }
    assert!(interrupted > 3, "only {interrupted} runs were interrupted");
}

fn a_run_under_nohup_is_not_interrupted_by_a_hangup() {
    let mut host = Host::new();
    let file = policy(&many(5000..5200, 4));
    [Signal::SIGHUP].into_iter().collect::<SigSet>().thread_unblock().expect("unblock signals");
    let mut child = Command::new("nohup")
        .arg(binary())
        .args(["apply", &file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start nohup");
    // Only once nohup has become it is the signal ignored.
    let name = format!("/proc/{}/comm", child.id());
    soon("it runs", Duration::from_secs(10), || {
        fs::read_to_string(&name).is_ok_and(|name| name == "shaper\n")
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    while child.try_wait().expect("wait for shaper").is_none() {
        let _ = kill(pid, Signal::SIGHUP);
        sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("its status").success());
    host.session.kernel.look_for_hierarchy().expect("look for it");
    assert_eq!(host.state().claims.len(), 200);
}
