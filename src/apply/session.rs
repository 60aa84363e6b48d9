//! A policy on a host: made into a model, the state that it means there, and the plan. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::warnings::{pins_in_use, unguarded};
use crate::accounts::{How, Question};
use crate::desired::{self, Impossible, Sharding};
use crate::facts::{Account, Accounts, Facts, Features, LinkFacts, Observation, RootQdisc};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Processes, Snapshot, Wanted, Whom};
use crate::model::{self, Asked, BuildOptions, Model};
use crate::plan::{Logins, Plan, diff};
use crate::policy::{Diagnostic, Gid, Kind, LinkRef, Policy, quote};
use crate::process::Scan;
use crate::sys::probe;
use crate::text::shown;
use crate::tree::{Claim, Classifier, KernelState, Key, LinkName, Mark, Owner};
use crate::units::{ClassId, Rate};

/// A policy that was read, and the host that it is for.
pub struct Session {
    pub kernel: Kernel,
    pub policy: Policy,
    pub options: Options,
    /// Uids to ask NSS about beyond those that the policy names and those that run.
    pub ask: BTreeSet<u32>,
    /// Accounts, and ranges of subordinate uids, whose processes were found in this run and that
    /// had no class then.
    pub came: BTreeSet<Owner>,
    /// Who the accounts are, if somebody asked already: then NSS is not asked.
    pub known: Option<Accounts>,
    /// NSS is asked by a child, because this process will fork: a module that started a thread here
    /// would leave its locks held for ever in the fork, where that thread is not.
    pub asks_apart: bool,
    /// Whether processes are looked at, and moved. Without it the accounts that run are those of
    /// `known`.
    pub processes: bool,
    /// A look at them a moment ago, which the next one takes over.
    pub seen: Option<Scan>,
    /// Accounts (and ranges of subordinate uids) whose time of grace is over; all others that stand
    /// keep their class, also without a process. `None`: whoever has no process leaves, unless
    /// something was put there by hand. Those who leave keep it too for as long as it is not known
    /// to be quiet, or somebody is in their directory: who comes back then finds his one class, and
    /// not a second one beside what still drains. What is not known of one that stands (its groups)
    /// is as it stands.
    pub leaving: Option<BTreeSet<Owner>>,
    /// Links that stay as they stand, whatever the policy says.
    pub held: BTreeSet<LinkName>,
    /// Links that were shaped before, by ifindex: another root qdisc there was put in the place of
    /// ours.
    pub reclaimed: BTreeSet<u32>,
    /// Links that the last look passed over, by ifindex, because somebody else's root qdisc stands
    /// there.
    pub in_the_way: BTreeSet<u32>,
    /// The links of the last model, as they were then.
    pub(super) good: BTreeMap<LinkName, LinkFacts>,
    /// What the kernel can do, once it was found out.
    pub features: Option<Features>,
    /// A look some time ago. Retired classes that were silent since then may go.
    pub earlier: Option<Snapshot>,
}

/// What the command line says about how to read the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub skip_unknown: bool,
    pub takeover: bool,
    /// Links come and go while this goes on: whatever is unfit to be shaped is passed over.
    pub absent_links: bool,
    /// No option of the command line: the numbers are right for every host.
    pub sharding: Sharding,
}

/// The policy's meaning on the host as it was seen.
pub struct Meaning {
    pub snapshot: Snapshot,
    pub model: Model,
    pub warnings: Vec<Diagnostic>,
    /// Classes of accounts that leave and may still hold packets.
    pub draining: BTreeSet<ClassId>,
}

impl Session {
    pub fn new(kernel: Kernel, policy: Policy, options: Options) -> Session {
        Session {
            kernel,
            policy,
            options,
            ask: BTreeSet::new(),
            came: BTreeSet::new(),
            known: None,
            asks_apart: false,
            processes: true,
            seen: None,
            leaving: None,
            held: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            in_the_way: BTreeSet::new(),
            good: BTreeMap::new(),
            features: None,
            earlier: None,
        }
    }

