//! Processes: which ones run, who claims each, and moving them into their claims' directories.
//! Reads the given `/proc` and writes `cgroup.procs` below the instance; never touches tc. `parse`
//! and `decide` are pure.

mod behind;
mod decide;
mod descriptors;
mod elsewhere;
mod guest;
mod handover;
mod hands;
mod inhabited;
mod parse;
mod place;
mod placement;
mod proxy;
mod running;
mod scan;
mod served;
mod view;
mod whose;

use std::net::IpAddr;

use crate::text::Foreign;

pub use behind::{Behind, Changers, behind};
pub use decide::{Decision, decide, given};
pub use elsewhere::elsewhere;
pub use guest::{Guest, is_slice};
pub use handover::{HandedOver, Handover};
pub use inhabited::inhabited;
pub use parse::{
    Identity, Membership, Stat, Uids, parse_cgroup, parse_identity, parse_stat, parse_uids,
    unified_path, unit_cgroup, unit_of_directory,
};
pub use place::{PlacedOne, Seen, place, place_one, place_seen};
pub use placement::{Failed, ForeignProcess, Placement, Verdict};
pub use running::Running;
pub use scan::{Scan, read_one, scan};
pub use view::{InstanceView, Reason, claim_of, held_by_another, running_uids, unclaimed};
pub use whose::{acts_for, counts_as, whose};

/// A process as one look at `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the process namespace of `/proc`.
    pub pid: u32,
    /// The pid of its parent; of the next living process above where that has ended.
    pub parent: u32,
    /// When the process started, in clock ticks after boot; pid and start time together identify a
    /// process.
    pub starttime: u64,
    /// The kernel's name for the process: up to 15 bytes, set by the process itself.
    pub comm: Foreign,
    /// The real uid: a setuid `ping` stays with its user.
    pub uid: u32,
    /// The uid by which the main thread acts, and which owns what it makes: the effective uid,
    /// unless the thread set another one for files (setfsuid(2)).
    pub acting_uid: u32,
    /// Whether the process is root or may become root again: its real or its saved uid is 0.
    pub is_roots: bool,
    /// `PF_KTHREAD`: nobody's, and never moved.
    pub kernel_thread: bool,
    /// Ended, and not yet waited for. It has no sockets and cannot be moved.
    pub zombie: bool,
    /// Inode of its network namespace; `None`: it may not be read (CAP_SYS_PTRACE), or the process
    /// has none any more.
    pub netns: Option<u64>,
    /// Its directory in the `net_cls` hierarchy, `/` first; `None`: net_cls is in no hierarchy.
    pub net_cls: Option<String>,
    /// The systemd *system* unit to which the process belongs.
    pub unit: Option<String>,
    /// The guest in whose cgroup the process is, of a kind that no user can make.
    pub guest: Option<Guest>,
    /// The container's address, where it is a proxy of dockerd's, run by root and no guest.
    pub serves: Option<IpAddr>,
}

impl Process {
    /// Whether the process can send packets: it is neither a kernel thread nor a zombie.
    pub fn is_alive(&self) -> bool {
        !self.kernel_thread && !self.zombie
    }
}
