//! Whether a mounted `net_cls` disturbs users' Podman. Reads root's files only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::facts::Spared;

/// Podman's own command, where distributions and people put it.
const PODMAN: [&str; 2] = ["usr/bin/podman", "usr/local/bin/podman"];
/// Users whose services run without a login (`loginctl enable-linger`).
const LINGERING: &str = "var/lib/systemd/linger";
/// The folders of users who are logged in, or linger.
const USERS: &str = "run/user";
/// What a user's Podman makes there when he starts it first.
const USED: &str = "libpod";
/// Debian's list of packages.
const PACKAGES: &str = "var/lib/dpkg/status";
/// The first version that passes over hierarchies of cgroup v1 where the host has cgroup v2.
const MENDED: (u32, u32) = (5, 3);

/// Whom the hierarchy disturbs wherever it is mounted. `host`: the root of the files.
///
/// Podman before 5.3 asks all lines of /proc/self/cgroup whether its user owns the cgroup
/// (`UserOwnsCurrentSystemdCgroup`, containers/common), so also that of `net_cls`, which he never
/// does. So as a user's service it moves itself out of the service, which then counts as ended, or
/// fails to make a cgroup below the path of `net_cls`. Started by hand it runs.
pub(super) fn disturbed(host: &Path) -> Option<Spared> {
    let command = PODMAN.iter().map(|path| host.join(path)).find(|path| path.is_file())?;
    let lingers = fs::read_dir(host.join(LINGERING)).is_ok_and(|mut users| users.next().is_some());
    let users = fs::read_dir(host.join(USERS)).into_iter().flatten().flatten();
    if !lingers && !users.into_iter().any(|user| user.path().join(USED).is_dir()) {
        return None;
    }
    let listed = fs::read_to_string(host.join(PACKAGES)).ok();
    let is_mended = match listed.as_deref().and_then(packaged) {
        Some(version) => version >= MENDED,
        None => is_of_module_5(&command),
    };
    (!is_mended).then_some(Spared::Podman)
}

/// The first two numbers of the version of the package `podman` in Debian's list.
fn packaged(status: &str) -> Option<(u32, u32)> {
    let (_, entry) = status.split_once("Package: podman\n")?;
    let fields = entry.lines().take_while(|line| !line.is_empty());
    let version = fields.filter_map(|line| line.strip_prefix("Version: ")).next()?;
    let version = version.split_once(':').map_or(version, |(_epoch, version)| version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the command was built of Podman's fifth module or a later one, as Go writes into its
/// build information. What cannot be read, or has no such path, counts as older.
fn is_of_module_5(command: &Path) -> bool {
    const PATH: &[u8] = b"path\tgithub.com/containers/podman/v";
    File::open(command).and_then(|file| number_behind(file, PATH)).is_ok_and(|number| number >= 5)
}

/// The digit behind the first such text of a file; 0 where it has none.
fn number_behind(mut file: impl Read, text: &[u8]) -> io::Result<u8> {
    let mut window = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut part)?;
        if length == 0 {
            return Ok(0);
        }
        window.extend_from_slice(&part[..length]);
        let found = window.windows(text.len() + 1).find(|it| it.starts_with(text));
        if let Some(digit) = found.and_then(|it| it.last()) {
            return Ok(digit.saturating_sub(b'0'));
        }
        window.drain(..window.len().saturating_sub(text.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::modules::write_files;

    const OLD: &str = "Package: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8\n\n";
    const NEW: &str = "Package: crun\nVersion: 1.8\n\nPackage: podman\nVersion: 1:5.4.2-1\n";

    fn of(files: &[(&str, &str)]) -> Option<Spared> {
        let host = tempfile::tempdir().unwrap();
        write_files(host.path(), files);
        disturbed(host.path())
    }

    #[test]
    fn an_old_podman_of_users_is_spared() {
        let podman = ("usr/bin/podman", "");
        let lingering = ("var/lib/systemd/linger/ann", "");
        let used = ("run/user/1000/libpod/x", "");
        let old = (PACKAGES, OLD);
        assert_eq!(of(&[podman, lingering, old]), Some(Spared::Podman));
        assert_eq!(of(&[podman, used, old]), Some(Spared::Podman));
        assert_eq!(of(&[podman, used]), Some(Spared::Podman), "of a version that nobody tells");
        assert_eq!(of(&[podman, old, ("run/user/1000/bus", "")]), None, "only root uses it");
        assert_eq!(of(&[lingering, used, old]), None, "it is not there");
        assert_eq!(of(&[podman, lingering, used, (PACKAGES, NEW)]), None);
        let module =
            |number| format!("\u{0}path\tgithub.com/containers/podman/v{number}/cmd/podman\n");
        let of_module = |number| of(&[("usr/local/bin/podman", &module(number)), used]);
        assert_eq!(of_module(4), Some(Spared::Podman));
        assert_eq!(of_module(5), None);
    }

    #[test]
    fn a_version_is_that_of_the_package_of_this_name() {
        assert_eq!(packaged(OLD), Some((4, 3)));
        assert_eq!(packaged(NEW), Some((5, 4)));
        assert_eq!(packaged("Package: podman-docker\nVersion: 4.3.1\n"), None);
        assert_eq!(packaged("Package: podman\nStatus: deinstall\n\nVersion: 4.3\n"), None);
    }

    #[test]
    fn a_text_is_found_also_where_a_part_ends_in_it() {
        /// Hands out this many bytes at a time.
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = self.1.min(self.0.len()).min(buffer.len());
                let (part, rest) = self.0.split_at(length);
                buffer[..length].copy_from_slice(part);
                self.0 = rest;
                Ok(length)
            }
        }
        for step in 1..20 {
            assert_eq!(
                number_behind(Slow(b"some bytes, module/v7 and more", step), b"module/v").unwrap(),
                7
            );
            assert_eq!(number_behind(Slow(b"some bytes, module/v", step), b"module/v").unwrap(), 0);
        }
    }
}
