//! What the kernel should hold: a model, the facts and the identities that already stand, turned
//! into a [`KernelState`]. Pure. A derived value depends on its own line, the link and the kernel
//! only, so that adding a user changes nobody else; the one exception is the derived guarantee.

mod clsact;
mod identity;
mod owners;
mod rates;
mod shards;

use std::collections::{BTreeMap, BTreeSet, HashSet};

pub use clsact::Unguarded;
pub use identity::OutOfMinors;
pub use shards::Sharding;

use crate::classify::{self, NoClassifier};
use crate::facts::{LinkFacts, Observation};
use crate::model::{LeafChoice, Limits, Link, Model, Rule, Target};
use crate::tree::{
    Claim, Class, Classifier, Family, Filter, KernelState, LeafQdisc, LinkName, NetCls, Owner,
    Pref, Program, ProgramRule, Protocol, Role, RuleProgram, Senders, Tag, Tree, U32Rule, U32Rules,
};
use crate::units::{Bytes, ClassId, Psched, Rate, Shard, Ticks};
use identity::Identities;

/// Why there is no such state on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Nothing can tell whose a packet is.
    #[error("link {link}: {source}")]
    Classifier {
        /// For which link that was asked.
        link: LinkName,
        /// What is missing.
        source: NoClassifier,
    },
    /// The policy names a leaf qdisc that the kernel cannot make.
    #[error("link {link}: this kernel has no `{kind}` qdisc; write `leaf: auto`")]
    Leaf {
        /// The link whose line names it.
        link: LinkName,
        /// As `tc` calls it.
        kind: &'static str,
    },
    /// HTB cannot be made.
    #[error(
        "this kernel has no HTB (`sch_htb`), which does the shaping; load it with `modprobe sch_htb` or install the distribution's full kernel"
    )]
    NoHtb,
    /// There are more users or groups than numbers.
    #[error(transparent)]
    Minors(#[from] OutOfMinors),
    /// The model names a link that the facts lack.
    #[error("link {0} is gone")]
    LinkGone(LinkName),
}

/// The state that the model means, given what stands. Claims keep the minors that they hold;
/// classes that lose their owner are retired, not deleted, until they are quiet.
pub fn desired(model: &Model, observed: &Observation) -> Result<KernelState, Impossible> {
    desired_with(model, observed, Sharding::default())
}

/// The same with other numbers for shards.
pub fn desired_with(
    model: &Model,
    observed: &Observation,
    sharding: Sharding,
) -> Result<KernelState, Impossible> {
    let features = &observed.facts.features;
    if !features.htb {
        return Err(Impossible::NoHtb);
    }
    let sharding = Sharding::is_possible(model, features).then_some(sharding);
    let ids = identity::assign(model, observed, sharding)?;
    let mut state = KernelState { net_cls: observed.state.net_cls, ..KernelState::default() };
    if state.net_cls == NetCls::Unmounted {
        state.net_cls = NetCls::Ours;
    }
    let pinned: HashSet<&Owner> = observed.state.claims.keys().filter_map(Claim::pinned).collect();
    let owners = model.nodes.iter().map(|node| &node.owner).zip(&ids.nodes);
    let claims = owners.flat_map(|(owner, id)| {
        let pinned = pinned.get(owner).map(|_| (Claim::Pinned(owner.clone()), *id));
        [(Claim::Owner(owner.clone()), *id)].into_iter().chain(pinned)
    });
    state.claims = claims.collect();
    for claim in &observed.held {
        if let Some(classid) = observed.state.claims.get(claim) {
            state.claims.entry(claim.clone()).or_insert(*classid);
        }
    }
    for (id, owner) in &ids.retired {
        state.claims.insert(Claim::Retired(id.minor(), owner.cloned()), *id);
    }
    let all_targets = shards::targets(model);
    for (index, link) in model.links.iter().enumerate() {
        let facts = observed
            .facts
            .links
            .get(&link.port.link)
            .ok_or_else(|| Impossible::LinkGone(link.port.link.clone()))?;
        let nodes = model.nodes.iter().zip(&ids.nodes);
        let here = nodes.filter(|(node, _)| node.limits[index].is_some());
        let targets = here.map(|(node, id)| (&node.owner, *id));
        let targets = targets.filter(|(owner, _)| all_targets.contains(owner)).collect();
        let tree = LinkTree { model, index, link, facts, ids: &ids, observed, targets }.build()?;
        state.trees.insert(link.port.clone(), tree);
    }
    state.clsact = clsact::wanted(model, observed);
    let decides = |filter: &Filter| matches!(filter, Filter::Tag(Tag::Bpf(_)));
    if state.trees.values().any(|tree| tree.filters.values().any(decides)) {
        let accounts = &observed.facts.accounts;
        state.owners = Some(owners::table(&model.matcher.owners(accounts), &state.claims));
    }
    Ok(state)
}

