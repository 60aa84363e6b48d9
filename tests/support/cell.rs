//! A cell: the network, mount, process and cgroup namespaces that one test lives in. Inside it a
//! test is root of a small machine: its own `/run`, `/proc`, `/sys`, a `net_cls` hierarchy that
//! looks empty and unmounted, no link but loopback. All of it ends when the test's process ends,
//! however that happens: the keeper is told when the runner dies, the cell's pid 1 is killed with
//! the keeper, and with pid 1 the kernel kills everything in the process namespace.
//!
//! The one thing that outlives processes is a `net_cls` directory. The keeper has a lock on the
//! cell's directory, and removes it at the end. A directory that nobody has locked belongs to a
//! keeper that was killed, and the next keeper removes it.
//!
//! A test of process events shares the machine's process namespace, outside of which there are
//! none. Its processes are known by the `net_cls` directory that they all are in or below: the
//! keeper ends those at the end.
//!
//! runner ── `--keep` (namespaces, directory, time limit) ── `--init` (pid 1, reaps) ── `--body`

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::harness::On;

/// A folder on the cell's own tmpfs, for the test's files.
pub const SCRATCH: &str = "/run/cell";

/// The machine's own network namespace, where there are process events.
pub const MACHINE: &str = "/run/cell/machine";

const HIERARCHY: &str = "/run/cell-net_cls";

/// Runs one test in a new cell; the error is all that it printed.
pub fn run(name: &str, budget: Duration, nocapture: bool) -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("needs root: it makes network namespaces and cgroups of its own".into());
    }
    let mut command = myself(&["--keep", name]);
    command.stdin(Stdio::null());
    let mut log = tempfile::tempfile().map_err(|e| format!("a file for the output: {e}"))?;
    if !nocapture {
        let copy = || log.try_clone().map_err(|e| format!("a file for the output: {e}"));
        command.stdout(copy()?).stderr(copy()?);
    }
    let keeper = command.spawn().map_err(|e| format!("start the keeper: {e}"))?;
    // The keeper ends the test in time; the ten seconds more are for a keeper that hangs itself.
    let status = wait(keeper, budget + Duration::from_secs(10), || false);
    let mut output = String::new();
    if !nocapture {
        let _ = log.rewind();
        let mut bytes = Vec::new();
        let _ = log.read_to_end(&mut bytes);
        output = String::from_utf8_lossy(&bytes).into_owned();
    }
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{output}({status})")),
        None => Err(format!("{output}(the cell's keeper had to be killed)")),
    }
}

/// A number that no other cell has meanwhile: of names in hierarchies that are the machine's.
/// Process ids are the cell's own.
pub fn number() -> u64 {
    fs::metadata("/proc/self/ns/net").expect("the cell's network namespace").ino()
}

/// This very program, with other arguments.
pub fn myself(args: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(args);
    command
}

/// The keeper: makes the namespaces, starts the cell's pid 1, keeps the time, cleans up.
pub fn keep(name: &str, budget: Duration, on: On) -> ExitCode {
    match keep_inner(name, budget, on) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("no cell could be made for {name}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn keep_inner(name: &str, budget: Duration, on: On) -> io::Result<ExitCode> {
    // Interrupted, or the runner killed: the same clean end as when the time is up.
    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| ends.add(s));
    ends.thread_block()?;
    let told_to_end = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    set_pdeathsig(Signal::SIGTERM)?;
    let machine = File::open("/proc/self/ns/net")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // The host's own net_cls mounts show the whole hierarchy: out of sight with them, before /run
    // is covered and those below it cannot be named any more.
    for mounted in net_cls_mounts()? {
        umount2(&mounted, MntFlags::MNT_DETACH)?;
    }
    mount(Some("cell"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    fs::create_dir(SCRATCH)?;
    File::create(MACHINE)?;
    let machine = format!("/proc/self/fd/{}", machine.as_raw_fd());
    mount(Some(machine.as_str()), MACHINE, none, MsFlags::MS_BIND, none)?;
    let directory = match is_without_net_cls() {
        true => None,
        false => Some(make_directory()?),
    };
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    if !on.shares_processes() {
        unshare(CloneFlags::CLONE_NEWPID)?;
    }
    let mut init = myself(&["--init", name]);
    // What users have used of quotas is kept here, not beside the machine's own.
    let init = init.env("SHAPER_STATE", format!("{SCRATCH}/state")).spawn()?;
    let status = wait(init, budget, || matches!(told_to_end.read_signal(), Ok(Some(_))));
    let left = directory.map_or(Ok(()), |(directory, lock)| {
        fs::write(Path::new(HIERARCHY).join("cgroup.procs"), "0")?;
        end_all(&directory);
        let left = remove_tree(&directory);
        drop(lock);
        left
    });
    let Some(status) = status else {
        eprintln!("ended by a signal, or by its limit of {} seconds", budget.as_secs());
        return Ok(ExitCode::FAILURE);
    };
    left?;
    Ok(exit_code(status))
}

/// Whether the kernel was started without `net_cls`: then nothing outlives the cell's processes.
pub fn is_without_net_cls() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "cgroup_no_v1=net_cls")
}

