//! A system service as far as a process shows it: the cgroup that systemd would have made for it.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use super::cell::SCRATCH;
use super::command::run;

/// A unit of a name that no other test has; its cgroup is removed at the end.
pub struct Unit {
    pub name: String,
    cgroup: PathBuf,
}

impl Unit {
    /// Once in a test.
    pub fn new() -> Unit {
        let hierarchy = format!("{SCRATCH}/units");
        fs::create_dir_all(&hierarchy).expect("a mount point");
        run(&format!("mount -t cgroup2 none {hierarchy}"));
        let name = format!("served{}.service", std::process::id());
        let cgroup = PathBuf::from(hierarchy).join(&name);
        fs::create_dir(&cgroup).expect("a unit's cgroup");
        Unit { name, cgroup }
    }

    /// Puts a process there, as the service manager does before it runs a program.
    pub fn take(&self, pid: u32) {
        fs::write(self.cgroup.join("cgroup.procs"), pid.to_string()).expect("a unit's process");
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Its processes end with their tests.
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
    }
}