/// The state that holds nothing of ours, for `clear`: claims, trees and our own mount go.
pub fn nothing(observed: &Observation) -> KernelState {
    let net_cls = match observed.state.net_cls {
        NetCls::Ours if observed.neighbours.is_empty() => NetCls::Unmounted,
        other => other,
    };
    let held = |claim: &Claim| Some((claim.clone(), *observed.state.claims.get(claim)?));
    let claims = observed.held.iter().filter_map(held).collect();
    let clsact = clsact::of_others(observed).collect();
    KernelState { net_cls, claims, clsact, ..KernelState::default() }
}

/// One link's tree in the making.
struct LinkTree<'a> {
    model: &'a Model,
    /// The link's place in `model.links`, and so in each node's limits.
    index: usize,
    link: &'a Link,
    facts: &'a LinkFacts,
    ids: &'a Identities<'a>,
    observed: &'a Observation,
    /// The rules' targets that have a class on this link.
    targets: BTreeMap<&'a Owner, ClassId>,
}

impl LinkTree<'_> {
    fn build(&self) -> Result<Tree, Impossible> {
        let leaf = self.leaf_kind()?;
        let mut tree = Tree::default();
        let rates = rates::in_force(self.model, self.index, self.link);

        let link_rate = self.link.rate;
        tree.classes.insert(ClassId::LINK, self.class(None, link_rate, link_rate, Role::Inner));

        // The kernel would take a rate below the link's; unshaped packets would then be shaped.
        let device = self.link.speed.unwrap_or(rates::UNKNOWN_DEVICE).max(link_rate);
        self.add_leaf(
            &mut tree,
            ClassId::UNSHAPED,
            None,
            device,
            device,
            self.role(0, device, true),
            leaf,
        );

        let Limits { ceil, prio, .. } = self.link.default;
        let rate = rates.default;
        self.add_leaf(
            &mut tree,
            ClassId::DEFAULT,
            Some(ClassId::LINK),
            rate,
            ceil,
            self.role(prio, rate, true),
            leaf,
        );

        let nodes = self.model.nodes.iter().zip(&self.ids.nodes);
        for ((node, id), in_force) in nodes.zip(&rates.nodes) {
            let (Some(limits), Some(in_force)) = (&node.limits[self.index], in_force) else {
                continue;
            };
            let id = *id;
            let parent = match (id.shard(), &node.group) {
                (Some(shard), _) => shard.root(),
                (None, Some(group)) => self.ids.groups[group],
                (None, None) => ClassId::LINK,
            };
            let (rate, ceil) = (in_force.rate, in_force.ceil);
            if id.minor().is_inner() {
                let mut class = self.class(Some(parent), rate, ceil, Role::Inner);
                class.burst = group_burst(class.burst, in_force.promised);
                tree.classes.insert(id, class);
            } else {
                let role = self.role(limits.prio, rate, in_force.promised);
                self.add_leaf(&mut tree, id, Some(parent), rate, ceil, role, leaf);
            }
        }
        self.keep_retired(&mut tree);
        self.add_shards(&mut tree)?;
        self.add_filters(&mut tree)?;
        Ok(tree)
    }

    #[allow(clippy::too_many_arguments, reason = "they are the fields of one class and its leaf")]
    fn add_leaf(
        &self,
        tree: &mut Tree,
        id: ClassId,
        parent: Option<ClassId>,
        rate: Rate,
        ceil: Rate,
        role: Role,
        kind: LeafKind,
    ) {
        tree.classes.insert(id, self.class(parent, rate, ceil, role));
        tree.leaves.insert(id, kind.leaf(ceil, self.facts.mtu));
    }

    fn class(&self, parent: Option<ClassId>, rate: Rate, ceil: Rate, role: Role) -> Class {
        let psched = self.observed.facts.psched;
        Class {
            parent,
            rate,
            ceil,
            burst: burst(rate, self.facts.mtu, psched),
            cburst: burst(ceil, self.facts.mtu, psched),
            role,
        }
    }

    fn role(&self, prio: u8, rate: Rate, promised: bool) -> Role {
        Role::Leaf { prio, quantum: quantum(rate, self.link.rate, promised) }
    }

    /// Retired classes stay as they are, with their leaf and whatever they hang under.
    fn keep_retired(&self, tree: &mut Tree) {
        let Some(old) = self.observed.state.trees.get(&self.link.port) else { return };
        for id in self.ids.retired.keys() {
            if let Some(class) = old.classes.get(id) {
                tree.classes.insert(*id, *class);
                if let Some(leaf) = old.leaves.get(id) {
                    tree.leaves.insert(*id, *leaf);
                }
            }
        }
    }

    /// What the shards of this link's users stand on. In the root a shard is one class: it has the
    /// guarantees of all its users, and what their parent has for a ceil. Its own root class limits
    /// nothing; a tag whose class is gone falls to its default class, which has next to no
    /// guarantee.
    fn add_shards(&self, tree: &mut Tree) -> Result<(), Impossible> {
        let old = self.observed.state.trees.get(&self.link.port);
        let mut promised: BTreeMap<Shard, u64> = BTreeMap::new();
        for (id, class) in &mut tree.classes {
            if let Some(shard) = id.shard() {
                let sum = promised.entry(shard).or_default();
                *sum = sum.saturating_add(class.rate.bytes_per_second());
                if !self.ids.retired.contains_key(id) {
                    *class = self.in_turn(*class);
                }
            }
        }
        let spare = Rate::MIN_GUARANTEE;
        for (shard, sum) in promised {
            let standing = old.and_then(|old| old.classes.get(&shard.class()));
            let profile = self.ids.shards.get(&shard);
            let parent =
                profile.map(|profile| profile.parent).or(standing.and_then(|class| class.parent));
            let parent = parent.unwrap_or(ClassId::LINK);
            let prio = match standing.map(|class| class.role) {
                Some(Role::Leaf { prio, .. }) => prio,
                _ => 0,
            };
            let prio = profile.and_then(|profile| profile.prios[self.index]).unwrap_or(prio);
            let ceil = tree.classes.get(&parent).map_or(self.link.rate, |class| class.ceil);
            let sum = Rate::from_bytes_per_second(sum.saturating_add(spare.bytes_per_second()));
            let rate = sum.unwrap_or(spare).min(ceil);
            let role = self.role(prio, rate, false);
            let class = self.in_turn(self.class(Some(parent), rate, ceil, role));
            tree.classes.insert(shard.class(), class);
            tree.leaves.insert(shard.class(), LeafQdisc::Shard);
            let all = self.link.rate;
            tree.classes.insert(shard.root(), self.class(None, all, all, Role::Inner));
            let Limits { ceil, prio, .. } = self.link.default;
            let role = self.role(prio, spare, false);
            tree.classes.insert(shard.default(), self.class(Some(shard.root()), spare, ceil, role));
            let standing = old.and_then(|old| old.shards.get(&shard));
            let filters = tree.shards.entry(shard).or_default();
            insert_filter(filters, Pref::TAG, standing, Filter::Tag(self.tag()?));
        }
        Ok(())
    }

    /// A class with its burst where senders take turns by shards: beside the burst of any class
    /// what the guarantee earns while others send. A class of a shard waits for one packet on the
    /// link and for one in its shard, each of which can be a GSO packet of 64 kB; tokens that are
    /// full before the class's turn comes are lost (of 2 Mbit in a shard with 35, on a link of 60,
    /// a burst of 3,036 bytes left 1.87). The shard's own rate is not asked, since it changes with
    /// each user who comes: it is taken for [`SMALL_SHARD`] of the link, and is the class's at
    /// least.
    fn in_turn(&self, class: Class) -> Class {
        let (rate, link) = (class.rate.bytes_per_second(), self.link.rate.bytes_per_second());
        let earned = u128::from(GSO_PACKET) * u128::from(rate) / u128::from(link);
        let earned = u64::try_from(earned).unwrap_or(GSO_PACKET);
        let bytes = Bytes(earned + (earned * SMALL_SHARD).min(GSO_PACKET));
        let turns = Ticks::for_bytes(bytes, class.rate, self.observed.facts.psched);
        Class { burst: Ticks(class.burst.0.saturating_add(turns.0)), ..class }
    }

    /// What finds a packet's class on this link, in a qdisc without shards below it.
    fn tag(&self) -> Result<Tag, Impossible> {
        let facts = &self.observed.facts;
        match classify::classifier(self.link.classifier, &facts.features) {
            Ok(Classifier::Bpf) => Ok(Tag::Bpf(facts.program())),
            Ok(Classifier::Cgroup) => Ok(Tag::Cgroup),
            Err(source) => {
                Err(Impossible::Classifier { link: self.link.port.link.clone(), source })
            }
        }
    }

    fn add_filters(&self, tree: &mut Tree) -> Result<(), Impossible> {
        let standing = self.observed.state.trees.get(&self.link.port).map(|old| &old.filters);
        let filters = if self.facts.ethernet {
            let tables = classify::frame::tables_of_a_family();
            let [v4, v6] = [Family::V4, Family::V6].map(|family| self.rules(family, tables));
            vec![(Protocol::All, Pref::RULES_V4, classify::frame::both(v4, v6))]
        } else {
            let by_family = [(Family::V4, Pref::RULES_V4), (Family::V6, Pref::RULES_V6)];
            let rules = |(family, prefs): (Family, [Pref; 2])| {
                (family.into(), prefs, self.rules(family, prefs[0].most_tables()))
            };
            by_family.map(rules).into()
        };
        if let Some(program) = self.program()? {
            let filter = Filter::Program(program);
            insert_filter(&mut tree.filters, Pref::PROGRAM, standing, filter);
        }
        for (protocol, prefs, rules) in filters.into_iter().filter(|(_, _, r)| !r.is_empty()) {
            insert_filter(&mut tree.filters, prefs, standing, Filter::U32 { protocol, rules });
        }
        let tag = match self.tag()? {
            Tag::Bpf(program) => Tag::Bpf(Program { shards: !tree.shards.is_empty(), ..program }),
            Tag::Cgroup => Tag::Cgroup,
        };
        insert_filter(&mut tree.filters, Pref::TAG, standing, Filter::Tag(tag));
        Ok(())
    }

    /// The link's rules in file order: those that u32 decides, and from the first that it cannot
    /// decide on the others.
    fn rules_here(&self) -> (Vec<&Rule>, Vec<&Rule>) {
        let on_link = |rule: &&Rule| {
            rule.links.as_ref().is_none_or(|links| links.contains(&self.link.port.link))
        };
        let mut rules: Vec<&Rule> = self.model.rules.iter().filter(on_link).collect();
        let first = rules.iter().position(|rule| rule.needs_program()).unwrap_or(rules.len());
        let others = rules.split_off(first);
        (rules, others)
    }

    /// The eBPF program of the rules that u32 cannot decide, and of those behind them.
    fn program(&self) -> Result<Option<RuleProgram>, Impossible> {
        let (_, rules) = self.rules_here();
        if rules.is_empty() {
            return Ok(None);
        }
        let nodes = self.model.nodes.iter().map(|node| &node.owner).zip(&self.ids.nodes);
        let asks = match (rules.iter().any(|rule| rule.from.is_some()), self.tag()?) {
            (false, _) => None,
            (true, Tag::Bpf(program)) => Some(program),
            // The model has asked what the kernel can do; this is what it has become since.
            (true, Tag::Cgroup) => {
                let (link, source) = (self.link.port.link.clone(), NoClassifier::Bpf);
                return Err(Impossible::Classifier { link, source });
            }
        };
        let senders: BTreeMap<&Owner, ClassId> = match asks {
            Some(_) => nodes.map(|(owner, id)| (owner, *id)).collect(),
            None => BTreeMap::new(),
        };
        let rules = rules.into_iter().map(|rule| ProgramRule {
            line: rule.line,
            to: self.target(&rule.to),
            from: rule.from.as_ref().map(|from| {
                let of = from.owners.iter().filter_map(|owner| senders.get(owner).copied());
                let of: BTreeSet<ClassId> = of.collect();
                Senders { not: from.not, of: of.into_iter().collect() }
            }),
            packets: rule.packets.clone(),
        });
        Ok(Some(RuleProgram { asks, ethernet: self.facts.ethernet, rules: rules.collect() }))
    }

    fn rules(&self, family: Family, most_tables: u16) -> U32Rules {
        let (rules, _) = self.rules_here();
        let rules = rules.into_iter().flat_map(|rule| {
            let parts = classify::u32::compile(family, &rule.matches, self.target(&rule.to));
            parts.into_iter().map(|part| U32Rule { line: Some(rule.line), ..part })
        });
        classify::hash::arrange_in(family, rules.collect(), most_tables)
    }

    /// A target that has no class on this link counts in the default, as its tag would.
    fn target(&self, target: &Target) -> ClassId {
        match target {
            Target::Default => ClassId::DEFAULT,
            Target::Unshaped => ClassId::UNSHAPED,
            Target::Owner(owner) => self.targets.get(owner).copied().unwrap_or(ClassId::DEFAULT),
        }
    }

    fn leaf_kind(&self) -> Result<LeafKind, Impossible> {
        let has = |kind: &'static str| self.observed.facts.features.leaves.contains(kind);
        let need = |kind: &'static str, leaf: LeafKind| {
            has(kind)
                .then_some(leaf)
                .ok_or(Impossible::Leaf { link: self.link.port.link.clone(), kind })
        };
        match self.link.leaf {
            LeafChoice::Auto if has("fq_codel") => Ok(LeafKind::FqCodel),
            LeafChoice::Auto if has("sfq") => Ok(LeafKind::Sfq),
            // bfifo is part of every kernel that schedules packets (net/sched/sch_fifo.c).
            LeafChoice::Auto | LeafChoice::Bfifo => Ok(LeafKind::Bfifo),
            LeafChoice::Pfifo => Ok(LeafKind::Pfifo),
            LeafChoice::FqCodel => need("fq_codel", LeafKind::FqCodel),
            LeafChoice::Sfq => need("sfq", LeafKind::Sfq),
            LeafChoice::Cake => need("cake", LeafKind::Cake),
        }
    }
}

