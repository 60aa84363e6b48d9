//! The systemd units that exist, by the names of unit files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::process::Process;

/// Where unit files are, the first found first (systemd.unit(5), "Unit File Load Path"); those of
/// units that systemd makes by itself while they run are in `transient`.
const FOLDERS: [&str; 13] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];

/// The services and scopes that there are below `root`, and those that processes run in: of what
/// systemd makes while it runs not all has a file.
pub(super) fn units(root: &Path, processes: &[Process]) -> BTreeMap<String, String> {
    let mut units = unit_files(root);
    let running = processes.iter().filter_map(|process| process.unit.clone());
    units.extend(running.map(|unit| (unit.clone(), unit)));
    units
}

/// The names of all services and scopes below `root`, each with the name that its processes are
/// found by: an alias is a symbolic link to a file of another name. Without systemd there are none.
fn unit_files(root: &Path) -> BTreeMap<String, String> {
    let mut units = BTreeMap::new();
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_string) else { continue };
            let is_unit = |name: &str| name.ends_with(".service") || name.ends_with(".scope");
            if !is_unit(&name) || units.contains_key(&name) {
                continue;
            }
            let target = fs::read_link(entry.path()).ok();
            let other = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
            let found = other.filter(|name| is_unit(name)).unwrap_or(&name).to_string();
            units.insert(name, found);
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_alias_is_found_under_the_name_of_its_file() {
        let root = tempfile::tempdir().unwrap();
        let folder = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (etc, lib) = (folder("etc/systemd/system"), folder("lib/systemd/system"));
        fs::write(lib.join("ssh.service"), "").unwrap();
        fs::write(lib.join("ssh.socket"), "").unwrap();
        symlink("/lib/systemd/system/ssh.service", etc.join("sshd.service")).unwrap();
        symlink("/dev/null", etc.join("masked.service")).unwrap();
        let units = unit_files(root.path());
        let found: Vec<(&str, &str)> =
            units.iter().map(|(name, found)| (name.as_str(), found.as_str())).collect();
        assert_eq!(
            found,
            [
                ("masked.service", "masked.service"),
                ("ssh.service", "ssh.service"),
                ("sshd.service", "ssh.service"),
            ]
        );
        assert_eq!(unit_files(&root.path().join("none")), BTreeMap::new());
    }
}
