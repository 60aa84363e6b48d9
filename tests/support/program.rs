//! The program under test: the real binary, told from outside only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::accounts::{Account, PEOPLE};
use super::cell::SCRATCH;
use super::command::{Done, run_with};
use super::world::UPLINK;

/// Where shaper mounts `net_cls` when nobody else has: in a cell nobody has.
pub const NET_CLS: &str = "/run/shaper/net_cls";
/// Where instances stand that need none.
pub const CLAIMS: &str = "/run/shaper/claims";

/// Whether this test's policies say `classifier: uid` of each link.
static UNTAGGED: AtomicBool = AtomicBool::new(false);

/// From now on the policies of this test say `classifier: uid` of the uplink.
pub fn without_tags() {
    UNTAGGED.store(true, Ordering::Relaxed);
}

/// Whether they do.
pub fn is_untagged() -> bool {
    UNTAGGED.load(Ordering::Relaxed)
}

/// The text with `classifier: uid` at the uplink.
fn untagged(text: &str) -> String {
    let link = format!("{UPLINK}: ");
    let (before, behind) = text.split_once(&link).expect("a policy for the uplink");
    match behind.strip_prefix('{') {
        Some(behind) => format!("{before}{link}{{classifier: uid, {behind}"),
        None => {
            let end = behind.find(['}', ',', '\n']).unwrap_or(behind.len());
            let (rate, behind) = behind.split_at(end);
            format!("{before}{link}{{classifier: uid, rate: {rate}}}{behind}")
        }
    }
}

/// The binary: cargo's, or the one that `SHAPER` names (in the lab, where there is no cargo).
pub fn binary() -> PathBuf {
    std::env::var_os("SHAPER")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_shaper").map(PathBuf::from))
        .expect("the shaper binary: set SHAPER to its path")
}

/// Runs `shaper` with these words.
pub fn shaper(words: &[&str]) -> Done {
    let mut command = Command::new(binary());
    command.args(words);
    run_with(command, "")
}

/// The same without CAP_SYS_ADMIN, as the daemon is confined: it cannot open maps that another
/// process has made.
pub fn confined_shaper(words: &[&str]) -> Done {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    command.arg(binary()).args(words);
    run_with(command, "")
}

/// Writes the policy as root's own file and gives its path.
pub fn policy(text: &str) -> String {
    let path = format!("{SCRATCH}/policies.yaml");
    let text = match is_untagged() {
        true => untagged(text),
        false => text.to_string(),
    };
    fs::write(&path, text).expect("write the policy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod the policy");
    path
}

/// Applies a policy, which must succeed.
#[track_caller]
pub fn apply(text: &str) -> Done {
    shaper(&["apply", &policy(text)]).exits(0)
}

/// The classid that a claim's directory holds, as `tc` writes it: `classid("user/ann")` is `1:10`.
#[track_caller]
pub fn classid(claim: &str) -> String {
    let raw = raw_classid(claim);
    format!("{:x}:{:x}", raw >> 16, raw & 0xffff)
}

/// The same as the number in `net_cls.classid`.
#[track_caller]
pub fn raw_classid(claim: &str) -> u32 {
    let file = directory(claim).join("net_cls.classid");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.trim().parse().unwrap_or_else(|e| panic!("{}: {text:?}: {e}", file.display()))
}

/// A claim's directory, in the default instance.
pub fn directory(claim: &str) -> PathBuf {
    let root = if is_untagged() { CLAIMS } else { NET_CLS };
    Path::new(root).join("shaper").join(claim)
}

/// The processes in a claim's directory; without tags, those of the account's uid, once the claim
/// is there.
#[track_caller]
pub fn members(claim: &str) -> Vec<u32> {
    if is_untagged() {
        assert!(directory(claim).exists(), "{claim} has no class");
        let (_, name) = claim.split_once('/').expect("whose it is");
        let is_meant =
            |(own, account): &&(&str, Account)| *own == name || account.uid.to_string() == name;
        let (_, account) = PEOPLE.iter().find(is_meant).expect("an account of the tests");
        return running_as(account.uid);
    }
    let file = directory(claim).join("cgroup.procs");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The pids of the processes with this real uid.
fn running_as(uid: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_his = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        line.and_then(|line| line.split_whitespace().next()) == Some(&uid.to_string())
    };
    pids.filter(is_his).collect()
}

/// Asked of the kernel itself, with `tc`, on loopback's clsact-free root: an unknown kind is
/// refused before anything is made.
pub fn kernel_has_cls_cgroup() -> bool {
    let tc = |line: &str| {
        let mut command = Command::new("tc");
        command.args(line.split(' '));
        run_with(command, "").status == Some(0)
    };
    let tried = tc("qdisc add dev lo root handle 1: htb")
        && tc("filter add dev lo parent 1: prio 1 handle 1: protocol all cgroup");
    tc("qdisc del dev lo root");
    tried
}
