//! A system service as far as a process shows it: the cgroup that systemd would have made for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use super::actor::Actor;
use super::cell::{SCRATCH, number};

/// A unit, whose cgroup is removed at the end.
pub struct Unit {
    pub name: String,
    cgroup: PathBuf,
}

impl Unit {
    /// Once in a test.
    pub fn new() -> Unit {
        Unit::named(&format!("served{}.service", number()))
    }

    /// A unit of this name, which may be another test's, too.
    pub fn named(name: &str) -> Unit {
        let hierarchy = format!("{SCRATCH}/units");
        if !fs::exists(&hierarchy).unwrap_or(false) {
            fs::create_dir_all(&hierarchy).expect("a mount point");
            let at = hierarchy.as_str();
            mount(Some("none"), at, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .expect("mount cgroup v2");
        }
        // The hierarchy is the machine's.
        let slice = PathBuf::from(hierarchy).join(format!("test{}.slice", number()));
        let cgroup = slice.join(name);
        fs::create_dir_all(&cgroup).expect("a unit's cgroup");
        Unit { name: name.to_string(), cgroup }
    }

    /// Puts a process there, as the service manager does before it runs a program.
    pub fn take(&self, pid: u32) {
        self.take_below("", pid);
    }

    /// The same into a cgroup below the unit's own, which the unit makes.
    pub fn take_below(&self, below: &str, pid: u32) {
        let cgroup = self.cgroup.join(below);
        fs::create_dir_all(&cgroup).expect("a cgroup of the unit's");
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("a unit's process");
    }

    /// Makes a cgroup below the unit's own one for threads.
    pub fn make_threaded(&self, below: &str) {
        let cgroup = self.cgroup.join(below);
        fs::create_dir_all(&cgroup).expect("a cgroup of the unit's");
        fs::write(cgroup.join("cgroup.type"), "threaded").expect("a cgroup for threads");
    }

    /// Shares out a controller to what is below the unit's own cgroup, as a unit with `Delegate=`
    /// may: from then on no process may be in that one itself.
    pub fn share_out(&self) {
        let above: Vec<&Path> = self.cgroup.ancestors().take(3).collect();
        let root = above.last().expect("the hierarchy's root");
        let there = fs::read_to_string(root.join("cgroup.controllers")).expect("controllers");
        let first = there.split_whitespace().next().expect("a controller");
        for cgroup in above.into_iter().rev() {
            let file = cgroup.join("cgroup.subtree_control");
            fs::write(&file, format!("+{first}")).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        }
    }

    /// Starts an actor of root's as the service manager starts a program: in the cgroup already
    /// when it is run.
    pub fn start(&self) -> Actor {
        let mut command = Command::new("sh");
        let script = r#"echo $$ > "$0" && exec "$@""#;
        command.args(["-c", script]).arg(self.cgroup.join("cgroup.procs"));
        command.arg(std::env::current_exe().expect("this program")).arg("--actor");
        Actor::start(command)
    }
}

/// Removes a cgroup and those below it.
fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Its processes end with their tests.
        for _ in 0..100 {
            if remove(&self.cgroup).is_ok() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        // Another unit of the test's may be there.
        let _ = self.cgroup.parent().map(fs::remove_dir);
    }
}
