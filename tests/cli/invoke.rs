//! How these tests call the program: words as one typed them, an account to be, text on standard
//! input; and the policies that most of them start from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use assert_cmd::Command;

use crate::support::accounts::{self, Account};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::program::{binary, policy};
use crate::support::world::UPLINK;
use crate::words::prepared;
pub use crate::words::{HEAD, exactly};

/// `shaper` with these words, as root.
pub fn shaper(words: &str) -> Command {
    prepared(Command::new(binary()), words.split_whitespace())
}

/// `shaper` with these words, as an account that may do nothing and has nothing.
pub fn as_nobody(words: &str) -> Command {
    as_user(Account { uid: 65534, gid: 65534, also: None }, words)
}

/// `shaper` with these words, as an account without privileges.
pub fn as_user(account: Account, words: &str) -> Command {
    let all = becoming(account, words);
    prepared(Command::new(all[0].as_str()), all[1..].iter().map(String::as_str))
}

/// The same in a named network namespace.
pub fn as_user_in(netns: &str, account: Account, words: &str) -> Command {
    let (entered, all) = (format!("--net=/run/netns/{netns}"), becoming(account, words));
    let all = [&entered].into_iter().chain(&all).map(String::as_str);
    prepared(Command::new("nsenter"), all)
}

/// The command line by which root has an account run `shaper` with these words.
fn becoming(Account { uid, gid, .. }: Account, words: &str) -> Vec<String> {
    // The binary's own folder may be closed to others.
    let copy = format!("{SCRATCH}/shaper");
    if !Path::new(&copy).exists() {
        fs::copy(binary(), &copy).expect("copy the binary");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod the copy");
    }
    let be = format!("setpriv --reuid={uid} --regid={gid} --clear-groups -- {copy} {words}");
    be.split_whitespace().map(str::to_string).collect()
}

/// Gives the cell its accounts and an uplink, and a policy for it that fits every kernel: the
/// policy's path.
pub fn host() -> String {
    accounts::furnish();
    run("ip link set lo up");
    run(&format!("ip link add {UPLINK} type veth peer name zfar0"));
    run(&format!("ip link set {UPLINK} up"));
    run("ip link set zfar0 up");
    policy(&text("ann: 20mbit"))
}

/// A policy with one line of `users`.
pub fn text(user: &str) -> String {
    format!("version: 1\nlinks:\n  {UPLINK}: {{rate: 1gbit, leaf: bfifo}}\nusers:\n  {user}\n")
}

/// What stands at the uplink's root, as tc says it.
pub fn root() -> String {
    run(&format!("tc qdisc show dev {UPLINK} root"))
}

/// A process of an account, until it is dropped.
pub struct Sleeper(Child);

impl Sleeper {
    pub fn of(account: Account) -> Sleeper {
        let Account { uid, gid, .. } = account;
        let mut command = std::process::Command::new("sleep");
        command.arg("60").uid(uid).gid(gid).stdin(Stdio::null());
        Sleeper(command.spawn().expect("start sleep"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // One that ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