    /// Looks at the host and makes the policy into a model. A policy that cannot hold here is an
    /// error, and so is a root qdisc that is somebody else's.
    pub fn look(&mut self) -> Result<Meaning, Failure> {
        let accounts = Some(match &self.known {
            Some(known) => Whom::Known(known),
            None => {
                let mut question = Question::of(&self.policy);
                question.uids.extend(&self.ask);
                question.uids.extend(self.came.iter().filter_map(|owner| match owner {
                    Owner::Uid(uid) => Some(*uid),
                    _ => None,
                }));
                let how = if self.asks_apart { How::Apart } else { How::Here };
                Whom::Nss { question, how }
            }
        });
        let features = self.features.is_none();
        let links = names_of(&self.policy);
        let units = self.policy.users.iter().any(|line| line.units.is_some());
        let processes = match self.seen.take() {
            _ if !self.processes => Processes::Unwanted,
            Some(seen) => Processes::Seen(seen),
            None => Processes::All,
        };
        let wanted = Wanted { links, accounts, processes, features, units };
        let mut snapshot = observe::observe(&mut self.kernel, wanted)?;
        self.came.iter().for_each(|owner| snapshot.observation.facts.accounts.admit(owner));
        let lines = &self.policy.links;
        observe::speeds(&mut snapshot, |name, link| {
            lines.iter().any(|line| match &line.name.value {
                LinkRef::Auto => link.has_default_route(),
                written => written.means(name, &link.altnames),
            })
        })?;
        let found = &mut snapshot.observation.facts.features;
        found.clone_from(self.features.get_or_insert_with(|| found.clone()));
        let leaving = self.who_leaves(&snapshot.observation)?;
        if let Some(earlier) = &self.earlier {
            snapshot.observation.facts.quiet = {
                let leaving = leaving.values().copied();
                observe::quiet(&self.kernel.proc_root, earlier, &snapshot, leaving)
            };
        }
        let draining = self.keep_who_stands(&mut snapshot.observation, &leaving);
        remember_groups(&self.policy, &mut snapshot.observation);
        let Options { skip_unknown, absent_links, .. } = self.options;
        let options =
            BuildOptions { offline: false, skip_unknown, skip_absent: true, absent_links };
        let (model, warnings) = match absent_links {
            true => self.with_what_links_allow(&mut snapshot.observation.facts, options)?,
            false => {
                let built = model::build(&self.policy, snapshot.facts(), options)?;
                // Where none of the links is there, that is more likely a mistake.
                let (model, warnings) = match built.0.links.is_empty() {
                    true => {
                        let strict = BuildOptions { skip_absent: false, ..options };
                        model::build(&self.policy, snapshot.facts(), strict)?
                    }
                    false => built,
                };
                if let Some((_, problem)) = self.root_in_the_way(&model, snapshot.facts()) {
                    return Err(Failure::Usage(problem));
                }
                (model, warnings)
            }
        };
        self.no_other_instance(&model, &snapshot)?;
        if snapshot.unread_owners.is_some() && may_change(&self.kernel).is_ok() {
            // Whatever they hold, programs with maps of our own take their place.
            observe::replace_all_but(&mut snapshot, None);
            snapshot.unread_owners = None;
        }
        self.good = links_of(&model, snapshot.facts());
        Ok(Meaning { snapshot, model, warnings, draining })
    }

    /// Those that come and go and have nobody any more, with the class that each has.
    fn who_leaves(&self, observation: &Observation) -> Result<BTreeMap<Owner, ClassId>, Failure> {
        let mut leave = BTreeMap::new();
        let Some(instance) = self.kernel.instance() else { return Ok(leave) };
        let accounts = &observation.facts.accounts;
        for (claim, classid) in &observation.state.claims {
            let Some(owner) = claim.comes_and_goes() else { continue };
            let may_leave = match &self.leaving {
                None => !accounts.runs(owner),
                Some(leaving) => leaving.contains(owner),
            };
            if may_leave && !instance.is_occupied(owner)? {
                leave.insert(owner.clone(), *classid);
            }
        }
        Ok(leave)
    }

