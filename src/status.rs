//! Who has which class, what it may send and what it sent: read from the kernel alone, as a table
//! or as CONTRACT's JSON.

mod table;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::facts::RootQdisc;
use crate::host::observe::Snapshot;
use crate::tree::{
    self, Claim, Class, Filter, Guarantee, LeafQdisc, Owner, Port, Reserved, Role, Tag, Tree,
};
use crate::units::{ClassId, Rate};

pub use table::table;

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

/// What status needs beyond a look at the kernel.
#[derive(Clone, Debug, Default)]
pub struct StatusInputs {
    /// Inode of the links' network namespace.
    pub netns: u64,
    /// Names of uids, as NSS has them.
    pub names: BTreeMap<u32, String>,
    /// How many run in each one's directories.
    pub processes: BTreeMap<Owner, usize>,
    /// When each one's directory was made.
    pub since: BTreeMap<Owner, SystemTime>,
    /// `Ip: ForwDatagrams` of the namespace; absent where it is not to be read.
    pub forwarded_packets: Option<u64>,
    /// Rules are asked for.
    pub rules: bool,
    /// The daemon that keeps the instance.
    pub daemon: Option<Daemon>,
}

/// Puts a look at the kernel into status's shape. Pure.
pub fn status<'a>(snapshot: &'a Snapshot, inputs: &StatusInputs) -> Status {
    let observation = &snapshot.observation;
    let mut trees: Vec<(&Port, &Tree)> = observation.state.trees.iter().collect();
    let index = |port: &Port| observation.facts.links.get(&port.link).map(|facts| facts.ifindex);
    trees.sort_by_key(|(port, _)| index(port));
    let group = |(claim, classid): (&'a Claim, &'a ClassId)| match claim {
        Claim::Owner(Owner::Group(group)) => Some((*classid, group)),
        _ => None,
    };
    let groups: BTreeMap<ClassId, &tree::Group> =
        observation.state.claims.iter().filter_map(group).collect();
    Status {
        version: 1,
        links: trees
            .into_iter()
            .map(|(port, tree)| View { snapshot, inputs, port, tree, groups: &groups }.link())
            .collect(),
        foreign: foreign(snapshot),
        daemon: inputs.daemon.clone(),
    }
}

/// Links whose root is of another instance are not ours to show, but worth a word.
fn foreign(snapshot: &Snapshot) -> Vec<String> {
    let objects = snapshot.observation.foreign.iter().map(ToString::to_string);
    let roots =
        snapshot.observation.facts.links.iter().filter_map(|(name, facts)| match &facts.root {
            RootQdisc::Foreign { r2q: Some(r2q), .. } if crate::tree::Mark::is_shaper(*r2q) => {
                Some(format!("{name}, which another instance of shaper shapes"))
            }
            _ => None,
        });
    objects.chain(roots).collect()
}

struct View<'a> {
    snapshot: &'a Snapshot,
    inputs: &'a StatusInputs,
    port: &'a Port,
    tree: &'a Tree,
    groups: &'a BTreeMap<ClassId, &'a tree::Group>,
}

