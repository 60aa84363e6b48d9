//! What a service manager starts, and what root puts into a class by hand: `run` and `attach`. The
//! manager is imitated: it makes a cgroup, forks, enters it, becomes the unit's `User=`, and runs
//! the program.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{DEFAULT, Keeper, Place, Program, Shell};
use crate::support::accounts::BOB;
use crate::support::cell::number;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, classid, members};
use crate::watch::beside;

tests!(
    On::HostEvents => a_units_user_is_the_units_where_it_has_a_line, roots_processes_are_where_they_were_put,
        a_users_processes_are_where_they_were_put;
);

const HIERARCHY: &str = "/run/cell/unified";

/// A unit's cgroup, which only root can make.
struct Unit {
    group: PathBuf,
}

impl Unit {
    fn new(kind: &str) -> Unit {
        // The hierarchy is the machine's.
        let name = format!("{kind}-{}.service", number());
        let group = PathBuf::from(format!("{HIERARCHY}/system.slice/{name}"));
        fs::create_dir_all(&group).expect("a unit's cgroup");
        fs::create_dir_all("/etc/systemd/system").expect("a folder for units");
        fs::write(format!("/etc/systemd/system/{name}"), "[Service]\n").expect("a unit's file");
        Unit { group }
    }

    /// The manager's child, which becomes the user.
    fn start(&self, user: &str, script: &str) -> Program {
        let enter = format!("echo 0 >{}/cgroup.procs", self.group.display());
        let become_him = format!("exec setpriv --reuid={user} --regid={user} --clear-groups");
        Program::start(&["bash", "-c", &format!("{enter}; {become_him} bash -c '{script}'")])
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.group).is_err() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Another test's unit may be there.
        let _ = fs::remove_dir(format!("{HIERARCHY}/system.slice"));
    }
}

fn a_units_user_is_the_units_where_it_has_a_line() {
    let id = number();
    let text = format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 1mbit, ceil: 40mbit}}}}}}
users: {{ann: 10mbit, bob: 15mbit, www: {{units: [web-{id}.service], ceil: 20mbit}}}}
"
    );
    Place::under_both(&text, |place| {
        if place.keeper == Keeper::Cron {
            fs::create_dir_all(HIERARCHY).expect("a mount point");
            run(&format!("mount -t cgroup2 none {HIERARCHY}"));
        }
        let (web, other) = (Unit::new("web"), Unit::new("other"));
        let [www, bob] = ["user/www", "user/bob"].map(classid);
        // A unit without a line is its user's, from the first packet on.
        {
            let script = place.pouring();
            let _manager = other.start("bob", &script.text);
            let pouring = script.runs();
            place.all_is("bob's unit without a line", &[&bob]);
            place.passes();
            assert!(members("user/bob").contains(&pouring.pid()));
        }
        // One with a line is the line's, and the user's other processes stay his.
        {
            let (script, own) = (place.pouring(), place.pouring());
            let _manager = web.start("bob", &script.text);
            let pouring = script.runs();
            if place.keeper == Keeper::Cron {
                place.all_is("bob's unit, not seen yet", &[&bob]);
            }
            place.passes();
            assert!(members("user/www").contains(&pouring.pid()));
            place.all_is("bob's unit", &[&www]);
            let mut bobs = Shell::of(BOB);
            bobs.types(&format!("bash -c '{}' &", own.text));
            let _own = own.runs();
            place.all_is("bob's unit, and bob", &[&www, &bob]);
        }
        // And what root's unit sends, which the tag alone can tell.
        {
            let script = place.pouring();
            let _manager = web.start("root", &script.text);
            let pouring = script.runs();
            if place.keeper == Keeper::Cron {
                place.all_is("root's unit, not seen yet", &[DEFAULT]);
            }
            place.passes();
            assert!(members("user/www").contains(&pouring.pid()));
            place.all_is("root's unit", &[&www]);
        }
    });
}

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
users: {ann: 10mbit, bob: 15mbit}
";

fn roots_processes_are_where_they_were_put() {
    Place::under_both(POLICY, |place| {
        let ann = classid("user/ann");
        {
            let script = place.pouring();
            let shaper = binary().display().to_string();
            let words = ["--cgroup", "shaper", "run", "ann", "--", "bash", "-c", &script.text];
            let _run = Program::start(&[&[shaper.as_str()], &words[..]].concat());
            let pouring = script.runs();
            place.all_is("root's run", &[&ann]);
            place.passes();
            assert!(members("user/ann/pinned").contains(&pouring.pid()));
            place.all_is("root's run, later", &[&ann]);
        }
        let script = place.pouring();
        let _backup = Program::start(&["bash", "-c", &script.text]);
        let pouring = script.runs();
        place.passes();
        place.all_is("root's backup", &[DEFAULT]);
        let pid = pouring.pid().to_string();
        beside(&["attach", "ann", &pid]).exits(0);
        place.passes();
        place.all_is("root's backup, attached", &[&ann]);
        beside(&["release", &pid]).exits(0);
        place.passes();
        place.all_is("root's backup, released", &[DEFAULT]);
    });
}

fn a_users_processes_are_where_they_were_put() {
    Place::under_both(POLICY, |place| {
        let [ann, bob] = ["user/ann", "user/bob"].map(classid);
        let (script, own) = (place.pouring(), place.pouring());
        let mut shell = Shell::of(BOB);
        shell.types(&format!("bash -c '{}' &", script.text));
        let pouring = script.runs();
        place.all_is("bob", &[&bob]);
        let pid = pouring.pid().to_string();
        beside(&["attach", "ann", &pid]).exits(0);
        place.passes();
        place.all_is("bob's process, attached to ann", &[&ann]);
        // His others stay his.
        shell.types(&format!("bash -c '{}' &", own.text));
        let other = own.runs();
        place.passes();
        place.all_is("bob's process, attached, and bob", &[&ann, &bob]);
        drop(other);
        beside(&["release", &pid]).exits(0);
        place.passes();
        place.all_is("bob's process, released", &[&bob]);
        drop(pouring);
        // What root's `run` starts may become somebody.
        let script = place.pouring();
        let shaper = binary().display().to_string();
        let words = ["--cgroup", "shaper", "run", "ann", "--", "setpriv", "--reuid=bob"];
        let words = [&words[..], &["--regid=bob", "--clear-groups", "bash", "-c"]].concat();
        let _run = Program::start(&[&[shaper.as_str()], &words[..], &[&script.text]].concat());
        let _pouring = script.runs();
        place.passes();
        place.all_is("run for ann, as bob", &[&ann]);
    });
}