/// The cell's directory, in which this process is from then on, with the lock on it.
fn make_directory() -> io::Result<(PathBuf, Flock<File>)> {
    fs::create_dir(HIERARCHY)?;
    mount_net_cls(Path::new(HIERARCHY))?;
    sweep(Path::new(HIERARCHY));
    let directory = PathBuf::from(HIERARCHY).join(format!("cell-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let lock = Flock::lock(File::open(&directory)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| io::Error::from(errno))?;
    // A process that is in the directory when it makes its cgroup namespace sees the directory as
    // the root.
    fs::write(directory.join("cgroup.procs"), "0")?;
    Ok((directory, lock))
}

/// The cell's pid 1: what a fresh process namespace needs, then the test, then reaping until it
/// ends.
pub fn init(name: &str, on: On) -> ExitCode {
    match init_inner(name, on) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("the cell of {name} could not be furnished: {e}");
            ExitCode::FAILURE
        }
    }
}

fn init_inner(name: &str, on: On) -> io::Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    if !is_without_net_cls() {
        umount2(HIERARCHY, MntFlags::MNT_DETACH)?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    if on.shares_processes() {
        set_child_subreaper(true)?;
    } else {
        mount(Some("proc"), "/proc", Some("proc"), quiet, none)?;
    }
    // sysfs shows the links of the network namespace that mounted it.
    mount(Some("sysfs"), "/sys", Some("sysfs"), quiet, none)?;
    let body = myself(&["--body", name]).spawn()?.id();
    loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, code) if pid.as_raw().unsigned_abs() == body => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw().unsigned_abs() == body => {
                eprintln!("the test died of {signal}");
                return Ok(ExitCode::FAILURE);
            }
            _ => {}
        }
    }
}

/// Where hosts pair `net_cls` with `net_prio`, it cannot be mounted alone (EBUSY).
fn mount_net_cls(at: &Path) -> io::Result<()> {
    let mount_as =
        |options: &str| mount(Some("cell"), at, Some("cgroup"), MsFlags::empty(), Some(options));
    // As shaper itself mounts it: the first to mount it decides.
    mount_as("net_cls,favordynmods")
        .or_else(|_| mount_as("net_cls"))
        .or_else(|_| mount_as("net_cls,net_prio"))
        .map_err(|errno| {
            io::Error::new(
                io::Error::from(errno).kind(),
                format!("mount net_cls: {}", errno.desc()),
            )
        })
}

/// Every mount point of the hierarchy in this mount namespace, the deepest first.
fn net_cls_mounts() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let is_net_cls = |line: &&str| {
        line.split_once(" - cgroup ").is_some_and(|(_, source_and_options)| {
            source_and_options.split([' ', ',']).any(|word| word == "net_cls")
        })
    };
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter(is_net_cls)
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .collect();
    points.reverse();
    Ok(points)
}

/// Removes the directories of keepers that were killed. A directory that cannot go yet (its last
/// processes are still dying) is the next keeper's.
fn sweep(hierarchy: &Path) {
    let Ok(entries) = fs::read_dir(hierarchy) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let keeper = name.strip_prefix("cell-");
        // A keeper that has just made its directory has no lock on it yet.
        let gone = keeper.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        let Some(file) = gone.then(|| File::open(&path).ok()).flatten() else { continue };
        if let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            end_all(&path);
            let _ = remove_tree(&path);
        }
    }
}

/// Ends every process in the directory and below it. A cell with a process namespace of its own has
/// none left.
fn end_all(directory: &Path) {
    for _ in 0..200 {
        let pids = processes_below(directory);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10));
    }
}

fn processes_below(directory: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = listed.lines().filter_map(|line| line.parse().ok()).collect();
    // 0 stands for a process in another process namespace.
    pids.retain(|pid| *pid > 0);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes_below(&entry.path()));
        }
    }
    pids
}

/// Removes a cgroup directory and all below it; waits a little for dying processes.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut tries = 40;
    loop {
        match fs::remove_dir(directory) {
            Err(e) if tries > 0 && e.raw_os_error() == Some(nix::libc::EBUSY) => {
                tries -= 1;
                sleep(Duration::from_millis(50));
            }
            result => {
                let context = |e: io::Error| format!("rmdir {}: {e}", directory.display());
                return result.map_err(|e| io::Error::new(e.kind(), context(e)));
            }
        }
    }
}

/// Waits at most so long, or until told to end, then kills.
fn wait(mut child: Child, limit: Duration, told: impl Fn() -> bool) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline && !told() => sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        (None, signal) => {
            eprintln!("the cell's pid 1 died of signal {}", signal.unwrap_or(0));
            ExitCode::FAILURE
        }
    }
}
