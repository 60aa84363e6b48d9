//! The cgroups (v2) of systemd's units.

use std::collections::BTreeMap;

use crate::tree::Cgroup;

/// The cgroup of each unit that has one, with the unit's name; or why they cannot be known.
pub type UnitCgroups = Result<BTreeMap<Cgroup, String>, NoCgroups>;

/// From this release on (8520e224f547) a socket has its cgroup beside its tag. Before, the first
/// tag, of `net_cls` or `net_prio`, takes the cgroup from all sockets that come until the next boot
/// (`cgroup_sk_alloc_disable`).
pub const SOCKETS_HAVE_BOTH: (u32, u32) = (5, 15);

/// Why nobody can tell in which unit's cgroup (v2) a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCgroups {
    /// The hierarchy is mounted nowhere.
    #[error(
        "cgroup v2 is mounted nowhere, so no unit has a cgroup in it (systemd has them there once the host was booted with `systemd.unified_cgroup_hierarchy=1`)"
    )]
    NotMounted,
    /// What is mounted is a part of the hierarchy, whose depth in the whole is unknown.
    #[error("this is a cgroup namespace of its own, from which the units' cgroups are not seen")]
    Inside,
}
