//! Undoing a run: the state when it began, and the plan back to it after a failure. That is a plan
//! like any other, so every prefix of it is safe.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cgroup::{self, Locked, Unified};
use crate::facts::{LinkFacts, Observation, RootQdisc};
use crate::host::Kernel;
use crate::host::execute;
use crate::host::observe::{self, Wanted};
use crate::plan::{Journal, Phase, Plan, Step, diff};
use crate::process::{self, Process};
use crate::tree::{
    Claim, Direction, KernelState, LinkName, Owner, Parent, Port, PortIndex, Pref, Seat, Strange,
    Turn,
};
use crate::units::ClassId;

/// Qdiscs that are whole without classes and filters of their own.
const CLASSLESS: [&str; 9] =
    ["fq_codel", "fq", "sfq", "cake", "tbf", "pfifo", "bfifo", "pfifo_head_drop", "codel"];

/// How often the undo looks whether everything is back, and tries again: others may change things
/// meanwhile.
const TURNS: usize = 4;

/// The state when a run began.
pub(super) struct Before {
    observation: Observation,
    /// The directory of each process in the hierarchy, by pid and start time, which together
    /// identify a process.
    seats: BTreeMap<(u32, u64), String>,
    /// Whose cgroup (v2) of the instance's a process was in, known in the same way.
    pinned: BTreeMap<(u32, u64), Owner>,
}

impl Before {
    pub(super) fn new(observation: Observation, processes: &[Process]) -> Before {
        let seat = |process: &Process| {
            let path = process.net_cls.clone().filter(|_| process.is_alive())?;
            Some(((process.pid, process.starttime), path))
        };
        let seats = processes.iter().filter_map(seat).collect();
        Before { observation, seats, pinned: BTreeMap::new() }
    }

    /// Notes as well which of the processes are in the instance's cgroups (v2). That takes a walk
    /// through all of the hierarchy, so not for a `plan` in which there is nothing to do. `None`:
    /// it is not made yet.
    pub(super) fn with_pinned(
        mut self,
        kernel: &Kernel,
        processes: &[Process],
        plan: Option<&Plan>,
    ) -> Before {
        if self.observation.facts.pinned_cgroups.is_empty() || plan.is_some_and(Plan::is_empty) {
            return self;
        }
        match kernel.pinned_processes() {
            Ok(pinned) => {
                let theirs = processes.iter().filter_map(|process| {
                    let owner = pinned.get(&process.pid)?.clone();
                    Some(((process.pid, process.starttime), owner))
                });
                self.pinned.extend(theirs);
            }
            Err(error) => log::warn!(
                "an undo would not bring back what `run` and `attach` put into a class: {error}"
            ),
        }
        self
    }

    /// Whether programs asked for cgroups (v2).
    pub(super) fn asked_cgroups(&self) -> bool {
        self.observation.state.asks_cgroups()
    }

    /// The state itself.
    pub(super) fn into_observation(self) -> Box<Observation> {
        Box::new(self.observation)
    }

    /// Undoes the changes of the run's own steps (`journal`), looks, and returns the result as a
    /// sentence that ends an error message.
    pub(super) fn bring_back(
        &self,
        kernel: &mut Kernel,
        locked: &Locked,
        journal: &Journal,
    ) -> String {
        match self.attempt(kernel, locked, journal) {
            Ok(gone) if gone.is_empty() => "what was there before is back".to_string(),
            Ok(gone) => {
                let gone: Vec<&str> = gone.iter().map(LinkName::as_str).collect();
                format!(
                    "what was there before is back, but for {}: no such link now",
                    gone.join(", ")
                )
            }
            Err(what_stands) => format!("undoing it failed too: {what_stands}"),
        }
    }

