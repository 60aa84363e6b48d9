//! The daemon that keeps an instance, as other commands meet it: what they change beside it, it
//! undoes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::cli::{Cli, Command, DEFAULT_FILE};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::text::shown;

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Its process id; 0: the daemon is in another process namespace.
    pid: u32,
    /// What its command line asks for; `None`: that cannot be known.
    follows: Option<Followed>,
}

/// The policy that a daemon follows, and how it reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    /// As its command line names it.
    file: PathBuf,
    skip_unknown: bool,
    takeover: bool,
}

impl Daemon {
    /// The daemon that keeps the kernel's instance; `None`: no daemon does.
    pub(super) fn of(kernel: &Kernel) -> Result<Option<Daemon>, Failure> {
        let Some(instance) = kernel.instance() else { return Ok(None) };
        let Some(pid) = instance.keeper()? else { return Ok(None) };
        Ok(Some(Daemon { pid, follows: followed(&kernel.proc_root.join(pid.to_string())) }))
    }

    /// Its process id; 0: it is in another process namespace.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The policy file that it follows, as its command line names it.
    pub(super) fn file(&self) -> Option<String> {
        self.path().map(|file| file.to_string_lossy().into_owned())
    }

    /// The same as a path.
    pub(super) fn path(&self) -> Option<&Path> {
        self.follows.as_ref().map(|follows| follows.file.as_path())
    }

    /// Whether an unknown account is a warning to it, as far as that is known.
    pub(super) fn skips_unknown(&self) -> bool {
        self.follows.as_ref().is_some_and(|follows| follows.skip_unknown)
    }

    /// Whether it replaces other people's root qdiscs, as far as that is known.
    pub(super) fn takes_over(&self) -> bool {
        self.follows.as_ref().is_some_and(|follows| follows.takeover)
    }

    /// The refusal of a command whose work this daemon would undo.
    pub(super) fn conflict(self, beside: Beside) -> Failure {
        Failure::Locked(Conflict { daemon: self, beside }.to_string())
    }

    /// Whether it follows this very file, by whatever name.
    fn follows(&self, file: &Path) -> bool {
        match (self.path(), real(file)) {
            (Some(followed), Some(file)) => real(followed).is_some_and(|followed| followed == file),
            _ => false,
        }
    }
}

/// What a command does while a daemon runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beside {
    /// Applies another policy.
    Apply,
    /// Removes everything.
    Clear,
    /// Edits another policy, and applies it.
    Edit,
    /// Starts a second daemon.
    Watch,
}

/// The daemon would undo what a command does: exit status 4.
#[derive(Debug, thiserror::Error)]
#[error(
    "{daemon}, and would {}; {}{}", .beside.undone(), .beside.cure(), .beside.all_the_same()
)]
struct Conflict {
    daemon: Daemon,
    beside: Beside,
}

impl Beside {
    /// What the daemon would do about it.
    fn undone(self) -> &'static str {
        match self {
            Beside::Apply | Beside::Edit => "undo this as soon as it looks again",
            Beside::Clear => "bring everything back",
            Beside::Watch => "undo what this one does",
        }
    }

    /// What to do instead.
    fn cure(self) -> &'static str {
        match self {
            Beside::Apply => "change its file, end it first, try a policy with --confirm",
            Beside::Clear => "end it first (systemctl stop shaper)",
            Beside::Edit => "edit that file (shaper edit), or end the daemon first",
            Beside::Watch => "end it first",
        }
    }

    /// How to do it all the same, where that can be said.
    fn all_the_same(self) -> &'static str {
        match self {
            Beside::Edit => "",
            _ => ", or say --despite-daemon to do it all the same",
        }
    }
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => {
                f.write_str("a daemon, in another process namespace, keeps this as its policy says")
            }
            pid => {
                write!(f, "the daemon (process {pid}) keeps this as ")?;
                match self.path() {
                    Some(file) => write!(f, "{} says", shown(&file.to_string_lossy())),
                    None => f.write_str("its policy says"),
                }
            }
        }
    }
}

/// What the command line of a `shaper watch` asks for; `process` is its folder in /proc.
fn followed(process: &Path) -> Option<Followed> {
    let words = fs::read(process.join("cmdline")).ok()?;
    let words = words.strip_suffix(&[0]).unwrap_or(&words).split(|byte| *byte == 0);
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    let command = Cli::try_parse_from(words).ok()?.command;
    let Command::Watch { file, skip_unknown, takeover, .. } = command else { return None };
    // A relative name starts from the daemon's working directory.
    let file = fs::read_link(process.join("cwd")).unwrap_or_default().join(file);
    Some(Followed { file, skip_unknown, takeover })
}

/// The daemon that follows this very file; refuses to go on beside one that follows another.
pub(super) fn follows(
    kernel: &Kernel,
    file: &Path,
    beside: Beside,
) -> Result<Option<Daemon>, Failure> {
    match Daemon::of(kernel)? {
        Some(daemon) if !daemon.follows(file) => Err(daemon.conflict(beside)),
        daemon => Ok(daemon),
    }
}

/// A file's path without links; the file itself may be missing.
fn real(path: &Path) -> Option<PathBuf> {
    if let Ok(real) = path.canonicalize() {
        return Some(real);
    }
    let path = std::path::absolute(path).ok()?;
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// Whether a daemon keeps the instance as this very file says, as far as that may be seen.
pub(super) fn is_followed(kernel: &Kernel, file: &Path) -> bool {
    Daemon::of(kernel).ok().flatten().is_some_and(|daemon| daemon.follows(file))
}

/// The policy to read where none is named: the daemon's, else the usual one.
pub(super) fn policy_in_force(kernel: &Kernel) -> Result<PathBuf, Failure> {
    let file = Daemon::of(kernel)?.and_then(|daemon| daemon.path().map(Path::to_path_buf));
    Ok(file.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)))
}

/// The policy that is in force: the daemon's, else the one that was applied last, where it is a
/// file, else the usual one.
pub(super) fn policy_applied(kernel: &Kernel) -> Result<PathBuf, Failure> {
    let has_daemon = Daemon::of(kernel)?.is_some();
    let noted = kernel.instance().and_then(|it| it.policy()).map(|note| note.file);
    match noted.filter(|file| !has_daemon && *file != "-") {
        Some(file) => Ok(PathBuf::from(file)),
        None => policy_in_force(kernel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_daemons_file_is_on_its_command_line() {
        let process = tempfile::tempdir().unwrap();
        symlink("/srv", process.path().join("cwd")).unwrap();
        let of = |words: &str| {
            let words: Vec<u8> =
                words.split(' ').flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
            fs::write(process.path().join("cmdline"), words).unwrap();
            followed(process.path())
        };
        let followed = |path: &str, skip_unknown| {
            Some(Followed { file: PathBuf::from(path), skip_unknown, takeover: false })
        };
        let path = |path: &str| followed(path, false);
        let usual = "/usr/local/bin/shaper watch --skip-unknown";
        assert_eq!(of(usual), followed(DEFAULT_FILE, true));
        assert_eq!(of("shaper --cgroup x watch p.yaml --grace 5"), path("/srv/p.yaml"));
        assert_eq!(of("shaper -v watch /etc/p.yaml"), path("/etc/p.yaml"));
        assert_eq!(of("shaper status"), None);
        assert_eq!(of("sleep 60"), None);
    }
}
