//! NSS as it is, with account files of our own: each test covers some of /etc/passwd,
//! /etc/group and /etc/nsswitch.conf in a mount namespace of its own process. Needs root.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use shaper::accounts::Question;

/// glibc reads nsswitch.conf once in a process, so each test runs in a process of its own: this
/// same program, asked for that one test.
fn with_files(test: &str, files: &[(&str, &str)], body: impl FnOnce()) {
    const CHILD: &str = "SHAPER_TEST_CHILD";
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    if std::env::var_os(CHILD).is_none() {
        let this = std::env::current_exe().unwrap();
        let child = Command::new(this)
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = [child.stdout, child.stderr]
            .map(|out| String::from_utf8_lossy(&out).into_owned())
            .concat();
        assert!(child.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let file = folder.path().join(Path::new(path).file_name().unwrap());
        fs::write(&file, text).unwrap();
        nix::mount::mount(Some(&file), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap();
    }
    body();
}

fn strings(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
#[ignore = "needs root"]
fn an_account_in_thousands_of_groups_has_them_all() {
    let mut groups = "root:x:0:\n".to_string();
    for n in 0..5000 {
        writeln!(groups, "project{n}:x:{}:other,bob", 100_000 + n).unwrap();
    }
    let passwd = "root:x:0:0::/:/bin/sh\nbob:x:4711:50::/:/bin/sh\n";
    let files = [("/etc/passwd", passwd), ("/etc/group", groups.as_str())];
    with_files("an_account_in_thousands_of_groups_has_them_all", &files, || {
        let question = Question { running: BTreeSet::from([4711]), ..Question::default() };
        let accounts = question.ask_here();
        assert_eq!(accounts.unavailable, None);
        let gids = &accounts.by_uid[&4711].gids;
        assert_eq!(gids.len(), 5001);
        assert!(gids.contains(&50), "the primary one");
    });
}

#[test]
#[ignore = "needs root"]
fn a_group_with_very_many_members_is_found() {
    let mut groups = "root:x:0:\nstudents:x:500:bob".to_string();
    for n in 0..100_000 {
        write!(groups, ",student{n:06}").unwrap();
    }
    groups.push('\n');
    let files = [("/etc/group", groups.as_str())];
    with_files("a_group_with_very_many_members_is_found", &files, || {
        let question = Question { groups: strings(&["students"]), ..Question::default() };
        let accounts = question.ask_here();
        assert_eq!(accounts.unavailable, None);
        assert_eq!(accounts.groups["students"], Some(500));
    });
}

#[test]
#[ignore = "needs root"]
fn a_module_that_is_not_installed_does_not_make_accounts_unknown() {
    let files = [("/etc/nsswitch.conf", "passwd: files nosuchmodule\ngroup: files nosuchmodule\n")];
    with_files("a_module_that_is_not_installed_does_not_make_accounts_unknown", &files, || {
        let question =
            Question { names: strings(&["root", "no-such-account"]), ..Question::default() };
        let accounts = question.ask_here();
        assert_eq!(accounts.unavailable, None);
        assert_eq!(accounts.by_name["root"], Some(0));
        assert_eq!(accounts.by_name["no-such-account"], None);
    });
}