/// A link's leaf qdisc before the class's ceil is known.
#[derive(Clone, Copy)]
enum LeafKind {
    FqCodel,
    Sfq,
    Bfifo,
    Pfifo,
    Cake,
}

/// `GSO_LEGACY_MAX_SIZE` (include/linux/netdevice.h).
const GSO_PACKET: u64 = 65_536;

/// How long a full queue may hold a packet, where the qdisc does not control that itself.
const FULL_QUEUE_MS: u64 = 50;

impl LeafKind {
    fn leaf(self, ceil: Rate, mtu: u32) -> LeafQdisc {
        // A byte limit that is smaller than one 64 kB GSO packet drops each of those whole, and a
        // TCP that sends in them starves (55 kbit/s came through limits of 25 and 50 kB).
        let floor = GSO_PACKET + 2 * u64::from(mtu);
        let bytes = ceil.bytes_in_ms(FULL_QUEUE_MS).0.max(floor).min(u64::from(u32::MAX));
        match self {
            LeafKind::FqCodel => LeafQdisc::FqCodel,
            LeafKind::Sfq => LeafQdisc::Sfq,
            LeafKind::Cake => LeafQdisc::Cake,
            LeafKind::Bfifo => LeafQdisc::Bfifo { limit: Bytes(bytes) },
            LeafKind::Pfifo => {
                let packets = (bytes / u64::from(mtu.max(1))).clamp(10, 10_000);
                LeafQdisc::Pfifo { limit: packets as u32 }
            }
        }
    }
}