    /// Undoes the changes; returns the links that it could not restore because they do not exist
    /// any more.
    fn attempt(
        &self,
        kernel: &mut Kernel,
        locked: &Locked,
        journal: &Journal,
    ) -> Result<Vec<LinkName>, String> {
        let locked = &lock_again(kernel, locked).map_err(|error| error.to_string())?;
        let mut what_stands = String::new();
        for turn in 0..TURNS {
            let mut now = look(kernel)?;
            let (before, gone) = self.state_by_todays_names(&now);
            let links = &now.facts.links;
            let ifindex = |name: &LinkName| links.get(name).map(|link| link.ifindex);
            let mut state = journal.undone(&before, &now.state, ifindex);
            self.with_todays_cgroups(&mut state, &now);
            let lost = self.lost(journal, &now);
            now.strange = journal.strange(&now.strange, ifindex);
            let plan = diff(&now, &state);
            if turn > 0 && plan.is_empty() {
                let links = self.observation.facts.links.values();
                let egress = |link: &&LinkFacts| PortIndex {
                    ifindex: link.ifindex,
                    direction: Direction::Egress,
                };
                for link in links.filter(|link| journal.has_root(egress(link))) {
                    restore_root(kernel, locked, link, &now)?;
                }
                return lost.map_or(Ok(gone), Err);
            }
            let done = perform(kernel, locked, &now, plan.phase(Phase::Build)).and_then(|()| {
                self.seat_processes(kernel, &state);
                perform(kernel, locked, &now, plan.phase(Phase::TearDown))
            });
            what_stands = match done {
                Ok(()) => format!("this is still different:\n{plan}"),
                Err(refused) => refused,
            };
        }
        Err(what_stands)
    }

    /// What was strange where this run's steps took its place: nobody knows how to make it again. A
    /// program that decides is another matter ([`keep_deciding`]).
    fn lost(&self, journal: &Journal, now: &Observation) -> Option<String> {
        let ifindex = |name: &LinkName| Some(self.observation.facts.links.get(name)?.ifindex);
        let touched = journal.strange(&self.observation.strange, ifindex);
        touched.into_iter().find_map(|(port, strange)| {
            let link = self.today(&port.link, now)?.clone();
            let none = Strange::default();
            let today = now.strange.get(&Port { link, ..port }).unwrap_or(&none);
            let mut leaves = strange.leaves.keys().filter(|id| !today.leaves.contains_key(id));
            // A redirect to nowhere is nothing that anybody wants back.
            let ours = [Pref::FIND, Pref::PROGRAM, Pref::TAG].concat();
            let at_hooks = [Pref::LEARN, Pref::PULSE, Pref::REDIRECT].concat();
            let ours = [ours, at_hooks].concat();
            let decides = |seat: &Seat| ours.contains(&seat.pref);
            let mut filters = strange
                .filters
                .keys()
                .filter(|seat| !decides(seat) && !today.filters.contains_key(seat));
            let leaf = leaves.next().map(|id| format!("the qdisc below class {id}"));
            let what = leaf.or_else(|| Some(format!("the filter {}", filters.next()?)))?;
            Some(format!("{what} on {port}, which shaper did not make, cannot be made again"))
        })
    }

    /// The state before, where a link may have been renamed since; and the links that are gone.
    fn state_by_todays_names(&self, now: &Observation) -> (KernelState, Vec<LinkName>) {
        let mut state = self.observation.state.clone();
        // The caller that made the mount unmounts it, once the lock in it is released.
        state.net_cls = now.state.net_cls;
        let mut gone = Vec::new();
        let clsact = std::mem::take(&mut state.clsact).into_iter();
        let todays = |(name, clsact)| Some((self.today(&name, now)?.clone(), clsact));
        state.clsact = clsact.filter_map(todays).collect();
        state.trees = std::mem::take(&mut state.trees)
            .into_iter()
            .filter_map(|(Port { link, direction }, tree)| {
                // The link was in the look.
                self.observation.facts.links.get(&link)?;
                match self.today(&link, now) {
                    Some(link) => Some((Port { link: link.clone(), direction }, tree)),
                    None => {
                        gone.push(link);
                        None
                    }
                }
            })
            .collect();
        for (port, strange) in &self.observation.strange {
            let Some(link) = self.today(&port.link, now).cloned() else { continue };
            keep_deciding(&mut state, &now.state, &Port { link, ..*port }, strange);
        }
        (state, gone)
    }

