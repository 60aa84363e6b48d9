//! Links that are shaped, change and are left; and parts of a link that nobody's limits are.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::held::{Held, difference};
use crate::facts::{Facts, RootQdisc};
use crate::tree::{
    Claim, Direction, Filter, Group, KernelState, LeafQdisc, LinkName, Owner, Port, Tree,
};
use crate::units::{ClassId, Shard};

/// How many names a line has before it has their number.
pub(super) const NAMED: usize = 3;

/// Two states, with their ports and owners.
pub(super) struct Ports<'a> {
    pub before: &'a KernelState,
    pub after: &'a KernelState,
    /// The ports of both.
    pub all: BTreeSet<&'a Port>,
    groups_before: BTreeMap<ClassId, &'a Group>,
    groups_after: BTreeMap<ClassId, &'a Group>,
}

impl<'a> Ports<'a> {
    pub(super) fn of(before: &'a KernelState, after: &'a KernelState) -> Ports<'a> {
        let all = before.trees.keys().chain(after.trees.keys()).collect();
        let (groups_before, groups_after) = (groups(before), groups(after));
        Ports { before, after, all, groups_before, groups_after }
    }

    /// What the class has there before and after.
    pub(super) fn held(&self, port: &Port, [from, to]: [Option<ClassId>; 2]) -> [Option<Held>; 2] {
        [
            held(self.before.trees.get(port), from, &self.groups_before),
            held(self.after.trees.get(port), to, &self.groups_after),
        ]
    }

    /// Whether the port is one of both states.
    pub(super) fn lasts(&self, port: &Port) -> bool {
        self.before.trees.contains_key(port) && self.after.trees.contains_key(port)
    }
}

fn groups(state: &KernelState) -> BTreeMap<ClassId, &Group> {
    let mut groups = BTreeMap::new();
    for (claim, id) in &state.claims {
        if let Claim::Owner(Owner::Group(name)) = claim {
            groups.insert(*id, name);
        }
    }
    groups
}

fn held(
    tree: Option<&Tree>,
    id: Option<ClassId>,
    groups: &BTreeMap<ClassId, &Group>,
) -> Option<Held> {
    let (tree, id) = tree.zip(id)?;
    let class = tree.classes.get(&id)?;
    let group = tree.parent(id).and_then(|parent| groups.get(&parent).copied());
    Some(Held::new(class, group.cloned()))
}

/// The words of a link's directions: `500mbit → 300mbit, down 100mbit`.
pub(super) fn directions(words: impl Iterator<Item = (Direction, String)>) -> String {
    let words = words.filter(|(_, words)| !words.is_empty());
    let with_name = words.map(|(direction, words)| match direction {
        Direction::Egress => words,
        Direction::Ingress => format!("down {words}"),
    });
    with_name.collect::<Vec<_>>().join(", ")
}

/// Links, their rates, and what nobody claims.
pub(super) fn changes(ports: &Ports<'_>, facts: &Facts) -> Vec<Change> {
    let links: BTreeSet<&LinkName> = ports.all.iter().map(|port| &port.link).collect();
    let mut changes = Vec::new();
    for link in links {
        let up = link.egress();
        let stood = ports.before.trees.contains_key(&up);
        let stands = ports.after.trees.contains_key(&up);
        let of = |id: ClassId| {
            directions([up.clone(), link.ingress()].into_iter().map(|port| {
                let words = match ports.held(&port, [Some(id); 2]) {
                    [Some(from), Some(to)] => difference(&from, &to, false),
                    [None, Some(to)] => to.ceil.to_string(),
                    [Some(_), None] if stands => "no longer".to_string(),
                    _ => String::new(),
                };
                (port.direction, words)
            }))
        };
        let change =
            |sign, who: String, what: String| Change { sign, kind: "link", who, count: 1, what };
        match (stood, stands) {
            (false, true) => {
                let root = facts.links.get(link).map(|facts| &facts.root);
                if let Some(RootQdisc::Foreign { kind, handle, .. }) = root {
                    changes.push(change('!', link.to_string(), format!("qdisc {kind} {handle}")));
                }
                changes.push(change('+', link.to_string(), of(ClassId::LINK)));
            }
            (true, false) => {
                changes.push(change('-', link.to_string(), "no longer shaped".to_string()));
            }
            _ => {
                let rate = of(ClassId::LINK);
                if !rate.is_empty() {
                    changes.push(change('~', link.to_string(), rate));
                }
                let default = directions([up.clone(), link.ingress()].into_iter().map(|port| {
                    let words = match ports.held(&port, [Some(ClassId::DEFAULT); 2]) {
                        [Some(from), Some(to)] => difference(&from, &to, true),
                        _ => String::new(),
                    };
                    (port.direction, words)
                }));
                if !default.is_empty() {
                    changes.push(change('~', format!("default of {link}"), default));
                }
            }
        }
    }
    changes
}

/// Parts of a link that stays shaped and that are in nobody's limits: rules, who is told apart, how
/// packets wait.
pub(super) fn parts(ports: &Ports<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    for port in ports.all.iter().filter(|port| ports.lasts(port)) {
        let trees = (ports.before.trees.get(*port), ports.after.trees.get(*port));
        let (Some(before), Some(after)) = trees else { continue };
        let mut parts = Vec::new();
        if rules(before) != rules(after) {
            parts.push("rules");
        }
        if others(before) != others(after) {
            parts.push("whose packets are whose");
        }
        if port.direction == Direction::Egress
            && hooks(ports.before, &port.link) != hooks(ports.after, &port.link)
        {
            parts.push("programs at clsact");
        }
        if queues(before, after) {
            parts.push("queues");
        }
        if !parts.is_empty() {
            let who = match port.direction {
                Direction::Egress => port.link.to_string(),
                Direction::Ingress => format!("{} down", port.link),
            };
            let what = format!("({})", parts.join(", "));
            changes.push(Change { sign: '~', kind: "link", who, count: 1, what });
        }
    }
    changes
}

fn is_rule(filter: &Filter) -> bool {
    filter.is_u32() || matches!(filter, Filter::Program(_))
}

fn rules(tree: &Tree) -> Vec<&Filter> {
    tree.filters.values().filter(|filter| is_rule(filter)).collect()
}

/// Whether each qdisc has a filter that says whose a packet is. Which program it is follows from
/// what the kernel can do and from the shards.
fn others(tree: &Tree) -> bool {
    tree.filters.values().any(|filter| !is_rule(filter))
}

/// What a link has at clsact beside labels.
fn hooks<'a>(state: &'a KernelState, link: &LinkName) -> Vec<&'a Filter> {
    let clsact = state.clsact.get(link).into_iter();
    let filters =
        clsact.flat_map(|it| it.egress.filters.values().chain(it.ingress.filters.values()));
    filters.filter(|filter| !matches!(filter, Filter::Label(_))).collect()
}

/// Whether a class that is there before and after, with the same ceil, has another queue.
fn queues(before: &Tree, after: &Tree) -> bool {
    let ceil = |tree: &Tree, id| tree.classes.get(id).map(|class| class.ceil);
    after.leaves.iter().any(|(id, leaf)| {
        let old = before.leaves.get(id);
        let is_a_shard = Shard::of_class(*id).is_some() || matches!(leaf, LeafQdisc::Shard);
        let stays = before.classes.contains_key(id) && ceil(before, id) == ceil(after, id);
        !is_a_shard && stays && old != Some(leaf)
    })
}
