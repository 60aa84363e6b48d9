//! Programs that a test runs, always with a time limit, and their output.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that has ended: its exit status and output.
#[derive(Clone, Debug)]
pub struct Done {
    /// The command, for messages.
    pub command: String,
    /// `None`: a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command to its end, with this text as standard input.
pub fn run_with(command: Command, input: &str) -> Done {
    run_within(LIMIT, command, input)
}

/// The same of a command that may take longer.
pub fn run_within(limit: Duration, mut command: Command, input: &str) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes it: no failure of the test.
        let _ = stdin.write_all(input.as_bytes());
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let (done, ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().unwrap_or_else(|e| panic!("{text}: {e}"));
    drop(done);
    let _ = watchdog.join();
    Done {
        command: text,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Done {
    /// Panics with everything it printed unless it ended with this status.
    #[track_caller]
    pub fn exits(self, status: i32) -> Done {
        assert_eq!(
            self.status,
            Some(status),
            "{}\n--- stdout\n{}--- stderr\n{}",
            self.command,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as the one JSON document that it must be.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}{}", self.command, self.stdout, self.stderr))
    }
}

/// `tc` or `ip` (or anything that must succeed), its words separated by spaces.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program's name"));
    command.args(words);
    run_with(command, "").exits(0).stdout
}

/// This very process becomes `command` with these capabilities alone (their numbers, with commas),
/// and no way to get others: as a service manager starts a hardened service.
pub fn with_capabilities(numbers: &str, command: &[&str]) -> ExitCode {
    let kept: Vec<libc::c_ulong> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
    for capability in (0..64).filter(|n| !kept.contains(n)) {
        // SAFETY: it takes numbers only. Beyond the last capability it is refused, which is well.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) };
    }
    let Some((program, rest)) = command.split_first() else { return ExitCode::FAILURE };
    if let Err(errno) = set_no_new_privs() {
        eprintln!("no_new_privs: {errno}");
        return ExitCode::FAILURE;
    }
    eprintln!("{program}: {}", Command::new(program).args(rest).exec());
    ExitCode::from(127)
}

/// This very process becomes `command` in the network namespace of a process, or the one at a path.
pub fn enter(whose: &str, command: &[&str]) -> ExitCode {
    let enter = || -> io::Result<()> {
        let namespace = match whose.contains('/') {
            true => File::open(whose)?,
            false => File::open(format!("/proc/{whose}/ns/net"))?,
        };
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        // `--actor` is a word of this binary itself.
        let own = command.first() == Some(&"--actor");
        let program = if own { "/proc/self/exe" } else { command.first().unwrap_or(&"") };
        Err(Command::new(program).args(&command[usize::from(!own)..]).exec())
    };
    if let Err(e) = enter() {
        eprintln!("{command:?} in the network namespace of {whose}: {e}");
    }
    ExitCode::from(127)
}