/// HTB serves a class once its timer fires; what the timer is late by must be in the burst, or the
/// class falls short (1 ms of it still loses a tenth at 1 Gbit). Small enough to open no hole.
const BURST_MS: u64 = 4;

/// A shard's guarantees are taken for so small a part of the link's rate: 1/16
/// (`LinkTree::in_turn`).
const SMALL_SHARD: u64 = 16;

/// The burst of a class at `rate`: [`BURST_MS`] worth, at least two full frames.
fn burst(rate: Rate, mtu: u32, psched: Psched) -> Ticks {
    let frames = 2 * (u64::from(mtu) + 18);
    Ticks::for_bytes(Bytes(rate.bytes_in_ms(BURST_MS).0.max(frames)), rate, psched)
}

/// A group's burst: an inner class has no quantum of its own, so the lowest bit of this says what a
/// leaf's says there ([`quantum`]). A tick is 64 ns.
fn group_burst(burst: Ticks, promised: bool) -> Ticks {
    if promised { Ticks(burst.0 & !1) } else { Ticks(burst.0 | 1) }
}

/// Whether a group's guarantee was derived, as [`group_burst`] left it.
pub fn group_guarantee_is_derived(burst: Ticks) -> bool {
    burst.0 % 2 == 1
}

/// Smallest and largest quantum. Below one 64 kB GSO packet HTB shares what is left over equally,
/// whatever the rates; above 200,000 `htb_change_class` warns.
const QUANTUM: std::ops::RangeInclusive<u64> = 60_000..=200_000;

