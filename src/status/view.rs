//! From a look at the kernel to the report.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::guests::Guests;
use super::limit::{Limit, Limits};
use super::numbers::{Below, below, interval_ms, warning};
use super::quota::Quota;
use super::report::{
    ClassNumbers, Daemon, Group, Link, Pending, PolicyInForce, Pool, Repaired, Retired, Rule,
    Status, User,
};
use super::{defaulted, unclaimed};
use crate::facts::RootQdisc;
use crate::host::observe::{CountedService, Service, Snapshot};
use crate::model::InnerLink;
use crate::policy::{self, LinkRef};
use crate::sample::Differences;
use crate::text::Foreign;
use crate::tree::{
    self, Claim, Class, Direction, Filter, FoundLeaf, Guarantee, LeafQdisc, LinkName, Owner, Port,
    Program, Reserved, Role, Tag, Tree,
};
use crate::units::{ClassId, Rate};

/// What the report needs beside a look at the kernel.
#[derive(Clone, Debug, Default)]
pub struct StatusInputs {
    /// Inode of the links' network namespace.
    pub netns: u64,
    /// Names of uids, as NSS has them.
    pub names: BTreeMap<u32, String>,
    /// How many processes are in each owner's directories.
    pub processes: BTreeMap<Owner, usize>,
    /// When each owner's directory was made.
    pub since: BTreeMap<Owner, SystemTime>,
    /// Whom the policy's lines of `links` name, in file order, which is the report's; none where
    /// the file cannot be read: then by ifindex.
    pub links: Vec<LinkRef>,
    /// `Ip: ForwDatagrams` of the network namespace; absent where it cannot be read.
    pub forwarded_packets: Option<u64>,
    /// The same of IPv6: `Ip6OutForwDatagrams`.
    pub forwarded_v6_packets: Option<u64>,
    /// How it is known whose the links are behind which guests are, where guests are to be in the
    /// report.
    pub guests: Option<BTreeMap<LinkName, InnerLink>>,
    /// By uid, how many processes whose packets are in no class have each name, where they are to
    /// be in the report.
    pub unclaimed: BTreeMap<u32, BTreeMap<Foreign, usize>>,
    /// Connections whose packets are in no class, where they are to be in the report.
    pub defaulted: BTreeMap<Service, CountedService>,
    /// Which limits classes have, as the policy in force says.
    pub limits: Limits,
    /// What was used of quotas, as the policy in force has them.
    pub quotas: Vec<Quota>,
    /// Whether the rules are to be in the report.
    pub rules: bool,
    /// The daemon that keeps the instance.
    pub daemon: Option<Daemon>,
    /// The links that daemons have made again.
    pub repairs: Vec<Repaired>,
    /// The policy that was applied last.
    pub policy: Option<PolicyInForce>,
    /// A change that waits to be confirmed.
    pub pending: Option<Pending>,
    /// What was counted between two readings; `None`: the counters were read once.
    pub differences: Option<Differences>,
    /// The same of a moment, where that is only to say whether what arrives goes through its ifb.
    pub glimpse: Option<Differences>,
}

impl StatusInputs {
    /// The interval that is to say whether what arrives goes through its ifb.
    pub(super) fn moment(&self) -> Option<&Differences> {
        self.differences.as_ref().or(self.glimpse.as_ref())
    }
}

/// Makes the report from a look at the kernel. Pure.
pub fn status<'a>(snapshot: &'a Snapshot, inputs: &StatusInputs) -> Status {
    let observation = &snapshot.observation;
    let mut trees: Vec<(&Port, &Tree)> = observation.state.trees.iter().collect();
    trees.sort_by_key(|(port, _)| {
        let facts = observation.facts.links.get(&port.link);
        let altnames = facts.map_or(&[][..], |facts| &facts.altnames);
        let place = policy::line_of(&inputs.links, &port.link, altnames);
        (place.unwrap_or(usize::MAX), facts.map(|facts| facts.ifindex), port.direction)
    });
    let group = |(claim, classid): (&'a Claim, &'a ClassId)| match claim {
        Claim::Owner(Owner::Group(group)) => Some((*classid, group)),
        _ => None,
    };
    let groups: BTreeMap<ClassId, &tree::Group> =
        observation.state.claims.iter().filter_map(group).collect();
    let mut status = Status {
        version: 1,
        interval_ms: inputs.differences.as_ref().map(interval_ms),
        links: trees
            .into_iter()
            .map(|(port, tree)| View::new(snapshot, inputs, (port, tree), &groups).link())
            .collect(),
        foreign: foreign(snapshot),
        daemon: inputs.daemon.clone(),
        repairs: inputs.repairs.clone(),
        policy: inputs.policy.clone(),
        pending: inputs.pending.clone(),
        quotas: inputs.quotas.clone(),
        unclaimed: unclaimed::rows(&inputs.unclaimed, &inputs.names),
        default_connections: defaulted::rows(&inputs.defaulted, &inputs.names),
    };
    for quota in &mut status.quotas {
        let name = match quota.owner {
            Owner::Uid(uid) => inputs.names.get(&uid),
            _ => None,
        };
        quota.user = name.cloned().unwrap_or_else(|| std::mem::take(&mut quota.user));
    }
    if let Some(how) = &inputs.guests {
        Guests::of(observation, how).into_rows(&mut status, &observation.state.claims);
    }
    status
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

/// One link's tree, with what is known beside it.
struct View<'a> {
    snapshot: &'a Snapshot,
    inputs: &'a StatusInputs,
    port: &'a Port,
    tree: &'a Tree,
    groups: &'a BTreeMap<ClassId, &'a tree::Group>,
    /// What inner classes have below them: the kernel counts neither there.
    below: BTreeMap<ClassId, Below>,
}

