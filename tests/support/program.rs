//! The program under test: the real binary, told from outside only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cell::SCRATCH;
use super::command::{Done, run_with};

/// Where shaper mounts `net_cls` when nobody else has: in a cell nobody has.
pub const NET_CLS: &str = "/run/shaper/net_cls";

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
    Path::new(NET_CLS).join("shaper").join(claim)
}

/// The processes in a claim's directory.
#[track_caller]
pub fn members(claim: &str) -> Vec<u32> {
    let file = directory(claim).join("cgroup.procs");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.lines().filter_map(|line| line.parse().ok()).collect()
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
