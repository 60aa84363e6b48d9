//! The accounts of a cell: an `/etc/passwd` and an `/etc/group` of its own, mounted over the real
//! ones where only the cell sees it.

use std::fmt::Write;
use std::fs;

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use super::cell::SCRATCH;
use super::command::run;

/// An account that sends packets in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// One supplementary group.
    pub also: Option<u32>,
}

pub const ROOT: Account = Account { uid: 0, gid: 0, also: None };
pub const ANN: Account = person(2001);
pub const BOB: Account = person(2002);
pub const CAROL: Account = person(2003);
/// A student by a supplementary group.
pub const DAVE: Account = Account { also: Some(STUDENTS), ..person(2004) };
/// A student by the primary group.
pub const ERIN: Account = Account { gid: STUDENTS, ..person(2005) };
/// The unix group `students`.
pub const STUDENTS: u32 = 3000;

/// Everybody but root, by name.
pub const PEOPLE: [(&str, Account); 5] =
    [("ann", ANN), ("bob", BOB), ("carol", CAROL), ("dave", DAVE), ("erin", ERIN)];

const fn person(id: u32) -> Account {
    Account { uid: id, gid: id, also: None }
}

/// Gives the cell a copy of /etc that it may write to. Before [`furnish`].
pub fn own_etc() {
    let ours = format!("{SCRATCH}/etc");
    run(&format!("cp -a /etc {ours}"));
    mount(Some(ours.as_str()), "/etc", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|e| panic!("mount {ours} over /etc: {e}"));
}

/// The files that su, sudo and cron read beside `/etc/passwd`: no account has a password but root,
/// whose password is empty. After [`own_etc`].
pub fn passwords() {
    let mut shadow = String::from("root::19000:0:99999:7:::\n");
    for (name, _) in PEOPLE {
        let _ = writeln!(shadow, "{name}:*:19000:0:99999:7:::");
    }
    fs::write("/etc/shadow", shadow).expect("write the cell's passwords");
}

/// Puts the accounts in force.
pub fn furnish() {
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
    let mut group = String::from("root:x:0:\n");
    for (name, Account { uid, gid, .. }) in PEOPLE {
        let _ = writeln!(passwd, "{name}:x:{uid}:{gid}::/:/bin/sh");
        let _ = writeln!(group, "{name}:x:{uid}:");
    }
    let _ = writeln!(group, "students:x:{STUDENTS}:dave");
    // The account of sshd's unprivileged child.
    passwd.push_str("sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n");
    passwd.push_str("nobody:x:65534:65534::/:/usr/sbin/nologin\n");
    group.push_str("nogroup:x:65534:\n");
    for (file, text) in [("passwd", passwd), ("group", group), ("subuid", String::new())] {
        let ours = format!("{SCRATCH}/{file}");
        let theirs = format!("/etc/{file}");
        if file == "subuid" && !fs::exists(&theirs).unwrap_or(false) {
            continue;
        }
        fs::write(&ours, text).expect("write the cell's accounts");
        let none: Option<&str> = None;
        mount(Some(ours.as_str()), theirs.as_str(), none, MsFlags::MS_BIND, none)
            .unwrap_or_else(|e| panic!("mount {ours} over {theirs}: {e}"));
    }
}
