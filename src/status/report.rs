//! The report of `shaper status`, in the shape of its JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::limit::Limit;
use super::quota::Quota;
use crate::tree::Owner;

/// The whole answer; its JSON only grows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The version of this document's shape; it grows when a field changes its meaning or is
    /// removed.
    pub version: u32,
    /// Seconds between the two readings of the counters that the `now_…` fields compare, in
    /// thousandths; absent where there was one reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// The links with a tree of ours, in file order; of each what is sent, then what arrives.
    pub links: Vec<Link>,
    /// Somebody else's objects in our trees and directories.
    pub foreign: Vec<String>,
    /// The daemon that keeps the instance; absent while there is none, and for a caller that is not
    /// root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Daemon>,
    /// Links that somebody else changed and a daemon made again since the machine's boot, the last
    /// first; none for a caller that is not root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repaired>,
    /// The policy that was applied last; absent where none is noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyInForce>,
    /// A change that is taken back unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// What was used of quotas; none where nobody has one, and where the policy in force, or the
    /// use, cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// Whose processes send what is in the default class, because neither their directory nor the
    /// owner of their sockets has a class; who has most first, and root last. None where they were
    /// not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unclaimed: Vec<Unclaimed>,
    /// Connections with other hosts whose packets are in the default class, by whose and what for;
    /// the most first. None where they were not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_connections: Vec<Connections>,
}

/// Connections of one account with one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// The uid of the sockets' owner.
    pub uid: u32,
    /// The account's name, where NSS says it.
    pub user: Option<String>,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// `server`: the port is this host's; `client`: it is the other end's.
    pub side: &'static str,
    /// The server's port.
    pub port: u16,
    /// How many there are.
    pub connections: usize,
    /// What they have sent since they were opened, retransmissions too, without headers; absent
    /// where the kernel does not count it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
}

/// The processes of one account that are in the links' network namespace and whose packets are in
/// no class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unclaimed {
    /// The account's uid, the real one.
    pub uid: u32,
    /// Its name, where NSS says it.
    pub user: Option<String>,
    /// How many processes they are.
    pub processes: usize,
    /// How many have each name.
    pub names: BTreeMap<String, usize>,
}

/// The policy that was applied last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInForce {
    /// The file's absolute path; `-`: standard input.
    pub file: String,
    /// Seconds since 1970 when this text of it was applied first.
    pub since: u64,
    /// The uid of whoever had logged in to apply it.
    pub by_uid: u32,
    /// The account's name, where NSS says it.
    pub by: Option<String>,
}

/// A link that somebody else changed and a daemon made again as the policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The link's name.
    pub dev: String,
    /// How often, since the machine's boot.
    pub repairs: u64,
    /// When it was the last time, in seconds since 1970; absent where that is not noted.
    pub at: Option<u64>,
    /// Who had changed it then, as far as that is known.
    pub by: Option<String>,
}

/// A change that is taken back unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The pid of the process that takes it back.
    pub guard: u32,
    /// Seconds until it does; absent where that is not known.
    pub seconds_left: Option<u64>,
}

/// The daemon, and the last condition that it told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// The daemon's pid; 0: it is in another process namespace.
    pub pid: u32,
    /// The policy file that it follows; absent where that cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `idle`; `draining` (the same, and retired classes have still to become quiet); `partial`
    /// (in force, but not on each link that is meant); `bypassed` (in force, and packets that
    /// arrive do not all go through their ifb); `adopting` (a new
    /// policy is being read and applied); `refusing` (the policy file is refused, and the policy
    /// before it stays in force); `waiting` (for another run, or for a confirmation) or `failing`
    /// (it tries again). Absent until the daemon has told a state.
    pub state: Option<String>,
    /// The reason, in one line.
    pub why: Option<String>,
    /// Seconds since 1970 when that state began.
    pub since: Option<u64>,
}

/// A link's tree in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The link's name.
    pub dev: String,
    /// Inode of the network namespace.
    pub netns: u64,
    /// `egress`: packets that leave by the link.
    pub direction: &'static str,
    /// The classifier, `cgroup`, `bpf` or `uid`; absent while there is no filter.
    pub classifier: Option<&'static str>,
    /// The rate of the link's class, in bits per second.
    pub rate_bit: u64,
    /// Which limit that is, as of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// What the link's class does now; the unshaped class is beside it.
    #[serde(flatten)]
    pub now: Option<Now>,
    /// Users and classes, by name.
    pub users: Vec<User>,
    /// Inner classes, by name.
    pub groups: Vec<Group>,
    /// The class of whatever no rule and no user claims; absent while it does not exist.
    pub default: Option<Pool>,
    /// The class beside the link's, for packets without a limit.
    pub unshaped: Option<Pool>,
    /// Classes that were replaced or removed and to which packets may still come.
    pub retired: Vec<Retired>,
    /// With `--rules`: the policy's rules that are on this link, in file order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule>>,
    /// Of what arrives: others' filters and programs that may keep packets from it, or see none of
    /// it; a sentence for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// Of what arrives: what the counters of one interval show to be wrong; a sentence for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Packets that passed no class at all, which should stay 0 once there is the default class.
    pub direct_packets: u32,
}

