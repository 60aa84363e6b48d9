//! Pids come round: between the look at a process and its move, the pid may be another's.
#![allow(
    unsafe_code,
    reason = "clone3(2) with a pid, which neither the standard library nor nix has"
)]

use std::cell::{Cell, RefCell};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shaper::host::Kernel;
use shaper::process::{Decision, place_one};

use crate::support::accounts::ANN;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, members};
use crate::support::world::World;

tests!(
    On::Every => a_pid_that_is_another_processs_by_then_is_looked_at_again;
);

/// The head of `struct clone_args` (linux/sched.h), up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A process of root's with this pid, which is free; ends when dropped.
struct Newcomer(Pid);

impl Newcomer {
    fn with_pid(pid: u32) -> Newcomer {
        let wanted = [libc::pid_t::try_from(pid).expect("a pid")];
        let args = CloneArgs {
            exit_signal: libc::SIGCHLD as u64,
            set_tid: wanted.as_ptr().addr() as u64,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
        // SAFETY: as fork(2), of a process that has one thread; the child does nothing but wait.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
            0 => loop {
                // SAFETY: a system call without arguments.
                unsafe { libc::pause() };
            },
            id if id == i64::from(wanted[0]) => Newcomer(Pid::from_raw(wanted[0])),
            _ => panic!("clone3: {}", std::io::Error::last_os_error()),
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

fn a_pid_that_is_another_processs_by_then_is_looked_at_again() {
    let _world = World::new();
    apply(
        "
version: 1
links: {up0: {rate: 100mbit}}
users: {ann: 10mbit}
",
    );
    let kernel = Kernel::open(None).expect("open the kernel");
    let instance = kernel.instance().expect("the instance");
    let start = || {
        Command::new("sh")
            .args(["-c", "exec sleep 60"])
            .uid(ANN.uid)
            .spawn()
            .expect("ann's process")
    };
    let ann: RefCell<Child> = RefCell::new(start());
    let pid = ann.borrow().id();
    let newcomer = Cell::new(None);
    let placed = place_one(Path::new("/proc"), &instance, pid, |process| {
        if process.uid == ANN.uid {
            // Right after the look.
            ann.borrow_mut().kill().expect("end it");
            ann.borrow_mut().wait().expect("and reap it");
            // Which of them has the pid is told by when they started, in clock ticks of 10 ms: so
            // many pids cannot come round in one.
            std::thread::sleep(std::time::Duration::from_millis(30));
            newcomer.set(Some(Newcomer::with_pid(pid)));
            return Decision::MoveTo("user/ann".parse().expect("a claim"));
        }
        assert_eq!((process.pid, process.uid), (pid, 0));
        match process.net_cls.as_deref() {
            Some("/") => Decision::Stay,
            _ => Decision::TakeOut,
        }
    });
    placed.expect("place it");
    let newcomer = newcomer.take().expect("a newcomer");
    assert_eq!(newcomer.0.as_raw().unsigned_abs(), pid);
    assert!(!members("user/ann").contains(&pid), "root's process is in ann's class");
}
