//! The real `net_cls` hierarchy and real processes, as root. Each test mounts the hierarchy in a
//! mount namespace of its own thread, but the hierarchy itself is the machine's: names and uids
//! are unique to this run, and everything is removed at the end, also when a test fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shaper::cgroup::{self, Attached, Error, Hierarchy, Instance, Locked, Unmounted};
use shaper::facts::Accounts;
use shaper::model::Matcher;
use shaper::process::{self, Decision, InstanceView, Placement};
use shaper::sys::netns;
use shaper::tree::{Claim, Foreign, Key};
use shaper::units::{ClassId, Minor};

mod directories;
mod processes;

const NEEDS: &str = "needs root, and a kernel with net_cls in a v1 hierarchy or in none";

/// Runs `test` on a thread that has a mount namespace of its own, with no `net_cls` mount in it.
fn with_private_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "{NEEDS}");
    let thread = thread::spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        while let Some(found) = cgroup::find().unwrap() {
            nix::mount::umount2(&found.path, MntFlags::MNT_DETACH).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().join("shaper/net_cls");
        test(&point);
        // Only ours is mounted here; the folder cannot be removed while it is.
        let _not_mounted_is_fine = nix::mount::umount2(&point, MntFlags::MNT_DETACH);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// An instance that is removed when the test ends.
struct Scratch {
    hierarchy: Hierarchy,
    instance: Instance,
}

impl Scratch {
    fn new(point: &Path) -> Scratch {
        let hierarchy = cgroup::mount(point).unwrap();
        let instance = hierarchy.instance(&format!("shaper-test-{}", unique()));
        Scratch { hierarchy, instance }
    }

    fn view(&self) -> InstanceView {
        InstanceView {
            name: self.instance.name(),
            netns: netns::current().unwrap(),
            host: Some(netns::current().unwrap()),
            others: BTreeMap::new(),
            places: true,
        }
    }

    fn place(&self, matcher: &Matcher) -> Placement {
        let view = self.view();
        let decide = |process: &process::Process| -> Decision {
            // NSS was asked about everybody, and knows nobody.
            let accounts = Accounts { absent: [process.uid].into(), ..Accounts::default() };
            process::decide(process, matcher, &accounts, &view)
        };
        process::place(Path::new("/proc"), &self.instance, decide).unwrap()
    }

    /// Where a process sits, below the instance; `None`: elsewhere.
    fn seat(&self, pid: u32) -> Option<String> {
        let process = process::read_one(Path::new("/proc"), pid).unwrap().unwrap();
        let prefix = format!("/{}/", self.instance.name());
        process.net_cls?.strip_prefix(&prefix).map(str::to_string)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok((claims, _)) = self.instance.observe() else { return };
        let Ok(locked) = self.instance.lock(Duration::ZERO) else { return };
        // `…/pinned` comes after the directory that it is in.
        for claim in claims.keys().filter(|claim| matches!(claim, Claim::Pinned(_))) {
            let _best_effort = locked.remove(claim);
        }
        for claim in claims.keys() {
            let _best_effort = locked.remove(claim);
        }
        let _best_effort = locked.remove_if_empty();
    }
}

/// Nobody else holds the lock.
fn locked(instance: &Instance) -> Locked {
    instance.lock(Duration::ZERO).unwrap()
}

/// A process, and all of its group, that ends with the test.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Group {
        Group(command.process_group(0).spawn().unwrap())
    }

    fn sleeping(uid: u32) -> Group {
        Group::start(Command::new("sleep").arg("600").uid(uid))
    }

    /// In a network namespace of its own.
    fn sleeping_elsewhere(uid: u32) -> Group {
        let words = ["--net", "setpriv", "--reuid", &uid.to_string(), "--clear-groups"];
        Group::start(Command::new("unshare").args(words).args(["sleep", "600"]))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _may_have_ended = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _reaped = self.0.wait();
    }
}

/// A number that no other test, and no other run at this time, uses.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000_000 + std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn claim(path: &str) -> Claim {
    path.parse().unwrap()
}

fn classid(minor: u16) -> ClassId {
    ClassId::ours(Minor(minor))
}

fn matcher(uids: &[(u32, &str)]) -> Matcher {
    let line = |(uid, key): &(u32, &str)| (*uid..=*uid, Key::new(key).unwrap());
    Matcher { uids: uids.iter().map(line).collect(), ..Matcher::default() }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "it did not happen in 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
