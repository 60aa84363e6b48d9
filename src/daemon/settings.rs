//! What the command line says of the daemon.

use std::path::PathBuf;
use std::time::Duration;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy file, as the command line names it.
    pub file: PathBuf,
    /// How long an account without processes keeps its class.
    pub grace: Duration,
    /// How long the first apply waits for another run to finish.
    pub wait: Duration,
    /// Where the last good policy is kept, for a start at which the file is refused; `None`:
    /// nowhere.
    pub kept: Option<PathBuf>,
    /// Whether it ends after the first apply, which a service has done with more privileges than
    /// the daemon has.
    pub once: bool,
}
