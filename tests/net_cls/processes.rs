//! Processes that are put into directories, and that leave them.

use super::*;

#[test]
#[ignore = "needs root and net_cls"]
fn removing_a_claim_lets_its_processes_go_and_does_not_wait_for_zombies() {
    with_private_mounts(|point| {
        let scratch = Scratch::new(point);
        let Scratch { hierarchy, instance } = &scratch;
        let bob = claim("user/bob");
        locked(instance).make(&bob, classid(0x10)).unwrap();
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
        locked(instance).remove(&bob).unwrap();
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
        locked(instance).make(&claim("user/bob"), classid(0x10)).unwrap();
        let ended = Group::sleeping(0).pid();
        assert_eq!(instance.attach(ended, &claim("user/bob")).unwrap(), Attached::Dead);
        let here = std::process::id();
        assert_eq!(instance.attach(here, &claim("user/ann")).unwrap(), Attached::NoDirectory);
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
            locked(instance).make(&claim(path), classid(minor)).unwrap();
        }
        let at_root = Group::sleeping(bob);
        let in_anns = Group::sleeping(bob);
        let unclaimed = Group::sleeping(nobody);
        let pinned = Group::sleeping(bob);
        let waiting = Group::sleeping(newcomer);
        let engine = Group::sleeping(bob);
        let elsewhere = Group::sleeping_elsewhere(bob);
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
        locked(&scratch.instance).make(&claim("user/bob"), classid(0x10)).unwrap();
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
        locked(&scratch.instance).make(&claim("user/bob"), classid(0x10)).unwrap();
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
        locked(&scratch.instance).make(&claim("user/bob"), classid(0x10)).unwrap();
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
        locked(&scratch.instance).make(&claim("user/bob"), classid(0x10)).unwrap();
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