/// A leaf's quantum: in proportion to its share of the link (a tenth of the link has the smallest,
/// a third the largest), so that what is left over is shared about as the rates are. Its lowest bit
/// says whether the rate was written (0) or derived (1): `status` reads that from the kernel.
fn quantum(rate: Rate, link: Rate, promised: bool) -> u32 {
    let share = u128::from(rate.bytes_per_second()) * 600_000 / u128::from(link.bytes_per_second());
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    let quantum = share.clamp(*QUANTUM.start(), *QUANTUM.end()) as u32 & !1;
    if promised { quantum } else { quantum.saturating_sub(1) }
}

/// Whether a leaf's guarantee was derived, as [`quantum`] left it.
pub fn guarantee_is_derived(quantum: u32) -> bool {
    quantum % 2 == 1
}

/// Puts `filter` at one of its two prefs: where it stands already, else the free one, so that the
/// old set answers until the new one is whole.
fn insert_filter(
    filters: &mut BTreeMap<Pref, Filter>,
    prefs: [Pref; 2],
    standing: Option<&BTreeMap<Pref, Filter>>,
    filter: Filter,
) {
    let at = |pref: Pref| standing.and_then(|filters| filters.get(&pref));
    let [a, b] = prefs;
    let pref =
        if at(a) == Some(&filter) || (at(b) != Some(&filter) && at(a).is_none()) { a } else { b };
    filters.insert(pref, filter);
}

#[cfg(test)]
mod tests;