    /// Whoever stands runs, as far as classes go, until he leaves and his class is quiet. The
    /// classes of those who leave and whose are not known to be.
    fn keep_who_stands(
        &self,
        observation: &mut Observation,
        leaving: &BTreeMap<Owner, ClassId>,
    ) -> BTreeSet<ClassId> {
        let Observation { state, facts, .. } = observation;
        let mut draining = BTreeSet::new();
        for owner in state.claims.keys().filter_map(Claim::comes_and_goes) {
            let class = leaving.get(owner);
            let has_class =
                |id: &&ClassId| state.trees.values().any(|tree| tree.classes.contains_key(id));
            match class {
                Some(id) if facts.quiet.contains(id) || !has_class(&id) => {
                    facts.accounts.dismiss(owner);
                }
                Some(id) => {
                    draining.insert(*id);
                    facts.accounts.admit(owner);
                }
                None => facts.accounts.admit(owner),
            }
        }
        draining
    }

    /// The state that the model means on what was seen; on held links, what was seen.
    pub fn desired(&mut self, meaning: &mut Meaning) -> Result<KernelState, Failure> {
        let mut desired = self.meant(meaning)?;
        let seen = &meaning.snapshot.observation.state;
        let held = self.held.iter().chain(self.passed_over(meaning));
        for link in held {
            match seen.clsact.get(link) {
                Some(clsact) => desired.clsact.insert(link.clone(), clsact.clone()),
                None => desired.clsact.remove(link),
            };
            desired.trees.retain(|port, _| port.link != *link);
            for (port, tree) in seen.trees.iter().filter(|(port, _)| port.link == *link) {
                // A class that stands keeps its owner.
                let stands = |classid: &ClassId| tree.classes.contains_key(classid);
                for (claim, classid) in seen.claims.iter().filter(|(_, id)| stands(id)) {
                    if !desired.claims.values().any(|id| id == classid) {
                        desired.claims.entry(claim.clone()).or_insert(*classid);
                    }
                }
                desired.trees.insert(port.clone(), tree.clone());
            }
        }
        Ok(desired)
    }

    fn meant(&mut self, meaning: &mut Meaning) -> Result<KernelState, Failure> {
        let sharding = self.options.sharding;
        let Meaning { snapshot, model, .. } = meaning;
        let lacks_bpf = sharding.is_wanted(model)
            && !snapshot.facts().features.classifiers.contains(&Classifier::Bpf);
        let desired = match lacks_bpf {
            true => None,
            false => Some(desired::desired_with(model, &snapshot.observation, sharding)),
        };
        match desired {
            // What stands shows only the best; something lesser was asked for, so find out.
            None | Some(Err(Impossible::Classifier { .. } | Impossible::Leaf { .. })) => {
                let features = probe::features().map_err(Failure::refused)?;
                self.features = Some(features.clone());
                snapshot.observation.facts.features = features;
                desired::desired_with(model, &snapshot.observation, sharding)
                    .map_err(|error| self.lacking(error))
            }
            Some(result) => result.map_err(|error| self.lacking(error)),
        }
    }

    /// What a kernel lacks is found out by trying, in a network namespace of our own: without root
    /// it only seems to lack it.
    fn lacking(&self, error: Impossible) -> Failure {
        let lacks = matches!(
            error,
            Impossible::Classifier { .. } | Impossible::Leaf { .. } | Impossible::NoHtb
        );
        if lacks && may_change(&self.kernel).is_err() {
            return Failure::Usage(
                "a plan depends on what this kernel can do, and finding that out needs root: run it with sudo (`shaper check` needs no root)"
                    .to_string(),
            );
        }
        error.into()
    }

    /// The steps from what was seen to what is desired.
    pub fn plan(&mut self, meaning: &mut Meaning) -> Result<(Plan, KernelState), Failure> {
        let desired = self.desired(meaning)?;
        if let Some(why) = meaning.snapshot.unread_owners.take() {
            meaning.snapshot.observation.state.owners.clone_from(&desired.owners);
            let message = format!(
                "which uids are in which class in the kernel cannot be read ({why}), and is taken to be as the policy says; as root it can"
            );
            meaning.warnings.push(Diagnostic::warning(Kind::Claim, None, message));
        }
        // Whoever may change nothing cannot read them, and else they are replaced.
        if may_change(&self.kernel).is_err() {
            observe::take_as_read(&mut meaning.snapshot, &desired);
        }
        let observation = &meaning.snapshot.observation;
        let mut plan = diff(&observation.state, &desired, &observation.foreign);
        let derived = meaning.model.nodes.iter().filter(|node| {
            let asked = node.limits.iter().flatten().map(|limits| limits.rate);
            asked.into_iter().all(|rate| matches!(rate, Asked::Derived { .. } | Asked::Token))
        });
        let derived = derived.map(|node| &node.owner).collect();
        let accounts = &observation.facts.accounts;
        plan.mark_routine(&observation.state, &Logins { accounts, derived });
        meaning.warnings.extend(pins_in_use(&meaning.model, &desired, observation));
        meaning.warnings.extend(self.crowded(meaning));
        meaning.warnings.extend(self.believes_tags(&desired, &meaning.model));
        meaning.warnings.extend(unguarded(meaning));
        Ok((plan, desired))
    }

