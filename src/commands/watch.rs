//! `shaper watch`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::{Beside, Daemon};
use super::output::Output;
use super::scope;
use crate::apply::{self, Options};
use crate::cli::Global;
use crate::daemon::{self, Bound, Settings};
use crate::failure::Failure;
use crate::sys::listener::ProcessListener;
use crate::sys::netns::{Home, Target};

/// The policy to follow is `-`.
#[derive(Debug, thiserror::Error)]
#[error("watch follows a file as it changes, and standard input is none; name the policy file")]
struct StandardInput;

impl From<StandardInput> for Failure {
    fn from(error: StandardInput) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Where the service manager says the service may keep something (systemd.exec(5),
/// `StateDirectory`).
const STATE: &str = "STATE_DIRECTORY";

/// The last good policy of the instance that the command line names.
fn kept_in(folder: &Path, global: &Global) -> PathBuf {
    let instance = global.cgroup.as_deref().unwrap_or("shaper");
    let netns = global.netns.as_ref().map(|name| format!("@{}", name.replace('/', "-")));
    apply::kept(folder, &format!("{instance}{}", netns.unwrap_or_default()))
}

/// For how long something is watched.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    /// How long an account without processes keeps its class.
    pub grace: Duration,
    /// Until the first apply is done.
    pub once: bool,
}

pub(super) fn watch(
    global: &Global,
    file: &Path,
    options: Options,
    watched: Watched,
    despite_daemon: bool,
) -> Result<Output, Failure> {
    if file == Path::new("-") {
        return Err(StandardInput.into());
    }
    // The policy is read first, so that its errors are the first that are said. Process events are
    // subscribed to before another network namespace is entered: there would be none in it.
    let kept = std::env::var_os(STATE).map(|folder| kept_in(Path::new(&folder), global));
    let read = || match apply::read(file) {
        // Whoever removed the file wants no policy in force.
        Err(refusal) if file.try_exists().is_ok_and(|exists| !exists) => Err(refusal),
        Err(refusal) => daemon::instead(refusal, kept.as_deref()),
        policy => policy,
    };
    read()?;
    let processes = ProcessListener::open().map_err(Failure::refused)?;
    let bound = match &global.netns {
        Some(wanted) => Some(Bound {
            target: Target::new(wanted),
            home: Home::here().map_err(Failure::refused)?,
            instance: global.cgroup.clone(),
        }),
        None => None,
    };
    let (session, request) = scope::session_of(global, read()?, options)?;
    apply::may_change(&session.kernel)?;
    if let Some(other) = Daemon::of(&session.kernel)?.filter(|_| !despite_daemon) {
        return Err(other.conflict(Beside::Watch));
    }
    let Watched { grace, once } = watched;
    let settings = Settings { file: file.to_path_buf(), grace, wait: global.wait, kept, once };
    daemon::watch(session, request.intent, processes, &settings, bound.as_ref())?;
    Ok(Output::silent(global))
}