impl<'a> View<'a> {
    fn new(
        snapshot: &'a Snapshot,
        inputs: &'a StatusInputs,
        (port, tree): (&'a Port, &'a Tree),
        groups: &'a BTreeMap<ClassId, &'a tree::Group>,
    ) -> View<'a> {
        let below = below(snapshot, inputs.differences.as_ref(), port, tree);
        View { snapshot, inputs, port, tree, groups, below }
    }

    fn beside(&self) -> Vec<String> {
        match self.port.direction {
            Direction::Egress => Vec::new(),
            Direction::Ingress => self.snapshot.facts().said_beside(&self.port.link),
        }
    }

    /// What tells users apart. What arrives is whose the flow is that leaves.
    fn classifier(&self) -> Option<&'static str> {
        let trees = &self.snapshot.observation.state.trees;
        let decides = trees.get(&self.port.link.egress()).unwrap_or(self.tree);
        decides.filters.values().find_map(|filter| match filter {
            Filter::Tag(Tag::Cgroup) => Some("cgroup"),
            Filter::Tag(Tag::Bpf(Program { tag: None, .. })) => Some("uid"),
            Filter::Tag(Tag::Bpf(_)) => Some("bpf"),
            _ => None,
        })
    }

    fn link(&self) -> Link {
        let rate = self.tree.classes.get(&ClassId::LINK).map(|class| class.rate);
        let pool = |id: ClassId| {
            self.numbers(id).map(|class| Pool {
                classid: id.to_string(),
                class,
                forwarded_packets: None,
                forwarded_v6_packets: None,
                guests: Vec::new(),
            })
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
                    limit: self.limit(&Owner::Group(group.clone()), id),
                    class,
                    processes: None,
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
            classifier: self.classifier(),
            rate_bit: rate.map_or(0, Rate::bits_per_second),
            limit: self.limit_of_link(rate),
            now: self.numbers(ClassId::LINK).and_then(|numbers| numbers.now),
            users,
            groups,
            default: pool(ClassId::DEFAULT).map(|pool| Pool {
                forwarded_packets: self.inputs.forwarded_packets,
                forwarded_v6_packets: self.inputs.forwarded_v6_packets,
                ..pool
            }),
            unshaped: pool(ClassId::UNSHAPED),
            retired,
            rules: self.inputs.rules.then(|| self.rules()),
            beside: self.beside(),
            warnings: warning(self.snapshot, self.inputs.moment(), self.port).into_iter().collect(),
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
            owner: owner.clone(),
            uid,
            source,
            group: group.map(ToString::to_string),
            classid: id.to_string(),
            class,
            limit: self.limit(owner, id),
            processes: self.inputs.processes.get(owner).copied().unwrap_or(0),
            since: since.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs()),
            guests: Vec::new(),
        }
    }

    /// Which limit the link's rate is, where that is in force.
    fn limit_of_link(&self, rate: Option<Rate>) -> Option<Limit> {
        let (meant, limit) = self.inputs.limits.links.get(self.port)?;
        (rate == Some(*meant)).then(|| limit.clone())
    }

    /// Which limit the class has, where that is in force.
    fn limit(&self, owner: &Owner, id: ClassId) -> Option<Limit> {
        let (ceil, limit) = self.inputs.limits.classes.get(&(self.port.clone(), owner.clone()))?;
        (self.tree.classes.get(&id)?.ceil == *ceil).then(|| limit.clone())
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
        let strange = self.snapshot.observation.strange.get(self.port);
        let strange_leaf = || strange?.leaves.get(&id).map(|_| FoundLeaf::STRANGE);
        let is_written = class.guarantee() == Guarantee::Written;
        let mut numbers = ClassNumbers {
            rate_bit,
            ceil_bit: class.ceil.bits_per_second(),
            asked_rate_bit: is_written.then_some(rate_bit),
            prio,
            quantum,
            burst_bytes: class.burst.bytes_at(class.rate, psched).0,
            cburst_bytes: class.cburst.bytes_at(class.ceil, psched).0,
            boost_bytes: class.boost().map(|boost| boost.0),
            leaf: self.tree.leaves.get(&id).map(LeafQdisc::kind).or_else(strange_leaf),
            sent_bytes: 0,
            sent_packets: 0,
            drops: 0,
            overlimits: 0,
            backlog_bytes: 0,
            lends: 0,
            borrows: 0,
            now: None,
        };
        let pace = self.inputs.differences.as_ref().and_then(|it| it.pace(self.port, id));
        numbers.count(&counters, self.below.get(&id), pace);
        Some(numbers)
    }
}