/// A user, an account, a range of subordinate uids, or a class that rules send to.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Its name in the policy, or the account's.
    pub user: String,
    /// Whose it is, as directories name it.
    #[serde(skip)]
    pub owner: Owner,
    /// Absent for a class, and for a name that has no account.
    pub uid: Option<u32>,
    /// `users`, `everyone`, `group` (an account of a gid group) or `class`.
    pub source: &'static str,
    /// The group below which it is, by name; absent directly below the link.
    pub group: Option<String>,
    /// As `tc` prints it: `1:1a`.
    pub classid: String,
    /// Its limits and counters.
    #[serde(flatten)]
    pub class: ClassNumbers,
    /// Which limit the class has, and until when; absent where it is the line's own for ever, and
    /// where the policy in force cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// How many processes are in the owner's directories now.
    pub processes: usize,
    /// When the owner's directory was made, in seconds since 1970.
    pub since: Option<u64>,
    /// Containers and others behind links that are the owner's; none where guests were not asked
    /// for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Guest>,
}

/// What is behind one link, or has one network behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// What the name names.
    pub kind: GuestKind,
    /// The container's name, or where its engine did not say one the first 12 digits of its id; the
    /// network namespace's, the link's; the network, as `10.8.0.5/32`.
    pub name: String,
    /// The link by which it comes in.
    pub link: String,
    /// The engine that runs the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The name of its network namespace (ip-netns(8)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The container's addresses, where its engine said them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// How it is known whose it is: by a `line` of the policy, or as `guests` says, by `label`,
    /// `slice` or `uid`. Absent where it is nobody's, or the policy that says it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'static str>,
}

/// What people know a guest by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A container's name or id.
    Container,
    /// A named network namespace.
    Namespace,
    /// A link of which nothing more is known.
    Link,
    /// A network, by its sources.
    Address,
}

/// An inner class, whose members share its limits.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name in the policy.
    pub group: String,
    /// The group above it; absent directly below the link.
    pub parent: Option<String>,
    /// As `tc` prints it: `1:f000`.
    pub classid: String,
    /// The group's limits and counters; the counters are those of all members together.
    #[serde(flatten)]
    pub class: ClassNumbers,
    /// Which limit it has, as of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Processes of all who are below it, where not all of these are in the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
}

/// The default or the unshaped class.
#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    /// As `tc` prints it: `1:fffe`.
    pub classid: String,
    /// Its limits and counters.
    #[serde(flatten)]
    pub class: ClassNumbers,
    /// IPv4 packets that this network namespace has forwarded (`Ip: ForwDatagrams`). Those that
    /// left by this link are in the default class, because they have no process here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_packets: Option<u64>,
    /// The same of IPv6 (`Ip6OutForwDatagrams`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_v6_packets: Option<u64>,
    /// Of the default class: the guests that nobody owns; none where guests were not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Guest>,
}

/// A retired class: nobody is placed in it any more, and it is deleted once no packet can come to
/// it.
#[derive(Clone, Debug, Serialize)]
pub struct Retired {
    /// As `tc` prints it.
    pub classid: String,
    /// The class's limits and counters.
    #[serde(flatten)]
    pub class: ClassNumbers,
}

/// One line of `rules` on one link.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// Which line of `rules`, counted from 1.
    pub rule: u32,
    /// A user, a class, `default` or `unshaped`.
    pub to: String,
    /// The class that it sends packets to, as `tc` prints it.
    pub classid: String,
    /// Packets matched since the rules last changed; absent where the kernel does not count them,
    /// as u32 without CONFIG_CLS_U32_PERF.
    pub packets: Option<u64>,
}

/// The numbers that every class has.
#[derive(Clone, Debug, Serialize)]
pub struct ClassNumbers {
    /// The guarantee in force, in bits per second.
    pub rate_bit: u64,
    /// What it may reach by borrowing, in bits per second.
    pub ceil_bit: u64,
    /// The guarantee that the policy writes, in bits per second; absent where the guarantee is
    /// derived.
    pub asked_rate_bit: Option<u64>,
    /// 0 to 7, the lower is served first; absent for an inner class.
    pub prio: Option<u8>,
    /// Bytes a turn when classes share what is left over.
    pub quantum: Option<u32>,
    /// Bytes that the class may send at once above its rate.
    pub burst_bytes: u64,
    /// Bytes that the class may send at once above its ceil.
    pub cburst_bytes: u64,
    /// Of these, what may pass above the ceil after a pause, as the policy writes it; absent where
    /// it is no more than any class may send at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boost_bytes: Option<u64>,
    /// The kind of the leaf qdisc; absent for an inner class and for the kernel's own fifo.
    pub leaf: Option<&'static str>,
    /// Bytes sent since the class was made, with link-layer headers.
    pub sent_bytes: u64,
    /// Packets sent since the class was made; a GSO packet counts as its segments.
    pub sent_packets: u64,
    /// Packets that found its queue full, or that its leaf qdisc dropped to keep the queue short.
    pub drops: u64,
    /// How often the class had used up its ceil and had to wait.
    pub overlimits: u64,
    /// Bytes that wait in the queue now; of an inner class, in those of all classes below it.
    pub backlog_bytes: u64,
    /// Packets that it sent within its own rate.
    pub lends: u64,
    /// Packets that it sent on what a parent had left over.
    pub borrows: u64,
    /// What the class does now; absent where the counters were read once.
    #[serde(flatten)]
    pub now: Option<Now>,
}