    /// Two instances in one namespace would put the same processes into their own directories, in
    /// turn, and read each other's classids.
    fn no_other_instance(&self, model: &Model, snapshot: &Snapshot) -> Result<(), Failure> {
        let mine = |name: &LinkName| model.links.iter().any(|link| link.port.link == *name);
        for (name, facts) in &snapshot.facts().links {
            if let RootQdisc::Foreign { r2q: Some(r2q), .. } = facts.root
                && Mark::is_shaper(r2q)
                && !mine(name)
            {
                let (who, cgroup) = self.instance_of(r2q);
                return Err(Failure::Usage(format!(
                    "{who} shapes {name} in this network namespace, and there can be only one: name it with --cgroup, or clear it first (shaper clear --cgroup {cgroup})"
                )));
            }
        }
        Ok(())
    }

    /// Who made a root qdisc with this mark: a sentence's subject, and what to write after
    /// --cgroup. The name is known as long as the instance has its directory where we look.
    fn instance_of(&self, r2q: u32) -> (String, String) {
        let hierarchy = self.kernel.hierarchy().map(|hierarchy| fs::read_dir(&hierarchy.path));
        let names = hierarchy.into_iter().flatten().flatten().flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        match names.find(|name| Mark::for_instance(name).0 == r2q) {
            Some(name) => {
                (format!("the instance {} of shaper", quote(&name)), shown(&name).to_string())
            }
            None => ("another instance of shaper".to_string(), "NAME".to_string()),
        }
    }

    /// The first link whose root qdisc may not be replaced, and why.
    pub(super) fn root_in_the_way(
        &self,
        model: &Model,
        facts: &Facts,
    ) -> Option<(LinkName, String)> {
        for link in model.links.iter().filter(|_| !self.options.takeover) {
            let Some(facts) = facts.links.get(&link.port.link) else { continue };
            if self.reclaimed.contains(&facts.ifindex) {
                continue;
            }
            let problem = match &facts.root {
                RootQdisc::Kernel { kind } if kind == "mq" && link.rate > ONE_LOCK => format!(
                    "{0} has one queue for each CPU ({kind}) and {1} to shape; HTB takes one lock for all of them, which may not keep up. If that is well, use --takeover (that is: tc qdisc replace dev {0} root handle 1: htb default fffe)",
                    link.port.link, link.rate
                ),
                RootQdisc::Foreign { r2q: Some(r2q), .. } if Mark::is_shaper(*r2q) => {
                    let (who, cgroup) = self.instance_of(*r2q);
                    format!(
                        "{who} shapes {}: clear it there (shaper clear --cgroup {cgroup}), or use that instance (--cgroup {cgroup})",
                        link.port.link
                    )
                }
                RootQdisc::Foreign { kind, handle, .. } => format!(
                    "{} has a root qdisc that shaper did not make ({kind} {handle}); to replace it, use --takeover (that is: tc qdisc replace dev {} root handle 1: htb default fffe)",
                    link.port.link, link.port.link
                ),
                _ => continue,
            };
            return Some((link.port.link.clone(), problem));
        }
        None
    }
}

/// The links that a policy names, also by alternative names.
fn names_of(policy: &Policy) -> BTreeSet<String> {
    let names = policy.links.iter().filter_map(|line| match &line.name.value {
        LinkRef::Name(name) => Some(name.clone()),
        LinkRef::Auto | LinkRef::Pattern(_) => None,
    });
    names.collect()
}

/// The facts of the links that a model is about.
fn links_of(model: &Model, facts: &Facts) -> BTreeMap<LinkName, LinkFacts> {
    let links = model.links.iter();
    links
        .filter_map(|link| {
            Some((link.port.link.clone(), facts.links.get(&link.port.link)?.clone()))
        })
        .collect()
}

