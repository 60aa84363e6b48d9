//! The kernel's modules, as the files of the host list them. Loads none.

use std::fs;
use std::path::Path;

/// Whether the kernel has still to load a module, as it would if somebody asked for what is in it:
/// until then nothing of that stands.
pub fn would_load(module: &str) -> bool {
    Modules::of(Path::new("/")).would_load(module)
}

/// Whether the kernel has loaded a module. Of what is built in it may not say.
pub fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

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

/// Writes files as those of a host, below a folder.
#[cfg(test)]
pub(crate) fn write_files(host: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_loaded_or_built_in_is_not_loaded_by_a_question() {
        let host = tempfile::tempdir().unwrap();
        let write = |path, text| write_files(host.path(), &[(path, text)]);
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        let would_load = || Modules::of(host.path()).would_load("nf_tables");
        assert!(!would_load(), "nobody has it");
        write("lib/modules/6.1.0/modules.dep", "kernel/net/netfilter/nf_tables.ko.xz:\n");
        assert!(would_load());
        write("sys/module/nf_tables/refcnt", "1");
        assert!(!would_load());
        fs::remove_dir_all(host.path().join("sys")).unwrap();
        write("lib/modules/6.1.0/modules.builtin", "kernel/net/netfilter/nf_tables.ko\n");
        assert!(!would_load());
    }
}
