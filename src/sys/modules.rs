//! The kernel's modules, as the files of the host list them. Loads none.

use std::fs;
use std::path::Path;

/// The kernel's modules: those that are loaded, built in, or on disk for the running release.
pub(super) struct Modules<'h> {
    host: &'h Path,
    builtin: String,
    on_disk: String,
}

impl Modules<'_> {
    /// The modules of the host whose files are below this folder.
    pub(super) fn of(host: &Path) -> Modules<'_> {
        let read = |path: &str| fs::read_to_string(host.join(path)).unwrap_or_default();
        let folder = format!("lib/modules/{}", read("proc/sys/kernel/osrelease").trim());
        let list = |name: &str| read(&format!("{folder}/{name}"));
        Modules { host, builtin: list("modules.builtin"), on_disk: list("modules.dep") }
    }

    /// Whether it is known which modules the kernel would load: there are lists, or it has none.
    pub(super) fn are_known(&self) -> bool {
        self.has_lists() || !self.host.join("proc/modules").exists()
    }

    /// Whether there is a list of what is built in.
    pub(super) fn has_lists(&self) -> bool {
        !self.builtin.is_empty()
    }

    /// Whether the kernel has it, or would load it.
    pub(super) fn has(&self, module: &str) -> bool {
        self.is_there(module) || is_listed(&self.on_disk, module)
    }

    /// Whether the kernel would load it at its first use.
    pub(super) fn would_load(&self, module: &str) -> bool {
        !self.is_there(module) && is_listed(&self.on_disk, module)
    }

    fn is_there(&self, module: &str) -> bool {
        self.host.join("sys/module").join(module).exists() || is_listed(&self.builtin, module)
    }
}

/// `kernel/net/sched/sch_htb.ko.xz: …`
fn is_listed(list: &str, module: &str) -> bool {
    list.lines().any(|line| {
        let file = line.split(':').next().unwrap_or(line);
        let name = file.rsplit('/').next().unwrap_or(file);
        name.split('.').next() == Some(module)
    })
}
