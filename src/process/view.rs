//! The instance as placement sees it: which processes it may claim, and in whose directory a
//! process is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Process;
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// What placement must know of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// The name of the instance's directory, right below the hierarchy's root.
    pub name: String,
    /// Inode of the network namespace that the instance shapes.
    pub netns: u64,
    /// Inode of the network namespace of process 1, the host's; `None`: it may not be read.
    pub host: Option<u64>,
    /// The network namespaces that other instances shape, by inode, with the instances' names.
    pub others: BTreeMap<u64, String>,
    /// Whether processes are placed in directories; otherwise it does not matter in which one a
    /// process is.
    pub places: bool,
}

impl InstanceView {
    /// Whether this instance may have a process if a line claims it. It may also in a network
    /// namespace that no instance shapes, because a socket stays in the namespace where it was made
    /// when its process enters another; but not a guest's process there, nor one in somebody
    /// else's directory. It may not in a namespace that another instance shapes, nor in the
    /// host's (no user can enter that). Where the namespace cannot be read, only the host's
    /// instance goes by the uid.
    pub fn may_claim(&self, process: &Process) -> bool {
        let at = || seat(process.net_cls.as_deref().unwrap_or("/"), self);
        self.left_to(process).is_none()
            && (process.netns == Some(self.netns) || matches!(at(), Seat::Free | Seat::Ours(_)))
    }

    /// Why a process is left alone for its network namespace; `None`: it is not.
    pub(super) fn left_to(&self, process: &Process) -> Option<Reason> {
        let on_host = self.host == Some(self.netns);
        match process.netns {
            Some(netns) if netns == self.netns => None,
            None if !on_host => Some(Reason::UnknownNamespace),
            _ if process.guest.is_some() => Some(Reason::Guest),
            Some(netns) if self.others.contains_key(&netns) || self.host == Some(netns) => {
                Some(Reason::OtherInstance { netns })
            }
            _ => None,
        }
    }

    /// The same instance without knowledge of others.
    pub fn alone(&self) -> InstanceView {
        InstanceView { others: BTreeMap::new(), ..self.clone() }
    }
}

/// Why a process is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is a kernel thread or a zombie.
    NotAlive,
    /// It is a container's or a virtual machine's, in a network namespace of its own.
    Guest,
    /// It is in a network namespace that another instance shapes, or in the host's.
    OtherInstance {
        /// Inode of the network namespace that the instance shapes.
        netns: u64,
    },
    /// Its network namespace may not be read, so it may be ours or another.
    UnknownNamespace,
    /// No line claims it, and it is not in our directories.
    Unclaimed,
    /// It is in somebody else's directory, such as a container engine's.
    Foreign {
        /// Who would have claimed it; `None`: nobody.
        owner: Option<Owner>,
    },
}

/// Whose directory a process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// The hierarchy's root, or there is no hierarchy.
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

/// The living processes in the instance's network namespace whose packets are in none of its
/// classes: by real uid, how many have each name. `has_class`: of this uid's sockets also those
/// that have no tag are in a class. A socket's owner is the uid by which its process acted when it
/// made the socket: one that acts as another uid now may have sockets of both.
pub fn unclaimed(
    processes: &[Process],
    instance: &InstanceView,
    has_class: impl Fn(u32) -> bool,
) -> BTreeMap<u32, BTreeMap<Foreign, usize>> {
    let mut all: BTreeMap<u32, BTreeMap<Foreign, usize>> = BTreeMap::new();
    let here = processes.iter().filter(|process| {
        process.is_alive()
            && process.netns == Some(instance.netns)
            && claim_of(process, instance).is_none()
            && !(has_class(process.acting_uid) && has_class(process.uid))
    });
    for process in here {
        *all.entry(process.uid).or_default().entry(process.comm.clone()).or_default() += 1;
    }
    all
}

/// The claim of this instance in whose directory the process is.
pub fn claim_of(process: &Process, instance: &InstanceView) -> Option<Claim> {
    match seat(process.net_cls.as_deref()?, instance) {
        Seat::Ours(claim) => claim,
        _ => None,
    }
}

/// The other instance to which a process belongs, by its directory or by its network namespace.
pub fn held_by_another(process: &Process, instance: &InstanceView) -> Option<String> {
    let netns = process.netns.filter(|netns| *netns != instance.netns)?;
    if let Some(name) = instance.others.get(&netns) {
        return Some(name.clone());
    }
    let path = process.net_cls.as_deref()?;
    let top = path.trim_start_matches('/').split('/').next()?;
    (seat(path, instance) == Seat::Sibling).then(|| top.to_string())
}

/// Whose directory a path is, which is as `/proc/PID/cgroup` has it: `/shaper/user/bob`.
pub(super) fn seat(path: &str, instance: &InstanceView) -> Seat {
    if !instance.places {
        return Seat::Free;
    }
    let path = path.trim_start_matches('/');
    let (top, below) = path.split_once('/').unwrap_or((path, ""));
    let claim = below.parse::<Claim>().ok();
    let room = matches!(below, "user" | "uid" | "subuid" | "class" | "group" | "retired");
    match top {
        "" => Seat::Free,
        // Outside our cgroup namespace.
        ".." => Seat::Foreign,
        _ if top == instance.name => match claim {
            // A process in the instance's own directory, or in `user`, `uid` and so on, belongs
            // elsewhere.
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

/// Whether it is a default name of an instance, that of the host or of the namespace with an inode.
/// Instances with other names are in [`InstanceView::others`].
fn is_instance(name: &str) -> bool {
    name.strip_prefix("shaper").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|inode| inode.parse::<u64>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::guest::guest_of;

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
            guest: None,
            serves: None,
        };
        let all = [
            bob.clone(),
            Process { uid: 1001, zombie: true, ..bob.clone() },
            Process { uid: 1002, netns: Some(43), ..bob.clone() },
            Process { uid: 1003, netns: Some(43), guest: guest_of("/lxc/web"), ..bob.clone() },
            Process { uid: 1004, netns: Some(44), ..bob.clone() },
            Process { uid: 1005, netns: Some(43), net_cls: Some("/../x".into()), ..bob.clone() },
            Process { uid: 0, kernel_thread: true, ..bob },
        ];
        let instance = InstanceView {
            name: "shaper".into(),
            netns: 42,
            host: Some(42),
            others: BTreeMap::from([(44, "shaper-44".to_string())]),
            places: true,
        };
        assert_eq!(running_uids(&all, &instance), BTreeSet::from([1000, 1002]));
        let at = |path: &str| Process { net_cls: Some(path.into()), ..all[0].clone() };
        let placed = [at("/shaper/user/bob"), at("/docker/x"), at("/"), at("/shaper/user")];
        let all = [&all[..], &placed].concat();
        let bashes = BTreeMap::from([(Foreign::from("bash"), 4)]);
        let by_tag = unclaimed(&all, &instance, |_| false);
        assert_eq!(by_tag, BTreeMap::from([(1000, bashes)]));
        // Whoever has a class by the owner of his sockets is in it wherever his processes are, but
        // for the one that acts as root.
        // A server of root's that acts for him has what it accepted as root.
        let ping = Process { comm: "ping".into(), acting_uid: 0, ..at("/") };
        let server = Process { comm: "smbd".into(), uid: 0, ..at("/") };
        let all = [&all[..], &[ping, server]].concat();
        let one = |name: &str| BTreeMap::from([(Foreign::from(name), 1)]);
        let by_owner = unclaimed(&all, &instance, |uid| uid == 1000);
        assert_eq!(by_owner, BTreeMap::from([(0, one("smbd")), (1000, one("ping"))]));
    }
}