    /// What a link that stood before is called now; `None`: it is gone.
    fn today<'n>(&self, name: &LinkName, now: &'n Observation) -> Option<&'n LinkName> {
        let before = self.observation.facts.links.get(name)?;
        let mut links = now.facts.links.iter();
        links.find(|(_, link)| link.ifindex == before.ifindex).map(|(name, _)| name)
    }

    /// Moves processes that this run has moved back to where they were; one that has ended needs no
    /// move.
    fn seat_processes(&self, kernel: &Kernel, state: &KernelState) {
        let Some(instance) = kernel.instance() else { return };
        let processes = match process::scan(&kernel.proc_root) {
            Ok(scan) => scan.processes,
            Err(error) => return log::warn!("cannot list processes to put them back: {error}"),
        };
        for process in processes.iter().filter(|process| process.is_alive()) {
            let Some(now) = &process.net_cls else { continue };
            let Some(before) = self.seats.get(&(process.pid, process.starttime)) else { continue };
            let ours = |path: &str| instance.holds(path);
            if now != before
                && (ours(now) || ours(before))
                && let Err(error) = instance.seat(process.pid, before)
            {
                log::warn!("cannot put process {} back into {before}: {error}", process.pid);
            }
        }
        if let Err(error) = self.pin_processes(kernel, &processes, state) {
            log::warn!("what `run` and `attach` had put into a class counts by its owner: {error}");
        }
    }

    /// Puts processes back that a claim of this run's has taken along out of their cgroups (v2).
    fn pin_processes(
        &self,
        kernel: &Kernel,
        processes: &[Process],
        state: &KernelState,
    ) -> Result<(), cgroup::Error> {
        if self.pinned.is_empty() {
            return Ok(());
        }
        let Ok(unified) = Unified::find()? else { return Ok(()) };
        for process in processes.iter().filter(|process| process.is_alive()) {
            let Some(owner) = self.pinned.get(&(process.pid, process.starttime)) else { continue };
            let is_there =
                kernel.pinned_process(process.pid).is_some_and(|pinned| pinned.owner == *owner);
            let claims = [Claim::Pinned(owner.clone()), Claim::Owner(owner.clone())];
            let [pinned, class] = claims.map(|claim| state.claims.get(&claim).copied());
            // One that cannot be put there keeps no other from it.
            if let (false, Some(_), Some(class)) = (is_there, pinned, class)
                && let Err(error) = kernel.pin(&unified, process.pid, owner, class)
            {
                log::warn!("process {} counts by its owner: {error}", process.pid);
            }
        }
        Ok(())
    }

    /// A cgroup (v2) that this run removed and that is made again is another one.
    fn with_todays_cgroups(&self, state: &mut KernelState, now: &Observation) {
        let today = &now.facts.pinned_cgroups;
        let gone = self.observation.facts.pinned_cgroups.keys();
        let gone: Vec<_> = gone.filter(|cgroup| !today.contains_key(cgroup)).collect();
        let asks = state.asks_cgroups();
        let Some(table) = &mut state.owners else { return };
        table.cgroups.retain(|(cgroup, _), _| !gone.contains(&cgroup));
        let claimed = today.iter().filter(|_| asks).filter_map(|(cgroup, owner)| {
            Some(((*cgroup, Turn::First), *state.claims.get(&Claim::Owner(owner.clone()))?))
        });
        table.cgroups.extend(claimed);
    }
}

