//! A real sshd on the host side of a world, and clients on the far side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cell::SCRATCH;
use super::clock::soon;
use super::command::{run, run_with};
use super::world::World;

/// Where it listens.
pub const ADDRESS: &str = "10.77.0.1";

/// The server; dropped, it ends.
pub struct Sshd(Child);

impl Sshd {
    /// With keys of its own, and these lines in its configuration.
    pub fn start(more: &str) -> Sshd {
        for name in ["host", "client"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f", &format!("{SCRATCH}/{name}")]);
            run_with(command, "").exits(0);
        }
        Sshd::serve(more)
    }

    fn serve(more: &str) -> Sshd {
        // What it does not trust runs in there.
        fs::create_dir_all("/run/sshd").expect("a folder for sshd");
        fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::copy(format!("{SCRATCH}/client.pub"), format!("{SCRATCH}/authorized")).expect("a key");
        fs::set_permissions(format!("{SCRATCH}/authorized"), fs::Permissions::from_mode(0o644))
            .expect("chmod");
        let config = format!(
            "ListenAddress {ADDRESS}:22\nHostKey {SCRATCH}/host\nPidFile none\nStrictModes no\n\
             AuthorizedKeysFile {SCRATCH}/authorized\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n{more}\n"
        );
        fs::write(format!("{SCRATCH}/sshd_config"), config).expect("sshd's configuration");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &format!("{SCRATCH}/sshd_config")]);
        let child = command.stdin(Stdio::null()).spawn().expect("start sshd");
        soon("sshd listens", Duration::from_secs(10), || {
            run("ss -Hltn sport = :22").contains(ADDRESS)
        });
        Sshd(child)
    }

    /// Copies a file from the host to the far side, as this account.
    #[track_caller]
    pub fn fetch(&self, world: &World, account: &str, file: &str, to: &str) {
        Sshd::copy(world, &format!("{account}@{ADDRESS}:{file}"), to);
    }

    /// Copies a file from the far side to the host, as this account.
    #[track_caller]
    pub fn put(&self, world: &World, file: &str, account: &str, to: &str) {
        Sshd::copy(world, file, &format!("{account}@{ADDRESS}:{to}"));
    }

    #[track_caller]
    fn copy(world: &World, from: &str, to: &str) {
        let key = format!("{SCRATCH}/client");
        let options = ["-q", "-i", &key, "-F", "none", "-o", "StrictHostKeyChecking=no"];
        let mut command = world.far_command(&["scp"]);
        command.args(options).args(["-o", "UserKnownHostsFile=/dev/null", from, to]);
        run_with(command, "").exits(0);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
