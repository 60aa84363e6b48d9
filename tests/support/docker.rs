//! A real dockerd of the cell's own: its data, state, socket and cgroups are the cell's, and all of
//! it ends with the cell. Its one image is a static busybox.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use super::cell::SCRATCH;
use super::clock::soon;
use super::command::{Done, run_with};

const SOCKET: &str = "unix:///run/docker.sock";
const PID: &str = "/run/cell/docker/pid";

/// The bytes of the file `big` that containers and the far side serve.
pub const BIG: u64 = 20_000_000;

/// A running dockerd.
pub struct Docker {
    daemon: Child,
}

impl Docker {
    /// Starts it in the network namespace of the cell, and makes the image `busybox`.
    pub fn start() -> Docker {
        let folder = format!("{SCRATCH}/docker");
        fs::create_dir_all(&folder).expect("a folder");
        // The cell's sysfs hides the hierarchies; this one shows the cell's own part.
        let none: Option<&str> = None;
        mount(none, "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).expect("cgroups");
        let log = File::create(format!("{folder}/log")).expect("a log");
        let mut command = Command::new("dockerd");
        command.args(["--data-root", &format!("{folder}/data")]);
        command.args(["--exec-root", &format!("{folder}/exec"), "-p", PID, "-H", SOCKET]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let daemon = command.spawn().expect("start dockerd, of Debian's package docker.io");
        let docker = Docker { daemon };
        soon("dockerd answers", Duration::from_secs(60), || {
            docker.command(&["version"]).status == Some(0)
        });
        let image = format!("{folder}/image");
        site(&format!("{image}/www"));
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(format!("{image}/{name}")).expect("a folder");
        }
        fs::copy("/bin/busybox", format!("{image}/bin/busybox")).expect("busybox, the static one");
        let import = format!("tar -C {image} -c . | docker -H {SOCKET} import - busybox");
        let mut shell = Command::new("sh");
        shell.args(["-c", &import]);
        run_with(shell, "").exits(0);
        docker
    }

    /// `docker` with these words, however it ends.
    pub fn command(&self, words: &[&str]) -> Done {
        let mut command = Command::new("docker");
        command.args(["-H", SOCKET]).args(words);
        run_with(command, "")
    }

    /// Starts a container that serves `big` at its port 80.
    #[track_caller]
    pub fn serve(&self, name: &str, options: &[&str]) {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(options);
        words.extend(["busybox", "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]);
        self.command(&words).exits(0);
    }

    /// `docker exec` of busybox's `wget`, which throws away what it gets.
    #[track_caller]
    pub fn wget(&self, container: &str, url: &str) {
        let wget = ["/bin/busybox", "wget", "-q", "-O", "/dev/null", url];
        self.command(&[&["exec", container], &wget[..]].concat()).exits(0);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Its containers and their cgroups are in no namespace that ends with the cell.
        let all = self.command(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            self.command(&[&["rm", "-f"], &all[..]].concat());
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Another cell's dockerd may have its own below the same one.
        let _ = fs::remove_dir("/sys/fs/cgroup/docker");
        if std::thread::panicking() {
            let log = fs::read_to_string(format!("{SCRATCH}/docker/log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- dockerd\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

/// A folder with a file `big`.
pub fn site(folder: &str) -> &Path {
    fs::create_dir_all(folder).expect("a folder");
    let big = File::create(format!("{folder}/big")).expect("a file");
    big.set_len(BIG).expect("its bytes");
    Path::new(folder)
}