/// Where a filter stood whose program or maps cannot be made again (those of another version, or
/// maps that could not be read), today's deciding program stays, with the entries whose class
/// stays. `strange`: what was so at this port before.
fn keep_deciding(state: &mut KernelState, now: &KernelState, port: &Port, strange: &Strange) {
    keep_learning(state, now, port, strange);
    let (Some(tree), Some(today)) = (state.trees.get_mut(port), now.trees.get(port)) else {
        return;
    };
    let mut kept = false;
    for seat in strange.filters.keys() {
        let pairs = [Pref::FIND, Pref::PROGRAM, Pref::TAG];
        let Some(pair) = pairs.into_iter().find(|pair| pair.contains(&seat.pref)) else { continue };
        let (filters, today) = match seat.parent {
            Parent::Root => (Some(&mut tree.filters), Some(&today.filters)),
            Parent::Shard(shard) => (tree.shards.get_mut(&shard), today.shards.get(&shard)),
            Parent::Egress | Parent::Ingress => continue,
        };
        let (Some(filters), Some(today)) = (filters, today) else { continue };
        filters.retain(|pref, _| !pair.contains(pref));
        let stay = today.iter().filter(|(pref, _)| pair.contains(pref));
        filters.extend(stay.map(|(pref, filter)| (*pref, filter.clone())));
        kept |= pair == Pref::TAG;
    }
    if kept && state.owners.is_none() {
        let stays = |class: &ClassId| state.claims.values().any(|claimed| claimed == class);
        state.owners = now.owners.clone().map(|mut table| {
            table.accounts.retain(|_, class| stays(class));
            table.ranges.retain(|_, class| stays(class));
            table.sources.retain(|_, class| stays(class));
            table
        });
    }
}

/// What notes flows stays with what finds them.
fn keep_learning(state: &mut KernelState, now: &KernelState, port: &Port, strange: &Strange) {
    let finds = state.trees.contains_key(&port.link.ingress());
    let is_learner = |pref: &Pref| Pref::LEARN.contains(pref);
    let mut lost = strange.filters_of(Parent::Egress).map(|(pref, _)| pref);
    if !finds || !lost.any(|pref| is_learner(&pref)) {
        return;
    }
    let (Some(clsact), Some(today)) =
        (state.clsact.get_mut(&port.link), now.clsact.get(&port.link))
    else {
        return;
    };
    let filters = &mut clsact.egress.filters;
    filters.retain(|pref, _| !is_learner(pref));
    let stay = today.egress.filters.iter().filter(|(pref, _)| is_learner(pref));
    filters.extend(stay.map(|(pref, filter)| (*pref, filter.clone())));
}

fn look(kernel: &mut Kernel) -> Result<Observation, String> {
    let snapshot =
        observe::observe(kernel, Wanted::default()).map_err(|error| error.to_string())?;
    Ok(snapshot.observation)
}

/// The hierarchy may have been unmounted during the run; it still has the run's directories, and
/// its lock.
fn lock_again(kernel: &mut Kernel, locked: &Locked) -> Result<Locked, cgroup::Error> {
    kernel.look_for_hierarchy()?;
    if locked.places() {
        kernel.mount()?;
    }
    locked.at(kernel.instance().ok_or(cgroup::Error::NotMounted)?, Duration::ZERO)
}

fn perform<'a>(
    kernel: &mut Kernel,
    locked: &'a Locked,
    now: &Observation,
    steps: impl Iterator<Item = &'a Step>,
) -> Result<(), String> {
    let (_, outcome) = execute::perform(kernel, locked, &now.facts, steps, &mut |_, _| Ok(()));
    outcome.map_err(|failed| format!("`{}`: {failed}", failed.step))
}

