//! Guests: containers, and network namespaces that have a name. Their processes have links of their
//! own; what they send comes in by a link of ours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A network namespace by the number that the links' own one has given it
/// (net/core/net_namespace.c: `peernet2id`). The number is the namespace's until that is gone, and
/// may then be another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub i32);

/// What is known of guests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// Named network namespaces (ip-netns(8)). `None`: the links' own one has no number for it, so
    /// no link of ours has its peer there.
    pub namespaces: BTreeMap<String, Option<NamespaceId>>,
    /// Running containers; those in one network namespace in the order in which they started.
    pub containers: Vec<Container>,
    /// Other network namespaces with processes, none of which is in an engine's cgroup: the one
    /// real uid, in the host's user namespace, that they have beside root's. Where they have two,
    /// the namespace is nobody's.
    pub users: BTreeMap<NamespaceId, u32>,
    /// Why engines could not be asked for names and labels, a sentence each.
    pub silent: Vec<String>,
}

/// A running container with a network namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What runs it.
    pub engine: Engine,
    /// The engine's own id of it: 64 hexadecimal digits of Docker's, the name of LXC's.
    pub id: String,
    /// The name that people give it; `None`: the engine could not be asked.
    pub name: Option<String>,
    /// Its labels; none where the engine could not be asked.
    pub labels: BTreeMap<String, String>,
    /// Its addresses in the engine's networks; none where the engine could not be asked.
    pub addresses: Vec<IpAddr>,
    /// The network namespace of its first process; `None`: no link of ours has its peer there.
    pub namespace: Option<NamespaceId>,
    /// The uid of `user-UID.slice` in its cgroup's path.
    pub slice: Option<u32>,
    /// The uid, in the host's user namespace, of its first process.
    pub uid: Option<u32>,
}

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Engine {
    /// dockerd.
    Docker,
    /// Podman.
    Podman,
    /// LXC, and what is built on it.
    Lxc,
    /// containerd or CRI-O, without dockerd: Kubernetes, nerdctl.
    Containerd,
    /// systemd-nspawn or libvirt, which register with systemd-machined.
    Machine,
}

impl Engine {
    /// Whether the id that is in a cgroup's path is the name itself.
    pub fn names_by_id(self) -> bool {
        matches!(self, Engine::Lxc | Engine::Machine)
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Engine::Docker => "Docker",
            Engine::Podman => "Podman",
            Engine::Lxc => "LXC",
            Engine::Containerd => "containerd",
            Engine::Machine => "machined",
        })
    }
}
