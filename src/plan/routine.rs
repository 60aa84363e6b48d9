//! Which steps only follow logins, logouts, units and guests' links that come and drained queues.
//! They are no change of the policy, and nobody changed the kernel, so cron need not hear of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Plan, Step, Whole};
use crate::facts::Accounts;
use crate::tree::{
    Cgroup, Claim, Class, Filter, FoundFilter, Guarantee, KernelState, LinkName, Owner,
    OwnerChange, OwnerKey, Port, Quantum, Role, RuleProgram,
};
use crate::units::{ClassId, Shard};

/// What the states of the plan do not say.
pub struct Logins<'a> {
    /// The accounts, of which these facts say who has a process in the links' network namespace.
    pub accounts: &'a Accounts,
    /// Groups, on each link where their guarantee is derived, and so shrinks and grows with the
    /// number of the others. Of a leaf its quantum says that.
    pub derived: BTreeSet<(&'a Port, &'a Owner)>,
    /// The cgroups of units, where they were asked for.
    pub unit_cgroups: Option<&'a BTreeMap<Cgroup, String>>,
    /// The cgroups for what `run` and `attach` put into a class.
    pub pinned_cgroups: &'a BTreeMap<Cgroup, Owner>,
}

impl Plan {
    /// Marks the routine steps of a plan that begins at `from`.
    pub fn mark_routine(&mut self, from: &KernelState, logins: &Logins<'_>) {
        let made = self.steps.iter().filter_map(|planned| match &planned.step {
            Step::Claim(claim, Change::Add(_)) => claim.comes_and_goes().cloned(),
            _ => None,
        });
        let made: BTreeSet<Owner> = made.collect();
        let gone = self.steps.iter().any(|planned| match &planned.step {
            Step::Claim(claim, Change::Remove(_)) => claim.comes_and_goes().is_some(),
            _ => false,
        });
        let come_or_gone = gone || !made.is_empty();
        let question = Question { plan: self, from, logins, made: &made, come_or_gone };
        let mut answers: Vec<bool> =
            self.steps.iter().map(|planned| question.is_routine(&planned.step)).collect();
        // Shards come, go and grow with their users, and are as routine as those.
        let swap =
            self.steps.iter().any(|planned| tag(&planned.step).is_some_and(Filter::reads_shards));
        let of_a_shard = |step: &Step| {
            let waits = matches!(step, Step::Learn(_));
            is_of_a_shard(step) || (swap && tag(step).is_some()) || waits
        };
        let shards: Vec<bool> =
            self.steps.iter().map(|planned| of_a_shard(&planned.step)).collect();
        let news = answers.iter().zip(&shards).any(|(routine, shard)| !routine && !shard);
        let follows = come_or_gone || answers.contains(&true);
        for (answer, shard) in answers.iter_mut().zip(shards) {
            *answer |= shard && follows && !news;
        }
        for (planned, routine) in self.steps.iter_mut().zip(answers) {
            planned.routine = routine;
        }
    }
}

/// Whether a step is about a shard and not about one of its users.
fn is_of_a_shard(step: &Step) -> bool {
    match step {
        Step::Filter(_, seat, _) => seat.parent.shard().is_some(),
        _ => step.class().is_some_and(|id| {
            let own = |shard: Shard| id == shard.root() || id == shard.default();
            Shard::of_class(id).is_some() || id.shard().is_some_and(own)
        }),
    }
}

/// A filter that comes or goes and says whose a packet is; where packets arrive a new one comes
/// with one that notes flows.
fn tag(step: &Step) -> Option<&Filter> {
    match step {
        Step::Filter(.., Whole::Add(filter) | Whole::Remove(FoundFilter::Ours(filter))) => {
            let about_flows = matches!(filter, Filter::Learn(_) | Filter::Find { .. });
            (filter.is_tag() || about_flows).then_some(filter)
        }
        _ => None,
    }
}

