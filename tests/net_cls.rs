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
use shaper::cgroup::{self, Attached, Error, Hierarchy, Instance, Unmounted};
use shaper::facts::Accounts;
use shaper::model::Matcher;
use shaper::process::{self, Decision, InstanceView, Placement};
use shaper::sys::netns;
use shaper::tree::{Claim, Foreign, Key};
use shaper::units::{ClassId, Minor};

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
        // `…/pinned` comes after the directory that it is in.
        for claim in claims.keys().filter(|claim| matches!(claim, Claim::Pinned(_))) {
            let _best_effort = self.instance.remove(claim);
        }
        for claim in claims.keys() {
            let _best_effort = self.instance.remove(claim);
        }
        let _best_effort = self.instance.remove_if_empty();
    }
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

#[test]
#[ignore = "needs root and net_cls"]
fn the_hierarchy_is_mounted_once_and_found_again() {
    with_private_mounts(|point| {
        assert_eq!(cgroup::find().unwrap(), None);
        assert_eq!(cgroup::unmount(point).unwrap(), Unmounted::NotOurs);
        let mounted = cgroup::mount(point).unwrap();
        assert_eq!(mounted.path, point);
        assert_eq!(cgroup::find().unwrap(), Some(mounted.clone()));
        let elsewhere = point.with_file_name("elsewhere");
        assert_eq!(cgroup::mount(&elsewhere).unwrap(), mounted, "there is only one");
        assert!(!elsewhere.exists());
        assert_eq!(cgroup::unmount(&elsewhere).unwrap(), Unmounted::NotOurs);
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn the_hierarchy_is_unmounted_only_when_nobody_uses_it() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let directories = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).collect()
        };
        scratch.instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        assert_eq!(cgroup::unmount(point).unwrap(), Unmounted::InUse, "our own instance");
        scratch.instance.remove(&claim("user/bob")).unwrap();
        assert!(scratch.instance.remove_if_empty().unwrap());
        let open = fs::File::open(point.join("cgroup.procs")).unwrap();
        assert_eq!(cgroup::unmount(point).unwrap(), Unmounted::InUse, "an open file");
        drop(open);
        // Other tests, and other programs of this machine, use the hierarchy too: then it stays.
        let start = Instant::now();
        let mut last = cgroup::unmount(point).unwrap();
        while last == Unmounted::InUse && start.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(20));
            last = cgroup::unmount(point).unwrap();
        }
        if last == Unmounted::Done {
            assert!(!point.exists(), "nor is the folder left");
        } else {
            assert_ne!(directories(point), Vec::<PathBuf>::new(), "{last:?}");
        }
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn claims_hold_the_classid_that_was_written() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        let (bob, pinned) = (claim("user/bob"), claim("user/bob/pinned"));
        instance.make(&bob, classid(0x1a)).unwrap();
        instance.make(&pinned, classid(0x1a)).unwrap();
        instance.make(&claim("retired/1b"), classid(0x1b)).unwrap();
        let text = |claim: &Claim| {
            fs::read_to_string(instance.directory(claim).join("net_cls.classid")).unwrap()
        };
        assert_eq!(text(&bob), "65562\n", "0x0001001a");
        // Inherited when it was made, and never again.
        instance.write(&bob, classid(0x2a)).unwrap();
        assert_eq!(text(&pinned), "65562\n");
        instance.make(&bob, classid(0x2a)).unwrap();

        fs::create_dir(instance.root().join("user/bob/build")).unwrap();
        let (claims, foreign) = instance.observe().unwrap();
        assert_eq!(
            claims.into_iter().collect::<Vec<_>>(),
            [
                (bob.clone(), classid(0x2a)),
                (pinned.clone(), classid(0x1a)),
                (claim("retired/1b"), classid(0x1b)),
            ]
        );
        let path = instance.root().join("user/bob/build").display().to_string();
        assert!(
            matches!(&foreign[..], [Foreign::Directory { path: found, .. }] if *found == path),
            "{foreign:?}"
        );

        instance.remove(&pinned).unwrap();
        let error = instance.remove(&bob).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot remove {}: it still has a directory `build`",
                instance.directory(&bob).display()
            )
        );
        assert!(!instance.remove_if_empty().unwrap(), "what is not ours keeps it");
        fs::remove_dir(path).unwrap();
        instance.remove(&bob).unwrap();
        instance.remove(&bob).unwrap();
        instance.remove(&claim("retired/1b")).unwrap();
        assert!(instance.remove_if_empty().unwrap());
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn removing_a_claim_lets_its_processes_go_and_does_not_wait_for_zombies() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let Scratch { hierarchy, instance } = &scratch;
        let bob = claim("user/bob");
        instance.make(&bob, classid(0x10)).unwrap();
        let (alive, mut zombie) = (Group::sleeping(0), Group::sleeping(0));
        for group in [&alive, &zombie] {
            assert_eq!(instance.attach(group.pid(), &bob).unwrap(), Attached::Moved);
        }
        let mut members = instance.members(&bob).unwrap();
        members.sort_unstable();
        let mut expected = [alive.pid(), zombie.pid()];
        expected.sort_unstable();
        assert_eq!(members, expected);
        // Not waited for, so it stays a zombie until the test ends.
        zombie.0.kill().unwrap();
        instance.remove(&bob).unwrap();
        assert!(!instance.directory(&bob).exists());
        assert_eq!(scratch.seat(alive.pid()), None);
        let root = fs::read_to_string(hierarchy.path.join("cgroup.procs")).unwrap();
        assert!(root.lines().any(|pid| pid == alive.pid().to_string()));
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn a_dead_process_and_a_missing_directory_are_outcomes_and_no_errors() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        let ended = Group::sleeping(0).pid();
        assert_eq!(instance.attach(ended, &claim("user/bob")).unwrap(), Attached::Dead);
        let here = std::process::id();
        assert_eq!(instance.attach(here, &claim("user/ann")).unwrap(), Attached::NoDirectory);
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn the_lock_works_on_the_real_hierarchy() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        let first = instance.lock(Duration::ZERO).unwrap();
        assert!(matches!(instance.lock(Duration::ZERO), Err(Error::Locked { .. })));
        assert!(instance.remove_if_empty().unwrap(), "the holder may remove the instance");
        let second = instance.lock(Duration::ZERO).unwrap();
        drop(first);
        assert!(matches!(instance.lock(Duration::ZERO), Err(Error::Locked { .. })));
        drop(second);
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn processes_are_placed_by_their_uid_in_whichever_namespace() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let instance = &scratch.instance;
        let (bob, ann, nobody, newcomer) = (unique(), unique(), unique(), unique());
        let lines = matcher(&[(bob, "bob"), (ann, "ann"), (newcomer, "newcomer")]);
        for (path, minor) in [("user/bob", 0x10), ("user/ann", 0x11), ("user/ann/pinned", 0x11)] {
            instance.make(&claim(path), classid(minor)).unwrap();
        }
        let at_root = Group::sleeping(bob);
        let in_anns = Group::sleeping(bob);
        let unclaimed = Group::sleeping(nobody);
        let pinned = Group::sleeping(bob);
        let waiting = Group::sleeping(newcomer);
        let engine = Group::sleeping(bob);
        let elsewhere =
            Group::start(
                Command::new("unshare")
                    .args(["--net", "setpriv", "--reuid", &bob.to_string()])
                    .args(["--clear-groups", "sleep", "600"]),
            );
        let foreign = scratch.hierarchy.path.join(format!("engine-{}", unique()));
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("cgroup.procs"), engine.pid().to_string()).unwrap();
        for (group, path) in [
            (&in_anns, "user/ann"),
            (&unclaimed, "user/ann"),
            (&elsewhere, "user/ann"),
            (&waiting, "user/ann"),
            (&pinned, "user/ann/pinned"),
        ] {
            assert_eq!(instance.attach(group.pid(), &claim(path)).unwrap(), Attached::Moved);
        }
        let comm = |pid| process::read_one(Path::new("/proc"), pid).unwrap().unwrap().comm;
        wait_until(|| comm(elsewhere.pid()).raw() == "sleep");

        let placement = scratch.place(&lines);
        let seats = [&at_root, &in_anns, &unclaimed, &pinned, &waiting, &engine, &elsewhere]
            .map(|group| scratch.seat(group.pid()));
        let reported: Vec<_> = placement
            .foreign
            .iter()
            .filter(|foreign| foreign.pid == engine.pid())
            .map(|foreign| (foreign.comm.raw(), foreign.owner.is_some()))
            .collect();
        assert_eq!(reported, [("sleep", true)]);
        drop(engine);
        fs::remove_dir(&foreign).unwrap();

        let seats: Vec<Option<&str>> = seats.iter().map(Option::as_deref).collect();
        let (bobs, pinned) = (Some("user/bob"), Some("user/ann/pinned"));
        assert_eq!(seats, [bobs, bobs, None, pinned, None, None, bobs]);
        assert!(placement.settled);
        assert_eq!((placement.added, placement.moved, placement.gone), (1, 2, 2));
        assert_eq!(placement.failed, []);
        assert_eq!(placement.waiting.get(&claim("user/newcomer")), Some(&1));

        let again = scratch.place(&lines);
        assert_eq!((again.added, again.moved, again.gone), (0, 0, 0));
        let running = process::running_uids(
            &process::scan(Path::new("/proc")).unwrap().processes,
            &scratch.view(),
        );
        assert!(running.contains(&nobody) && running.contains(&newcomer) && running.contains(&0));
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn no_process_escapes_by_forking() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let uid = unique();
        let lines = matcher(&[(uid, "bob")]);
        scratch.instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        for round in 0..5 {
            // Each of 60 children leaves a grandchild that goes on without it; all started at the
            // hierarchy's root while we place.
            let storm =
                "i=0; while [ $i -lt 60 ]; do (sleep 2 & sleep 0.02) & i=$((i+1)); done; wait";
            let _storm = Group::start(Command::new("sh").args(["-c", storm]).uid(uid));
            thread::sleep(Duration::from_millis(20 * round));
            let placement = scratch.place(&lines);
            assert!(placement.settled, "{placement:?}");
            assert_eq!(placement.failed, []);
            let processes = process::scan(Path::new("/proc")).unwrap().processes;
            let his: Vec<_> = processes
                .iter()
                .filter(|process| process.is_alive() && process.uid == uid)
                .collect();
            assert!(!his.is_empty());
            let claimed = format!("/{}/user/bob", scratch.instance.name());
            let escaped: Vec<_> =
                his.iter().filter(|process| process.net_cls.as_deref() != Some(&claimed)).collect();
            assert!(escaped.is_empty(), "round {round}: {escaped:?} after {placement:?}");
        }
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn a_chain_of_processes_that_each_fork_and_end_is_caught() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let uid = unique();
        scratch.instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        // At every moment one process lives, for some milliseconds, and leaves a child when it
        // ends.
        let chain = "f() { sleep 0.005; f & }; f & f & f & wait";
        let _chain = Group::start(Command::new("sh").args(["-c", chain]).uid(uid));
        thread::sleep(Duration::from_millis(50));
        let placement = scratch.place(&matcher(&[(uid, "bob")]));
        let claimed = format!("/{}/user/bob", scratch.instance.name());
        for _ in 0..20 {
            let processes = process::scan(Path::new("/proc")).unwrap().processes;
            for process in processes.iter().filter(|p| p.is_alive() && p.uid == uid) {
                assert_eq!(
                    process.net_cls.as_ref(),
                    Some(&claimed),
                    "after {} passes",
                    placement.passes
                );
            }
        }
        println!("caught {} in {} passes", placement.added, placement.passes);
    });
}

