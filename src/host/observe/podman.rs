//! Whether a mounted `net_cls` disturbs users' Podman. Reads root's files only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::facts::Spared;

/// Podman's own command, where distributions put it.
const PACKAGED: &str = "usr/bin/podman";
/// And where people do.
const LOCAL: &str = "usr/local/bin/podman";
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
/// The library that does, as Go writes it into the build information of a command, before the
/// second number of its version; Podman 5.3 was built of the one with this number.
const LIBRARY: &[u8] = b"dep\tgithub.com/containers/common\tv0.";
const MENDED_LIBRARY: u32 = 61;
/// Its name since.
const RENAMED_LIBRARY: &[u8] = b"dep\tgo.podman.io/common\tv0.";

/// Whom the hierarchy disturbs wherever it is mounted. `host`: the root of the files.
///
/// Podman before 5.3 asks all lines of /proc/self/cgroup whether its user owns the cgroup
/// (`UserOwnsCurrentSystemdCgroup`, containers/common), so also that of `net_cls`, which he never
/// does. So as a user's service it moves itself out of the service, which then counts as ended, or
/// fails to make a cgroup below the path of `net_cls`. Started by hand it runs.
pub(super) fn disturbed(host: &Path) -> Option<Spared> {
    let commands = [PACKAGED, LOCAL].map(|path| host.join(path));
    let command = commands.into_iter().find(|path| path.is_file())?;
    let lingers = fs::read_dir(host.join(LINGERING)).is_ok_and(|mut users| users.next().is_some());
    let mut users = fs::read_dir(host.join(USERS)).into_iter().flatten().flatten();
    // A link there is no Podman's, and where it leads the user chooses.
    let has_used = |user: fs::DirEntry| {
        fs::symlink_metadata(user.path().join(USED)).is_ok_and(|found| found.is_dir())
    };
    if !lingers && !users.any(has_used) {
        return None;
    }
    (!is_mended(host, &command)).then_some(Spared::Podman)
}

/// A command as it was when its version was looked up.
#[derive(PartialEq, Eq)]
struct Command {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
}

/// Whether the command is Podman 5.3 or later: by its package, else by what it was built of. What
/// cannot be read counts as older. The answer is kept while the command stays the same, which has
/// 50 MB.
fn is_mended(host: &Path, path: &Path) -> bool {
    static KNOWN: Mutex<Option<(Command, bool)>> = Mutex::new(None);
    let Ok(found) = fs::metadata(path) else { return false };
    let modified = (found.mtime(), found.mtime_nsec());
    let command = Command { path: path.to_path_buf(), size: found.len(), modified };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, is_mended)) = known.as_ref().filter(|(of, _)| *of == command) {
        return *is_mended;
    }
    let listed = || fs::read_to_string(host.join(PACKAGES)).ok();
    let version = match path == host.join(PACKAGED) {
        true => listed().as_deref().and_then(packaged),
        false => None,
    };
    let is_mended = match version {
        Some(version) => version >= MENDED,
        None => is_of_mended_library(path).unwrap_or_default(),
    };
    *known = Some((command, is_mended));
    is_mended
}

