//! The answer, in the shape of CONTRACT's JSON.

use serde::Serialize;

/// The whole answer; its JSON only grows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Of the shape of this document; grows when a field changes its meaning or goes.
    pub version: u32,
    /// The links with a tree of ours, by ifindex.
    pub links: Vec<Link>,
    /// Somebody else's objects in our trees and directories.
    pub foreign: Vec<String>,
    /// The daemon that keeps all this; absent while none does, and for whoever is not root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Daemon>,
}

/// The daemon, and its condition as it told it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Its process; 0: in another process namespace.
    pub pid: u32,
    /// `idle`; `draining` (the same, and retired classes have still to become quiet); `adopting` (a
    /// policy is on its way in); `refusing` (what the policy file holds: the policy before it stays
    /// in force); `waiting` (for another run, or for a confirmation) or `failing` (it tries again).
    /// Absent until the daemon told one.
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
    /// `egress`: what leaves by the link.
    pub direction: &'static str,
    /// How the tag is read: `cgroup` or `bpf`; nothing while there is no filter.
    pub classifier: Option<&'static str>,
    /// What the link is shaped to, in bits per second.
    pub rate_bit: u64,
    /// Users and classes, by name.
    pub users: Vec<User>,
    /// Inner classes, by name.
    pub groups: Vec<Group>,
    /// The class of whatever no rule and no user claims; absent while it is not there.
    pub default: Option<Pool>,
    /// The class beside the link's, for what is not limited.
    pub unshaped: Option<Pool>,
    /// Classes that were replaced or removed and still have something to send, or sockets.
    pub retired: Vec<Retired>,
    /// With `--rules`: those of the policy that are in the kernel here, in file order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule>>,
    /// Packets that passed no class at all: should be 0 once the default class stands.
    pub direct_packets: u32,
}

/// A user, an account, a range of subordinate uids, or a class that rules send to.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Its name in the policy, or the account's.
    pub user: String,
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
    /// How many run in its directories now.
    pub processes: usize,
    /// Seconds since 1970 when its directory was made.
    pub since: Option<u64>,
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
    /// Its limits and counters, its members' together.
    #[serde(flatten)]
    pub class: ClassNumbers,
}

/// The default or the unshaped class.
#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    /// As `tc` prints it: `1:fffe`.
    pub classid: String,
    /// Its limits and counters.
    #[serde(flatten)]
    pub class: ClassNumbers,
    /// IPv4 packets that this namespace forwarded since it began (`Ip: ForwDatagrams`), of which
    /// the ones that left by this link are in the default class: they have no process of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_packets: Option<u64>,
}

/// A class that nobody gets any more, kept until nothing can come to it.
#[derive(Clone, Debug, Serialize)]
pub struct Retired {
    /// As `tc` prints it.
    pub classid: String,
    /// The limits that it had, and its counters.
    #[serde(flatten)]
    pub class: ClassNumbers,
}

/// One of the policy's rules.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// Which of the policy's rules, counted from 1.
    pub rule: u32,
    /// A user, a class, `default` or `unshaped`.
    pub to: String,
    /// The class that it sends packets to, as `tc` prints it.
    pub classid: String,
    /// Matched since the rules last changed; nothing where the kernel does not count them, which it
    /// does not for u32 without CONFIG_CLS_U32_PERF.
    pub packets: Option<u64>,
}

/// What every class has.
#[derive(Clone, Debug, Serialize)]
pub struct ClassNumbers {
    /// In force.
    pub rate_bit: u64,
    /// What it may reach by borrowing, in bits per second.
    pub ceil_bit: u64,
    /// As written; nothing where the guarantee was derived from what was left.
    pub asked_rate_bit: Option<u64>,
    /// 0 to 7, the lower is served first; absent for an inner class.
    pub prio: Option<u8>,
    /// Bytes a turn when classes share what is left over.
    pub quantum: Option<u32>,
    /// What it may send at once above its rate.
    pub burst_bytes: u64,
    /// What it may send at once above its ceil.
    pub cburst_bytes: u64,
    /// The kind of its leaf qdisc; absent for an inner class and for the kernel's fifo.
    pub leaf: Option<&'static str>,
    /// Since the class was made, with link-layer headers.
    pub sent_bytes: u64,
    /// Since the class was made; a packet that the device will cut up counts as its pieces.
    pub sent_packets: u64,
    /// Packets that found its queue full.
    pub drops: u64,
    /// How often it had to wait.
    pub overlimits: u64,
    /// What waits in its queue now.
    pub backlog_bytes: u64,
    /// Packets that it sent within its own rate.
    pub lends: u64,
    /// Packets that it sent on what a parent had left.
    pub borrows: u64,
}

impl Status {
    /// Only these users (by name or uid), or only the members of this group.
    pub fn narrow(&mut self, users: &[String], group: Option<&str>) {
        let wanted = |user: &User| {
            let named = users.is_empty()
                || users.contains(&user.user)
                || user.uid.is_some_and(|uid| users.contains(&uid.to_string()));
            named && group.is_none_or(|group| user.group.as_deref() == Some(group))
        };
        for link in &mut self.links {
            link.users.retain(wanted);
            if let Some(group) = group {
                link.groups.retain(|g| g.group == group);
            }
        }
    }
}