#[test]
#[ignore = "needs root, net_cls and python3"]
fn a_process_that_is_ending_is_never_seen_outside_its_claim() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        scratch.instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        let claimed = format!("/{}/user/bob", scratch.instance.name());
        // Memory takes long to give back, and so long is the time in which a process that ends
        // still has its namespaces, but no cgroup of its own.
        let heavy = "import os,sys; x = bytearray(32 << 20); sys.stdin.read(1); os._exit(0)";
        for round in 0..15 {
            let child = Command::new("python3").args(["-c", heavy]).stdin(Stdio::piped()).spawn();
            let mut child = child.unwrap();
            scratch.instance.attach(child.id(), &claim("user/bob")).unwrap();
            drop(child.stdin.take());
            let mut looks = 0;
            while let Some(seen) = process::read_one(Path::new("/proc"), child.id()).unwrap() {
                if seen.zombie {
                    break;
                }
                assert_eq!(seen.net_cls.as_ref(), Some(&claimed), "{round}: after {looks} looks");
                looks += 1;
            }
            child.wait().unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, net_cls and python3"]
fn a_process_whose_main_thread_ended_is_moved_with_its_other_threads() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let uid = unique();
        scratch.instance.make(&claim("user/bob"), classid(0x10)).unwrap();
        let code = "import ctypes, threading, time\n\
                    threading.Thread(target=time.sleep, args=(600,)).start()\n\
                    ctypes.CDLL(None).pthread_exit(None)";
        let group = Group::start(Command::new("/usr/bin/python3").args(["-c", code]).uid(uid));
        let stat = format!("/proc/{}/stat", group.pid());
        wait_until(|| fs::read_to_string(&stat).unwrap().contains(") Z"));
        let placement = scratch.place(&matcher(&[(uid, "bob")]));
        assert!(placement.settled, "{placement:?}");
        assert_eq!(placement.added, 1);
        assert_eq!(scratch.seat(group.pid()).as_deref(), Some("user/bob"));
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn ten_thousand_claims_are_observed_in_one_pass() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        let minors = 0x10..0x10 + 10_000_u16;
        for minor in minors.clone() {
            instance.make(&claim(&format!("uid/{minor}")), classid(minor)).unwrap();
        }
        let start = Instant::now();
        let (claims, foreign) = instance.observe().unwrap();
        let took = start.elapsed();
        assert_eq!((claims.len(), foreign.len()), (minors.len(), 0));
        assert!(minors.into_iter().all(|n| claims[&claim(&format!("uid/{n}"))] == classid(n)));
        // For the reader: no limit here, since the machines that run this are shared.
        println!("observed 10,000 claims in {took:?}");
    });
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "it did not happen in 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
