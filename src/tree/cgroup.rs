//! A cgroup (v2) whose sockets have a class.

use std::fmt;

/// A cgroup of version 2 as the kernel's functions know it. A socket is in the cgroup in which its
/// process was when it made the socket, and stays in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cgroup {
    /// How many directories deep it is below the hierarchy's root, which is 0.
    pub level: u8,
    /// The kernel's number of it, which is the inode of its directory and never another's.
    pub id: u64,
}

/// When it is asked which cgroup a socket is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// Before its owner.
    First,
    /// For what no line claims by its owner, and for what root owns: the processes of the cgroup
    /// act for users (`follow: effective`).
    AfterOwner,
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {} at level {}", self.id, self.level)
    }
}