/// The first two numbers of the version of the package `podman`, where Debian's list has it as
/// installed.
fn packaged(status: &str) -> Option<(u32, u32)> {
    let is_podmans = |entry: &&str| entry.lines().next() == Some("Package: podman");
    let entry = status.split("\n\n").find(is_podmans)?;
    let field = |name| entry.lines().find_map(|line| line.strip_prefix(name));
    let version = field("Version: ")
        .filter(|_| field("Status: ").is_some_and(|status| status.ends_with(" installed")))?;
    let version = version.split_once(':').map_or(version, |(_epoch, version)| version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn is_of_mended_library(command: &Path) -> io::Result<bool> {
    let number = |library| number_behind(File::open(command)?, library);
    Ok(match number(LIBRARY)? {
        Some(number) => number >= MENDED_LIBRARY,
        None => number(RENAMED_LIBRARY)?.is_some(),
    })
}

/// The number behind the first such text of a file that has one behind it.
fn number_behind(mut file: impl Read, text: &[u8]) -> io::Result<Option<u32>> {
    /// So many digits it has at most.
    const DIGITS: usize = 4;
    let mut window = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut part)?;
        window.extend_from_slice(&part[..length]);
        if length == 0 {
            window.extend_from_slice(&[0; DIGITS]);
        }
        let found = window.windows(text.len() + DIGITS).find_map(|it| {
            let behind = it.strip_prefix(text)?;
            let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&behind[..digits]).ok()?.parse().ok()
        });
        if found.is_some() || length == 0 {
            return Ok(found);
        }
        window.drain(..window.len().saturating_sub(text.len() + DIGITS - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::modules::write_files;

    const OLD: &str = "Package: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8\n\n";
    const NEW: &str = "Package: crun\nVersion: 1.8\n\nPackage: podman\nStatus: install ok installed\nVersion: 1:5.4.2-1\n";

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
        let built_of = |path, library: &str| {
            let build =
                format!("\u{0}path\tgithub.com/containers/podman/v5/cmd/podman\n{library}\n");
            of(&[(path, &build), used, (PACKAGES, NEW)])
        };
        let common = |number| format!("dep\tgithub.com/containers/common\tv0.{number}.1");
        assert_eq!(built_of(LOCAL, &common(60)), Some(Spared::Podman), "5.2, of no package");
        assert_eq!(built_of(LOCAL, ""), Some(Spared::Podman));
        assert_eq!(built_of(LOCAL, &common(61)), None);
        assert_eq!(built_of(LOCAL, "dep\tgo.podman.io/common\tv0.66.0"), None);
        assert_eq!(built_of(PACKAGED, &common(60)), None, "its package says the version");
    }

    #[test]
    fn a_version_is_that_of_the_package_of_this_name() {
        assert_eq!(packaged(OLD), Some((4, 3)));
        assert_eq!(packaged(NEW), Some((5, 4)));
        assert_eq!(packaged("Package: podman-docker\nVersion: 4.3.1\n"), None);
        assert_eq!(packaged("Package: podman\nStatus: deinstall\n\nVersion: 4.3\n"), None);
        let left = "Package: podman\nStatus: deinstall ok config-files\nVersion: 5.4.2\n";
        assert_eq!(packaged(left), None, "only its configuration is there");
    }

    #[test]
    fn another_command_in_the_same_place_is_looked_at_again() {
        let host = tempfile::tempdir().unwrap();
        let of = |library: &str| {
            let library = format!("dep\tgithub.com/containers/common\tv0.{library}");
            write_files(host.path(), &[("run/user/1/libpod/x", ""), (LOCAL, &library)]);
            disturbed(host.path())
        };
        assert_eq!(of("60.0"), Some(Spared::Podman));
        assert_eq!(of("61.10"), None);
        assert_eq!(of("60.100"), Some(Spared::Podman));
    }

    #[test]
    fn where_a_link_of_a_users_leads_is_not_looked_at() {
        let host = tempfile::tempdir().unwrap();
        write_files(
            host.path(),
            &[("usr/bin/podman", ""), ("elsewhere/x", ""), ("run/user/1/x", "")],
        );
        let link = host.path().join("run/user/1/libpod");
        std::os::unix::fs::symlink(host.path().join("elsewhere"), link).unwrap();
        assert_eq!(disturbed(host.path()), None);
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
            let of = |text: &[u8]| number_behind(Slow(text, step), b"module/v").unwrap();
            assert_eq!(of(b"some bytes, module/vx, module/v71 and more"), Some(71));
            assert_eq!(of(b"some bytes, module/v7"), Some(7));
            assert_eq!(of(b"some bytes, module/v"), None);
        }
    }
}
