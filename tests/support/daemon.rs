//! `shaper watch`, as a service manager runs it: started, waited for until it says that it is
//! ready, and ended by a signal.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cell::{MACHINE, SCRATCH, myself};
use super::program::binary;

/// A running daemon. When the value is dropped, the daemon is killed.
pub struct Daemon {
    child: Child,
    /// Nothing is written here. The daemon's program may be a grandchild, below strace or unshare,
    /// which ends a moment after the child; this pipe has a reader until the last of them is gone.
    readers: ChildStdin,
    log: PathBuf,
}

/// How long the first apply may take.
const READY: Duration = Duration::from_secs(120);

impl Daemon {
    /// Starts the daemon in the cell.
    pub fn start(words: &[&str]) -> Daemon {
        let mut command = Command::new(binary());
        command.args(words);
        Daemon::run(command)
    }

    /// Starts the daemon where there are process events, in the machine's first network namespace,
    /// to shape this one. Its instance is called `shaper` all the same.
    pub fn with_events(words: &[&str]) -> Daemon {
        let mut command = myself(&["--enter", MACHINE]);
        let here = std::process::id().to_string();
        command.arg(binary()).args(["--cgroup", "shaper", "--netns", &here]).args(words);
        let daemon = Daemon::run(command);
        // A test that needs them and is in a process namespace of its own would wait for looks at
        // everything.
        assert!(!daemon.log().contains("no process events"), "not `On::Events`\n{}", daemon.log());
        daemon
    }

    pub fn run(mut command: Command) -> Daemon {
        let socket = format!("{SCRATCH}/notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).expect("a socket for the service manager");
        notify.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let log = PathBuf::from(format!("{SCRATCH}/watch.log"));
        let file = File::create(&log).expect("a file for the log");
        command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::piped());
        command.stdout(file.try_clone().expect("the log")).stderr(file);
        let mut child = command.spawn().expect("start the daemon");
        let readers = child.stdin.take().expect("the pipe is its standard input");
        let mut daemon = Daemon { child, readers, log };
        let deadline = Instant::now() + READY;
        loop {
            let mut message = [0; 256];
            if let Ok(length) = notify.recv(&mut message)
                && message[..length].starts_with(b"READY=1")
            {
                return daemon;
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("the daemon ended at once: {status}\n{}", daemon.log());
            }
            assert!(Instant::now() < deadline, "the daemon is not ready\n{}", daemon.log());
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("tell the daemon");
    }

    /// Ends the daemon as a service manager does.
    pub fn end(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ends_within(Duration::from_secs(10))
    }

    /// Waits until the daemon has ended.
    pub fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the daemon") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// The processor time that the daemon has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // USER_HZ is 100 everywhere.
        Duration::from_millis(ticks * 10)
    }

    /// Kilobytes of memory: its own now, and all that was resident at most. The pages of the
    /// program itself are shared with whoever runs it, and a debug build has many.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        (field("RssAnon:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A pipe without a reader is an error to its writer. The test goes on without the daemon,
        // so it waits for the daemon's end also where that is another process than the child.
        let gone = PollTimeout::try_from(Duration::from_secs(10)).expect("a time-out");
        let mut pipe = [PollFd::new(self.readers.as_fd(), PollFlags::empty())];
        let ended = poll(&mut pipe, gone);
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        } else {
            assert_eq!(ended, Ok(1), "the daemon outlives its end\n{}", self.log());
        }
    }
}
