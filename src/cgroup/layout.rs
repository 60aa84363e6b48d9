//! What an instance's directory holds.

/// Directories of claims; all but `retired` may hold processes too.
pub(super) const ROOMS: [&str; 6] = ["user", "uid", "subuid", "class", "group", RETIRED];
/// Classes on their way out.
pub(super) const RETIRED: &str = "retired";

/// The guard of a change that waits to be confirmed, as a process.
pub(super) const CONFIRM: &str = "confirm";
/// Policies that were taken back.
pub(super) const REVERTED: &str = "reverted";
/// What quiet runs warned of within a day.
pub(super) const SAID: &str = "said";
/// Locked by the one run that may change anything.
pub(super) const LOCK: &str = "lock";
/// The network namespace that the instance shapes.
pub(super) const NETNS: &str = "netns";
/// Locked by the daemon that keeps the instance.
pub(super) const WATCH: &str = "watch";

/// Ours, and no claims: none of them has a classid.
pub(super) const WITHOUT_CLAIMS: [&str; 6] = [CONFIRM, REVERTED, SAID, LOCK, NETNS, WATCH];