/// What a class does now: the difference between two readings of its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Now {
    /// Bits a second, with link-layer headers.
    pub now_bit: u64,
    /// Packets a second.
    pub now_packets: u64,
    /// `now_bit` in percent of the class's ceil.
    pub of_ceil_percent: u64,
    /// Of the packets sent, the share on what a parent had left over, in percent.
    pub borrowed_percent: u8,
    /// How long what waits in the queue will take to leave, in milliseconds: at the rate at which
    /// the class sends now, or at its guarantee, whichever is more.
    pub queue_ms: u64,
    /// Packets dropped a second, in thousandths.
    #[serde(rename = "drops_per_1000_seconds")]
    pub drops_in_1000: u64,
}

impl Status {
    /// Leaves only these users (by name or uid) with the groups above them, or only what is below
    /// this group, in the report.
    pub fn narrow(&mut self, users: &[String], group: Option<&str>) {
        for link in &mut self.links {
            let below = group.map(|group| link.below(group));
            let wanted = |user: &User| {
                let named = users.is_empty()
                    || users.contains(&user.user)
                    || user.uid.is_some_and(|uid| users.contains(&uid.to_string()));
                let is_below = |groups: &BTreeSet<String>| {
                    user.group.as_ref().is_some_and(|group| groups.contains(group))
                };
                named && below.as_ref().is_none_or(is_below)
            };
            if !users.is_empty() {
                link.count_processes();
            }
            link.users.retain(wanted);
            let shown = match below {
                Some(below) => below,
                None if users.is_empty() => continue,
                None => link.above(),
            };
            link.groups.retain(|group| shown.contains(&group.group));
        }
        let is_shown = |quota: &Quota| {
            self.links.iter().any(|link| {
                link.users.iter().any(|user| user.owner == quota.owner)
                    || users.is_empty() && link.groups.iter().any(|it| it.group == quota.user)
            })
        };
        self.quotas = self.quotas.iter().filter(|quota| is_shown(quota)).cloned().collect();
    }

    /// The name of a user or group (`of`) that is most like one that nobody has; `None`: none is.
    pub fn nearest(&self, name: &str, of: fn(&Link) -> Vec<&str>) -> Option<&str> {
        let small = name.to_lowercase();
        let near = |other: &&str| {
            let distance = strsim::osa_distance(&small, &other.to_lowercase());
            (distance <= name.chars().count().div_ceil(3)).then_some(distance)
        };
        let names = self.links.iter().flat_map(of);
        names.filter(|other| near(other).is_some()).min_by_key(near)
    }
}

impl Link {
    /// The names of the users, accounts and classes.
    pub fn user_names(&self) -> Vec<&str> {
        self.users.iter().map(|user| user.user.as_str()).collect()
    }

    /// The names of the groups.
    pub fn group_names(&self) -> Vec<&str> {
        self.groups.iter().map(|group| group.group.as_str()).collect()
    }

    /// The groups above the users, by name.
    pub(super) fn above(&self) -> BTreeSet<String> {
        let mut above = BTreeSet::new();
        for user in &self.users {
            let mut next = user.group.clone();
            while let Some(name) = next.filter(|name| above.insert(name.clone())) {
                let group = self.groups.iter().find(|group| group.group == name);
                next = group.and_then(|group| group.parent.clone());
            }
        }
        above
    }

    /// Counts the processes of who is below each group.
    fn count_processes(&mut self) {
        let name = |(place, group): (usize, &Group)| (group.group.clone(), place);
        let places: BTreeMap<String, usize> = self.groups.iter().enumerate().map(name).collect();
        let place = |group: &Option<String>| places.get(group.as_ref()?).copied();
        let parents: Vec<_> = self.groups.iter().map(|group| place(&group.parent)).collect();
        self.groups.iter_mut().for_each(|group| group.processes = Some(0));
        for user in &self.users {
            let mut next = place(&user.group);
            while let Some(group) = next.and_then(|at| self.groups.get_mut(at)) {
                group.processes = group.processes.map(|count| count + user.processes);
                next = next.and_then(|at| parents.get(at).copied().flatten());
            }
        }
    }

    /// A group and all groups below it, by name.
    fn below(&self, group: &str) -> BTreeSet<String> {
        let mut below = BTreeSet::from([group.to_string()]);
        loop {
            let is_new = |it: &&Group| {
                !below.contains(&it.group)
                    && it.parent.as_ref().is_some_and(|up| below.contains(up))
            };
            let more: Vec<String> =
                self.groups.iter().filter(is_new).map(|it| it.group.clone()).collect();
            if more.is_empty() {
                return below;
            }
            below.extend(more);
        }
    }
}
