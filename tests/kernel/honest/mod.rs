//! What honest people do every day: log in, become another, start things at night and in units,
//! share accounts, ping, tunnel. Whose packets these are, under the daemon and with `apply` from
//! cron, with the programs that Debian has for it.

mod becoming;
mod services;
mod sharing;
mod tunnelling;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::accounts::{self, ANN, Account};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::Test;
use crate::support::orders::Proto;
use crate::support::program::policy;
use crate::support::rates::{self, MBIT};
use crate::support::world::{UPLINK, World};
use crate::watch::beside;

pub const BECOMING: &[Test] = becoming::TESTS;
pub const SERVICES: &[Test] = services::TESTS;
pub const SHARING: &[Test] = sharing::TESTS;
pub const TUNNELLING: &[Test] = tunnelling::TESTS;

const DEFAULT: &str = "1:fffe";

/// What keeps the processes where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    Cron,
    Daemon,
}

/// A world in which programs that Debian has will run, and the policy that is in force there.
struct Place {
    world: World,
    file: String,
    keeper: Keeper,
    poured: u32,
}

impl Place {
    /// Plays it with the policy put in force by `apply` alone, and once more with the daemon.
    fn under_both(text: &str, play: impl Fn(&mut Place)) {
        let mut place = Place::new(text);
        play(&mut place);
        place.keeper = Keeper::Daemon;
        let daemon = Daemon::with_events(&["watch", &place.file]);
        play(&mut place);
        // Events are the whole machine's: what others do on it may be too much for the queue.
        let lost = "process events were lost; looking at all processes";
        let log = daemon.log();
        let warned = log.lines().any(|line| line.contains("WARN") && !line.ends_with(lost));
        assert!(!warned, "{log}");
        assert!(daemon.end().success());
    }

    fn new(text: &str) -> Place {
        accounts::own_etc();
        accounts::passwords();
        let world = World::new();
        // What a killed program's connections still hold is gone at once.
        fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 65536 131072").expect("short queues");
        fs::create_dir(format!("{SCRATCH}/out")).expect("a folder");
        fs::set_permissions(format!("{SCRATCH}/out"), Permissions::from_mode(0o1777))
            .expect("for everybody");
        let place = Place { world, file: policy(text), keeper: Keeper::Cron, poured: 0 };
        place.apply();
        place
    }

    fn apply(&self) {
        beside(&["apply", &self.file]).exits(0);
    }

    /// Whatever happened so far is seen: by cron's next `apply`, or by the daemon. It takes events
    /// in order, so it has seen all that came before somebody whom it has placed.
    fn passes(&self) {
        match self.keeper {
            Keeper::Cron => self.apply(),
            Keeper::Daemon => {
                let later = self.world.actor(ANN);
                let cgroups = format!("/proc/{}/cgroup", later.pid());
                soon("who came later is placed", Duration::from_secs(10), || {
                    fs::read_to_string(&cgroups).is_ok_and(|text| text.contains(":/shaper/"))
                });
            }
        }
    }

    /// The words of a shell that say where its pid is, and pour to a far port from then on.
    fn pouring(&mut self) -> Script {
        let port = self.world.sink(Proto::Tcp);
        self.poured += 1;
        let note = format!("{SCRATCH}/out/{}", self.poured);
        let text = format!(
            "echo $$ >{note}.new; mv {note}.new {note}; exec cat /dev/zero >/dev/tcp/10.77.0.2/{port}"
        );
        Script { text, note }
    }

    /// A shell's words that say when they are done.
    fn script(&mut self, words: &str) -> Script {
        self.poured += 1;
        let note = format!("{SCRATCH}/out/{}", self.poured);
        Script { text: format!("{words}; echo $? >{note}.new; mv {note}.new {note}"), note }
    }

    /// All that leaves is these classes', and each has something.
    #[track_caller]
    fn all_is(&self, what: &str, classes: &[&str]) {
        // What was queued before leaves first.
        sleep(Duration::from_millis(300));
        let sent = rates::over(UPLINK, Duration::from_millis(500));
        println!("{:?}, {what}: {:?}", self.keeper, sent.leaves());
        for class in classes {
            assert!(sent.rate(class) > 4 * MBIT, "{what}, {class}: {:?}", sent.leaves());
        }
        sent.others_stay_below(20_000, classes);
    }
}

/// A line of bash.
struct Script {
    text: String,
    note: String,
}

impl Script {
    /// Once it runs: its process, which ends when this is dropped.
    #[track_caller]
    fn runs(&self) -> Running {
        soon("it runs", Duration::from_secs(10), || Path::new(&self.note).exists());
        let pid = fs::read_to_string(&self.note).expect("its pid");
        Running(Pid::from_raw(pid.trim().parse().expect("a pid")))
    }
}

impl Script {
    /// Once all of it is done, which must have been well.
    #[track_caller]
    fn ends(&self) {
        soon("it ends", Duration::from_secs(10), || Path::new(&self.note).exists());
        let status = fs::read_to_string(&self.note).expect("its status");
        assert_eq!(status.trim(), "0", "{}", self.text);
    }
}

/// A program that somebody else started.
struct Running(Pid);

impl Running {
    fn pid(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// A program of root's.
struct Program(Child);

impl Program {
    fn start(words: &[&str]) -> Program {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        Program(command.spawn().unwrap_or_else(|e| panic!("start {words:?}: {e}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody's shell, to which lines can be typed.
struct Shell(Child);

impl Shell {
    fn of(account: Account) -> Shell {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
        command.arg(format!("--groups={}", account.also.unwrap_or(account.gid))).arg("bash");
        Shell(command.stdin(Stdio::piped()).spawn().expect("a shell"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn types(&mut self, line: &str) {
        let input = self.0.stdin.as_mut().expect("its input");
        writeln!(input, "{line}").expect("type a line");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
