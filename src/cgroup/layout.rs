//! The names of the directories in an instance's directory.

/// Directories of claims; all but `retired` may hold processes too.
pub(super) const ROOMS: [&str; 6] = ["user", "uid", "subuid", "class", "group", RETIRED];
/// Claims of retired classes.
pub(super) const RETIRED: &str = "retired";

/// Has the guard of a change that waits to be confirmed, a process.
pub(super) const CONFIRM: &str = "confirm";
/// Has a note for each policy that was undone.
pub(super) const REVERTED: &str = "reverted";
/// Has a note for each warning of a `--quiet` run within a day.
pub(super) const SAID: &str = "said";
/// Has a note of the policy that is in force.
pub(super) const POLICY: &str = "policy";
/// The directory that the one run locks that may change anything.
pub(super) const LOCK: &str = "lock";
/// Has a note of the network namespace that the instance shapes.
pub(super) const NETNS: &str = "netns";
/// The directory that the daemon locks that keeps the instance.
pub(super) const WATCH: &str = "watch";

/// The claims were moved from here to the instance's other place.
pub(super) const MOVED: &str = "moved";
/// Claims are being moved here.
pub(super) const MOVING: &str = "moving";

/// Cgroups (v2) of ours have lost their claims, and whoever removed these might not remove them.
pub(super) const UNSWEPT: &str = "unswept";

/// Directories of ours that have no claims and no classid.
pub(super) const WITHOUT_CLAIMS: [&str; 10] =
    [CONFIRM, REVERTED, SAID, POLICY, LOCK, NETNS, WATCH, MOVED, MOVING, UNSWEPT];
