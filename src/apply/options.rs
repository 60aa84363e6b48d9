//! What an apply may do.

use std::time::Duration;

/// How long a retired class must have sent nothing before it may go.
pub const QUIET: Duration = Duration::from_secs(2);

/// What an apply may do, and how long it may take about it.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Perform steps that drop or delay somebody's packets.
    pub disrupt: bool,
    /// How long to wait for another run to finish.
    pub wait: Duration,
    /// How long a retired class must have sent nothing before it is deleted, which is waited for;
    /// `None`: not now (see [`Request::earlier`](super::Request::earlier)).
    pub quiet: Option<Duration>,
    /// Wait until the flows of a link that is in use are known, before its packets are redirected;
    /// otherwise all from there on is left for an apply a second later ([`Applied::postponed`]).
    ///
    /// [`Applied::postponed`]: super::Applied::postponed
    pub learns: bool,
    /// Take the change back unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Also apply a policy that was undone before.
    pub force: bool,
    /// This is a repair of the policy in force, which does not clear the list of undone policies.
    pub repair: bool,
}

impl Default for ApplyOptions {
    fn default() -> ApplyOptions {
        ApplyOptions {
            disrupt: false,
            wait: Duration::from_secs(10),
            quiet: Some(QUIET),
            learns: true,
            confirm: None,
            force: false,
            repair: false,
        }
    }
}
