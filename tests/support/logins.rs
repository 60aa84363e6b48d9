//! People who log in, one after the other, and a storm of short-lived processes beside them. The
//! process that logs in takes the time from becoming the user to being in the user's directory,
//! with a real-time priority, so that its own wait for a processor that a storm fills is no part of
//! it.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, fork, pause, pipe, read, setresuid, write};

use super::accounts::Account;
use super::cell::{SCRATCH, myself};
use super::source::become_account;

/// A login that is not placed after this time was missed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(100);

/// From becoming the user to being placed, in microseconds.
pub struct Times {
    pub p50: u64,
    pub p99: u64,
    pub most: u64,
    pub missed: usize,
}

impl Times {
    /// Makes `count` logins of the account, one after the other, each until it is in a directory
    /// whose path ends with `place`.
    pub fn of(account: Account, count: u32, place: &str) -> Times {
        let mut tool = myself(&["--logins", &account.uid.to_string(), &count.to_string(), place]);
        let output = tool.stderr(Stdio::inherit()).output().expect("let them log in");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut times: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(u64::MAX);
        let most = times.last().copied().unwrap_or(u64::MAX);
        Times { p50: at(50), p99: at(99), most, missed: count as usize - times.len() }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { p50, p99, most, missed } = self;
        write!(f, "p50 {p50} µs, p99 {p99} µs, at most {most} µs, missed {missed}")
    }
}

/// `--logins UID COUNT PLACE`: prints for each login the microseconds until its `net_cls` directory
/// ended with PLACE, a line each; `missed` for one that never was there.
pub fn logins(words: &[&str]) -> ExitCode {
    let [uid, count, place] = words else { return ExitCode::FAILURE };
    let (Ok(uid), Ok(count)) = (uid.parse(), count.parse()) else { return ExitCode::FAILURE };
    let account = Account { uid, gid: uid, also: None };
    for _ in 0..count {
        match one(account, place) {
            Some(Some(time)) => println!("{}", time.as_micros()),
            Some(None) => println!("missed"),
            None => return ExitCode::FAILURE,
        }
        sleep(Duration::from_millis(2));
    }
    ExitCode::SUCCESS
}

/// One login. The outer `None`: it could not be tried.
fn one(account: Account, place: &str) -> Option<Option<Duration>> {
    let (ours, theirs) = pipe().ok()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.ok()? {
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut answer = [0; 8];
            let length = read(&ours, &mut answer).ok()?;
            let _ = waitpid(child, None);
            (length == 8).then(|| match u64::from_le_bytes(answer) {
                u64::MAX => None,
                micros => Some(Duration::from_micros(micros)),
            })
        }
        ForkResult::Child => {
            drop(ours);
            let first = libc::sched_param { sched_priority: 1 };
            // SAFETY: the parameters live until the call is over. Where the kernel refuses, the
            // login waits with the others.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
            let start = Instant::now();
            if become_account(account).is_ok() {
                let time = until_placed(place, start).unwrap_or(u64::MAX);
                let _ = write(&theirs, &time.to_le_bytes());
            }
            // SAFETY: ends the child without what the parent has to do at its end.
            unsafe { libc::_exit(0) }
        }
    }
}

fn until_placed(place: &str, start: Instant) -> Option<u64> {
    while start.elapsed() < PATIENCE {
        let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut lines = cgroup.lines().filter(|line| line.contains("net_cls"));
        if lines.any(|line| line.ends_with(place)) {
            return u64::try_from(start.elapsed().as_micros()).ok();
        }
        sleep(LOOK);
    }
    None
}

/// `--storm RATE SECONDS`: starts so many processes a second, each of which ends at once. Prints
/// how many there were.
pub fn storm(words: &[&str]) -> ExitCode {
    let [rate, seconds] = words else { return ExitCode::FAILURE };
    let (Ok(rate), Ok(seconds)) = (rate.parse::<u32>(), seconds.parse::<u64>()) else {
        return ExitCode::FAILURE;
    };
    let (start, end) = (Instant::now(), Duration::from_secs(seconds));
    let mut started = 0;
    while start.elapsed() < end {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        // If the machine is too slow for the rate, it is as fast as the machine can.
        while started < due && start.elapsed() < end {
            // SAFETY: this process has one thread.
            match unsafe { fork() } {
                Ok(ForkResult::Parent { .. }) => started += 1,
                // SAFETY: ends the child without what the parent has to do at its end.
                Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
                Err(_) => break,
            }
            reap();
        }
        reap();
        sleep(Duration::from_millis(1));
    }
    println!("{started}");
    ExitCode::SUCCESS
}

