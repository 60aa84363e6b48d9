//! The instance, as far as it decides whose a process can be, and where in its directories one
//! sits. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Process;
use crate::tree::{Claim, Owner};

/// The instance, as far as placement must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its directory's name right below the hierarchy's root.
    pub name: String,
    /// Inode of the network namespace that it shapes.
    pub netns: u64,
    /// That of process 1; `None`: it may not be read.
    pub host: Option<u64>,
    /// Namespaces that other instances shape, and their names.
    pub others: BTreeMap<u64, String>,
}

impl InstanceView {
    /// Whether a process may be this instance's if a line claims it: also in a namespace that it
    /// does not shape, because a socket stays in the one that it was made in when its process
    /// enters another. Not a guest's there, and nobody in a namespace that another instance shapes,
    /// or in the host's, which no user can enter; and nobody there who sits in another's directory.
    /// Where the namespace cannot be read, only the host's instance goes by the uid.
    pub fn may_claim(&self, process: &Process) -> bool {
        let at = || seat(process.net_cls.as_deref().unwrap_or("/"), self);
        self.left_to(process).is_none()
            && (process.netns == Some(self.netns) || matches!(at(), Seat::Free | Seat::Ours(_)))
    }

    /// Why a process is left to others by its network namespace alone; `None`: it is not.
    pub(super) fn left_to(&self, process: &Process) -> Option<Reason> {
        let on_host = self.host == Some(self.netns);
        match process.netns {
            Some(netns) if netns == self.netns => None,
            None if !on_host => Some(Reason::UnknownNamespace),
            _ if process.guest => Some(Reason::Guest),
            Some(netns) if self.others.contains_key(&netns) || self.host == Some(netns) => {
                Some(Reason::OtherInstance { netns })
            }
            _ => None,
        }
    }

    /// The same instance, as if it were the only one.
    pub fn alone(&self) -> InstanceView {
        InstanceView { others: BTreeMap::new(), ..self.clone() }
    }
}

/// Why a process is none of our business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A kernel thread or a zombie.
    NotAlive,
    /// A container's or a virtual machine's, in a network namespace of its own.
    Guest,
    /// In a network namespace that another instance shapes, or the host's.
    OtherInstance {
        /// Inode of the network namespace that the instance shapes.
        netns: u64,
    },
    /// It may be in ours: we are not permitted to know.
    UnknownNamespace,
    /// Nobody claims it, and it is not in our directories.
    Unclaimed,
    /// Another's directory holds it, a container engine's say. `owner` would have claimed it.
    Foreign {
        /// To whom it would belong.
        owner: Option<Owner>,
    },
}

/// Whose directory a process sits in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// The hierarchy's root (or there is no hierarchy): nobody's.
    Free,
    Ours(Option<Claim>),
    /// Another instance of this program, known by the layout of its directories.
    Sibling,
    Foreign,
}

/// Real uids that have a living process which the instance may claim.
pub fn running_uids(processes: &[Process], instance: &InstanceView) -> BTreeSet<u32> {
    processes
        .iter()
        .filter(|process| process.is_alive() && instance.may_claim(process))
        .map(|process| process.uid)
        .collect()
}

/// The claim of ours in whose directory the process sits.
pub fn claim_of(process: &Process, instance: &InstanceView) -> Option<Claim> {
    match seat(process.net_cls.as_deref()?, instance) {
        Seat::Ours(claim) => claim,
        _ => None,
    }
}

/// The other instance that holds a process: by its directory, or by the namespace, whose packets it
/// shapes.
pub fn held_by_another(process: &Process, instance: &InstanceView) -> Option<String> {
    let netns = process.netns.filter(|netns| *netns != instance.netns)?;
    if let Some(name) = instance.others.get(&netns) {
        return Some(name.clone());
    }
    let path = process.net_cls.as_deref()?;
    let top = path.trim_start_matches('/').split('/').next()?;
    (seat(path, instance) == Seat::Sibling).then(|| top.to_string())
}

/// `path` is as `/proc/PID/cgroup` has it: `/shaper/user/bob`.
pub(super) fn seat(path: &str, instance: &InstanceView) -> Seat {
    let path = path.trim_start_matches('/');
    let (top, below) = path.split_once('/').unwrap_or((path, ""));
    let claim = below.parse::<Claim>().ok();
    let room = matches!(below, "user" | "uid" | "subuid" | "class" | "group" | "retired");
    match top {
        "" => Seat::Free,
        // Outside our cgroup namespace.
        ".." => Seat::Foreign,
        _ if top == instance.name => match claim {
            // In the instance's directory itself or in a room: nobody belongs there.
            None if !(room || below.is_empty()) => Seat::Foreign,
            claim => Seat::Ours(claim),
        },
        _ if (is_instance(top) || instance.others.values().any(|name| name == top))
            && (claim.is_some() || room) =>
        {
            Seat::Sibling
        }
        _ => Seat::Foreign,
    }
}

/// Whether it is the name that an instance has by itself, which says whose namespace it is for: the
/// host's, or the one with that inode. One that was named otherwise is known by
/// [`InstanceView::others`].
fn is_instance(name: &str) -> bool {
    name.strip_prefix("shaper").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|inode| inode.parse::<u64>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_living_processes_that_may_be_claimed_count_as_running() {
        let bob = Process {
            pid: 7,
            parent: 1,
            starttime: 1,
            comm: "bash".into(),
            uid: 1000,
            acting_uid: 1000,
            is_roots: false,
            kernel_thread: false,
            zombie: false,
            netns: Some(42),
            net_cls: None,
            unit: None,
            guest: false,
        };
        let all = [
            bob.clone(),
            Process { uid: 1001, zombie: true, ..bob.clone() },
            Process { uid: 1002, netns: Some(43), ..bob.clone() },
            Process { uid: 1003, netns: Some(43), guest: true, ..bob.clone() },
            Process { uid: 1004, netns: Some(44), ..bob.clone() },
            Process { uid: 1005, netns: Some(43), net_cls: Some("/../x".into()), ..bob.clone() },
            Process { uid: 0, kernel_thread: true, ..bob },
        ];
        let instance = InstanceView {
            name: "shaper".into(),
            netns: 42,
            host: Some(42),
            others: BTreeMap::from([(44, "shaper-44".to_string())]),
        };
        assert_eq!(running_uids(&all, &instance), BTreeSet::from([1000, 1002]));
    }
}
