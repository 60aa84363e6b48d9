//! The hierarchy and its directories: mounted, claimed, locked, listed.

use super::*;

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
        locked(&scratch.instance).make(&claim("user/bob"), classid(0x10)).unwrap();
        assert_eq!(cgroup::unmount(point).unwrap(), Unmounted::InUse, "our own instance");
        locked(&scratch.instance).remove(&claim("user/bob")).unwrap();
        assert!(locked(&scratch.instance).remove_if_empty().unwrap());
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
        locked(instance).make(&bob, classid(0x1a)).unwrap();
        locked(instance).make(&pinned, classid(0x1a)).unwrap();
        locked(instance).make(&claim("retired/1b"), classid(0x1b)).unwrap();
        let text = |claim: &Claim| {
            fs::read_to_string(instance.directory(claim).join("net_cls.classid")).unwrap()
        };
        assert_eq!(text(&bob), "65562\n", "0x0001001a");
        // Inherited when it was made, and never again.
        locked(instance).write(&bob, classid(0x2a)).unwrap();
        assert_eq!(text(&pinned), "65562\n");
        locked(instance).make(&bob, classid(0x2a)).unwrap();

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

        locked(instance).remove(&pinned).unwrap();
        let error = locked(instance).remove(&bob).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot remove {}: it still has a directory `build`",
                instance.directory(&bob).display()
            )
        );
        assert!(!locked(instance).remove_if_empty().unwrap(), "what is not ours keeps it");
        fs::remove_dir(path).unwrap();
        locked(instance).remove(&bob).unwrap();
        locked(instance).remove(&bob).unwrap();
        locked(instance).remove(&claim("retired/1b")).unwrap();
        assert!(locked(instance).remove_if_empty().unwrap());
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn the_lock_works_on_the_real_hierarchy() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        let first = instance.lock(Duration::ZERO).unwrap();
        assert!(matches!(instance.lock(Duration::ZERO), Err(Error::Locked { .. })));
        assert!(first.remove_if_empty().unwrap(), "the holder may remove the instance");
        let second = instance.lock(Duration::ZERO).unwrap();
        drop(first);
        assert!(matches!(instance.lock(Duration::ZERO), Err(Error::Locked { .. })));
        drop(second);
    });
}

#[test]
#[ignore = "needs root and net_cls"]
fn ten_thousand_claims_are_observed_in_one_pass() {
    with_private_mounts(|point| {
        let Scratch { instance, .. } = &Scratch::new(point);
        let minors = 0x10..0x10 + 10_000_u16;
        for minor in minors.clone() {
            locked(instance).make(&claim(&format!("uid/{minor}")), classid(minor)).unwrap();
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