/// NSS could not answer, or was not asked about somebody who stands and does not run: an account
/// that has a class in a group is taken to be in it still, so that nobody is moved to another
/// class.
fn remember_groups(policy: &Policy, observation: &mut Observation) {
    let Observation { state, facts, .. } = observation;
    let accounts = &mut facts.accounts;
    let group_at: BTreeMap<ClassId, &Key> = state
        .claims
        .iter()
        .filter_map(|(claim, classid)| match claim {
            Claim::Owner(Owner::Group(key)) => Some((*classid, key)),
            _ => None,
        })
        .collect();
    // Any number will do that no group has: it only says "that group".
    let mut stand_in = (0..u32::MAX).rev();
    let silent: Vec<u32> =
        accounts.running.iter().filter(|uid| !accounts.has_answer(**uid)).copied().collect();
    for uid in silent {
        let classid = state.claims.get(&Claim::Owner(Owner::Uid(uid)));
        let parent = classid.and_then(|id| state.trees.values().find_map(|tree| tree.parent(*id)));
        let key = parent.and_then(|parent| group_at.get(&parent));
        let line = key.and_then(|key| policy.groups.iter().find(|line| line.key.value == **key));
        let gid = match line.and_then(|line| line.gid.as_ref()).map(|gid| &gid.value) {
            Some(Gid::Number(gid)) => Some(*gid),
            Some(Gid::Name(name)) => {
                let known = accounts.groups.entry(name.clone()).or_default();
                *known = known.or_else(|| stand_in.next());
                *known
            }
            None => None,
        };
        if let Some(gid) = gid {
            let account = Account { name: uid.to_string(), gids: BTreeSet::from([gid]) };
            accounts.by_uid.insert(uid, account);
        }
    }
}

/// Above this rate (10 Gbit) one HTB for the whole link may be what limits it.
const ONE_LOCK: Rate = Rate::literal(10_000_000_000 / 8);

/// Whether this process may change links and directories; one sentence that says what is missing.
pub fn may_change(kernel: &Kernel) -> Result<(), Failure> {
    const CAP_NET_ADMIN: u32 = 12;
    let path = kernel.proc_root.join("self/status");
    let status = fs::read_to_string(&path)
        .map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (1 << CAP_NET_ADMIN) == 0 {
        return Err(Failure::Usage(
            "this needs the capability CAP_NET_ADMIN, which this process lacks: run it as root (sudo shaper …)"
                .to_string(),
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::Usage(
            "moving processes into net_cls cgroups needs root: run it with sudo".to_string(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Class, Role, Tree};
    use crate::units::{Minor, Ticks};

    #[test]
    fn an_account_that_nss_is_silent_about_stays_in_its_group() {
        let text = "version: 1\nlinks: {eth0: 1gbit}\n\
                    groups: {students: {gid: students, ceil: 10mbit}}\neveryone: 5mbit\n";
        let policy = crate::policy::parse(text, "policies.yaml").unwrap();
        let rate: Rate = "1mbit".parse().unwrap();
        let (ticks, role) = (Ticks(1), Role::Leaf { prio: 0, quantum: 60_000 });
        let parent = Some(ClassId::ours(Minor::FIRST_GROUP));
        let class = Class { parent, rate, ceil: rate, burst: ticks, cburst: ticks, role };
        let tree =
            Tree { classes: [(ClassId::ours(Minor(0x10)), class)].into(), ..Tree::default() };
        let mut observation = Observation::default();
        observation.state.trees.insert(LinkName::new("eth0").unwrap().egress(), tree);
        for (claim, minor) in [("uid/2000", Minor(0x10)), ("group/students", Minor::FIRST_GROUP)] {
            observation.state.claims.insert(claim.parse().unwrap(), ClassId::ours(minor));
        }
        observation.facts.accounts.running.extend([2000, 2001]);
        remember_groups(&policy, &mut observation);
        let accounts = &observation.facts.accounts;
        let gid = accounts.groups["students"].unwrap();
        assert!(accounts.by_uid[&2000].gids.contains(&gid));
        assert!(!accounts.by_uid.contains_key(&2001), "nothing is known of this one");
    }
}