struct Question<'a> {
    plan: &'a Plan,
    from: &'a KernelState,
    logins: &'a Logins<'a>,
    /// Accounts that get a directory in this plan.
    made: &'a BTreeSet<Owner>,
    come_or_gone: bool,
}

impl Question<'_> {
    fn is_routine(&self, step: &Step) -> bool {
        match step {
            Step::Claim(claim, Change::Add(classid)) => match claim {
                Claim::Owner(Owner::Uid(_) | Owner::Subuids(_)) => true,
                Claim::Retired(..) => self.has_left(*classid),
                _ => false,
            },
            Step::Claim(claim, Change::Remove(classid)) => match claim {
                Claim::Owner(owner @ (Owner::Uid(_) | Owner::Subuids(_)))
                | Claim::Pinned(owner @ (Owner::Uid(_) | Owner::Subuids(_))) => self.left(owner),
                Claim::Retired(..) => self.was_retired(*classid) || self.has_left(*classid),
                _ => false,
            },
            Step::Class(_, id, Change::Remove(_)) => self.was_retired(*id) || self.has_left(*id),
            Step::Class(_, id, Change::Add(_)) | Step::Leaf(_, id, Change::Add(_)) => {
                self.account(*id).is_some_and(|owner| self.made.contains(owner))
            }
            // A new class gets its boost.
            Step::Class(port, id, Change::Alter { .. }) if !self.stands(port, *id) => {
                self.account(*id).is_some_and(|owner| self.made.contains(owner))
            }
            Step::Class(port, id, Change::Alter { from, to }) => {
                self.come_or_gone && self.only_the_share_differs(port, *id, from, to)
            }
            Step::Entries(changes) => changes.iter().all(|change| match change.key {
                OwnerKey::Source(source) => self.has_come_or_gone(source.ifindex, changes),
                OwnerKey::Cgroup(cgroup, _) => self.unit_came_or_went(cgroup, change),
                _ => self.come_or_gone && self.is_of_an_account(change),
            }),
            // A guest's link has come.
            Step::Filter(port, _, Whole::Add(Filter::Label(_))) => !self.is_labelled(&port.link),
            Step::Clsact(link, Whole::Add(())) => self.is_for_a_label(link),
            Step::Filter(port, _, Whole::Add(Filter::Program(program))) => {
                let standing = self.from.trees.get(port).into_iter();
                let mut standing = standing.flat_map(|tree| tree.filters.values());
                self.come_or_gone && standing.any(|old| self.only_accounts_differ(old, program))
            }
            Step::Filter(port, _, Whole::Remove(FoundFilter::Ours(Filter::Program(program)))) => {
                let mut new = self.plan.steps.iter().filter_map(|planned| match &planned.step {
                    Step::Filter(at, _, Whole::Add(filter)) if at == port => Some(filter),
                    _ => None,
                });
                self.come_or_gone && new.any(|new| self.only_accounts_differ(new, program))
            }
            _ => false,
        }
    }

    /// Whether a unit has ended, or one has come beside others of its line or in the place of one;
    /// the same of what `run` and `attach` put into a class.
    fn unit_came_or_went(&self, cgroup: Cgroup, change: &OwnerChange) -> bool {
        match change.to {
            _ if self.logins.pinned_cgroups.contains_key(&cgroup) => change.from.is_none(),
            None => !self.logins.unit_cgroups.is_some_and(|there| there.contains_key(&cgroup)),
            Some(to) => {
                let standing = self.from.owners.as_ref();
                change.from.is_none()
                    && standing.is_some_and(|table| table.cgroups.values().any(|it| *it == to))
            }
        }
    }

    fn is_labelled(&self, link: &LinkName) -> bool {
        let standing = self.from.clsact.get(link);
        let mut filters = standing.into_iter().flat_map(|clsact| clsact.ingress.filters.values());
        filters.any(|filter| matches!(filter, Filter::Label(_)))
    }

    /// Whether a link has no sources before these changes of entries, or none after them: it has
    /// come, or is gone. Where it is there all along, a label of its own changes with them.
    fn has_come_or_gone(&self, ifindex: u32, changes: &[OwnerChange]) -> bool {
        let is_there =
            |key: &OwnerKey| matches!(key, OwnerKey::Source(it) if it.ifindex == ifindex);
        let changes: Vec<&OwnerChange> =
            changes.iter().filter(|change| is_there(&change.key)).collect();
        let standing = self.from.owners.iter().flat_map(|table| table.sources.keys());
        let standing = standing.filter(|source| source.ifindex == ifindex).count();
        let removed = changes.iter().filter(|change| change.to.is_none()).count();
        standing == 0 || (removed == changes.len() && removed == standing)
    }

    /// Whether nothing but a label comes there.
    fn is_for_a_label(&self, link: &LinkName) -> bool {
        let mut filters = self.plan.steps.iter().filter_map(|planned| match &planned.step {
            Step::Filter(port, _, change) if port.link == *link => Some(change),
            _ => None,
        });
        filters.all(|change| matches!(change, Whole::Add(Filter::Label(_))))
    }

    /// Whether the owner is an account that has no process any more. An account that has one and
    /// loses its class, loses it by the policy.
    fn left(&self, owner: &Owner) -> bool {
        !self.logins.accounts.runs(owner) && !self.logins.accounts.has_guest(owner)
    }

    /// Whether the class is that of an account that has no process any more.
    fn has_left(&self, id: ClassId) -> bool {
        self.account(id).is_some_and(|owner| self.left(owner))
    }

    fn account(&self, id: ClassId) -> Option<&Owner> {
        let owner = self.plan.names.get(&id)?;
        matches!(owner, Owner::Uid(_) | Owner::Subuids(_)).then_some(owner)
    }

    /// Whether two programs of rules differ in nothing but that accounts have a class in one of
    /// them.
    fn only_accounts_differ(&self, filter: &Filter, other: &RuleProgram) -> bool {
        let Filter::Program(program) = filter else { return false };
        let lasting = |program: &RuleProgram| {
            let mut program = program.clone();
            for senders in program.rules.iter_mut().filter_map(|rule| rule.from.as_mut()) {
                senders.of.retain(|class| self.account(*class).is_none());
            }
            program
        };
        lasting(program) == lasting(other)
    }

    /// Whether the change only sends a uid to its own class, or from there back to the newcomers'.
    fn is_of_an_account(&self, change: &OwnerChange) -> bool {
        [change.from, change.to].into_iter().flatten().all(|class| {
            match self.plan.names.get(&class) {
                Some(owner) => {
                    matches!(owner, Owner::Uid(_) | Owner::Subuids(_) | Owner::Newcomers)
                }
                None => class == ClassId::NONE,
            }
        })
    }

    fn stands(&self, port: &Port, id: ClassId) -> bool {
        self.from.trees.get(port).is_some_and(|tree| tree.classes.contains_key(&id))
    }

    fn was_retired(&self, id: ClassId) -> bool {
        let retired = self.from.claims.keys().filter_map(Claim::retired);
        retired.into_iter().any(|minor| minor == id.minor())
    }

    fn only_the_share_differs(&self, port: &Port, id: ClassId, from: &Class, to: &Class) -> bool {
        let same = (from.parent, from.ceil, from.cburst) == (to.parent, to.ceil, to.cburst);
        let derived = match (from.role, to.role) {
            (Role::Leaf { prio, quantum }, Role::Leaf { prio: new_prio, quantum: new_quantum }) => {
                prio == new_prio
                    && [quantum, new_quantum].map(Quantum::guarantee) == [Guarantee::Derived; 2]
            }
            _ => {
                let owner = self.plan.names.get(&id);
                owner.is_some_and(|owner| self.logins.derived.contains(&(port, owner)))
            }
        };
        same && derived
    }
}