/// What somebody may do in a loop to keep a daemon busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    Fork,
    /// Forks, each of which runs a program.
    Exec,
    /// Forks, each of which runs a set-uid program, which changes its effective uid.
    SetUid,
    /// One process goes from one real uid to another and back.
    Uid,
}

impl Storm {
    pub const ALL: [Storm; 4] = [Storm::Fork, Storm::Exec, Storm::SetUid, Storm::Uid];

    /// Starts processes of the account that make the storm until the value is dropped.
    pub fn by(self, account: Account, processes: u32) -> Storming {
        let program = format!("{SCRATCH}/set-uid");
        if !fs::exists(&program).unwrap_or(false) {
            fs::copy("/bin/true", &program).expect("a program");
            let mode = fs::Permissions::from_mode(0o4755);
            fs::set_permissions(&program, mode).expect("a set-uid program");
        }
        let uid = account.uid.to_string();
        let kind = format!("{self:?}");
        let start = |_| myself(&["--storm-of", &kind, &uid, &program]).spawn().expect("a storm");
        Storming((0..processes).map(start).collect())
    }
}

/// Running storms, which end when the value is dropped.
pub struct Storming(Vec<Child>);

impl Drop for Storming {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `--storm-of KIND UID PROGRAM`
pub fn storm_of(words: &[&str]) -> ExitCode {
    let [kind, uid, program] = words else { return ExitCode::FAILURE };
    let Ok(uid) = uid.parse::<u32>() else { return ExitCode::FAILURE };
    let _ = set_pdeathsig(Signal::SIGKILL);
    let (one, other) = (Uid::from_raw(uid), Uid::from_raw(uid + 1));
    if *kind == "Uid" {
        let there = setresuid(one, one, other);
        while there.is_ok()
            && setresuid(other, other, one).is_ok()
            && setresuid(one, one, other).is_ok()
        {}
        return ExitCode::FAILURE;
    }
    if become_account(Account { uid, gid: uid, also: None }).is_err() {
        return ExitCode::FAILURE;
    }
    let _ = set_pdeathsig(Signal::SIGKILL);
    let program = match *kind {
        "Fork" => None,
        "Exec" => Some("/bin/true"),
        _ => Some(*program),
    };
    loop {
        match program {
            Some(program) => drop(Command::new(program).status()),
            // SAFETY: this process has one thread.
            None => match unsafe { fork() } {
                Ok(ForkResult::Parent { child }) => drop(waitpid(child, None)),
                // SAFETY: ends the child without what the parent has to do at its end.
                Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
                Err(_) => sleep(LOOK),
            },
        }
    }
}

fn reap() {
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_))
    {
    }
}

/// `--crowd UID ACCOUNTS PROCESSES`: so many processes that do nothing, of so many accounts from
/// UID on, until standard input is closed. Prints a line when all are there.
pub fn crowd(words: &[&str]) -> ExitCode {
    let numbers: Vec<u32> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let [first, accounts, processes] = numbers[..] else { return ExitCode::FAILURE };
    let Ok((ready, told)) = pipe() else { return ExitCode::FAILURE };
    let mut children = Vec::new();
    for n in 0..processes {
        let uid = first + n % accounts;
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => children.push(child),
            Ok(ForkResult::Child) => {
                if become_account(Account { uid, gid: uid, also: None }).is_ok() {
                    let _ = write(&told, b"x");
                }
                pause();
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            Err(errno) => {
                eprintln!("after {n} processes: {errno}");
                break;
            }
        }
    }
    let mut there = 0;
    while there < children.len() {
        match read(&ready, &mut [0; 4_096]) {
            Ok(count) => there += count,
            Err(_) => break,
        }
    }
    println!("{there}");
    let _ = std::io::stdin().read_line(&mut String::new());
    for child in children {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
    }
    ExitCode::SUCCESS
}