impl View<'_> {
    fn link(&self) -> Link {
        let classifier = self.tree.filters.values().find_map(|filter| match filter {
            Filter::Tag(Tag::Cgroup) => Some("cgroup"),
            Filter::Tag(Tag::Bpf(_)) => Some("bpf"),
            _ => None,
        });
        let rate = self.tree.classes.get(&ClassId::LINK).map(|class| class.rate);
        let pool = |id: ClassId, forwarded_packets: Option<u64>| {
            self.numbers(id).map(|class| Pool { classid: id.to_string(), class, forwarded_packets })
        };
        let claims = &self.snapshot.observation.state.claims;
        let mut users = Vec::new();
        let mut groups = Vec::new();
        let mut retired = Vec::new();
        for (claim, classid) in claims {
            let Some(id) = classid.our_class() else { continue };
            let Some(class) = self.numbers(id) else { continue };
            let classid = id.to_string();
            match claim {
                Claim::Owner(Owner::Group(group)) => groups.push(Group {
                    group: group.to_string(),
                    parent: self.group_of(id).map(ToString::to_string),
                    classid,
                    class,
                }),
                Claim::Owner(owner) => users.push(self.user(owner, id, class)),
                Claim::Retired(..) => retired.push(Retired { classid, class }),
                Claim::Pinned(_) => {}
            }
        }
        Link {
            dev: self.port.link.to_string(),
            netns: self.inputs.netns,
            direction: self.port.direction.as_str(),
            classifier,
            rate_bit: rate.map_or(0, Rate::bits_per_second),
            users,
            groups,
            default: pool(ClassId::DEFAULT, self.inputs.forwarded_packets),
            unshaped: pool(ClassId::UNSHAPED, None),
            retired,
            rules: self.inputs.rules.then(|| self.rules()),
            direct_packets: self.snapshot.direct_packets.get(self.port).copied().unwrap_or(0),
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let claims = &self.snapshot.observation.state.claims;
        let target = |class: ClassId| match class {
            ClassId::DEFAULT => Reserved::Default.to_string(),
            ClassId::UNSHAPED => Reserved::Unshaped.to_string(),
            _ => {
                let owners = claims.iter().filter_map(|(claim, classid)| match claim {
                    Claim::Owner(Owner::User(key) | Owner::Class(key)) if *classid == class => {
                        Some(key.to_string())
                    }
                    _ => None,
                });
                owners.into_iter().next().unwrap_or_else(|| class.to_string())
            }
        };
        let lines = self.snapshot.rules.get(self.port).into_iter().flatten();
        lines
            .map(|(line, (class, packets))| Rule {
                rule: line.get(),
                to: target(*class),
                classid: class.to_string(),
                packets: *packets,
            })
            .collect()
    }

    fn user(&self, owner: &Owner, id: ClassId, class: ClassNumbers) -> User {
        let group = self.group_of(id);
        let (user, uid, source) = match owner {
            Owner::User(key) => (key.to_string(), None, "users"),
            Owner::Class(key) => (key.to_string(), None, "class"),
            Owner::Newcomers => (Reserved::Everyone.to_string(), None, "class"),
            Owner::Group(group) => (group.to_string(), None, "class"),
            Owner::Uid(uid) => {
                let name = self.inputs.names.get(uid).cloned();
                let source = match group {
                    Some(tree::Group::Line(_)) => "group",
                    Some(tree::Group::Everyone) | None => Reserved::Everyone.as_str(),
                };
                (name.unwrap_or_else(|| uid.to_string()), Some(*uid), source)
            }
            Owner::Subuids(range) => (range.to_string(), None, Reserved::Everyone.as_str()),
        };
        let since = self.inputs.since.get(owner);
        User {
            user,
            uid,
            source,
            group: group.map(ToString::to_string),
            classid: id.to_string(),
            class,
            processes: self.inputs.processes.get(owner).copied().unwrap_or(0),
            since: since.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs()),
        }
    }

    /// The group that the class hangs in.
    fn group_of(&self, id: ClassId) -> Option<&tree::Group> {
        self.groups.get(&self.tree.parent(id)?).copied()
    }

    fn numbers(&self, id: ClassId) -> Option<ClassNumbers> {
        let class: &Class = self.tree.classes.get(&id)?;
        let psched = self.snapshot.observation.facts.psched;
        let counters = self.snapshot.counters(self.port, id).copied().unwrap_or_default();
        let rate_bit = class.rate.bits_per_second();
        let (prio, quantum) = match class.role {
            Role::Inner => (None, None),
            Role::Leaf { prio, quantum } => (Some(prio), Some(quantum.0)),
        };
        let is_written = class.guarantee() == Guarantee::Written;
        Some(ClassNumbers {
            rate_bit,
            ceil_bit: class.ceil.bits_per_second(),
            asked_rate_bit: is_written.then_some(rate_bit),
            prio,
            quantum,
            burst_bytes: class.burst.bytes_at(class.rate, psched).0,
            cburst_bytes: class.cburst.bytes_at(class.ceil, psched).0,
            leaf: self.tree.leaves.get(&id).map(LeafQdisc::kind),
            sent_bytes: counters.sent_bytes,
            sent_packets: counters.sent_packets,
            drops: counters.drops,
            overlimits: counters.overlimits,
            backlog_bytes: counters.backlog_bytes,
            lends: counters.lends,
            borrows: counters.borrows,
        })
    }
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
