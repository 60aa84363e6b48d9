//! `shaper edit` beside the daemon that follows the file.

use std::fs;

use nix::sys::signal::Signal;

use super::edit::{
    answer, asks, ceil_of_ann, copy, edit, editor, ends, next, once_more, read, says, shaped,
};
use super::invoke::text;
use super::terminal::PATIENCE;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::directory;

tests!(On::Host =>
    the_daemon_takes_what_was_written, a_daemon_may_begin_and_end_meanwhile
);

fn the_daemon_takes_what_was_written() {
    let path = shaped();
    let mut daemon = Daemon::start(&["watch", "--skip-unknown", &path]);
    // Its file is the one that is edited where none is named, and read as the daemon reads it.
    next(&text("ann: 30mbit\n  no-such-account: 1mbit"));
    let terminal = edit("");
    let question = format!("y: write {path}, which the daemon (process {}) follows;", daemon.pid());
    answer(&terminal, &question, "y");
    let screen = ends(&terminal, 0);
    let said = format!("{path} is written, and in force: the daemon has taken it");
    assert!(screen.contains(&said), "{screen}");
    assert!(ceil_of_ann().contains("ceil 30Mbit"));
    assert_eq!(read(&path), text("ann: 30mbit\n  no-such-account: 1mbit"));
    // Another policy than the daemon's is not edited to be undone.
    let other = format!("{SCRATCH}/other.yaml");
    fs::write(&other, text("ann: 40mbit")).expect("another policy");
    once_more(&terminal, &other);
    let screen = ends(&terminal, 4);
    let cure =
        "and would undo this as soon as it looks again; edit that file (shaper edit), or end";
    assert!(says(&screen, cure) && !screen.contains("--despite-daemon"), "{screen}");
    // A drop-in of the daemon's.
    let drop_ins = path.replace(".yaml", ".d");
    fs::create_dir(&drop_ins).expect("the folder");
    next("users: {bob: 5mbit}\n");
    once_more(&terminal, &format!("{drop_ins}/bob.yaml"));
    answer(&terminal, "y: write", "y");
    ends(&terminal, 0);
    assert!(directory("user/bob").exists());
    // Its file, which somebody removed.
    fs::remove_file(&path).expect("remove it");
    next(&text("ann: 35mbit"));
    once_more(&terminal, "");
    answer(&terminal, &question, "y");
    ends(&terminal, 0);
    assert_eq!(read(&path), text("ann: 35mbit"));
    assert!(ceil_of_ann().contains("ceil 35Mbit"));
    // Whoever does not want to wait for its answer need not.
    daemon.signal(Signal::SIGSTOP);
    next(&text("ann: 36mbit"));
    once_more(&terminal, "");
    answer(&terminal, &question, "y");
    soon("it is written", PATIENCE, || read(&path) == text("ann: 36mbit"));
    terminal.press(&["C-c"]);
    let screen = ends(&terminal, 130);
    assert!(screen.contains("is written, and what it says is not in force yet"), "{screen}");
    daemon.signal(Signal::SIGCONT);
    let is_taken = || ceil_of_ann().contains("ceil 36Mbit");
    soon("it is taken", PATIENCE, is_taken);
    // One that ends while the editor is open takes nothing.
    next(&text("ann: 37mbit"));
    let pid = daemon.pid();
    editor(&format!(
        "cp {SCRATCH}/next \"$1\"; kill {pid}; until grep -q '^State:.Z' /proc/{pid}/status; do sleep 0.05; done"
    ));
    once_more(&terminal, "");
    answer(&terminal, &format!("y: apply, and write {path};"), "y");
    ends(&terminal, 0);
    assert!(daemon.ends_within(PATIENCE).success());
    assert!(ceil_of_ann().contains("ceil 37Mbit"));
}

/// Whoever begins or ends while a question is open, or the answer is waited for: what was typed is
/// in force once, and the file says it.
fn a_daemon_may_begin_and_end_meanwhile() {
    let path = shaped();
    let is_in_force = |text: &str, ceil: &str| {
        assert_eq!(read(&path), text);
        let class = ceil_of_ann();
        assert!(class.contains(ceil), "{class}");
    };
    // It begins while the question is open: it is left to the daemon, which repairs nothing.
    next(&text("ann: 30mbit"));
    let terminal = edit(&path);
    asks(&terminal, "y: apply, and write");
    let mut daemon = Daemon::start(&["watch", &path]);
    terminal.press(&["y", "Enter"]);
    let screen = ends(&terminal, 0);
    assert!(screen.contains("and in force: the daemon has taken it"), "{screen}");
    is_in_force(&text("ann: 30mbit"), "ceil 30Mbit");
    let log = daemon.log();
    assert_eq!(log.matches("tc class change dev up0").count(), 1, "{log}");
    assert!(!log.contains("changed what stands"), "{log}");
    // It ends while the question is open.
    next(&text("ann: 31mbit"));
    once_more(&terminal, &path);
    asks(&terminal, "y: write");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ends_within(PATIENCE).success());
    terminal.press(&["y", "Enter"]);
    ends(&terminal, 0);
    is_in_force(&text("ann: 31mbit"), "ceil 31Mbit");
    // It ends while its answer is waited for, and had not seen the file.
    let mut daemon = Daemon::start(&["watch", &path]);
    next(&text("ann: 32mbit"));
    once_more(&terminal, &path);
    asks(&terminal, "y: write");
    daemon.signal(Signal::SIGSTOP);
    terminal.press(&["y", "Enter"]);
    soon("it is written", PATIENCE, || read(&path) == text("ann: 32mbit"));
    daemon.signal(Signal::SIGKILL);
    daemon.ends_within(PATIENCE);
    let screen = ends(&terminal, 0);
    assert!(screen.contains("The daemon has ended, and had not taken it"), "{screen}");
    is_in_force(&text("ann: 32mbit"), "ceil 32Mbit");
    // Another policy's daemon begins while the question is open.
    next(&text("ann: 33mbit"));
    once_more(&terminal, &path);
    asks(&terminal, "y: apply, and write");
    let other = format!("{SCRATCH}/other.yaml");
    fs::write(&other, text("ann: 40mbit")).expect("another policy");
    let daemon = Daemon::start(&["watch", &other]);
    terminal.press(&["y", "Enter"]);
    let screen = ends(&terminal, 4);
    assert!(says(&screen, "stays as it is; what you typed is kept in"), "{screen}");
    is_in_force(&text("ann: 32mbit"), "ceil 40Mbit");
    assert!(daemon.end().success());
    let copied = read(&copy(&path));
    assert_eq!(copied, text("ann: 33mbit"));
}
