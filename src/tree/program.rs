//! What finds the class of whoever sent a packet, and what the deciding program asks the kernel.

/// What tells users apart (`classifier` in the policy), the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Classifier {
    /// An eBPF program in `cls_bpf`: by the owner of the packet's socket, then by the socket's tag.
    Bpf,
    /// `cls_cgroup`: by the tag alone.
    Cgroup,
    /// An eBPF program in `cls_bpf`, without `net_cls`: by the owner of the packet's socket, and by
    /// its cgroup (v2) for the processes of units.
    Uid,
}

/// The filter after the rules, which finds the class of whoever sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// `cls_cgroup`.
    Cgroup,
    /// The deciding eBPF program. It reads the instance's one set of maps
    /// ([`super::KernelState::owners`]).
    Bpf(Program),
}

impl Tag {
    /// The classifier that the filter is of.
    pub fn classifier(self) -> Classifier {
        match self {
            Tag::Cgroup => Classifier::Cgroup,
            Tag::Bpf(Program { tag: None, .. }) => Classifier::Uid,
            Tag::Bpf(Program { tag: Some(_), .. }) => Classifier::Bpf,
        }
    }

    /// Whether the filter asks for the cgroup of the packet's socket.
    pub fn asks_cgroups(self) -> bool {
        matches!(self, Tag::Bpf(program) if program.asks_cgroups())
    }

    /// Whether the filter turns the tag of a shard's user into the shard's class.
    pub fn reads_shards(self) -> bool {
        matches!(self, Tag::Bpf(Program { shards: true, .. }))
    }
}

/// What differs between deciding programs of one version of shaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// At the root of a link that has shards: the class of a shard's user (`e000:10`) becomes the
    /// shard's own class (`1:e000`), whose qdisc asks the program again. `cls_cgroup` would answer
    /// with a classid that the root qdisc does not know.
    pub shards: bool,
    /// Which function of the kernel reads the tag; `None`: none does, and the owner of the packet's
    /// socket alone decides.
    pub tag: Option<TagHelper>,
    /// Where no tag is read, whether the cgroup (v2) of the packet's socket is asked for, which
    /// may be a unit's.
    pub cgroups: bool,
    /// Whose sockets are asked for their owner.
    pub sockets: Sockets,
    /// Where the owner and the tag of an MPTCP connection are read; `None`: the owner and the tag
    /// of each subflow count.
    pub mptcp: Option<MptcpLayout>,
    /// Whether a packet that came in by another link is its label's owner's ([`super::Label`]),
    /// whatever else would say whose it is.
    pub labels: bool,
}

impl Program {
    /// Whether the cgroup of the packet's socket is asked for.
    pub fn asks_cgroups(self) -> bool {
        self.cgroups && self.tag.is_none()
    }
}

/// Where an MPTCP socket keeps its owner (`sk_uid`) and its tag, in bytes from its beginning. Its
/// subflows, which send the packets, have an owner and a tag of their own, which neither fchown nor
/// a move of their process reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MptcpLayout {
    /// Bytes from the start of the MPTCP socket to its owner's uid.
    pub owner: i16,
    /// Bytes from the start of the MPTCP socket to its tag.
    pub tag: i16,
}

/// Where the kernel has the inode of a socket's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceLayout {
    /// Bytes from the start of the socket to the pointer to its namespace (`skc_net`).
    pub namespace: i16,
    /// Bytes from the start of the namespace (`struct net`) to its inode, 32 bits (`ns.inum`).
    pub inode: i16,
}

/// The function that reads a packet's `net_cls` classid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagHelper {
    /// `bpf_skb_cgroup_classid` (151, Linux 5.10): the socket's.
    Socket,
    /// `bpf_get_cgroup_classid` (17): the current task's in process context, else the socket's.
    #[default]
    Task,
}

/// Which sockets' owners are believed. The kernel translates an owner through the user namespace of
/// the *socket's* network namespace, so a guest's uid 1000 reads as our uid 1000. A guest's socket
/// reaches a link only through macvlan, ipvlan and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sockets {
    /// Sockets of the network namespace with this cookie (`bpf_get_netns_cookie` for tc, Linux
    /// 6.15).
    Cookie(u64),
    /// Sockets of the network namespace with this inode, which is read in the kernel's memory
    /// (`bpf_probe_read_kernel` for tc, Linux 5.13, and CAP_PERFMON).
    Inode(u32, NamespaceLayout),
    /// All sockets: none of another namespace can send here.
    All,
    /// Some sockets may be another namespace's, and the program cannot tell which: the tag decides,
    /// and the owner only where there is no tag.
    #[default]
    Mixed,
}
