//! Processes: who runs, whose each is, and moving them into their claims' directories. Reads the
//! `/proc` that it is given and writes `cgroup.procs` below the instance; never touches tc.
//! `parse` and `decide` are pure.

mod decide;
mod descriptors;
mod handover;
mod hands;
mod parse;
mod place;
mod placement;
mod scan;
mod served;
mod view;
mod whose;

use crate::text::Foreign;

pub use decide::{Decision, decide, given};
pub use handover::{HandedOver, Handover};
pub use parse::{
    Identity, Membership, Stat, Uids, parse_cgroup, parse_identity, parse_stat, parse_uids,
};
pub use place::{PlacedOne, Seen, place, place_one, place_seen};
pub use placement::{Failed, ForeignProcess, Placement, Verdict};
pub use scan::{Scan, read_one, scan};
pub use view::{InstanceView, Reason, claim_of, held_by_another, running_uids};
pub use whose::{acts_for, counts_as, whose};

/// A process as one look at `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// Its parent; the next living one above where that has ended.
    pub parent: u32,
    /// When it started, in clock ticks after boot: with the pid, it says which process this is.
    pub starttime: u64,
    /// The kernel's name for it: up to 15 bytes, set by the process itself.
    pub comm: Foreign,
    /// The real uid: a setuid `ping` stays with its user.
    pub uid: u32,
    /// The uid that its main thread acts by: what it makes is that one's. The effective uid, unless
    /// the thread asked for another one for files alone (setfsuid(2)).
    pub acting_uid: u32,
    /// It is root, or may become root again as it likes: its real or its saved uid is 0.
    pub is_roots: bool,
    /// `PF_KTHREAD`: nobody's, and never moved.
    pub kernel_thread: bool,
    /// Ended, and not yet waited for. It has no sockets and cannot be moved.
    pub zombie: bool,
    /// Inode of its network namespace; `None`: we may not know (CAP_SYS_PTRACE), or it is gone.
    pub netns: Option<u64>,
    /// Its directory in the `net_cls` hierarchy, `/` first; `None`: net_cls is in no hierarchy.
    pub net_cls: Option<String>,
    /// The systemd *system* unit that it belongs to.
    pub unit: Option<String>,
    /// It is below a container engine's cgroup, in a place that no user can make.
    pub guest: bool,
}

impl Process {
    /// Whether it is one that can send traffic of its own.
    pub fn is_alive(&self) -> bool {
        !self.kernel_thread && !self.zombie
    }
}
