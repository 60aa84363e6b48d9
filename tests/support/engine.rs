//! Real container engines of the cell's own, Docker and Podman: their data, state, sockets and
//! containers are the cell's, and all of it ends with the cell. Their one image is a static
//! busybox.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use super::cell::SCRATCH;
use super::clock::soon;
use super::command::{Done, run_with};

/// The bytes of the file `big` that containers and the far side serve.
pub const BIG: u64 = 20_000_000;

/// A running engine.
pub struct Engine {
    /// What answers at the engine's socket.
    server: Child,
    /// The engine's command, with the options that make it this cell's.
    client: Vec<String>,
    folder: String,
    /// The cgroup in which it puts its containers.
    room: &'static str,
}

impl Engine {
    /// Debian's `docker.io`: dockerd in the network namespace of the cell.
    pub fn docker() -> Engine {
        let folder = format!("{SCRATCH}/docker");
        let [data, state, pid] = ["data", "exec", "pid"].map(|it| format!("{folder}/{it}"));
        let socket = "unix:///run/docker.sock";
        let server = ["--data-root", &data, "--exec-root", &state, "-p", &pid, "-H", socket];
        let server = [&["dockerd"], &server[..]].concat();
        Engine::start(&server, &["docker", "-H", socket], folder.clone(), "docker")
    }

    /// Debian's `podman`, run by root, and its API. It has runc here, since crun must raise a limit
    /// of memory, and the cgroups of a test machine may lack a controller of pids.
    pub fn podman() -> Engine {
        let folder = format!("{SCRATCH}/podman");
        fs::create_dir_all(&folder).expect("a folder");
        let settings = format!("{folder}/containers.conf");
        let text = format!(
            "[engine]
             runtime = \"runc\"
             cgroup_manager = \"cgroupfs\"
             events_logger = \"none\"
             tmp_dir = \"{folder}/tmp\"
             [network]
             network_config_dir = \"{folder}/networks\"
             [containers]
             pids_limit = 0
            "
        );
        fs::write(&settings, text).expect("settings");
        let [data, state] = ["data", "state"].map(|it| format!("{folder}/{it}"));
        let setting = format!("CONTAINERS_CONF={settings}");
        let client = ["env", &setting, "podman", "--root", &data, "--runroot", &state];
        let client = [&client[..], &["--storage-driver", "vfs"]].concat();
        fs::create_dir_all("/run/podman").expect("a folder");
        let server = ["system", "service", "--time", "0", "unix:///run/podman/podman.sock"];
        let server = [&client[..], &server].concat();
        Engine::start(&server, &client, folder.clone(), "libpod_parent")
    }

    fn start(server: &[&str], client: &[&str], folder: String, room: &'static str) -> Engine {
        fs::create_dir_all(&folder).expect("a folder");
        // The cell's sysfs hides the hierarchies; this one shows the cell's own part.
        let none: Option<&str> = None;
        mount(none, "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).expect("cgroups");
        let log = File::create(format!("{folder}/log")).expect("a log");
        let mut command = Command::new(server[0]);
        command.args(&server[1..]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let server = command.spawn().expect("start the engine");
        let client = client.iter().map(ToString::to_string).collect();
        let engine = Engine { server, client, folder, room };
        soon("the engine answers", Duration::from_secs(60), || {
            engine.command(&["version"]).status == Some(0)
        });
        engine.import();
        engine
    }

    /// Makes the image `busybox`.
    fn import(&self) {
        let image = format!("{}/image", self.folder);
        root_of_busybox(&image);
        let archive = format!("{image}.tar");
        let mut tar = Command::new("tar");
        tar.args(["-C", &image, "-cf", &archive, "."]);
        run_with(tar, "").exits(0);
        self.command(&["import", &archive, "busybox"]).exits(0);
    }

    /// The engine's command with these words, however it ends.
    pub fn command(&self, words: &[&str]) -> Done {
        let mut command = Command::new(&self.client[0]);
        command.args(&self.client[1..]).args(words);
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

    /// `exec` of busybox's `wget`, which throws away what it gets.
    #[track_caller]
    pub fn wget(&self, container: &str, url: &str) {
        let wget = ["/bin/busybox", "wget", "-q", "-O", "/dev/null", url];
        self.command(&[&["exec", container], &wget[..]].concat()).exits(0);
    }

    /// Ends a container at once, and removes it.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        self.command(&["rm", "-f", container]).exits(0);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Its containers and their cgroups are in no namespace that ends with the cell.
        let all = self.command(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            self.command(&[&["rm", "-f"], &all[..]].concat());
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        // Another cell's engine may have its own below the same one.
        let room = format!("/sys/fs/cgroup/{}", self.room);
        let _ = fs::remove_dir(format!("{room}/conmon"));
        let _ = fs::remove_dir(room);
        if std::thread::panicking() {
            let log = fs::read_to_string(format!("{}/log", self.folder)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the engine\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

/// A root file system that is a static busybox, with `big` in `/www`.
pub fn root_of_busybox(folder: &str) {
    site(&format!("{folder}/www"));
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(format!("{folder}/{name}")).expect("a folder");
    }
    fs::copy("/bin/busybox", format!("{folder}/bin/busybox")).expect("busybox, the static one");
}

/// A folder with a file `big`.
pub fn site(folder: &str) -> &Path {
    fs::create_dir_all(folder).expect("a folder");
    let big = File::create(format!("{folder}/big")).expect("a file");
    big.set_len(BIG).expect("its bytes");
    Path::new(folder)
}