/// Restores a foreign root qdisc that was taken over, if it is whole without classes and filters,
/// whatever its link is called now.
fn restore_root(
    kernel: &mut Kernel,
    locked: &Locked,
    before: &LinkFacts,
    now: &Observation,
) -> Result<(), String> {
    let RootQdisc::Foreign { kind, handle, .. } = &before.root else { return Ok(()) };
    let mut links = now.facts.links.iter();
    let today = links.find(|(_, link)| link.ifindex == before.ifindex);
    let Some((name, link)) =
        today.filter(|(_, link)| matches!(link.root, RootQdisc::Kernel { .. }))
    else {
        return Ok(());
    };
    if !CLASSLESS.contains(&kind.as_str()) {
        return Err(format!(
            "the root qdisc that was taken over on {name} ({kind} {handle}) had classes of its own, which cannot be put back; the kernel's default stands there"
        ));
    }
    execute::restore_root(kernel, locked, link.ifindex, &before.root).map_err(|error| {
        format!("the root qdisc that was taken over on {name} ({kind} {handle}) cannot be put back: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Change, Whole};
    use crate::tree::{Filter, FoundFilter, FoundLeaf, LeafQdisc, StrangeFilter, Tag, Tree};
    use crate::units::Minor;

    const BOB: ClassId = ClassId::ours(Minor(0x10));
    const HANDLE: ClassId = ClassId(0x8001_0000);

    fn eth0() -> LinkName {
        LinkName::new("eth0").unwrap()
    }

    /// A link on which this is strange.
    fn seen(strange: Strange) -> Observation {
        let mut seen = Observation::default();
        seen.facts.links.insert(eth0(), LinkFacts::ethernet(2));
        seen.state.trees.insert(eth0().egress(), Tree::default());
        seen.strange.insert(eth0().egress(), strange);
        seen
    }

    fn filter(seat: Seat) -> Strange {
        let filter = StrangeFilter { protocol: 3, kind: "flower".to_string(), tables: Vec::new() };
        Strange { filters: [(seat, filter)].into(), ..Strange::default() }
    }

    #[test]
    fn somebodys_qdisc_whose_place_a_run_took_is_said_to_be_lost() {
        let strange = Strange { leaves: [(BOB, HANDLE)].into(), ..Strange::default() };
        let before = Before::new(seen(strange.clone()), &[]);
        let mut journal = Journal::default();
        let now = seen(Strange::default());
        assert_eq!(before.lost(&journal, &now), None, "another's doing");
        let from = FoundLeaf::Strange { handle: HANDLE };
        let change = Change::Replace { from, to: LeafQdisc::Sfq, below: () };
        journal.note(&Step::Leaf(eth0().egress(), BOB, change), 2);
        let lost = before.lost(&journal, &now).unwrap();
        let why = "which shaper did not make, cannot be made again";
        assert_eq!(lost, format!("the qdisc below class 1:10 on eth0, {why}"));
        assert_eq!(before.lost(&journal, &seen(strange)), None, "it stands still");
    }

    #[test]
    fn what_decides_today_stays_where_nobody_knows_what_did_before() {
        for (pref, is_lost) in [(Pref::RULES_V4[0], true), (Pref::TAG[0], false)] {
            let seat = Parent::Root.at(pref);
            let before = Before::new(seen(filter(seat)), &[]);
            let mut now = seen(Strange::default());
            let today = now.state.trees.get_mut(&eth0().egress()).unwrap();
            let ours = Filter::Tag(Tag::Cgroup);
            today.filters.insert(Pref::TAG[1], ours.clone());
            let mut journal = Journal::default();
            let gone = FoundFilter::Strange(filter(seat).filters[&seat].clone());
            journal.note(&Step::Filter(eth0().egress(), seat, Whole::Remove(gone)), 2);
            assert_eq!(before.lost(&journal, &now).is_some(), is_lost, "{seat}");
            let (state, gone) = before.state_by_todays_names(&now);
            let kept = state.trees[&eth0().egress()].filters.get(&Pref::TAG[1]);
            assert_eq!((kept == Some(&ours), gone.len()), (!is_lost, 0), "{seat}");
        }
    }
}
